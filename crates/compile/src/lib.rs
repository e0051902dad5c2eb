//! Envoy resources to a [`program::Program`]: validated tables, and every decision that needs no socket.
//!
//! Entry points: [`listener`], [`cluster`], [`endpoints`], [`route_table`]; each takes a message and gives its
//! compiled form or the [`Rejection`]s (resource, field path, reason) that become a NACK. A field that is known
//! to Envoy but not supported here is rejected by its path, never ignored. The decisions are methods of the
//! compiled values: [`program::Listener::choose`], [`route::RouteTable::find`], [`route::Forward::pick`],
//! [`route::Forward::rewritten_path`], [`route::Redirect::location`], [`route::RetryPolicy`].
//! Must not know: tokio, sockets, Istio.

#![expect(deprecated, reason = "deprecated fields are read too, so that none of them is ignored")]

mod access_log;
mod chain;
mod choice;
mod cluster;
mod config_source;
mod connection_manager;
pub mod coverage;
mod data_source;
mod endpoint;
mod endpoints;
mod extension;
mod extension_types;
pub mod filter;
pub mod format;
pub mod hash_policy;
pub mod header_edit;
pub mod health_check;
mod istio_stats;
mod ledger;
mod listener;
pub mod load_balancing;
pub mod local_reply;
pub mod log_filter;
pub mod matcher;
pub mod metadata_match;
mod network_filter;
mod outlier;
pub mod path;
mod peer_metadata;
pub mod program;
mod protocol_options;
mod redirect;
mod rejection;
pub mod retry;
pub mod route;
mod scalar;
mod tcp_proxy;
pub mod tls;
mod transport_socket;
mod uri_template;

use meltemi_envoy::config;

pub use choice::Picked;
pub use config_source::{FileOrigin, GrpcOrigin, Origin, ads_config, config_source};
pub use data_source::{DataSources, NoSources};
pub use extension_types::EXTENSION_TYPES;
pub use matcher::without_query;
pub use redirect::{direct_response_location, with_new_path};
pub use rejection::Rejection;

use ledger::Ledger;

/// Compiles a listener.
///
/// # Errors
/// All fields that are invalid or not supported.
pub fn listener(message: &config::listener::v3::Listener) -> Result<program::Listener, Vec<Rejection>> {
    listener_with(message, &NoSources)
}

/// Compiles a listener whose data (certificates, keys) may be in files or in the environment.
///
/// # Errors
/// All fields that are invalid or not supported.
pub fn listener_with(
    message: &config::listener::v3::Listener,
    sources: &dyn DataSources,
) -> Result<program::Listener, Vec<Rejection>> {
    Ledger::run_with(&message.name, sources, |at| listener::compile(at, message))
}

/// Compiles a cluster; with inline endpoints (`STATIC`), their table too.
///
/// # Errors
/// All fields that are invalid or not supported.
pub fn cluster(
    message: &config::cluster::v3::Cluster,
) -> Result<(program::Cluster, Option<program::Endpoints>), Vec<Rejection>> {
    cluster_with(message, &NoSources)
}

/// Compiles a cluster whose data (certificates, keys) may be in files or in the environment.
///
/// # Errors
/// All fields that are invalid or not supported.
pub fn cluster_with(
    message: &config::cluster::v3::Cluster,
    sources: &dyn DataSources,
) -> Result<(program::Cluster, Option<program::Endpoints>), Vec<Rejection>> {
    Ledger::run_with(&message.name, sources, |at| cluster::compile(at, message))
}

/// Compiles the endpoints of an EDS cluster.
///
/// # Errors
/// All fields that are invalid or not supported.
pub fn endpoints(
    message: &config::endpoint::v3::ClusterLoadAssignment,
) -> Result<program::Endpoints, Vec<Rejection>> {
    Ledger::run(&message.cluster_name, |at| endpoint::compile(at, message))
}

/// Compiles a string matcher.
///
/// # Errors
/// All fields that are invalid or not supported.
pub fn string_matcher(
    message: &meltemi_envoy::r#type::matcher::v3::StringMatcher,
) -> Result<matcher::StringMatcher, Vec<Rejection>> {
    Ledger::run("", |at| matcher::string_matcher(at, message))
}

/// Compiles a route configuration.
///
/// # Errors
/// All fields that are invalid or not supported.
pub fn route_table(
    message: &config::route::v3::RouteConfiguration,
) -> Result<route::RouteTable, Vec<Rejection>> {
    Ledger::run(&message.name, |at| route::compile(at, message))
}
