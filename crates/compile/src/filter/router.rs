//! The router's own configuration; what it does is in the proxy.
//!
//! Source: `envoy.extensions.filters.http.router.v3.Router`.

use meltemi_envoy::extensions::filters::http::router::v3::Router;

use crate::ledger::{At, harmless, refuse};

/// Checks the message.
pub(super) fn check(at: &At<'_>, message: &Router) {
    let Router {
        dynamic_stats,
        start_child_span,
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = message;
    refuse!(at; upstream_log, upstream_log_options, suppress_envoy_headers, strict_check_headers);
    refuse!(at; respect_expected_rq_timeout, upstream_http_filters);
    at.refuse_true("reject_connect_request_early_data", *reject_connect_request_early_data);
    harmless!(StatsOnly; dynamic_stats, suppress_grpc_request_failure_code_stats);
    harmless!(NoTracing; start_child_span);
}
