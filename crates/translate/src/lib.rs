//! From the mesh as one proxy sees it to Envoy resources, with Istio's names and meaning.
//!
//! Owns: everything Istio's `pilot/pkg/networking/core` does for the shapes of proxy that exist here, and the side
//! table from resources back to the objects. Must not know: streams, time, sockets; the same snapshot and shape
//! always give the same bytes. Entry points: [`ProxyShape::from_node`], [`translate`], and [`Translator`] for
//! many proxies and changes.
//! Read next: `listener.rs`, then `route.rs`.

mod access_log;
mod class;
mod cluster;
mod common;
mod connection_manager;
mod context;
mod draft;
mod endpoint;
mod envoy_filter;
mod gateway;
mod grpc;
mod listener;
mod message;
mod name_table;
mod names;
mod peer_metadata;
mod resources;
mod route;
mod serving;
mod shape;
mod tcp_rule;
mod tls;
mod translate;
mod translator;
mod virtual_host;

pub use endpoint::Locality;
pub use envoy_filter::check as check_patches;
pub use resources::{Origin, Origins, Place, Resource, Resources};
pub use serving::Serving;
pub use shape::{
    Edge, ISTIO_ALPN, ISTIO_STATS, Interception, METADATA_EXCHANGE, ProxyShape, Role, ShapeError,
    SidecarShape,
};
pub use translate::{MeshIdentity, Options, translate};
pub use translator::{Session, Translator};
