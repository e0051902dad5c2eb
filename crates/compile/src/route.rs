//! Route tables: virtual hosts, routes, and the pure decision which of them a request takes.
//!
//! Source: `envoy.config.route.v3`. Matching is by index, not by scanning: exact domains by hash, suffix and
//! prefix wildcards by length, longest first; within a virtual host the first route in order that matches wins, which
//! an index over paths finds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::filter::PerFilterConfigs;
use crate::format::Format;
use crate::hash_policy::HashPolicies;
use crate::header_edit::HeaderEdits;
use crate::matcher::{PathMatcher, RewritePattern};
use crate::metadata_match::MetadataMatch;
use crate::program::Name;
pub use crate::retry::{RetryOn, RetryPolicy};

mod build;
mod cluster;
mod conditions;
mod domains;
mod entry;
mod find;
mod forward;
mod index;
mod internal_redirect;
#[cfg(test)]
mod micro;
mod mirror;
mod retry_policy;
mod rewrite;
#[cfg(test)]
mod tests;
mod upgrade;
mod why;

pub(crate) use build::compile;
pub use conditions::Conditions;
use domains::Domains;
use index::RouteIndex;
pub use internal_redirect::{InternalRedirectPolicy, InternalRedirectPredicate};
pub use mirror::Mirror;
pub use rewrite::{HostRewrite, PathRewrite};
pub use upgrade::{ConnectConfig, Upgrades};

pub use crate::choice::{ClusterChoice, ClusterName, PointSource, WeightedCluster, WeightedClusters};

/// A compiled `RouteConfiguration`. Build with [`crate::route_table`], ask with [`RouteTable::find`].
#[derive(Debug)]
pub struct RouteTable {
    /// `name`.
    pub name: Name,
    /// `virtual_hosts`, in order.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Index from domain to virtual host.
    pub(crate) domains: Domains,
    /// `ignore_path_parameters_in_path_matching`.
    pub(crate) ignore_path_parameters: bool,
    /// Header changes of the configuration.
    pub edits: RouteEdits,
    /// `most_specific_header_mutations_wins`.
    pub most_specific_wins: bool,
    /// `typed_per_filter_config`.
    pub filters: PerFilterConfigs,
    /// Digest of the encoded message.
    pub digest: u64,
}

/// `envoy.config.route.v3.VirtualHost`.
#[derive(Debug)]
pub struct VirtualHost {
    /// `name`.
    pub name: Name,
    /// `routes`, in order.
    pub routes: Vec<Route>,
    /// Index over their paths, when there are many.
    index: Option<Box<RouteIndex>>,
    /// `require_tls`.
    pub require_tls: RequireTls,
    /// What `require_tls` answers; `None` when it asks for nothing.
    pub(crate) tls_redirect: Option<Box<Route>>,
    /// Header changes of the virtual host.
    pub edits: RouteEdits,
    /// `retry_policy` for routes that have none.
    pub retry: Option<Arc<RetryPolicy>>,
    /// `include_request_attempt_count`.
    pub include_request_attempt_count: bool,
    /// `include_attempt_count_in_response`.
    pub include_attempt_count_in_response: bool,
    /// `typed_per_filter_config`.
    pub filters: PerFilterConfigs,
}

/// `require_tls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequireTls {
    /// Plaintext is fine.
    None,
    /// Redirect external requests to https.
    ExternalOnly,
    /// Redirect every request to https.
    All,
}

/// `envoy.config.route.v3.Route`.
#[derive(Debug)]
pub struct Route {
    /// `name`, the access log's `%ROUTE_NAME%`.
    pub name: Name,
    /// `match` path part.
    pub path: PathMatcher,
    /// The rest of `match`.
    pub conditions: Conditions,
    /// What to do.
    pub action: RouteAction,
    /// Header changes of the route.
    pub edits: RouteEdits,
    /// `typed_per_filter_config`.
    pub filters: PerFilterConfigs,
    /// `decorator.operation`.
    pub operation: Option<Box<str>>,
}

/// Header changes at one level: for the request, and for the response.
#[derive(Debug, Default)]
pub struct RouteEdits {
    /// `request_headers_to_add` / `_remove`.
    pub request: HeaderEdits,
    /// `response_headers_to_add` / `_remove`.
    pub response: HeaderEdits,
}

/// `action` of a route.
#[derive(Debug)]
pub enum RouteAction {
    /// `route`: forward to a cluster.
    Forward(Box<Forward>),
    /// `redirect`.
    Redirect(Box<Redirect>),
    /// `direct_response`.
    Respond {
        /// Status to answer.
        status: StatusCode,
        /// Body, at most `max_direct_response_body_size_bytes`.
        body: Bytes,
    },
}

/// `envoy.config.route.v3.RouteAction`.
#[derive(Debug)]
pub struct Forward {
    /// Where to.
    pub cluster: ClusterChoice,
    /// `cluster_not_found_response_code`, default 503.
    pub cluster_not_found: StatusCode,
    /// `timeout` of the whole exchange; default 15 s, `None` is off (0).
    pub timeout: Option<Duration>,
    /// `idle_timeout` of the stream; `None` inherits, `Some(ZERO)` is off.
    pub idle_timeout: Option<Duration>,
    /// `max_grpc_timeout`: honour `grpc-timeout` up to this (`ZERO`: without bound).
    pub max_grpc_timeout: Option<Duration>,
    /// `grpc_timeout_offset`: by how much less than the client asked.
    pub grpc_timeout_offset: Option<Duration>,
    /// `max_stream_duration`, Envoy's newer way: `timeout` does not hold beside it, and `grpc-timeout` ends the
    /// stream instead of the wait for the upstream.
    pub stream_duration: Option<Box<StreamDuration>>,
    /// `retry_policy`.
    pub retry: Option<Arc<RetryPolicy>>,
    /// `prefix_rewrite` and its kin.
    pub path_rewrite: PathRewrite,
    /// `host_rewrite_specifier`.
    pub host_rewrite: HostRewrite,
    /// `append_x_forwarded_host`.
    pub append_x_forwarded_host: bool,
    /// `hash_policy`.
    pub hash: HashPolicies,
    /// `metadata_match`, its part for load balancing.
    pub metadata_match: Option<MetadataMatch>,
    /// `request_mirror_policies`.
    pub mirrors: Vec<Mirror>,
    /// `priority` is HIGH.
    pub high_priority: bool,
    /// `upgrade_configs`: what the route says instead of the connection manager.
    pub upgrades: Upgrades,
    /// `internal_redirect_policy`.
    pub internal_redirect: Option<Box<InternalRedirectPolicy>>,
    /// `request_body_buffer_limit` or `per_request_buffer_limit_bytes`: how much of a body may be kept, in place of
    /// the limit of the connection.
    pub buffer_limit: Option<u64>,
}

/// `envoy.config.route.v3.RouteAction.MaxStreamDuration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamDuration {
    /// `max_stream_duration`; `None` inherits, `Some(ZERO)` is off.
    pub limit: Option<Duration>,
    /// `grpc_timeout_header_max`: honour `grpc-timeout` up to this (`ZERO`: without bound).
    pub grpc_max: Option<Duration>,
    /// `grpc_timeout_header_offset`: by how much less than the client asked.
    pub grpc_offset: Duration,
}

/// `envoy.config.route.v3.RedirectAction`.
#[derive(Debug)]
pub struct Redirect {
    /// `response_code`: 301, 302, 303, 307, 308.
    pub status: StatusCode,
    /// `https_redirect` or `scheme_redirect`.
    pub scheme: Option<Box<str>>,
    /// `host_redirect`.
    pub host: Option<Box<str>>,
    /// `port_redirect`.
    pub port: Option<u16>,
    /// The path part.
    pub path: RedirectPath,
    /// `strip_query`.
    pub strip_query: bool,
    /// The redirect of `require_tls`: only the scheme changes, even a default port stays.
    pub(crate) keep_port: bool,
}

/// `path_rewrite_specifier` of a redirect.
#[derive(Debug)]
pub enum RedirectPath {
    /// As it was.
    Keep,
    /// `path_redirect`; may hold its own query.
    Full(Box<str>),
    /// `prefix_rewrite`.
    Prefix(Box<str>),
    /// `regex_rewrite`.
    Regex(RewritePattern),
    /// `path_rewrite`: all but the query.
    Format(Format),
}

/// What [`RouteTable::find`] found.
#[derive(Debug, Clone, Copy)]
pub struct Found<'t> {
    /// The table.
    pub table: &'t RouteTable,
    /// The virtual host.
    pub virtual_host: &'t VirtualHost,
    /// The route.
    pub route: &'t Route,
    /// Where both stand in the table.
    pub place: RoutePlace,
}

/// A route of a table, by its place; [`RouteTable::at`] looks it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutePlace {
    pub(crate) virtual_host: u32,
    /// `None` is the redirect of `require_tls`.
    pub(crate) route: Option<u32>,
}
