//! The HTTP filters of a connection manager, by the type of their configuration.

use meltemi_envoy::Any;
use meltemi_envoy::extensions::filters::http::cors::v3::Cors;
use meltemi_envoy::extensions::filters::http::fault::v3::HttpFault;
use meltemi_envoy::extensions::filters::http::grpc_stats::v3::FilterConfig as GrpcStats;
use meltemi_envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;
use meltemi_envoy::extensions::filters::http::router::v3::Router;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;

use crate::extension::{typed_struct, unknown, unpack};
use crate::istio_stats;
use crate::ledger::{At, harmless, refuse};
use crate::program::HttpFilter;

/// The compiled `http_filters`.
#[derive(Default)]
pub(crate) struct Filters {
    /// Those before the router.
    pub(crate) filters: Vec<HttpFilter>,
    /// `istio.stats` is among them.
    pub(crate) istio_stats: bool,
}

/// What one entry turned out to be.
enum Compiled {
    Filter(HttpFilter),
    IstioStats,
    Router,
    /// Disabled, or optional and not known.
    Nothing,
}

/// Compiles the filters. The router must be the last one, as Envoy demands of a terminal filter.
pub(crate) fn http_filters(at: &At<'_>, messages: &[proto::HttpFilter]) -> Filters {
    let mut compiled = Filters::default();
    if messages.is_empty() {
        at.field("http_filters").reject("the last filter must be the router");
    }
    for (i, message) in messages.iter().enumerate() {
        let at = at.item("http_filters", i);
        let is_last = i + 1 == messages.len();
        match http_filter(&at, message) {
            Some(Compiled::Router) if !is_last => at.reject("the router must be the last filter"),
            None | Some(Compiled::Router) => {}
            Some(_) if is_last => at.reject("the last filter must be the router"),
            Some(Compiled::Filter(filter)) => compiled.filters.push(filter),
            Some(Compiled::IstioStats) => compiled.istio_stats = true,
            Some(Compiled::Nothing) => {}
        }
    }
    compiled
}

fn http_filter(at: &At<'_>, message: &proto::HttpFilter) -> Option<Compiled> {
    let proto::HttpFilter { name, is_optional, disabled, config_type } = message;
    at.required("name", name);
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(_)) => {
            return at.field("config_discovery").none("not supported yet");
        }
        None => return at.field("typed_config").none("must be set"),
    };
    // Only a route could enable it, and filter configurations of routes are refused.
    if *disabled {
        return Some(Compiled::Nothing);
    }
    let at = &at.field("typed_config");
    if let Some(known) = known_filter(at, any) {
        return known;
    }
    if *is_optional { Some(Compiled::Nothing) } else { unknown(at, name, any) }
}

/// `None` when the type is not known; `Some(None)` when it was rejected.
fn known_filter(at: &At<'_>, any: &Any) -> Option<Option<Compiled>> {
    if any.is::<Router>() {
        return Some(unpack(at, any).map(|message| router(at, &message)));
    }
    if any.is::<GrpcStats>() {
        return Some(unpack(at, any).map(|message| grpc_stats(at, &message)));
    }
    if any.is::<HttpFault>() {
        return Some(unpack(at, any).map(|message| fault(at, &message)));
    }
    if any.is::<Cors>() {
        return Some(unpack(at, any).map(|Cors {}| Compiled::Filter(HttpFilter::Cors)));
    }
    let inner = typed_struct(at, any)?;
    if inner.type_name != istio_stats::PLUGIN_CONFIG {
        return None;
    }
    istio_stats::check(at, &inner.value);
    Some(Some(Compiled::IstioStats))
}

fn router(at: &At<'_>, message: &Router) -> Compiled {
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
    Compiled::Router
}

fn grpc_stats(at: &At<'_>, message: &GrpcStats) -> Compiled {
    let GrpcStats {
        emit_filter_state,
        enable_upstream_stats,
        replace_dots_in_grpc_service_name,
        per_method_stat_specifier,
    } = message;
    refuse!(at; enable_upstream_stats, replace_dots_in_grpc_service_name);
    // Read by `istio.stats`, which counts messages by itself.
    harmless!(StatsOnly; emit_filter_state);
    match per_method_stat_specifier {
        None | Some(PerMethodStatSpecifier::StatsForAllMethods(false)) => {}
        Some(PerMethodStatSpecifier::StatsForAllMethods(true)) => {
            at.field("stats_for_all_methods").reject("not supported yet");
        }
        Some(PerMethodStatSpecifier::IndividualMethodStatsAllowlist(_)) => {
            at.field("individual_method_stats_allowlist").reject("not supported yet");
        }
    }
    Compiled::Filter(HttpFilter::GrpcStats)
}

/// Without faults of its own the filter waits for those of routes.
fn fault(at: &At<'_>, message: &HttpFault) -> Compiled {
    if *message != HttpFault::default() {
        at.reject("not supported yet: faults at the listener");
    }
    Compiled::Filter(HttpFilter::Fault)
}
