//! What runs on this machine, from what the manifests say: replicas with addresses and ports, the sidecars' listeners
//! on both sides, and the gateways. Pure: the same objects and the same memory give the same plan.
//!
//! Leaves out starting anything. Source: Kubernetes' meaning of Deployment, Service and container ports; Istio's of
//! `Sidecar` with `interceptionMode: NONE`.

mod documents;
mod environment;
mod gateway;
mod memory;
mod ports;
mod protocol;
mod sidecar;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use meltemi_api::kubernetes::{Container, Deployment, Probe, Service};
use meltemi_api::{Diagnostic, Object, ObjectId, Spec, codes};

pub(crate) use documents::{documents, sidecar_labels};
pub(crate) use environment::{Surroundings, environment, expand};
pub(crate) use gateway::{GatewayInstance, try_lines};
pub(crate) use memory::Memory;
pub(crate) use ports::{InboundPort, OutboundPort};
use sidecar::Inherited;

use crate::limits::TERMINATION_GRACE;

/// Everything that should run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    /// One per Deployment, in order of namespace and name.
    pub(crate) workloads: Vec<Workload>,
    /// One per gateway process.
    pub(crate) gateways: Vec<GatewayInstance>,
}

/// One Deployment as local processes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Workload {
    pub(crate) id: ObjectId,
    /// Labels of the pod template.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) service_account: String,
    /// What each replica runs.
    pub(crate) container: Container,
    /// `$PORT`: where the program listens behind its sidecar.
    pub(crate) port: u16,
    pub(crate) inbound: Vec<InboundPort>,
    pub(crate) outbound: Vec<OutboundPort>,
    /// What the user's own `Sidecar` adds.
    pub(crate) sidecar: Inherited,
    pub(crate) grace: Duration,
    pub(crate) replicas: Vec<Replica>,
}

impl Workload {
    /// What its programs are made from: all but what is around them.
    pub(crate) fn template(&self) -> Workload {
        Workload {
            inbound: Vec::new(),
            outbound: Vec::new(),
            sidecar: Inherited::default(),
            replicas: Vec::new(),
            ..self.clone()
        }
    }
}

/// One instance of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replica {
    /// `<deployment>-<n>`, as a pod would have a name.
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
}

/// What a replica or gateway is called among all of them: file names and messages use it.
pub(crate) fn instance_name(namespace: &str, name: &str) -> String {
    match namespace {
        "default" => name.to_owned(),
        other => format!("{name}.{other}"),
    }
}

/// The plan for these objects. `memory` keeps addresses and ports from one plan to the next.
pub(crate) fn plan(objects: &[Arc<Object>], memory: &mut Memory) -> (Plan, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let services: Vec<(&Object, &Service)> = objects
        .iter()
        .filter_map(|object| match &object.spec {
            Spec::Service(service) => Some((&**object, service)),
            _ => None,
        })
        .collect();
    let deployments = deployments(objects);
    let gateways = gateway::gateways(objects, &deployments, memory, &mut diagnostics);
    let mut workloads: Vec<Workload> = deployments
        .iter()
        .filter_map(|(object, deployment)| workload(object, deployment, &services, memory, &mut diagnostics))
        .collect();
    not_started(objects, &mut diagnostics);
    let sidecars = sidecar::Sidecars::of(objects);
    for workload in &mut workloads {
        workload.sidecar = sidecar::inherit(workload, &sidecars, &mut diagnostics);
    }
    (Plan { workloads, gateways }, diagnostics)
}

/// Tells of what else would run in a cluster. A ReplicaSet or Pod that a Deployment made is that Deployment's.
fn not_started(objects: &[Arc<Object>], diagnostics: &mut Vec<Diagnostic>) {
    let would_run = |object: &&Arc<Object>| match &object.spec {
        Spec::StatefulSet(_) | Spec::DaemonSet(_) | Spec::Job(_) => true,
        Spec::ReplicaSet(_) => object.meta.controller.is_none(),
        Spec::Pod(_) => object.meta.controller.is_none() && object.status.pod_ip.is_none(),
        _ => false,
    };
    for object in objects.iter().filter(would_run) {
        let message = format!("objects of kind {} are not started on one machine", object.id.kind);
        let help = "write a Deployment";
        diagnostics.push(Diagnostic::new(&codes::NOT_STARTED, message).at(object, "kind").help(help));
    }
}

/// In order of namespace and name, so that addresses do not depend on the order of files.
fn deployments(objects: &[Arc<Object>]) -> Vec<(&Object, &Deployment)> {
    let mut deployments: Vec<_> = objects
        .iter()
        .filter_map(|object| match &object.spec {
            Spec::Deployment(deployment) => Some((&**object, deployment)),
            _ => None,
        })
        .collect();
    deployments.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    deployments
}

fn workload(
    object: &Object,
    deployment: &Deployment,
    services: &[(&Object, &Service)],
    memory: &mut Memory,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Workload> {
    let container = container(object, deployment, diagnostics)?;
    if !probes_fit(object, container, diagnostics) || !ports_fit(object, container, diagnostics) {
        return None;
    }
    let labels = &deployment.template.metadata.labels;
    let inbound = ports::inbound(&object.id.namespace, labels, container, services);
    let taken: BTreeSet<u16> = inbound.iter().map(|port| port.number).collect();
    let port = memory.program_port(&object.id, &taken);
    let outbound = ports::outbound(&object.id, services, &taken, port, memory);
    let replicas = replicas(object, deployment.replicas.unwrap_or(1), memory, diagnostics);
    let pod = &deployment.template.spec;
    Some(Workload {
        id: object.id.clone(),
        labels: labels.clone(),
        annotations: deployment.template.metadata.annotations.clone(),
        service_account: pod.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
        container: container.clone(),
        port,
        inbound,
        outbound,
        sidecar: Inherited::default(),
        grace: pod
            .termination_grace_period_seconds
            .map_or(TERMINATION_GRACE, |seconds| Duration::from_secs(seconds.into())),
        replicas,
    })
}

fn container<'a>(
    object: &Object,
    deployment: &'a Deployment,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<&'a Container> {
    const PATH: &str = "spec.template.spec.containers";
    let containers = &deployment.template.spec.containers;
    if containers.len() > 1 {
        let message = format!("{} containers, but a replica is one process here", containers.len());
        let diagnostic = Diagnostic::new(&codes::SEVERAL_CONTAINERS, message)
            .at(object, format!("{PATH}[1]"))
            .help("make it a Deployment of its own; replicas reach each other by service name");
        diagnostics.push(diagnostic);
        return None;
    }
    let container = containers.first()?;
    if container.command.is_empty() {
        let message = format!("container `{}` has no `command`, and images are not run here", container.name);
        let diagnostic = Diagnostic::new(&codes::NO_COMMAND, message)
            .at(object, format!("{PATH}[0]"))
            .help("add the program that the image would start, such as `command: [\"./server\", \"--port=$(PORT)\"]`");
        diagnostics.push(diagnostic);
        return None;
    }
    if let Some(image) = &container.image {
        let message = format!("image `{image}` is not used here; `{}` runs instead", container.command[0]);
        diagnostics
            .push(Diagnostic::new(&codes::IMAGE_IGNORED, message).at(object, format!("{PATH}[0].image")));
    }
    Some(container)
}

/// Whether every probe can be asked: an unknown port or https would leave a replica unready for ever.
fn probes_fit(object: &Object, container: &Container, diagnostics: &mut Vec<Diagnostic>) -> bool {
    let probes = [
        ("startupProbe", &container.startup_probe),
        ("readinessProbe", &container.readiness_probe),
        ("livenessProbe", &container.liveness_probe),
    ];
    let before = diagnostics.len();
    for (field, probe) in probes {
        let Some(probe) = probe else { continue };
        let path = format!("spec.template.spec.containers[0].{field}");
        diagnostics.extend(probe_flaw(container, probe).map(|(code, inner, message)| {
            Diagnostic::new(code, message).at(object, format!("{path}.{inner}"))
        }));
    }
    diagnostics.len() == before
}

/// Whether the sidecar has the container's ports to give.
fn ports_fit(object: &Object, container: &Container, diagnostics: &mut Vec<Diagnostic>) -> bool {
    let before = diagnostics.len();
    for (index, port) in container.ports.iter().enumerate() {
        if ports::RESERVED.iter().any(|reserved| u32::from(*reserved) == port.container_port) {
            let message = format!("port {} belongs to the sidecar itself", port.container_port);
            let field = format!("spec.template.spec.containers[0].ports[{index}].containerPort");
            diagnostics.push(Diagnostic::new(&codes::RESERVED_PORT, message).at(object, field));
        }
    }
    diagnostics.len() == before
}

fn probe_flaw(
    container: &Container,
    probe: &Probe,
) -> Option<(&'static meltemi_api::Code, &'static str, String)> {
    if let Some(http) = &probe.http_get
        && http.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("HTTPS"))
    {
        let message = "probes by HTTPS are not supported yet".to_owned();
        return Some((&codes::UNSUPPORTED_PROBE, "httpGet.scheme", message));
    }
    let asked = probe.http_get.as_ref().map(|http| ("httpGet.port", &http.port));
    let (field, port) =
        asked.or_else(|| probe.tcp_socket.as_ref().map(|tcp| ("tcpSocket.port", &tcp.port)))?;
    match ports::probe_port(container, port, 1) {
        Some(_) => None,
        None => {
            let message = format!("container `{}` has no port of this name", container.name);
            Some((&codes::UNKNOWN_PROBE_PORT, field, message))
        }
    }
}

fn replicas(
    object: &Object,
    count: u32,
    memory: &mut Memory,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Replica> {
    let mut replicas = Vec::new();
    for index in 0..count {
        let name = format!("{}-{index}", object.id.name);
        let Some(address) = memory.address(&instance_name(&object.id.namespace, &name)) else {
            let message = format!("no address left for {} of {count} replicas", count - index);
            let diagnostic = Diagnostic::new(&codes::TOO_MANY_REPLICAS, message)
                .at(object, "spec.replicas")
                .help("lower `replicas`, or run a second mesh with its own directory");
            diagnostics.push(diagnostic);
            break;
        };
        replicas.push(Replica { name, address });
    }
    replicas
}

/// The port that a probe of the container asks on the program's own address.
pub(crate) use ports::probe_port;

#[cfg(test)]
mod tests;
