//! Route tables: virtual hosts, routes, and the pure decision which of them a request takes.
//!
//! Source: `envoy.config.route.v3`. Matching is by index, not by scanning: exact domains by hash, suffix and
//! prefix wildcards by length, longest first; routes in order within a virtual host, as Envoy demands.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, StatusCode};

use crate::filter::PerFilterConfigs;
use crate::hash_policy::HashPolicies;
use crate::header_edit::HeaderEdits;
use crate::matcher::{HeaderMatcher, PathMatcher, QueryMatcher, RewritePattern};
use crate::metadata_match::MetadataMatch;
use crate::program::Name;
pub use crate::retry::{RetryOn, RetryPolicy};

mod build;
mod domains;
mod entry;
mod find;
mod forward;
mod retry_policy;
#[cfg(test)]
mod tests;
mod upgrade;

pub(crate) use build::compile;
use domains::Domains;
pub use upgrade::{ConnectConfig, Upgrades};

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
    /// `match.headers`.
    pub headers: Vec<HeaderMatcher>,
    /// `match.query_parameters`.
    pub query: Vec<QueryMatcher>,
    /// `match.grpc` is present.
    pub grpc: bool,
    /// `match.runtime_fraction` as parts per million; `None` matches always.
    pub fraction_ppm: Option<u32>,
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
    /// `max_stream_duration.grpc_timeout_header_max` / `max_grpc_timeout`: honour `grpc-timeout` up to this
    /// (`ZERO`: without bound).
    pub max_grpc_timeout: Option<Duration>,
    /// `max_stream_duration` is there, Envoy's newer way: `timeout` does not hold then, and `grpc-timeout` ends
    /// the stream instead of the wait for the upstream.
    pub uses_stream_duration: bool,
    /// `retry_policy`.
    pub retry: Option<Arc<RetryPolicy>>,
    /// `prefix_rewrite`.
    pub prefix_rewrite: Option<Box<str>>,
    /// `regex_rewrite`.
    pub regex_rewrite: Option<RewritePattern>,
    /// `host_rewrite_literal`, `auto_host_rewrite`, `host_rewrite_header`.
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
}

/// An entry of `request_mirror_policies`: where a copy of some requests goes, its response unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `cluster`.
    pub cluster: Name,
    /// `runtime_fraction` as parts per million, default all.
    pub fraction_ppm: u32,
    /// `-shadow` is appended to the host of the copy, unless `disable_shadow_host_suffix_append`.
    pub appends_shadow: bool,
}

/// `cluster_specifier`.
#[derive(Debug)]
pub enum ClusterChoice {
    /// `cluster`.
    One(Name),
    /// `weighted_clusters`.
    Weighted(Vec<WeightedCluster>, u32),
    /// `cluster_header`.
    Header(HeaderName),
}

/// An entry of `weighted_clusters`.
#[derive(Debug)]
pub struct WeightedCluster {
    /// `name`.
    pub name: Name,
    /// `metadata_match` over that of the route; `None` when neither says anything.
    pub metadata_match: Option<MetadataMatch>,
    /// `weight`; may be 0.
    pub weight: u32,
    /// Header changes of the entry.
    pub edits: RouteEdits,
    /// `host_rewrite_literal` of the entry.
    pub host_rewrite: Option<http::HeaderValue>,
    /// `typed_per_filter_config` of the entry.
    pub filters: PerFilterConfigs,
}

/// How `:authority` changes on the way.
#[derive(Debug)]
pub enum HostRewrite {
    /// Not at all.
    None,
    /// `host_rewrite_literal`.
    Literal(http::HeaderValue),
    /// `auto_host_rewrite`: the upstream host's `hostname`, when it has one.
    Auto,
    /// `host_rewrite_header`.
    Header(HeaderName),
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
