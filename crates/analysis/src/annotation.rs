//! Istio's annotations on Kubernetes objects: unknown, misplaced, not valid, deprecated.
//!
//! Source: Istio `pkg/config/analysis/analyzers/annotations`, `istio.io/api` `annotation/annotations.yaml`,
//! `pkg/kube/inject/validate.go`.

use ipnet::IpNet;
use meltemi_api::{Diagnostic, Kind, Object};

use crate::catalogue::{DEPRECATED_ANNOTATION, INVALID_ANNOTATION, MISPLACED_ANNOTATION, UNKNOWN_ANNOTATION};
use crate::finding::found;
use crate::mesh::{INJECT, Mesh};

/// An annotation, the kinds it is for (empty for any), and whether it is deprecated.
type Known = (&'static str, &'static [&'static str], bool);

const POD: &[&str] = &["Pod"];
const SERVICE: &[&str] = &["Service"];
const ENTRY: &[&str] = &["WorkloadEntry"];
const GATEWAY: &[&str] = &["Gateway"];

/// Annotations of Istio.
const ANNOTATIONS: &[Known] = &[
    ("prometheus.istio.io/merge-metrics", POD, false),
    ("alpha.istio.io/kubernetes-serviceaccounts", SERVICE, true),
    ("alpha.istio.io/canonical-serviceaccounts", SERVICE, true),
    ("networking.istio.io/exportTo", SERVICE, false),
    ("sidecar.istio.io/inject", POD, true),
    ("sidecar.istio.io/status", POD, false),
    ("sidecar.istio.io/rewriteAppHTTPProbers", POD, false),
    ("sidecar.istio.io/discoveryAddress", POD, true),
    ("sidecar.istio.io/proxyImage", POD, false),
    ("sidecar.istio.io/proxyImageType", POD, false),
    ("sidecar.istio.io/proxyCPU", POD, false),
    ("sidecar.istio.io/proxyCPULimit", POD, false),
    ("sidecar.istio.io/proxyMemory", POD, false),
    ("sidecar.istio.io/proxyMemoryLimit", POD, false),
    ("sidecar.istio.io/interceptionMode", POD, false),
    ("sidecar.istio.io/bootstrapOverride", POD, false),
    ("sidecar.istio.io/statsInclusionPrefixes", POD, true),
    ("sidecar.istio.io/statsInclusionSuffixes", POD, true),
    ("sidecar.istio.io/statsInclusionRegexps", POD, true),
    ("sidecar.istio.io/statsHistogramBuckets", POD, false),
    ("sidecar.istio.io/statsFlushInterval", POD, false),
    ("sidecar.istio.io/statsEvictionInterval", POD, false),
    ("sidecar.istio.io/statsHistogramBins", POD, false),
    ("sidecar.istio.io/userVolume", POD, false),
    ("sidecar.istio.io/userVolumeMount", POD, false),
    ("status.sidecar.istio.io/port", POD, false),
    ("sidecar.istio.io/logLevel", POD, false),
    ("sidecar.istio.io/componentLogLevel", POD, false),
    ("sidecar.istio.io/agentLogLevel", POD, false),
    ("sidecar.istio.io/nativeSidecar", POD, false),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", POD, false),
    ("readiness.status.sidecar.istio.io/periodSeconds", POD, false),
    ("readiness.status.sidecar.istio.io/failureThreshold", POD, false),
    ("readiness.status.sidecar.istio.io/applicationPorts", POD, false),
    ("traffic.istio.io/nodeSelector", SERVICE, false),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", POD, false),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", POD, false),
    ("traffic.sidecar.istio.io/includeInboundPorts", POD, false),
    ("traffic.sidecar.istio.io/excludeInboundPorts", POD, false),
    ("traffic.sidecar.istio.io/excludeInterfaces", POD, false),
    ("traffic.sidecar.istio.io/includeOutboundPorts", POD, false),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", POD, false),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", POD, true),
    ("kubernetes.io/ingress.class", &["Ingress"], false),
    ("galley.istio.io/analyze-suppress", &[], false),
    ("proxy.istio.io/config", POD, false),
    ("istio.io/dry-run", &["AuthorizationPolicy"], false),
    ("istio.io/rev", POD, false),
    ("proxy.istio.io/overrides", POD, false),
    ("inject.istio.io/templates", POD, false),
    ("sidecar.istio.io/extraStatTags", POD, true),
    ("istio.io/autoRegistrationGroup", ENTRY, false),
    ("istio.io/workloadController", ENTRY, false),
    ("istio.io/connectedAt", ENTRY, false),
    ("istio.io/disconnectedAt", ENTRY, false),
    ("topology.istio.io/controlPlaneClusters", &["Namespace"], false),
    ("gateway.istio.io/controller-version", &[], false),
    ("ambient.istio.io/redirection", POD, false),
    ("ambient.istio.io/waypoint-inbound-binding", &["GatewayClass", "Gateway"], false),
    ("gateway.istio.io/service-account", GATEWAY, false),
    ("gateway.istio.io/name-override", GATEWAY, false),
    ("networking.istio.io/service-type", GATEWAY, false),
    ("networking.istio.io/traffic-distribution", &["Namespace", "Service", "ServiceEntry"], false),
    ("istio.io/use-waypoint-canary-weight", &["Service", "ServiceEntry", "Namespace"], false),
    ("ambient.istio.io/bypass-inbound-capture", POD, false),
    ("istio.io/reroute-virtual-interfaces", POD, false),
    ("ambient.istio.io/dns-capture", POD, false),
    ("sidecar.istio.io/statsCompression", POD, true),
];

/// Annotations that Istio itself sets.
const SET_BY_ISTIO: &[&str] =
    &["sidecar.istio.io/status", "gateway.istio.io/controller-version", "istio.io/rev"];

/// Kinds whose annotations are looked at.
const KINDS: &[Kind] = &[Kind::Namespace, Kind::Service, Kind::Pod, Kind::Deployment];

pub(crate) fn annotations(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects().filter(|object| KINDS.contains(&object.kind())) {
        for (name, value) in &object.meta.annotations {
            if is_of_istio(name) && !SET_BY_ISTIO.contains(&name.as_str()) {
                check(object, name, value, findings);
            }
        }
    }
}

fn is_of_istio(name: &str) -> bool {
    let domain = name.split('/').next().unwrap_or_default();
    name == "kubernetes.io/ingress.class" || domain.ends_with("istio.io")
}

fn check(object: &Object, name: &str, value: &str, findings: &mut Vec<Diagnostic>) {
    let field = format!("metadata.annotations[\"{name}\"]");
    let Some((_, kinds, is_deprecated)) = ANNOTATIONS.iter().find(|(known, ..)| *known == name) else {
        let message = format!("Istio has no annotation `{name}`");
        findings.push(found(&UNKNOWN_ANNOTATION, object, field, message));
        return;
    };
    let has_successor = name == INJECT && object.meta.labels.contains_key(INJECT);
    if *is_deprecated && !has_successor {
        let help = if name == INJECT { "use the label of the same name" } else { "" };
        let message = format!("the annotation `{name}` is deprecated");
        findings.push(found(&DEPRECATED_ANNOTATION, object, &*field, message).help(help));
    }
    if kinds.is_empty() {
        return;
    }
    if !kinds.contains(&object.kind().as_str()) {
        let message =
            format!("the annotation `{name}` is for {}, not for {}", kinds.join(", "), object.kind());
        findings.push(found(&MISPLACED_ANNOTATION, object, field, message));
    } else if let Err(reason) = value_of(name, value) {
        let message = format!("the annotation `{name}` is not valid: {reason}");
        findings.push(found(&INVALID_ANNOTATION, object, field, message));
    }
}

/// Whether the value of an annotation is one that it can have.
fn value_of(name: &str, value: &str) -> Result<(), String> {
    let short = name.rsplit('/').next().unwrap_or(name);
    match short {
        "interceptionMode" if !["REDIRECT", "TPROXY", "NONE"].contains(&value) => {
            Err(format!("`{value}` is none of REDIRECT, TPROXY, NONE"))
        }
        "initialDelaySeconds" | "periodSeconds" | "failureThreshold" => number::<u32>(value),
        "port" => number::<u16>(value),
        "includeOutboundIPRanges" if value == "*" => Ok(()),
        "includeOutboundIPRanges" | "excludeOutboundIPRanges" => each(value, |range| {
            range.parse::<IpNet>().map(drop).map_err(|_| format!("`{range}` is not a CIDR block"))
        }),
        "includeInboundPorts" if value == "*" => Ok(()),
        "includeInboundPorts" | "excludeInboundPorts" | "excludeOutboundPorts" => {
            each(value, |port| number::<u16>(port.trim()))
        }
        "merge-metrics" if value.parse::<bool>().is_err() => {
            Err(format!("`{value}` is neither true nor false"))
        }
        _ => Ok(()),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<(), String> {
    text.parse::<T>().map(drop).map_err(|_| format!("`{text}` is not a number that it can have"))
}

/// A list with commas, which may be empty.
fn each(list: &str, check: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    if list.is_empty() { Ok(()) } else { list.split(',').try_for_each(check) }
}
