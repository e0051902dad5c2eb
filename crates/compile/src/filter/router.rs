//! The router's own configuration; what it does is in the proxy.
//!
//! Source: `envoy.extensions.filters.http.router.v3.Router`.

use meltemi_envoy::extensions::filters::http::router::v3::Router;

use crate::ledger::{At, harmless, refuse};
use crate::retry::RetryOn;

/// `envoy.extensions.filters.http.router.v3.Router`.
#[derive(Debug, Clone, Default)]
pub struct RouterOptions {
    /// `suppress_envoy_headers`: no `x-envoy-*` field is added to requests and responses.
    pub suppress_envoy_headers: bool,
    /// `respect_expected_rq_timeout`: the timeout that a proxy before us announced holds here.
    pub respect_expected_rq_timeout: bool,
    /// `strict_check_headers`: a request with a bad value in one of these is refused.
    pub strict_check_headers: Vec<CheckedHeader>,
}

/// A header of `strict_check_headers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckedHeader {
    /// `x-envoy-upstream-rq-timeout-ms`.
    Timeout,
    /// `x-envoy-upstream-rq-per-try-timeout-ms`.
    PerTryTimeout,
    /// `x-envoy-max-retries`.
    MaxRetries,
    /// `x-envoy-retry-on`.
    RetryOn,
    /// `x-envoy-retry-grpc-on`.
    RetryGrpcOn,
}

impl CheckedHeader {
    const ALL: [CheckedHeader; 5] = [
        CheckedHeader::Timeout,
        CheckedHeader::PerTryTimeout,
        CheckedHeader::MaxRetries,
        CheckedHeader::RetryOn,
        CheckedHeader::RetryGrpcOn,
    ];

    /// The header's name.
    pub fn name(self) -> &'static str {
        match self {
            CheckedHeader::Timeout => "x-envoy-upstream-rq-timeout-ms",
            CheckedHeader::PerTryTimeout => "x-envoy-upstream-rq-per-try-timeout-ms",
            CheckedHeader::MaxRetries => "x-envoy-max-retries",
            CheckedHeader::RetryOn => "x-envoy-retry-on",
            CheckedHeader::RetryGrpcOn => "x-envoy-retry-grpc-on",
        }
    }

    /// Whether the header may have this value.
    pub fn accepts(self, value: &str) -> bool {
        let all_known = |grpc: bool| {
            let (on, unknown) = RetryOn::parse(value);
            let foreign = if grpc { on.without(RetryOn::GRPC) } else { on.only(RetryOn::GRPC) };
            unknown.is_none() && foreign == RetryOn::default()
        };
        match self {
            CheckedHeader::Timeout | CheckedHeader::PerTryTimeout | CheckedHeader::MaxRetries => {
                value.parse::<u64>().is_ok()
            }
            CheckedHeader::RetryOn => all_known(false),
            CheckedHeader::RetryGrpcOn => all_known(true),
        }
    }
}

/// Compiles the router's configuration.
pub(super) fn compile(at: &At<'_>, message: &Router) -> RouterOptions {
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
    refuse!(at; upstream_log, upstream_log_options, upstream_http_filters);
    at.refuse_true("reject_connect_request_early_data", *reject_connect_request_early_data);
    harmless!(StatsOnly; dynamic_stats, suppress_grpc_request_failure_code_stats);
    harmless!(NoTracing; start_child_span);
    let checked = at.each("strict_check_headers", strict_check_headers, |at, name| {
        let found = CheckedHeader::ALL.into_iter().find(|header| header.name().eq_ignore_ascii_case(name));
        if found.is_none() {
            at.reject(format_args!("{name:?} cannot be checked"));
        }
        found
    });
    RouterOptions {
        suppress_envoy_headers: *suppress_envoy_headers,
        respect_expected_rq_timeout: *respect_expected_rq_timeout,
        strict_check_headers: checked,
    }
}

#[cfg(test)]
mod tests {
    use super::CheckedHeader;

    #[test]
    fn values_are_checked_by_the_kind_of_header() {
        assert!(CheckedHeader::Timeout.accepts("100") && !CheckedHeader::Timeout.accepts("soon"));
        assert!(
            CheckedHeader::RetryOn.accepts("5xx,reset") && !CheckedHeader::RetryOn.accepts("5xx,cancelled")
        );
        assert!(
            CheckedHeader::RetryGrpcOn.accepts("cancelled") && !CheckedHeader::RetryGrpcOn.accepts("5xx")
        );
    }
}
