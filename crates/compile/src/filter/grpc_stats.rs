//! Statistics of gRPC calls.
//!
//! Source: `envoy.extensions.filters.http.grpc_stats.v3.FilterConfig`.

use meltemi_envoy::extensions::filters::http::grpc_stats::v3::FilterConfig as GrpcStats;
use meltemi_envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;

use crate::ledger::{At, harmless, refuse};

/// Checks the message.
pub(super) fn compile(at: &At<'_>, message: &GrpcStats) {
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
}
