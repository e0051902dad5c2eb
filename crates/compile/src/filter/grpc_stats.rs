//! Statistics of gRPC calls: which calls are counted, and under which names.
//!
//! Source: `envoy.extensions.filters.http.grpc_stats.v3.FilterConfig`.

use std::collections::BTreeSet;

use http::header::CONTENT_TYPE;
use meltemi_envoy::config::core::v3::GrpcMethodList;
use meltemi_envoy::config::core::v3::grpc_method_list::Service;
use meltemi_envoy::extensions::filters::http::grpc_stats::v3::FilterConfig as Message;
use meltemi_envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;

use super::{FilterState, FilterView, HeadEdit};
use crate::ledger::At;
use crate::matcher::without_query;

/// The configuration.
#[derive(Debug)]
pub struct GrpcStats {
    /// `per_method_stat_specifier`.
    pub methods: Methods,
    /// `enable_upstream_stats`: the time that the upstream takes.
    pub upstream_stats: bool,
    /// `emit_filter_state`: the numbers of messages, for loggers.
    pub emit_filter_state: bool,
    /// `replace_dots_in_grpc_service_name`.
    pub replace_dots: bool,
}

/// Which methods have statistics of their own; all others share one set of them.
#[derive(Debug, PartialEq, Eq)]
pub enum Methods {
    /// `stats_for_all_methods`.
    All,
    /// `individual_method_stats_allowlist`, as `service/method`; none by default.
    Listed(BTreeSet<Box<str>>),
}

/// A gRPC call, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcCall {
    /// Under the name of its method.
    Named,
    /// Without a name.
    Unnamed,
    /// Only its messages are counted, not in statistics: the path names no method.
    Untracked,
}

/// Compiles the message.
pub(super) fn compile(at: &At<'_>, message: &Message) -> GrpcStats {
    let Message {
        emit_filter_state,
        enable_upstream_stats,
        replace_dots_in_grpc_service_name,
        per_method_stat_specifier,
    } = message;
    let methods = match per_method_stat_specifier {
        Some(PerMethodStatSpecifier::StatsForAllMethods(true)) => Methods::All,
        Some(PerMethodStatSpecifier::StatsForAllMethods(false)) | None => Methods::Listed(BTreeSet::new()),
        Some(PerMethodStatSpecifier::IndividualMethodStatsAllowlist(list)) => {
            Methods::Listed(listed(&at.field("individual_method_stats_allowlist"), list))
        }
    };
    GrpcStats {
        methods,
        upstream_stats: *enable_upstream_stats,
        emit_filter_state: *emit_filter_state,
        replace_dots: *replace_dots_in_grpc_service_name,
    }
}

fn listed(at: &At<'_>, message: &GrpcMethodList) -> BTreeSet<Box<str>> {
    let GrpcMethodList { services } = message;
    let mut all = BTreeSet::new();
    at.each("services", services, |at, service| {
        let Service { name, method_names } = service;
        at.required("name", name);
        if method_names.is_empty() {
            at.field("method_names").reject("must have at least one");
        }
        all.extend(method_names.iter().map(|method| Box::from(format!("{name}/{method}"))));
        Some(())
    });
    all
}

/// `service/method` of a path with exactly these two parts.
pub fn service_and_method(path: &str) -> Option<&str> {
    let names = without_query(path).strip_prefix('/')?;
    (names.split('/').count() == 2).then_some(names)
}

/// Whether a request is a gRPC call, and how it is counted.
pub(super) fn decode(config: &GrpcStats, view: &impl FilterView, state: &mut FilterState) {
    if !view.header(&CONTENT_TYPE).is_some_and(|value| is_grpc(&value)) {
        return;
    }
    let call = match (service_and_method(view.path()), &config.methods) {
        (None, _) => GrpcCall::Untracked,
        (Some(_), Methods::All) => GrpcCall::Named,
        (Some(names), Methods::Listed(listed)) if listed.contains(names) => GrpcCall::Named,
        (Some(_), Methods::Listed(_)) => GrpcCall::Unnamed,
    };
    *state = FilterState::Grpc(call);
}

/// Counts the response.
pub(super) fn encode(state: &FilterState) -> HeadEdit {
    match state {
        FilterState::Grpc(_) => HeadEdit::CountGrpc,
        _ => HeadEdit::Nothing,
    }
}

/// `application/grpc`, alone or with a suffix.
pub fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}
