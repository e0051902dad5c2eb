//! The messages of both variants behind one face: what a client asks, what a server tells.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_envoy::config::core::v3::{ControlPlane, Node};
use meltemi_envoy::google::rpc::Status;
use meltemi_envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource as Wrapped,
};
use meltemi_envoy::type_url;

use crate::{Mode, Resource};

/// The name that subscribes to everything.
/// Source: "Resource subscriptions: wildcard" of the xDS protocol.
pub(crate) const WILDCARD: &str = "*";

/// Whether a state-of-the-world message of this type names every resource, so that what it leaves out is
/// gone, and whether a first request without names means everything.
/// Source: "Grouping Resources into Responses" and "Wildcard subscriptions" of the xDS protocol.
pub(crate) fn is_full_state(type_url: &str) -> bool {
    type_url == type_url::LISTENER || type_url == type_url::CLUSTER
}

/// A request of either variant.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// State of the world.
    Sotw(DiscoveryRequest),
    /// Incremental.
    Delta(DeltaDiscoveryRequest),
}

/// A response of either variant.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// State of the world.
    Sotw(DiscoveryResponse),
    /// Incremental.
    Delta(DeltaDiscoveryResponse),
}

/// How a request changes what is wanted.
pub(crate) enum Wanted {
    /// State of the world: the whole list.
    All(BTreeSet<String>),
    /// Incremental: what joins and leaves, and what the client has from before.
    Change { subscribe: Vec<String>, unsubscribe: Vec<String>, initial: BTreeMap<String, String> },
}

/// A request, taken apart.
pub(crate) struct Ask {
    pub(crate) type_url: String,
    pub(crate) nonce: String,
    pub(crate) error: Option<String>,
    pub(crate) wanted: Wanted,
}

impl Request {
    /// The node, which clients send on the first request of a stream only.
    pub fn node(&self) -> Option<&Node> {
        match self {
            Request::Sotw(request) => request.node.as_ref(),
            Request::Delta(request) => request.node.as_ref(),
        }
    }

    /// The type that the request is about.
    pub fn type_url(&self) -> &str {
        match self {
            Request::Sotw(request) => &request.type_url,
            Request::Delta(request) => &request.type_url,
        }
    }

    /// The names that it subscribes to; with delta, those that join.
    pub fn names(&self) -> &[String] {
        match self {
            Request::Sotw(request) => &request.resource_names,
            Request::Delta(request) => &request.resource_names_subscribe,
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        match self {
            Request::Sotw(_) => Mode::Sotw,
            Request::Delta(_) => Mode::Delta,
        }
    }

    /// Whether it names resources by locator (`xdstp://`), which this crate does not support.
    pub(crate) fn has_locators(&self) -> bool {
        match self {
            Request::Sotw(r) => !r.resource_locators.is_empty(),
            Request::Delta(r) => {
                !r.resource_locators_subscribe.is_empty() || !r.resource_locators_unsubscribe.is_empty()
            }
        }
    }

    pub(crate) fn into_ask(self) -> Ask {
        match self {
            Request::Sotw(r) => Ask {
                type_url: r.type_url,
                nonce: r.response_nonce,
                error: r.error_detail.map(|status| status.message),
                wanted: Wanted::All(r.resource_names.into_iter().collect()),
            },
            Request::Delta(r) => Ask {
                type_url: r.type_url,
                nonce: r.response_nonce,
                error: r.error_detail.map(|status| status.message),
                wanted: Wanted::Change {
                    subscribe: r.resource_names_subscribe,
                    unsubscribe: r.resource_names_unsubscribe,
                    initial: r.initial_resource_versions,
                },
            },
        }
    }
}

/// What a server tells, before it is put in the words of a variant.
pub(crate) struct Tell {
    pub(crate) type_url: String,
    pub(crate) version: String,
    pub(crate) generation: String,
    pub(crate) nonce: String,
    pub(crate) resources: Vec<Arc<Resource>>,
    pub(crate) removed: Vec<String>,
}

impl Tell {
    pub(crate) fn into_response(self, mode: Mode) -> Response {
        let control_plane = Some(ControlPlane { identifier: self.generation });
        match mode {
            Mode::Sotw => Response::Sotw(DiscoveryResponse {
                version_info: self.version,
                resources: self.resources.iter().map(|resource| resource.body.clone()).collect(),
                type_url: self.type_url,
                nonce: self.nonce,
                control_plane,
                ..Default::default()
            }),
            Mode::Delta => Response::Delta(DeltaDiscoveryResponse {
                system_version_info: self.version,
                resources: self.resources.iter().map(|resource| wrapped(resource)).collect(),
                type_url: self.type_url,
                removed_resources: self.removed,
                nonce: self.nonce,
                control_plane,
                ..Default::default()
            }),
        }
    }
}

fn wrapped(resource: &Resource) -> Wrapped {
    Wrapped {
        name: resource.name.to_string(),
        version: resource.version.clone(),
        resource: Some(resource.body.clone()),
        ..Default::default()
    }
}

/// The status of a refusal. Envoy sends `INTERNAL`; servers read only the message.
pub(crate) fn refusal(reason: &str) -> Status {
    const INVALID_ARGUMENT: i32 = 3;
    Status { code: INVALID_ARGUMENT, message: truncated(reason).to_owned(), ..Default::default() }
}

/// At most [`crate::limits::MAX_REASON_BYTES`] of a reason, cut between characters.
pub(crate) fn truncated(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(crate::limits::MAX_REASON_BYTES)]
}
