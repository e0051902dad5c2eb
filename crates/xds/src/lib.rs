//! The xDS v3 protocol over ADS, both ends, state-of-the-world and delta.
//!
//! Owns: subscriptions, nonces, ACK and NACK, what to send next, reconnection. Each end is a core without
//! sockets ([`server::Stream`], [`client::Session`]) under a thin gRPC shell ([`server::serve`],
//! [`client::run`]). Resources are opaque: a name, a version and bytes ([`Resource`]); what a Cluster means
//! is not known here. Only the order of types and which of them a client may ask for whole is.
//! Source: <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>

pub mod client;
pub mod limits;
mod message;
mod resource;
pub mod server;

pub use resource::{Config, Resource, ResourceSet};

/// The two variants of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// State of the world: `StreamAggregatedResources`, `api_type: GRPC`.
    Sotw,
    /// Incremental: `DeltaAggregatedResources`, `api_type: DELTA_GRPC`.
    Delta,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::Sotw => "sotw",
            Mode::Delta => "delta",
        })
    }
}
