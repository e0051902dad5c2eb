//! What one client wants of one type, what it has been sent, and what it is owed.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_envoy::Any;

use super::stream::Sent;
use crate::message::{WILDCARD, Wanted, is_full_state};
use crate::resource::digest;
use crate::{Mode, Resource, ResourceSet, limits};

/// The resources of one type that a client may see.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) set: Option<&'a ResourceSet>,
    pub(super) retained: Option<&'a BTreeMap<Arc<str>, Arc<Resource>>>,
}

impl<'a> View<'a> {
    fn get(self, name: &str) -> Option<&'a Arc<Resource>> {
        let current = self.set.and_then(|set| set.get(name));
        current.or_else(|| self.retained.and_then(|retained| retained.get(name)))
    }

    fn iter(self) -> impl Iterator<Item = &'a Arc<Resource>> {
        let current = self.set.into_iter().flat_map(ResourceSet::iter);
        current.chain(self.retained.into_iter().flat_map(BTreeMap::values))
    }

    fn version(self) -> &'a str {
        self.set.map(ResourceSet::version).unwrap_or_default()
    }

    /// The names that may be news to a client that had everything of the set of that version.
    fn changed_since(self, version: Option<&str>) -> Option<BTreeSet<&'a Arc<str>>> {
        if self.retained.is_some() {
            return None;
        }
        self.set?.changed_since(version?)
    }
}

/// What a client was sent, found by its name. It shares the resource with all others that have it.
#[derive(Debug)]
struct Had(Arc<Resource>);

impl Had {
    /// What a client says that it has from an earlier stream.
    fn of_earlier(name: String, version: String) -> Had {
        Had(Arc::new(Resource { name: name.into(), version, body: Any::default() }))
    }
}

impl Borrow<str> for Had {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Ord for Had {
    fn cmp(&self, other: &Had) -> Ordering {
        self.0.name.cmp(&other.0.name)
    }
}

impl PartialOrd for Had {
    fn partial_cmp(&self, other: &Had) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Had {
    fn eq(&self, other: &Had) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Had {}

/// What goes into the next update.
pub(super) struct Change {
    pub(super) resources: Vec<Arc<Resource>>,
    pub(super) removed: Vec<String>,
    pub(super) version: String,
}

#[derive(Debug)]
struct InFlight {
    sent: Sent,
    resources: Vec<Arc<Resource>>,
    holds_up_others: bool,
}

/// The state of one type on one stream.
#[derive(Debug)]
pub(super) struct Subscription {
    full_state: bool,
    /// Whether a request was seen on this stream.
    started: bool,
    wildcard: bool,
    /// Whether a request named resources: from then on a request without names wants nothing.
    named: bool,
    names: BTreeSet<Arc<str>>,
    /// What the client was sent, or said it had when it came.
    sent: BTreeSet<Had>,
    in_flight: Option<InFlight>,
    last_nonce: Option<String>,
    /// The client waits for a message even if nothing has changed.
    owes_answer: bool,
    /// Names to send even if the client has them.
    again: BTreeSet<Arc<str>>,
    answer_next: bool,
    /// Name and version of the resources in updates that the client refused.
    refused: BTreeMap<Arc<str>, String>,
    /// Version of the set that was found to hold nothing new, or was sent: only what has changed since is compared.
    synced_at: Option<String>,
}

impl Subscription {
    pub(super) fn new(type_url: &str) -> Subscription {
        Subscription {
            full_state: is_full_state(type_url),
            started: false,
            wildcard: false,
            named: false,
            names: BTreeSet::new(),
            sent: BTreeSet::new(),
            in_flight: None,
            last_nonce: None,
            owes_answer: false,
            again: BTreeSet::new(),
            answer_next: false,
            refused: BTreeMap::new(),
            synced_at: None,
        }
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(super) fn holds_up_others(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|flight| flight.holds_up_others)
    }

    pub(super) fn stop_waiting(&mut self) {
        if let Some(flight) = &mut self.in_flight {
            flight.holds_up_others = false;
        }
    }

    /// Whether the client still has before it what it has refused, and so keeps something older in force.
    pub(super) fn is_refusing(&self) -> bool {
        self.refused.iter().any(|(name, version)| self.sent_version(name) == Some(version))
    }

    /// Records the client's verdict on the resources of an update.
    pub(super) fn judge(&mut self, resources: &[Arc<Resource>], is_good: bool) {
        if is_good && self.refused.is_empty() {
            return;
        }
        for resource in resources {
            self.refused.remove(&resource.name);
            if !is_good {
                self.refused.insert(Arc::clone(&resource.name), resource.version.clone());
            }
        }
    }

    fn sent_version(&self, name: &str) -> Option<&String> {
        self.sent.get(name).map(|had| &had.0.version)
    }

    pub(super) fn owes_answer(&self) -> bool {
        self.owes_answer
    }

    pub(super) fn answer_next_request(&mut self) {
        self.answer_next = true;
    }

    /// Whether the client has been sent the resource.
    pub(super) fn has(&self, name: &str) -> bool {
        self.sent.contains(name)
    }

    /// A nonce that is not of the latest response: the request was made before the client saw that one.
    pub(super) fn is_stale(&self, nonce: &str) -> bool {
        !nonce.is_empty() && self.last_nonce.as_deref().is_some_and(|last| last != nonce)
    }

    /// The update that this nonce answers, which is then no longer in flight, with its resources.
    pub(super) fn answer(&mut self, nonce: &str) -> Option<(Sent, Vec<Arc<Resource>>)> {
        let flight = self.in_flight.take_if(|flight| flight.sent.nonce == nonce)?;
        Some((flight.sent, flight.resources))
    }

    pub(super) fn sent(&mut self, sent: Sent, resources: Vec<Arc<Resource>>) {
        self.last_nonce = Some(sent.nonce.clone());
        self.in_flight = Some(InFlight { sent, resources, holds_up_others: true });
    }

    /// An answered update has reached the client. While it was under way the client may have unsubscribed and
    /// subscribed again, so that [`Subscription::sent`] has forgotten what the client has after all.
    pub(super) fn delivered(&mut self, resources: &[Arc<Resource>]) {
        for resource in resources {
            let is_wanted = self.wildcard || self.names.contains(&resource.name);
            if is_wanted && !self.has(&resource.name) {
                self.sent.insert(Had(Arc::clone(resource)));
                self.synced_at = None;
            }
        }
    }

    /// Takes what a request wants; `was_answer` if it answered the update in flight.
    pub(super) fn want(&mut self, wanted: Wanted, was_answer: bool, view: View<'_>) -> Result<(), String> {
        let first = !std::mem::replace(&mut self.started, true);
        match wanted {
            Wanted::All(names) => {
                let names = names.into_iter().map(|name| shared(view, name)).collect();
                self.want_all(names, first, was_answer);
            }
            Wanted::Change { subscribe, unsubscribe, initial } => {
                let subscribe = subscribe.into_iter().map(|name| shared(view, name)).collect();
                self.want_change(subscribe, &unsubscribe, initial, first);
            }
        }
        if self.names.len() > limits::MAX_NAMES_PER_TYPE {
            return Err(format!("more than {} names of one type", limits::MAX_NAMES_PER_TYPE));
        }
        Ok(())
    }

    fn want_all(&mut self, mut names: BTreeSet<Arc<str>>, first: bool, was_answer: bool) {
        let starred = names.remove(WILDCARD);
        self.named |= starred || !names.is_empty();
        let wildcard = starred || (self.full_state && !self.named);
        let same = wildcard == self.wildcard && names == self.names;
        if first || (!same && (wildcard || !names.is_subset(&self.names))) {
            self.owes_answer = true;
        }
        self.again.extend(names.difference(&self.names).cloned());
        if std::mem::take(&mut self.answer_next) || (same && !first && !was_answer && !self.full_state) {
            self.owes_answer = true;
            self.again.extend(names.iter().cloned());
        }
        if !same {
            self.set_interest(wildcard, names);
        }
    }

    fn want_change(
        &mut self,
        subscribe: Vec<Arc<str>>,
        unsubscribe: &[String],
        initial: BTreeMap<String, String>,
        first: bool,
    ) {
        let changes = first || !subscribe.is_empty() || !unsubscribe.is_empty();
        if !changes {
            return;
        }
        let mut names = std::mem::take(&mut self.names);
        let mut wildcard = self.wildcard || (first && self.full_state && subscribe.is_empty());
        self.owes_answer |= first && wildcard;
        if first {
            self.sent = initial.into_iter().map(|(name, version)| Had::of_earlier(name, version)).collect();
        }
        for name in subscribe {
            if &*name == WILDCARD {
                self.owes_answer |= !wildcard;
                wildcard = true;
                continue;
            }
            if !(first && self.has(&name)) {
                self.owes_answer = true;
                self.again.insert(Arc::clone(&name));
            }
            names.insert(name);
        }
        for name in unsubscribe {
            wildcard &= name != WILDCARD;
            names.remove(name.as_str());
        }
        self.set_interest(wildcard, names);
    }

    fn set_interest(&mut self, wildcard: bool, names: BTreeSet<Arc<str>>) {
        self.wildcard = wildcard;
        self.names = names;
        self.synced_at = None;
        if !wildcard {
            self.sent.retain(|had| self.names.contains(&had.0.name));
            self.again.retain(|name| self.names.contains(name));
        }
    }

    /// Whether there is anything to send. In state of the world, the end of a resource of a type that is not
    /// [`is_full_state`] cannot be said; it is only forgotten.
    pub(super) fn is_due(&mut self, mode: Mode, view: View<'_>) -> bool {
        if self.owes_answer {
            return true;
        }
        let forgets = mode == Mode::Sotw && !self.full_state;
        let is_due = match view.changed_since(self.synced_at.as_deref()) {
            Some(changed) => {
                if forgets {
                    let gone = changed.iter().filter(|name| view.get(name).is_none());
                    gone.for_each(|name| _ = self.sent.remove(&***name));
                }
                changed.iter().any(|name| self.is_news_or_gone(name, view))
            }
            None => {
                if forgets {
                    self.sent.retain(|had| view.get(&had.0.name).is_some());
                }
                self.visible(view).any(|resource| self.is_news(resource)) || self.gone(view).next().is_some()
            }
        };
        if !is_due {
            self.is_synced_with(view);
        }
        is_due
    }

    /// What to send now; the client is then taken to have it.
    pub(super) fn take(&mut self, mode: Mode, view: View<'_>) -> Change {
        let whole = mode == Mode::Sotw && self.full_state;
        let asked = self.owes_answer || !self.again.is_empty() || whole;
        let changed = view.changed_since(self.synced_at.as_deref()).filter(|_| !asked);
        let (resources, gone): (Vec<Arc<Resource>>, Vec<Arc<str>>) = match changed {
            Some(names) => {
                let (resources, gone): (Vec<_>, Vec<_>) = names
                    .into_iter()
                    .filter(|name| self.is_news_or_gone(name, view))
                    .map(|name| view.get(name).ok_or_else(|| Arc::clone(name)))
                    .partition(Result::is_ok);
                let resources = resources.into_iter().flatten().map(Arc::clone);
                (resources.collect(), gone.into_iter().filter_map(Result::err).collect())
            }
            None => {
                let news = self.visible(view).filter(|r| whole || self.is_news(r));
                (news.map(Arc::clone).collect(), self.gone(view).map(Arc::clone).collect())
            }
        };
        // A message with everything, sent after what it depends on, leaves nothing to ask again for.
        self.answer_next = self.answer_next && resources.len() < self.visible(view).count();
        for name in &gone {
            self.sent.remove(&**name);
        }
        let again = std::mem::take(&mut self.again);
        let missing = again.into_iter().filter(|name| view.get(name).is_none());
        let removed: BTreeSet<Arc<str>> = gone.into_iter().chain(missing).collect();
        resources.iter().for_each(|r| _ = self.sent.replace(Had(Arc::clone(r))));
        self.owes_answer = false;
        self.is_synced_with(view);
        let removed = removed.into_iter().map(|name| name.to_string()).collect();
        Change { resources, removed, version: self.version(view) }
    }

    /// What is retained for this client alone makes a version of its own.
    fn version(&self, view: View<'_>) -> String {
        match view.retained {
            None => view.version().to_owned(),
            Some(_) => digest(self.visible(view).map(|r| (&*r.name, r.version.as_str()))),
        }
    }

    /// The client has all that the view holds for it.
    fn is_synced_with(&mut self, view: View<'_>) {
        self.synced_at = view.retained.is_none().then(|| view.version().to_owned());
    }

    /// The resources that exist and are wanted.
    fn visible<'a>(&'a self, view: View<'a>) -> Box<dyn Iterator<Item = &'a Arc<Resource>> + 'a> {
        if self.wildcard {
            return Box::new(view.iter());
        }
        Box::new(self.names.iter().filter_map(move |name| view.get(name)))
    }

    fn is_news(&self, resource: &Resource) -> bool {
        self.sent_version(&resource.name) != Some(&resource.version) || self.again.contains(&resource.name)
    }

    /// Whether the client is to hear of what became of a name.
    fn is_news_or_gone(&self, name: &Arc<str>, view: View<'_>) -> bool {
        match view.get(name) {
            Some(resource) => (self.wildcard || self.names.contains(name)) && self.is_news(resource),
            None => self.has(name),
        }
    }

    /// Names that the client has and that exist no more.
    fn gone<'a>(&'a self, view: View<'a>) -> impl Iterator<Item = &'a Arc<str>> {
        self.sent.iter().map(|had| &had.0.name).filter(move |name| view.get(name).is_none())
    }
}

/// The name of a resource as its set has it, so that thousands of clients that know it hold it once.
fn shared(view: View<'_>, name: String) -> Arc<str> {
    view.get(&name).map_or_else(|| Arc::from(name), |resource| Arc::clone(&resource.name))
}
