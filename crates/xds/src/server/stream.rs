//! One client's protocol state, without sockets: [`Stream::on`] takes an event and says what to do.
//!
//! Rules, beyond those of the protocol:
//! - At most one update per type is in flight; what changes meanwhile merges into the next.
//! - A new configuration goes out make-before-break: clusters and endpoints, then, when those are answered,
//!   listeners and routes, then, when those are taken, the removals of clusters and endpoints. A client that
//!   refuses its listeners or routes keeps the clusters that its old ones name.
//! - A request is answered at once, whatever the order of a running push: the client waits for it.
//!
//! Source: "ACK/NACK and resource type instance version", "Eventual consistency considerations" and
//! "Incremental xDS" of the xDS protocol; the answers that warming needs are istiod's `shouldRespond`.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_envoy::type_url;

use super::subscription::{Change, Subscription, View};
use super::{Request, Response};
use crate::message::{Tell, truncated};
use crate::{Config, Mode, Resource, limits};

/// What happens to a stream.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "handed over once and never stored")]
pub enum Event {
    /// The client sent a request.
    Request(Request),
    /// There is a newer configuration.
    Config(Arc<Config>),
    /// [`crate::limits::MAX_PHASE_WAIT`] has passed since [`Stream::is_waiting`] became true.
    WaitOver,
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send the response.
    Send(Response, Sent),
    /// The client has taken an update.
    Acked(Answer),
    /// The client has refused an update.
    Rejected(Rejection),
    /// A request of this type was made before the client saw the latest response: nothing is to be done.
    Stale(String),
    /// End the stream: the client does what the protocol or a limit does not allow.
    Close(String),
}

/// An update that went out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The type.
    pub type_url: String,
    /// `version_info` or `system_version_info`.
    pub version: String,
    /// The generation that it belongs to.
    pub generation: String,
    /// The nonce.
    pub nonce: String,
    /// Resources in the message.
    pub resources: usize,
    /// Names of removed resources in the message.
    pub removed: usize,
    /// Size of the resources, in bytes.
    pub bytes: usize,
}

/// The client's answer to an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The type.
    pub type_url: String,
    /// The version of the update.
    pub version: String,
    /// The generation of the update.
    pub generation: String,
    /// The nonce.
    pub nonce: String,
}

/// The client's refusal of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The update.
    pub answer: Answer,
    /// What the client says, at most [`crate::limits::MAX_REASON_BYTES`].
    pub reason: String,
}

impl From<&Sent> for Answer {
    fn from(sent: &Sent) -> Answer {
        Answer {
            type_url: sent.type_url.clone(),
            version: sent.version.clone(),
            generation: sent.generation.clone(),
            nonce: sent.nonce.clone(),
        }
    }
}

/// Resources that left the configuration and are still served, by name.
type Retained = BTreeMap<Arc<str>, Arc<Resource>>;

/// One client's protocol state.
#[derive(Debug)]
pub struct Stream {
    mode: Mode,
    config: Arc<Config>,
    subscriptions: BTreeMap<String, Subscription>,
    retained: BTreeMap<&'static str, Retained>,
    nonces: u64,
    waiting: bool,
}

impl Stream {
    /// A stream that has seen no request yet and will serve `config`.
    pub fn new(mode: Mode, config: Arc<Config>) -> Stream {
        Stream {
            mode,
            config,
            subscriptions: BTreeMap::new(),
            retained: BTreeMap::new(),
            nonces: 0,
            waiting: false,
        }
    }

    /// Takes one event; the actions are to be done in order. After [`Action::Close`] the stream is over.
    pub fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Request(request) => {
                if let Err(reason) = self.request(request, &mut actions) {
                    actions.push(Action::Close(reason));
                    return actions;
                }
            }
            Event::Config(config) => self.retain(config),
            Event::WaitOver => self.subscriptions.values_mut().for_each(Subscription::stop_waiting),
        }
        self.push(&mut actions);
        if self.may_release() {
            self.retained.clear();
            self.push(&mut actions);
        }
        actions
    }

    /// Whether listeners or routes wait for clusters and endpoints to be answered. When that lasts for
    /// [`crate::limits::MAX_PHASE_WAIT`], [`Event::WaitOver`] is due.
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    fn request(&mut self, request: Request, actions: &mut Vec<Action>) -> Result<(), String> {
        self.check(&request)?;
        let ask = request.into_ask();
        let type_url = ask.type_url.clone();
        let view = View {
            set: self.config.of_type(&type_url).map(|set| &**set),
            retained: self.retained.get(type_url.as_str()),
        };
        let subscription =
            self.subscriptions.entry(type_url.clone()).or_insert_with(|| Subscription::new(&type_url));
        if self.mode == Mode::Sotw && subscription.is_stale(&ask.nonce) {
            actions.push(Action::Stale(type_url));
            return Ok(());
        }
        let answered = subscription.answer(&ask.nonce);
        let was_answer = answered.is_some();
        let resources = answered.map_or_else(Vec::new, |(sent, resources)| {
            subscription.judge(&resources, ask.error.is_none());
            actions.push(verdict(&sent, ask.error.as_deref()));
            resources
        });
        subscription.want(ask.wanted, was_answer, view)?;
        subscription.delivered(&resources);
        Ok(())
    }

    fn check(&self, request: &Request) -> Result<(), String> {
        if request.mode() != self.mode {
            return Err("the request is of the other protocol variant".to_owned());
        }
        if request.type_url().is_empty() {
            return Err("type_url is required on an aggregated stream".to_owned());
        }
        if request.has_locators() {
            return Err("resource locators (xdstp) are not supported".to_owned());
        }
        let known = self.subscriptions.contains_key(request.type_url());
        if !known && self.subscriptions.len() >= limits::MAX_TYPES_PER_STREAM {
            return Err(format!("more than {} resource types", limits::MAX_TYPES_PER_STREAM));
        }
        Ok(())
    }

    /// Takes the new configuration, and keeps clusters and endpoints that the client has but it lacks.
    fn retain(&mut self, config: Arc<Config>) {
        for type_url in [type_url::CLUSTER, type_url::ENDPOINT] {
            let Some(subscription) = self.subscriptions.get(type_url) else { continue };
            let next = config.of_type(type_url);
            let is_over =
                |name: &str| subscription.has(name) && next.is_none_or(|set| set.get(name).is_none());
            let mut retained = self.retained.remove(type_url).unwrap_or_default();
            retained.retain(|name, _| is_over(name));
            let old = self.config.of_type(type_url);
            let changed = old.zip(next).and_then(|(old, next)| next.changed_since(old.version()));
            let old: Box<dyn Iterator<Item = &Arc<Resource>>> = match (old, changed) {
                (Some(old), Some(names)) => Box::new(names.into_iter().filter_map(|name| old.get(name))),
                (Some(old), None) => Box::new(old.iter()),
                (None, _) => Box::new(std::iter::empty()),
            };
            let leaving = old.filter(|resource| is_over(&resource.name));
            retained.extend(leaving.map(|resource| (Arc::clone(&resource.name), Arc::clone(resource))));
            if !retained.is_empty() && retained.len() <= limits::MAX_RETAINED_PER_TYPE {
                self.retained.insert(type_url, retained);
            }
        }
        self.config = config;
    }

    /// Removals may go when nothing is under way and the client has not refused what replaces them.
    fn may_release(&self) -> bool {
        let refused = [type_url::LISTENER, type_url::ROUTE]
            .iter()
            .any(|t| self.subscriptions.get(*t).is_some_and(Subscription::is_refusing));
        let busy = self.subscriptions.values().any(Subscription::is_in_flight);
        !self.retained.is_empty() && !refused && !busy && !self.waiting
    }

    /// Sends what is due, in push order.
    fn push(&mut self, actions: &mut Vec<Action>) {
        self.waiting = false;
        for type_url in self.push_order() {
            let waits = phase(&type_url) == Phase::Use && self.is_preparing();
            let view = View {
                set: self.config.of_type(&type_url).map(|set| &**set),
                retained: self.retained.get(type_url.as_str()),
            };
            let Some(subscription) = self.subscriptions.get_mut(&type_url) else { continue };
            if subscription.is_in_flight() || !subscription.is_due(self.mode, view) {
                continue;
            }
            if waits && !subscription.owes_answer() {
                self.waiting = true;
                continue;
            }
            let change = subscription.take(self.mode, view);
            actions.push(self.send(type_url, change));
        }
    }

    /// The subscribed types: those of [`type_url::PUSH_ORDER`] first.
    fn push_order(&self) -> Vec<String> {
        let known = type_url::PUSH_ORDER.iter().filter(|t| self.subscriptions.contains_key(**t));
        let others = self.subscriptions.keys().filter(|t| !type_url::PUSH_ORDER.contains(&t.as_str()));
        known.map(|t| (*t).to_owned()).chain(others.cloned()).collect()
    }

    /// Whether clusters or endpoints are under way.
    fn is_preparing(&self) -> bool {
        self.subscriptions.iter().any(|(t, s)| phase(t) == Phase::Prepare && s.holds_up_others())
    }

    fn send(&mut self, type_url: String, change: Change) -> Action {
        self.nonces += 1;
        let sent = Sent {
            type_url: type_url.clone(),
            version: change.version.clone(),
            generation: self.config.generation.clone(),
            nonce: self.nonces.to_string(),
            resources: change.resources.len(),
            removed: change.removed.len(),
            bytes: change.resources.iter().map(|resource| resource.body.value.len()).sum(),
        };
        if let Some(subscription) = self.subscriptions.get_mut(&type_url) {
            subscription.sent(sent.clone(), change.resources.clone());
        }
        if self.mode == Mode::Sotw {
            self.expect_warming(&type_url);
        }
        let tell = Tell {
            type_url,
            version: change.version,
            generation: sent.generation.clone(),
            nonce: sent.nonce.clone(),
            resources: change.resources,
            removed: change.removed,
        };
        Action::Send(tell.into_response(self.mode), sent)
    }

    /// Envoy asks again for the endpoints of a cluster that has changed, and for the routes of a listener
    /// that has, with names and nonce as before: in this variant that looks like an ACK. So the next request
    /// of the dependent type is answered in full, whatever it looks like.
    fn expect_warming(&mut self, type_url: &str) {
        let dependent = match type_url {
            type_url::CLUSTER => type_url::ENDPOINT,
            type_url::LISTENER => type_url::ROUTE,
            _ => return,
        };
        if let Some(subscription) = self.subscriptions.get_mut(dependent) {
            subscription.answer_next_request();
        }
    }
}

/// What the provider hears of the client's answer to `sent`.
fn verdict(sent: &Sent, error: Option<&str>) -> Action {
    let answer = Answer::from(sent);
    match error {
        None => Action::Acked(answer),
        Some(reason) => Action::Rejected(Rejection { answer, reason: truncated(reason).to_owned() }),
    }
}

/// When a type takes its turn in a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Must be in place before others refer to it.
    Prepare,
    /// Refers to what is prepared.
    Use,
    /// Does not matter.
    Any,
}

fn phase(type_url: &str) -> Phase {
    match type_url {
        type_url::CLUSTER | type_url::ENDPOINT => Phase::Prepare,
        type_url::LISTENER | type_url::ROUTE => Phase::Use,
        _ => Phase::Any,
    }
}

#[cfg(test)]
mod tests;
