//! What one client wants of one type, what it has been sent, and what it is owed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::stream::Sent;
use crate::message::{WILDCARD, Wanted, is_full_state};
use crate::resource::digest;
use crate::{Mode, Resource, ResourceSet, limits};

/// The resources of one type that a client may see.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) set: Option<&'a ResourceSet>,
    pub(super) retained: Option<&'a BTreeMap<String, Arc<Resource>>>,
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
}

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
    names: BTreeSet<String>,
    /// Name and version of what the client was sent, or said it had when it came.
    sent: BTreeMap<String, String>,
    in_flight: Option<InFlight>,
    last_nonce: Option<String>,
    /// The client waits for a message even if nothing has changed.
    owes_answer: bool,
    /// Names to send even if the client has them.
    again: BTreeSet<String>,
    answer_next: bool,
    /// Name and version of the resources in updates that the client refused.
    refused: BTreeMap<String, String>,
    /// Version of the set that was found to hold nothing new; spares the comparison.
    quiet_at: Option<String>,
}

impl Subscription {
    pub(super) fn new(type_url: &str) -> Subscription {
        Subscription {
            full_state: is_full_state(type_url),
            started: false,
            wildcard: false,
            named: false,
            names: BTreeSet::new(),
            sent: BTreeMap::new(),
            in_flight: None,
            last_nonce: None,
            owes_answer: false,
            again: BTreeSet::new(),
            answer_next: false,
            refused: BTreeMap::new(),
            quiet_at: None,
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
        self.refused.iter().any(|(name, version)| self.sent.get(name) == Some(version))
    }

    /// Records the client's verdict on the resources of an update.
    pub(super) fn judge(&mut self, resources: &[Arc<Resource>], is_good: bool) {
        for resource in resources {
            self.refused.remove(&resource.name);
            if !is_good {
                self.refused.insert(resource.name.clone(), resource.version.clone());
            }
        }
    }

    pub(super) fn owes_answer(&self) -> bool {
        self.owes_answer
    }

    pub(super) fn answer_next_request(&mut self) {
        self.answer_next = true;
    }

    /// Whether the client has been sent the resource.
    pub(super) fn has(&self, name: &str) -> bool {
        self.sent.contains_key(name)
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
            if is_wanted && !self.sent.contains_key(&resource.name) {
                self.sent.insert(resource.name.clone(), resource.version.clone());
                self.quiet_at = None;
            }
        }
    }

    /// Takes what a request wants; `was_answer` if it answered the update in flight.
    pub(super) fn want(&mut self, wanted: Wanted, was_answer: bool) -> Result<(), String> {
        let first = !std::mem::replace(&mut self.started, true);
        match wanted {
            Wanted::All(names) => self.want_all(names, first, was_answer),
            Wanted::Change { subscribe, unsubscribe, initial } => {
                self.want_change(subscribe, &unsubscribe, initial, first);
            }
        }
        if self.names.len() > limits::MAX_NAMES_PER_TYPE {
            return Err(format!("more than {} names of one type", limits::MAX_NAMES_PER_TYPE));
        }
        Ok(())
    }

    fn want_all(&mut self, mut names: BTreeSet<String>, first: bool, was_answer: bool) {
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
        subscribe: Vec<String>,
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
            self.sent = initial;
        }
        for name in subscribe {
            if name == WILDCARD {
                self.owes_answer |= !wildcard;
                wildcard = true;
                continue;
            }
            if !(first && self.sent.contains_key(&name)) {
                self.owes_answer = true;
                self.again.insert(name.clone());
            }
            names.insert(name);
        }
        for name in unsubscribe {
            wildcard &= name != WILDCARD;
            names.remove(name);
        }
        self.set_interest(wildcard, names);
    }

    fn set_interest(&mut self, wildcard: bool, names: BTreeSet<String>) {
        self.wildcard = wildcard;
        self.names = names;
        self.quiet_at = None;
        if !wildcard {
            self.sent.retain(|name, _| self.names.contains(name));
            self.again.retain(|name| self.names.contains(name));
        }
    }

    /// Whether there is anything to send. In state of the world, the end of a resource of a type that is not
    /// [`is_full_state`] cannot be said; it is only forgotten.
    pub(super) fn is_due(&mut self, mode: Mode, view: View<'_>) -> bool {
        let version = view.set.map(ResourceSet::version).unwrap_or_default();
        if self.owes_answer {
            return true;
        }
        if view.retained.is_none() && self.quiet_at.as_deref() == Some(version) {
            return false;
        }
        if mode == Mode::Sotw && !self.full_state {
            self.sent.retain(|name, _| view.get(name).is_some());
        }
        let is_due =
            self.visible(view).any(|resource| self.is_news(resource)) || self.gone(view).next().is_some();
        self.quiet_at = (!is_due && view.retained.is_none()).then(|| version.to_owned());
        is_due
    }

    /// What to send now; the client is then taken to have it.
    pub(super) fn take(&mut self, mode: Mode, view: View<'_>) -> Change {
        let version = digest(self.visible(view).map(|r| (r.name.as_str(), r.version.as_str())));
        let whole = mode == Mode::Sotw && self.full_state;
        let resources: Vec<Arc<Resource>> =
            self.visible(view).filter(|r| whole || self.is_news(r)).map(Arc::clone).collect();
        // A message with everything, sent after what it depends on, leaves nothing to ask again for.
        self.answer_next &= resources.len() < self.visible(view).count();
        let mut removed: BTreeSet<String> = self.gone(view).cloned().collect();
        removed.iter().for_each(|name| drop(self.sent.remove(name)));
        let again = std::mem::take(&mut self.again);
        removed.extend(again.into_iter().filter(|name| view.get(name).is_none()));
        self.sent.extend(resources.iter().map(|r| (r.name.clone(), r.version.clone())));
        self.owes_answer = false;
        Change { resources, removed: removed.into_iter().collect(), version }
    }

    /// The resources that exist and are wanted.
    fn visible<'a>(&'a self, view: View<'a>) -> Box<dyn Iterator<Item = &'a Arc<Resource>> + 'a> {
        if self.wildcard {
            return Box::new(view.iter());
        }
        Box::new(self.names.iter().filter_map(move |name| view.get(name)))
    }

    fn is_news(&self, resource: &Resource) -> bool {
        self.sent.get(&resource.name) != Some(&resource.version) || self.again.contains(&resource.name)
    }

    /// Names that the client has and that exist no more.
    fn gone<'a>(&'a self, view: View<'a>) -> impl Iterator<Item = &'a String> {
        self.sent.keys().filter(move |name| view.get(name).is_none())
    }
}
