//! Rules between the fields of one object. One file per kind; leaves out the syntax of single fields (`syntax.rs`)
//! and references to other objects (the snapshot).
//!
//! Source: Istio's `pkg/config/validation` and Kubernetes' API validation.

mod cors;
mod destination_rule;
mod egress;
mod envoy_filter;
mod extension;
mod fault;
mod gateway;
mod kubernetes;
mod load_balancer;
mod mesh_config;
mod policy;
mod route;
mod selector;
mod service_entry;
mod sidecar;
mod telemetry;
mod text_match;
mod tls;
mod virtual_service;
mod visibility;
mod workload;

pub(crate) use cors::cors_policy;
pub(crate) use destination_rule::{
    connection_pool, destination_rule, http_settings, outlier_detection, port_traffic_policy, traffic_policy,
};
pub(crate) use envoy_filter::{envoy_config_object_patch, envoy_filter};
pub(crate) use extension::{traffic_extension, vm_config, vm_env_var, wasm_plugin};
pub(crate) use fault::{http_fault, http_fault_abort, http_fault_delay};
pub(crate) use gateway::{gateway, gateway_port, server};
pub(crate) use kubernetes::{deployment, env_var, label_keys, probe, service};
pub(crate) use load_balancer::{
    consistent_hash, distribute, failover, hash_cookie, load_balancer, locality_lb_setting, maglev,
    zone_aware_lb_setting,
};
pub(crate) use mesh_config::{mesh_config, tls_config};
pub(crate) use policy::{
    authorization_condition, authorization_operation, authorization_policy, authorization_source, jwt_rule,
    policy_target, request_authentication,
};
pub(crate) use route::{
    header_operations, headers, http_body, http_match, http_redirect, http_retry, http_rewrite, http_route,
    regex_rewrite, tcp_route, tls_route,
};
pub(crate) use selector::{pod_selector, workload_selector};
pub(crate) use service_entry::service_entry;
pub(crate) use sidecar::{ingress_listener, outbound_traffic_policy, sidecar};
pub(crate) use telemetry::{custom_tag, metric_selector, tag_override, telemetry};
pub(crate) use tls::{client_tls, peer_authentication, server_tls};
pub(crate) use virtual_service::virtual_service;
pub(crate) use workload::{readiness_probe, workload_entry, workload_group};

use std::collections::BTreeMap;

use crate::codes;
use crate::decode::Decoder;

/// Reports fields that exclude each other when more than one of them is set.
fn at_most_one(decoder: &mut Decoder, fields: &[(&str, bool)]) {
    let set: Vec<&str> = fields.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    if let [_, second, ..] = set.as_slice() {
        let names: Vec<_> = set.iter().map(|name| format!("`{name}`")).collect();
        let message = format!("{} exclude each other", names.join(" and "));
        decoder.report_below(second, &codes::CONFLICTING_FIELDS, message, "keep one of them");
    }
}

/// Reports when none of the fields is set.
fn at_least_one(decoder: &mut Decoder, fields: &[(&str, bool)]) {
    if fields.iter().any(|(_, set)| *set) {
        return;
    }
    let names: Vec<_> = fields.iter().map(|(name, _)| format!("`{name}`")).collect();
    let message = format!("one of {} is required", names.join(", "));
    decoder.report_below("", &codes::MISSING_FIELD, message, "");
}

/// Reports an empty list that has to have something in it.
fn not_empty<T>(decoder: &mut Decoder, list: &[T], field: &str, help: &str) {
    if list.is_empty() {
        decoder.report_below(
            field,
            &codes::MISSING_FIELD,
            format!("`{field}` needs at least one entry"),
            help,
        );
    }
}

/// Reports names that appear twice in a list; `field` says where the name of an entry stands.
fn unique<'a, T: Ord + std::fmt::Display + 'a>(
    decoder: &mut Decoder,
    names: impl IntoIterator<Item = (usize, T)>,
    field: impl Fn(usize) -> String,
) {
    let mut first = BTreeMap::new();
    for (index, name) in names {
        if let Some(earlier) = first.get(&name) {
            let message = format!("`{name}` is already used by {}", field(*earlier));
            decoder.report_below(&field(index), &codes::DUPLICATE_NAME, message, "");
            continue;
        }
        first.insert(name, index);
    }
}

/// Reports weights that leave nothing to choose from. A single destination needs no weight.
fn weights(decoder: &mut Decoder, weights: impl ExactSizeIterator<Item = Option<i32>>) {
    let several = weights.len() > 1;
    let sum: i64 = weights.map(|weight| i64::from(weight.unwrap_or(0))).sum();
    if several && sum == 0 {
        let message = "the weights of all destinations are zero".to_owned();
        decoder.report_below("route", &codes::ZERO_WEIGHTS, message, "give each destination a `weight`");
    }
}
