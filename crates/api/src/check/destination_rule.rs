//! Rules across one DestinationRule.

use super::load_balancer::failover_without_detection;
use super::{at_most_one, unique};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{
    ConnectionPoolSettings, DestinationRule, H2UpgradePolicy, HttpSettings, OutlierDetection,
    PortTrafficPolicy, TrafficPolicy,
};

pub(crate) fn destination_rule(rule: &DestinationRule, decoder: &mut Decoder) {
    let names = rule.subsets.iter().map(|subset| subset.name.as_str()).enumerate();
    unique(decoder, names.filter(|(_, name)| !name.is_empty()), |index| format!("subsets[{index}].name"));
    level(rule.traffic_policy.as_ref(), None, "trafficPolicy", decoder);
    let detection = rule.traffic_policy.as_ref().and_then(|policy| policy.outlier_detection.as_ref());
    for (index, subset) in rule.subsets.iter().enumerate() {
        let field = format!("subsets[{index}].trafficPolicy");
        level(subset.traffic_policy.as_ref(), detection, &field, decoder);
    }
    super::visibility::export_to(&rule.export_to, false, decoder);
    for (index, subset) in rule.subsets.iter().enumerate() {
        super::label_keys(&subset.labels, &format!("subsets[{index}].labels"), decoder);
    }
    if rule.workload_selector.is_some() && rule.export_to.iter().any(|to| to != ".") {
        let message = "a rule with `workloadSelector` is for workloads of its own namespace only".to_owned();
        decoder.report_below(
            "exportTo",
            &codes::CONFLICTING_FIELDS,
            message,
            "remove `exportTo`, or write `.`",
        );
    }
}

/// One level of policies; `inherited` is what detects outliers where it says nothing.
fn level(
    policy: Option<&TrafficPolicy>,
    inherited: Option<&OutlierDetection>,
    field: &str,
    decoder: &mut Decoder,
) {
    let Some(policy) = policy else { return };
    let numbers = policy.port_level_settings.iter().map(|setting| setting.port.number).enumerate();
    unique(decoder, numbers, |index| format!("{field}.portLevelSettings[{index}].port.number"));
    let detection = policy.outlier_detection.as_ref().or(inherited);
    failover_without_detection(policy.load_balancer.as_ref(), detection, field, decoder);
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        let field = format!("{field}.portLevelSettings[{index}]");
        let detection = port.outlier_detection.as_ref();
        failover_without_detection(port.load_balancer.as_ref(), detection, &field, decoder);
    }
}

pub(crate) fn connection_pool(pool: &ConnectionPoolSettings, decoder: &mut Decoder) {
    super::at_least_one(decoder, &[("tcp", pool.tcp.is_some()), ("http", pool.http.is_some())]);
}

pub(crate) fn traffic_policy(policy: &TrafficPolicy, decoder: &mut Decoder) {
    at_most_one(
        decoder,
        &[("tunnel", policy.tunnel.is_some()), ("proxyProtocol", policy.proxy_protocol.is_some())],
    );
    let has_blocks = policy.load_balancer.is_some()
        || policy.connection_pool.is_some()
        || policy.outlier_detection.is_some()
        || policy.tls.is_some()
        || policy.tunnel.is_some()
        || policy.proxy_protocol.is_some()
        || policy.retry_budget.is_some()
        || !policy.port_level_settings.is_empty();
    if !has_blocks {
        let message = "the traffic policy says nothing".to_owned();
        decoder.report_below("", &codes::EMPTY, message, "remove it, or say what is meant");
    }
}

pub(crate) fn port_traffic_policy(policy: &PortTrafficPolicy, decoder: &mut Decoder) {
    let has_blocks = policy.load_balancer.is_some()
        || policy.connection_pool.is_some()
        || policy.outlier_detection.is_some()
        || policy.tls.is_some();
    if !has_blocks {
        let message = "the settings of the port say nothing".to_owned();
        decoder.report_below("", &codes::EMPTY, message, "remove them, or say what is meant");
    }
}

pub(crate) fn http_settings(http: &HttpSettings, decoder: &mut Decoder) {
    if http.use_client_protocol == Some(true) && http.h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade) {
        let message = "`useClientProtocol` and `h2UpgradePolicy: UPGRADE` exclude each other".to_owned();
        decoder.report_below("useClientProtocol", &codes::CONFLICTING_FIELDS, message, "keep one of them");
    }
}

pub(crate) fn outlier_detection(detection: &OutlierDetection, decoder: &mut Decoder) {
    if detection.consecutive_errors.is_some_and(|count| count != 0) {
        let message = "nothing looks at `consecutiveErrors` any more".to_owned();
        let help = "use `consecutive5xxErrors` or `consecutiveGatewayErrors`";
        decoder.report_below("consecutiveErrors", &codes::NO_USE, message, help);
    }
    let splits = detection.split_external_local_origin_errors == Some(true);
    if !splits && detection.consecutive_local_origin_failures.is_some_and(|count| count > 0) {
        let message = "failures to reach an endpoint are not counted apart".to_owned();
        let help = "add `splitExternalLocalOriginErrors: true`";
        decoder.report_below("consecutiveLocalOriginFailures", &codes::CONFLICTING_FIELDS, message, help);
    }
}
