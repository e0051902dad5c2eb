//! The client's protocol state, without sockets: what to ask, what a response changes, how to answer it.
//!
//! Source: "ACK/NACK", "Resource subscriptions" and "Incremental xDS" of the xDS protocol.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meltemi_envoy::config::core::v3::Node;
use meltemi_envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use meltemi_envoy::{Any, type_url};
use prost::Message;

use super::{Interest, Update};
use crate::message::{Request, Response, WILDCARD, is_full_state, refusal};
use crate::{Mode, Resource};

/// The server sent what the protocol does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProtocolError(pub String);

/// What a response is for the owner.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "handed over once and never stored")]
pub enum Received {
    /// To be handed to the owner, who answers it.
    Update(Update),
    /// Not readable as resources; the request that refuses it is to be sent.
    Refused(Request, String),
}

/// What the client knows of a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    /// The version that was acknowledged; empty if the last one was refused, so that the next one counts as a
    /// change, also across a reconnection.
    version: String,
}

/// An update that the owner has not answered.
#[derive(Debug)]
struct Pending {
    nonce: String,
    token: String,
    version: String,
    changed: Vec<(String, String)>,
    removed: Vec<String>,
}

#[derive(Debug)]
struct Subscription {
    interest: Interest,
    known: BTreeMap<String, Known>,
    /// Last acknowledged `version_info`.
    version: String,
    /// What this stream was asked for; `None` before the first request on it.
    asked: Option<Interest>,
    /// Whether a request on this stream has named resources: from then on only the star means everything.
    named: bool,
    /// Of the latest response on this stream.
    nonce: String,
    pending: VecDeque<Pending>,
}

/// The client's protocol state. It outlives connections.
#[derive(Debug)]
pub struct Session {
    mode: Mode,
    node: Node,
    is_connected: bool,
    node_is_sent: bool,
    streams: u64,
    subscriptions: BTreeMap<String, Subscription>,
}

impl Session {
    /// A session that is not connected and wants nothing.
    pub fn new(mode: Mode, node: Node) -> Session {
        Session {
            mode,
            node,
            is_connected: false,
            node_is_sent: false,
            streams: 0,
            subscriptions: BTreeMap::new(),
        }
    }

    /// A stream has opened: the requests that re-establish every subscription, in push order.
    pub fn connected(&mut self) -> Vec<Request> {
        self.is_connected = true;
        self.node_is_sent = false;
        self.streams += 1;
        for subscription in self.subscriptions.values_mut() {
            subscription.asked = None;
            subscription.named = false;
            subscription.nonce.clear();
            subscription.forget_pending();
        }
        let known = type_url::PUSH_ORDER.iter().filter(|t| self.subscriptions.contains_key(**t));
        let others = self.subscriptions.keys().filter(|t| !type_url::PUSH_ORDER.contains(&t.as_str()));
        let order: Vec<String> = known.map(|t| (*t).to_owned()).chain(others.cloned()).collect();
        order.iter().filter_map(|type_url| self.ask(type_url)).collect()
    }

    /// The stream is gone. Unanswered updates are void; their contents come again.
    pub fn disconnected(&mut self) {
        self.is_connected = false;
    }

    /// From now on this is wanted; the request that says so, unless it can wait for the next answer.
    pub fn subscribe(&mut self, type_url: &str, interest: Interest) -> Option<Request> {
        let subscription = self.subscriptions.entry(type_url.to_owned()).or_insert_with(|| Subscription {
            interest: Interest::Names(BTreeSet::new()),
            known: BTreeMap::new(),
            version: String::new(),
            asked: None,
            named: false,
            nonce: String::new(),
            pending: VecDeque::new(),
        });
        if let Interest::Names(names) = &interest {
            subscription.known.retain(|name, _| names.contains(name));
        }
        subscription.interest = interest;
        // A state-of-the-world request with the nonce of an older response would be stale.
        let waits = self.mode == Mode::Sotw && !subscription.pending.is_empty();
        if waits { None } else { self.ask(type_url) }
    }

    /// What the response changes.
    ///
    /// # Errors
    /// If the server breaks the protocol; the connection is then worth nothing.
    pub fn on_response(&mut self, response: Response) -> Result<Received, ProtocolError> {
        let (type_url, nonce) = match &response {
            Response::Sotw(r) => (r.type_url.clone(), r.nonce.clone()),
            Response::Delta(r) => (r.type_url.clone(), r.nonce.clone()),
        };
        let token = format!("{}/{nonce}", self.streams);
        let subscription = self
            .subscriptions
            .get_mut(&type_url)
            .filter(|subscription| subscription.asked.is_some())
            .ok_or_else(|| {
                ProtocolError(format!("a response of type {type_url}, which was not asked for"))
            })?;
        subscription.nonce = nonce.clone();
        let read = match response {
            Response::Sotw(r) if self.mode == Mode::Sotw => subscription.sotw(r),
            Response::Delta(r) if self.mode == Mode::Delta => subscription.delta(r),
            _ => return Err(ProtocolError("a response of the other protocol variant".to_owned())),
        };
        match read {
            Ok(mut update) => {
                subscription.pending.push_back(Pending {
                    nonce,
                    token: token.clone(),
                    version: update.version.clone(),
                    changed: update.changed.iter().map(|r| (r.name.to_string(), r.version.clone())).collect(),
                    removed: update.removed.clone(),
                });
                update.nonce = token;
                Ok(Received::Update(update))
            }
            Err(reason) => Ok(Received::Refused(self.answer(&type_url, &nonce, Some(&reason)), reason)),
        }
    }

    /// The owner has put the update in force. `None` if the update is not pending (its stream is gone).
    pub fn ack(&mut self, type_url: &str, nonce: &str) -> Option<Request> {
        let subscription = self.subscriptions.get_mut(type_url)?;
        let pending = subscription.take_pending(nonce)?;
        subscription.version = pending.version;
        for (name, version) in pending.changed {
            subscription.know(name, version);
        }
        if !self.is_connected {
            return None;
        }
        Some(self.answer(type_url, &pending.nonce, None))
    }

    /// The owner has refused the update, in whole or in part. `None` if the update is not pending.
    pub fn nack(&mut self, type_url: &str, nonce: &str, reason: &str) -> Option<Request> {
        let subscription = self.subscriptions.get_mut(type_url)?;
        let pending = subscription.take_pending(nonce)?;
        for (name, _) in pending.changed {
            subscription.know(name, String::new());
        }
        if !self.is_connected {
            return None;
        }
        Some(self.answer(type_url, &pending.nonce, Some(reason)))
    }

    /// Name and acknowledged version (empty if refused) of what is known of a type.
    pub fn known(&self, type_url: &str) -> impl Iterator<Item = (&str, &str)> {
        let known = self.subscriptions.get(type_url).into_iter().flat_map(|s| &s.known);
        known.map(|(name, known)| (name.as_str(), known.version.as_str()))
    }

    /// The request that brings the server's view of the interest up to date; `None` if there is nothing to say.
    fn ask(&mut self, type_url: &str) -> Option<Request> {
        if !self.is_connected {
            return None;
        }
        let subscription = self.subscriptions.get_mut(type_url)?;
        let nothing_yet = subscription.asked.is_none() && subscription.wants_nothing();
        if nothing_yet || subscription.asked.as_ref() == Some(&subscription.interest) {
            return None;
        }
        let nonce = subscription.nonce.clone();
        Some(match self.mode {
            Mode::Sotw => self.sotw_request(type_url, nonce),
            Mode::Delta => self.delta_request(type_url, String::new()),
        })
    }

    fn answer(&mut self, type_url: &str, nonce: &str, error: Option<&str>) -> Request {
        let mut request = match self.mode {
            Mode::Sotw => self.sotw_request(type_url, nonce.to_owned()),
            Mode::Delta => self.delta_request(type_url, nonce.to_owned()),
        };
        let detail = error.map(refusal);
        match &mut request {
            Request::Sotw(r) => r.error_detail = detail,
            Request::Delta(r) => r.error_detail = detail,
        }
        request
    }

    fn node(&mut self) -> Option<Node> {
        let first = !std::mem::replace(&mut self.node_is_sent, true);
        first.then(|| self.node.clone())
    }

    fn sotw_request(&mut self, type_url: &str, nonce: String) -> Request {
        let node = self.node();
        let mut request = DiscoveryRequest {
            node,
            type_url: type_url.to_owned(),
            response_nonce: nonce,
            ..Default::default()
        };
        if let Some(subscription) = self.subscriptions.get_mut(type_url) {
            request.version_info = subscription.version.clone();
            request.resource_names = subscription.sotw_names(type_url);
            subscription.asked = Some(subscription.interest.clone());
        }
        Request::Sotw(request)
    }

    fn delta_request(&mut self, type_url: &str, nonce: String) -> Request {
        let node = self.node();
        let mut request = DeltaDiscoveryRequest {
            node,
            type_url: type_url.to_owned(),
            response_nonce: nonce,
            ..Default::default()
        };
        if let Some(subscription) = self.subscriptions.get_mut(type_url) {
            subscription.fill(type_url, &mut request);
        }
        Request::Delta(request)
    }
}

impl Subscription {
    fn wants_nothing(&self) -> bool {
        matches!(&self.interest, Interest::Names(names) if names.is_empty())
    }

    fn wants(&self, name: &str) -> bool {
        match &self.interest {
            Interest::Wildcard => true,
            Interest::Names(names) => names.contains(name),
        }
    }

    fn know(&mut self, name: String, version: String) {
        if self.wants(&name) {
            self.known.insert(name, Known { version });
        }
    }

    /// Takes the update out of the queue; what it removed is gone whatever the answer is.
    fn take_pending(&mut self, token: &str) -> Option<Pending> {
        let index = self.pending.iter().position(|pending| pending.token == token)?;
        let pending = self.pending.remove(index)?;
        for name in &pending.removed {
            self.known.remove(name);
        }
        Some(pending)
    }

    /// The stream ended before the owner's answers: it may have put the updates in force or not, so their
    /// resources are known to be there in no known version, and come again or are said to be gone.
    fn forget_pending(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            for (name, _) in pending.changed {
                self.know(name, String::new());
            }
        }
    }

    fn sotw_names(&mut self, type_url: &str) -> Vec<String> {
        let names = match &self.interest {
            Interest::Wildcard if is_full_state(type_url) && !self.named => Vec::new(),
            Interest::Wildcard => vec![WILDCARD.to_owned()],
            Interest::Names(names) => names.iter().cloned().collect(),
        };
        self.named |= !names.is_empty();
        names
    }

    /// Says what joins and leaves since the last request of this stream; on the first one, what is known.
    fn fill(&mut self, type_url: &str, request: &mut DeltaDiscoveryRequest) {
        let first = self.asked.is_none();
        let asked = self.asked.replace(self.interest.clone());
        let before = asked.as_ref().map(interest_names).unwrap_or_default();
        let now = interest_names(&self.interest);
        request.resource_names_subscribe = now.difference(&before).map(|name| (*name).to_owned()).collect();
        request.resource_names_unsubscribe = before.difference(&now).map(|name| (*name).to_owned()).collect();
        if first {
            let known = self.known.iter();
            request.initial_resource_versions = known.map(|(n, k)| (n.clone(), k.version.clone())).collect();
        }
        if first && self.interest == Interest::Wildcard && is_full_state(type_url) {
            // Older servers know the wildcard only as an empty first request.
            request.resource_names_subscribe.clear();
        }
    }

    fn sotw(&self, response: DiscoveryResponse) -> Result<Update, String> {
        let full = is_full_state(&response.type_url);
        let mut present = BTreeSet::new();
        let mut changed = Vec::new();
        for body in response.resources {
            let resource = named(&response.type_url, body)?;
            if !self.wants(&resource.name) {
                continue;
            }
            if self.known.get(&*resource.name).is_none_or(|known| known.version != resource.version) {
                changed.push(resource.clone());
            }
            present.insert(resource.name);
        }
        let gone = self.known.keys().filter(|name| full && !present.contains(name.as_str()));
        Ok(Update {
            changed,
            removed: gone.cloned().collect(),
            full,
            version: response.version_info,
            mode: Mode::Sotw,
            control_plane: response.control_plane.map(|c| c.identifier).unwrap_or_default(),
            nonce: response.nonce,
            type_url: response.type_url,
        })
    }

    fn delta(&self, response: DeltaDiscoveryResponse) -> Result<Update, String> {
        let mut changed = Vec::new();
        for wrapped in response.resources {
            // A resource without body only renews its lifetime.
            let Some(body) = wrapped.resource else { continue };
            check_type(&response.type_url, &body)?;
            if self.wants(&wrapped.name) {
                changed.push(Resource { name: wrapped.name.into(), version: wrapped.version, body });
            }
        }
        let mut removed = response.removed_resources;
        removed.retain(|name| self.wants(name));
        Ok(Update {
            changed,
            removed,
            full: false,
            version: response.system_version_info,
            mode: Mode::Delta,
            control_plane: response.control_plane.map(|c| c.identifier).unwrap_or_default(),
            nonce: response.nonce,
            type_url: response.type_url,
        })
    }
}

fn interest_names(interest: &Interest) -> BTreeSet<&str> {
    match interest {
        Interest::Wildcard => BTreeSet::from([WILDCARD]),
        Interest::Names(names) => names.iter().map(String::as_str).collect(),
    }
}

/// Every xDS resource type has its name in field 1: `name`, and `cluster_name` of a ClusterLoadAssignment.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// A state-of-the-world resource, which carries its name only inside, or in the `Resource` wrapper.
fn named(type_url: &str, body: Any) -> Result<Resource, String> {
    use meltemi_envoy::service::discovery::v3::Resource as Wrapped;
    if body.is::<Wrapped>() {
        let wrapped = body.unpack::<Wrapped>().map_err(|e| e.to_string())?;
        let inner = wrapped.resource.ok_or_else(|| format!("resource {} has no body", wrapped.name))?;
        check_type(type_url, &inner)?;
        return Ok(Resource::new(wrapped.name, inner));
    }
    check_type(type_url, &body)?;
    let Named { name } = Named::decode(body.value.clone()).map_err(|e| format!("{type_url}: {e}"))?;
    Ok(Resource::new(name, body))
}

fn check_type(type_url: &str, body: &Any) -> Result<(), String> {
    if body.type_url == type_url {
        return Ok(());
    }
    Err(format!("a resource of type {} in a message of type {type_url}", body.type_url))
}

#[cfg(test)]
mod tests;
