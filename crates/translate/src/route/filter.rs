//! What a route tells the filters before the router: faults on purpose, and what browsers may do across origins.
//!
//! Source: Istio `TranslateFault`, `TranslateCORSPolicy`.

use std::collections::BTreeMap;

use meltemi_envoy::Any;
use meltemi_envoy::config::core::v3::RuntimeFractionalPercent;
use meltemi_envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier};
use meltemi_envoy::extensions::filters::http::cors::v3::CorsPolicy;
use meltemi_envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType};
use meltemi_snapshot::route::{AbortCode, Cors, Fault, HttpRule};

use super::action::fraction;
use super::request_match::string_matcher;
use crate::message::duration;

const FAULT: &str = "envoy.filters.http.fault";
const CORS: &str = "envoy.filters.http.cors";

/// The configurations by the filters' names.
///
/// Differs: a gRPC program gets no CORS policy. No browser calls through it, and it would refuse the whole table, since it
/// does not know the filter.
pub(super) fn configs(rule: &HttpRule, is_proxyless: bool) -> BTreeMap<String, Any> {
    let fault = rule.fault.as_ref().and_then(fault).map(|fault| (FAULT, Any::pack(&fault)));
    let policy = rule.cors.as_ref().filter(|_| !is_proxyless);
    let cors = policy.map(|policy| (CORS, Any::pack(&cors(policy))));
    fault.into_iter().chain(cors).map(|(name, config)| (name.to_owned(), config)).collect()
}

/// `None` for a fault that does nothing.
fn fault(fault: &Fault) -> Option<HttpFault> {
    let delay = fault.delay.as_ref().map(|delay| FaultDelay {
        percentage: Some(fraction(delay.percent)),
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(delay.time))),
    });
    let abort = fault.abort.as_ref().map(|abort| FaultAbort {
        percentage: Some(fraction(abort.percent)),
        error_type: Some(match abort.code {
            AbortCode::Http(status) => ErrorType::HttpStatus(status),
            AbortCode::Grpc(status) => ErrorType::GrpcStatus(status),
        }),
        ..Default::default()
    });
    (delay.is_some() || abort.is_some()).then(|| HttpFault { delay, abort, ..Default::default() })
}

fn cors(policy: &Cors) -> CorsPolicy {
    CorsPolicy {
        allow_origin_string_match: policy.origins.iter().filter_map(string_matcher).collect(),
        allow_methods: policy.methods.join(","),
        allow_headers: policy.headers.join(","),
        expose_headers: policy.exposed.join(","),
        max_age: policy.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: policy.credentials,
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(fraction(100.0)),
            ..Default::default()
        }),
        forward_not_matching_preflights: Some(policy.forwards_unmatched),
        ..Default::default()
    }
}
