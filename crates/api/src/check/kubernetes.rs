//! Rules across one Kubernetes object.

use std::collections::BTreeMap;

use super::{at_least_one, at_most_one, not_empty, unique};
use crate::codes;
use crate::decode::Decoder;
use crate::kubernetes::{Container, Deployment, EnvVar, Probe, Service, ServiceType, SessionAffinity};
use crate::syntax;

/// Keys of labels have a syntax of their own.
pub(crate) fn label_keys(labels: &BTreeMap<String, String>, field: &str, decoder: &mut Decoder) {
    for key in labels.keys() {
        let Err(flaw) = syntax::label_key(key) else { continue };
        let mut path = field.to_owned();
        crate::span::push_key(&mut path, key);
        decoder.report_below(&path, flaw.code, flaw.message, &flaw.help);
    }
}

pub(crate) fn service(service: &Service, decoder: &mut Decoder) {
    let external = service.service_type == Some(ServiceType::ExternalName);
    let headless = service.cluster_ip.as_deref() == Some("None");
    if external && service.external_name.as_deref().unwrap_or_default().is_empty() {
        let message = "a service of type ExternalName needs `externalName`".to_owned();
        decoder.report_below("externalName", &codes::MISSING_FIELD, message, "");
    }
    if !external && !headless {
        not_empty(decoder, &service.ports, "ports", "");
    }
    if service.session_affinity == Some(SessionAffinity::ClientIp) {
        let message =
            "proxies choose endpoints by themselves and do not look at `sessionAffinity`".to_owned();
        let help = "use `consistentHash.useSourceIp` in a DestinationRule";
        decoder.report_below("sessionAffinity", &codes::NO_USE, message, help);
    }
    for (index, port) in service.ports.iter().enumerate() {
        if service.ports.len() > 1 && port.name.is_none() {
            let message = "ports need a `name` when there are several".to_owned();
            decoder.report_below(&format!("ports[{index}].name"), &codes::MISSING_FIELD, message, "");
        }
    }
    let names = service.ports.iter().enumerate();
    let names = names.filter_map(|(index, port)| Some((index, port.name.as_deref()?)));
    unique(decoder, names, |index| format!("ports[{index}].name"));
    let numbers =
        service.ports.iter().enumerate().map(|(index, port)| {
            (index, format!("{} {}", port.protocol.as_deref().unwrap_or("TCP"), port.port))
        });
    unique(decoder, numbers, |index| format!("ports[{index}].port"));
}

pub(crate) fn deployment(deployment: &Deployment, decoder: &mut Decoder) {
    let labels = &deployment.template.metadata.labels;
    for (key, value) in &deployment.selector.match_labels {
        if labels.get(key) != Some(value) {
            let message =
                format!("the pods do not carry the label `{key}: {value}` that the selector asks for");
            let help = "make `selector.matchLabels` and `template.metadata.labels` agree";
            let mut field = "selector.matchLabels".to_owned();
            crate::span::push_key(&mut field, key);
            decoder.report_below(&field, &codes::CONFLICTING_FIELDS, message, help);
        }
    }
    label_keys(labels, "template.metadata.labels", decoder);
    let containers = &deployment.template.spec.containers;
    let names = containers.iter().map(|container| container.name.as_str()).enumerate();
    let field = |index| format!("template.spec.containers[{index}].name");
    unique(decoder, names.filter(|(_, name)| !name.is_empty()), field);
    for (index, container) in containers.iter().enumerate() {
        self::container(container, &format!("template.spec.containers[{index}]"), decoder);
    }
}

fn container(container: &Container, field: &str, decoder: &mut Decoder) {
    let names = container.ports.iter().enumerate();
    let names = names.filter_map(|(index, port)| Some((index, port.name.as_deref()?)));
    unique(decoder, names, |index| format!("{field}.ports[{index}].name"));
    let probes = [("livenessProbe", &container.liveness_probe), ("startupProbe", &container.startup_probe)];
    for (name, probe) in probes {
        if probe.as_ref().is_some_and(|probe| probe.success_threshold.is_some_and(|threshold| threshold > 1))
        {
            let message = format!("the `successThreshold` of a `{name}` must be 1");
            decoder.report_below(
                &format!("{field}.{name}.successThreshold"),
                &codes::OUT_OF_RANGE,
                message,
                "",
            );
        }
    }
}

pub(crate) fn env_var(variable: &EnvVar, decoder: &mut Decoder) {
    let given = variable.value.as_deref().is_some_and(|value| !value.is_empty());
    at_most_one(decoder, &[("value", given), ("valueFrom", variable.value_from.is_some())]);
}

pub(crate) fn probe(probe: &Probe, decoder: &mut Decoder) {
    let ways = [
        ("httpGet", probe.http_get.is_some()),
        ("tcpSocket", probe.tcp_socket.is_some()),
        ("exec", probe.exec.is_some()),
    ];
    at_least_one(decoder, &ways);
    at_most_one(decoder, &ways);
}
