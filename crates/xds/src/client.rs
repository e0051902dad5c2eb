//! The client end: [`Session`] is the protocol without sockets, [`run`] connects it.
//!
//! The owner subscribes, receives [`Update`]s, and answers each with [`Command::Ack`] or [`Command::Nack`].
//! A lost connection changes nothing for the owner but an [`Event::Disconnected`]: what it has stays good,
//! the session comes back by itself and asks for what it was subscribed to.

use std::collections::BTreeSet;
use std::time::Duration;

use meltemi_envoy::config::core::v3::Node;

use crate::{Mode, Resource};

mod connector;
mod run;
mod session;

pub use crate::message::{Request, Response};
pub use connector::{Connecting, Connector, Transport};
pub use run::run;
pub use session::{ProtocolError, Received, Session};

/// Where and as whom to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// `http://HOST:PORT` of the xDS server, or `unix:PATH`.
    pub uri: String,
    /// What connects to it; `None` is plain TCP or the Unix socket.
    pub connector: Option<Connector>,
    /// `:authority` of the calls; by default the host of the URI.
    pub authority: Option<String>,
    /// Headers of the calls.
    pub metadata: Vec<(String, String)>,
    /// The only type that is asked for, at its own service; `None` asks the aggregated one.
    pub only: Option<&'static str>,
    /// Shortest and longest pause before the next attempt, when not our own.
    pub back_off: Option<(Duration, Duration)>,
    /// Who this is; sent on the first request of every connection.
    pub node: Node,
    /// The variant of the protocol.
    pub mode: Mode,
}

impl Options {
    /// An ADS client without anything particular.
    pub fn new(uri: impl Into<String>, node: Node, mode: Mode) -> Options {
        let (authority, metadata, only, back_off) = (None, Vec::new(), None, None);
        let connector = None;
        Options { uri: uri.into(), connector, authority, metadata, only, back_off, node, mode }
    }
}

/// What the client wants of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// Everything there is for this node; usual for listeners and clusters.
    Wildcard,
    /// These names; usual for routes, endpoints and secrets.
    Names(BTreeSet<String>),
}

/// What the owner tells the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// From now on this is wanted of the type; replaces what was wanted before. An update that waits for its
    /// answer is answered first, so subscribing to what an update names and then acknowledging it is fine.
    Subscribe {
        /// The type.
        type_url: String,
        /// What is wanted.
        interest: Interest,
    },
    /// The update is in force.
    Ack {
        /// The type of the update.
        type_url: String,
        /// The nonce of the update.
        nonce: String,
    },
    /// The update was refused, in whole or in part; what was good before stays in force.
    Nack {
        /// The type of the update.
        type_url: String,
        /// The nonce of the update.
        nonce: String,
        /// Why, for the operator of the server.
        reason: String,
    },
}

/// What the client tells the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A stream to the server is open and the subscriptions are on their way.
    Connected,
    /// New state; to be answered.
    Update(Update),
    /// The stream is gone; the next attempt follows after `retry_in`.
    Disconnected {
        /// What happened.
        reason: String,
        /// The pause before the next attempt.
        retry_in: Duration,
    },
}

/// A change of the resources of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The type.
    pub type_url: String,
    /// Resources that are new or have changed since the last update that was acknowledged. Those of a
    /// refused update come again with the next one that holds them. An update may hold names that the owner
    /// has unsubscribed from since; they are to be ignored.
    pub changed: Vec<Resource>,
    /// Names that are gone.
    pub removed: Vec<String>,
    /// Whether the message named every resource of the type (state of the world for listeners and clusters).
    pub full: bool,
    /// `version_info` or `system_version_info`.
    pub version: String,
    /// The variant of the protocol that brought it: incremental updates have a version per resource, the others one.
    pub mode: Mode,
    /// The generation, from `control_plane.identifier`; empty if the server names none.
    pub control_plane: String,
    /// To be given back with the answer.
    pub nonce: String,
}
