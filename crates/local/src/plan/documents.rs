//! What the control plane is told about the processes of this machine: a `WorkloadEntry` per replica with its
//! readiness, and a `Sidecar` per Deployment with the listeners of an explicit proxy.
//!
//! Each document is JSON, which is YAML. Source: Istio `WorkloadEntry` (condition `Healthy`) and `Sidecar`
//! (`defaultEndpoint: 0.0.0.0:PORT` is the instance's own address).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::plan::{InboundPort, OutboundPort, Plan, Replica, Workload, instance_name};

/// Tells the sidecars of two Deployments apart whose labels are a subset of each other's, as Kubernetes'
/// `pod-template-hash` does.
const DEPLOYMENT_LABEL: &str = "meltemi.dev/deployment";

/// Of two Sidecars that select a workload the older one is in force, and that must be the one written here: it has what
/// the user's says in it.
const OLDEST: &str = "1970-01-01T00:00:00Z";

/// Tells callers that a replica's sidecar speaks mutual TLS. Istio's injection sets it, too, unless the pod template has
/// it already.
const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

/// The file's text. `ready` names the instances that get traffic.
pub(crate) fn documents(plan: &Plan, ready: &BTreeSet<String>) -> String {
    let mut text = String::new();
    for workload in &plan.workloads {
        push(&mut text, &sidecar(workload));
        for replica in &workload.replicas {
            let is_ready = ready.contains(&instance_name(&workload.id.namespace, &replica.name));
            push(&mut text, &workload_entry(workload, replica, is_ready));
        }
    }
    text
}

/// Labels of a replica in the mesh: of its pod template, and of its Deployment.
pub(crate) fn sidecar_labels(workload: &Workload) -> BTreeMap<String, String> {
    let mut labels = workload.labels.clone();
    labels.insert(DEPLOYMENT_LABEL.to_owned(), workload.id.name.to_string());
    labels
}

fn push(text: &mut String, document: &Value) {
    text.push_str("---\n");
    text.push_str(&format!("{document:#}"));
    text.push('\n');
}

fn workload_entry(workload: &Workload, replica: &Replica, is_ready: bool) -> Value {
    let mut labels = sidecar_labels(workload);
    labels.entry(TLS_MODE_LABEL.to_owned()).or_insert_with(|| "istio".to_owned());
    let ports: BTreeMap<&str, u16> =
        workload.inbound.iter().map(|port| (port.name.as_str(), port.number)).collect();
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": { "name": replica.name, "namespace": workload.id.namespace.as_ref(), "labels": labels },
        "spec": {
            "address": replica.address.to_string(),
            "labels": labels,
            "ports": ports,
            "serviceAccount": workload.service_account,
        },
        "status": { "conditions": [{ "type": "Healthy", "status": if is_ready { "True" } else { "False" } }] },
    })
}

fn sidecar(workload: &Workload) -> Value {
    let ingress: Vec<Value> = workload.inbound.iter().map(|port| ingress(port, workload.port)).collect();
    let mut spec = json!({
        "workloadSelector": { "labels": sidecar_labels(workload) },
        "egress": workload.sidecar.egress(&workload.outbound, egress_port),
    });
    if !ingress.is_empty() {
        spec["ingress"] = Value::Array(ingress);
    }
    if let Some(policy) = &workload.sidecar.outbound_traffic_policy {
        spec["outboundTrafficPolicy"] = policy.clone();
    }
    // A name that no manifest has by accident: the user may have Sidecars of their own.
    let name = format!("meltemi-up-{}", workload.id.name);
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {
            "name": name,
            "namespace": workload.id.namespace.as_ref(),
            "creationTimestamp": OLDEST,
        },
        "spec": spec,
    })
}

fn ingress(port: &InboundPort, program_port: u16) -> Value {
    json!({
        "port": { "number": port.number, "protocol": port.protocol, "name": port.name },
        "defaultEndpoint": format!("0.0.0.0:{program_port}"),
    })
}

fn egress_port(port: &OutboundPort) -> Value {
    json!({
        "port": { "number": port.number, "protocol": port.protocol, "name": port.name },
        "hosts": [port.host],
    })
}
