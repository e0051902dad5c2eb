//! Envoy resources to a [`program::Program`]: validated tables, and every decision that needs no socket.
//!
//! Entry points: [`listener`], [`cluster`], [`endpoints`], [`route_table`]; each takes a message and gives its
//! compiled form or the [`Rejection`]s (resource, field path, reason) that become a NACK. A field that is known
//! to Envoy but not supported here is rejected by its path, never ignored.
//! Must not know: tokio, sockets, Istio.

pub mod format;
pub mod header_edit;
pub mod matcher;
pub mod program;
pub mod route;
