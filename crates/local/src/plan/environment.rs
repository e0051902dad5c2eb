//! The environment of a replica's program, and `$(NAME)` in its command line. Pure.
//!
//! Source: Kubernetes "Define Environment Variables for a Container" and "Define a Command and Arguments", service
//! variables of "Environment variables (Services)".

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use meltemi_agent::HTTP_PROXY_PORT;
use meltemi_api::kubernetes::EnvVar;

use crate::plan::{Replica, Workload};

/// Names that are the mesh's to give: a manifest's `PORT: "8080"` is right in a pod and wrong behind a sidecar on the
/// same machine.
const OWN: [&str; 2] = ["PORT", "HOST"];
/// Loopback stays direct: a program asks its own helpers by address, and the mesh by name.
const NO_PROXY: &str = "localhost,127.0.0.1,127.0.0.0/8,::1";

/// What `up` itself adds to the environment of every program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// The value of `PATH`.
    pub(crate) path: String,
}

/// Variables of one replica; they are added to the environment that `up` itself has.
pub(crate) fn environment(
    workload: &Workload,
    replica: &Replica,
    surroundings: &Surroundings,
) -> BTreeMap<String, String> {
    let mut environment = given(workload, replica, surroundings);
    for variable in &workload.container.env {
        if OWN.contains(&variable.name.as_str()) {
            continue;
        }
        let value = value(variable, workload, replica, &environment);
        environment.insert(variable.name.clone(), value);
    }
    environment
}

fn given(workload: &Workload, replica: &Replica, surroundings: &Surroundings) -> BTreeMap<String, String> {
    let proxy = format!("http://{}:{HTTP_PROXY_PORT}", replica.address);
    let mut environment: BTreeMap<String, String> = [
        ("PATH", surroundings.path.clone()),
        ("HOSTNAME", replica.name.clone()),
        ("HOST", replica.address.to_string()),
        ("PORT", workload.port.to_string()),
        ("HTTP_PROXY", proxy.clone()),
        ("http_proxy", proxy),
        ("NO_PROXY", NO_PROXY.to_owned()),
        ("no_proxy", NO_PROXY.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for port in &workload.outbound {
        let (host, number) = (replica.address.to_string(), port.number.to_string());
        environment.insert(format!("{}_SERVICE_HOST", port.variable), host);
        // The bare form is the service's first port, as in Kubernetes.
        environment.entry(format!("{}_SERVICE_PORT", port.variable)).or_insert_with(|| number.clone());
        if let Some(suffix) = &port.suffix {
            environment.insert(format!("{}_SERVICE_PORT_{suffix}", port.variable), number);
        }
    }
    environment
}

fn value(
    variable: &EnvVar,
    workload: &Workload,
    replica: &Replica,
    earlier: &BTreeMap<String, String>,
) -> String {
    let field = variable.value_from.as_ref().and_then(|source| source.field_ref.as_ref());
    match field {
        Some(field) => pod_field(&field.field_path, workload, replica.name.as_str(), replica.address),
        None => expand(variable.value.as_deref().unwrap_or_default(), earlier),
    }
}

/// A field of the pod that the replica stands for; absent labels and annotations are empty, as in Kubernetes. The
/// parser refuses any other path.
fn pod_field(path: &str, workload: &Workload, name: &str, address: Ipv4Addr) -> String {
    let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']").map(str::to_owned);
    if let Some(key) = keyed("metadata.labels['") {
        return workload.labels.get(&key).cloned().unwrap_or_default();
    }
    if let Some(key) = keyed("metadata.annotations['") {
        return workload.annotations.get(&key).cloned().unwrap_or_default();
    }
    match path {
        "metadata.name" => name.to_owned(),
        "metadata.namespace" => workload.id.namespace.to_string(),
        "spec.serviceAccountName" => workload.service_account.clone(),
        "status.podIP" | "status.podIPs" | "status.hostIP" | "status.hostIPs" => address.to_string(),
        _ => String::new(),
    }
}

/// Replaces `$(NAME)`; an unknown name stays as it is, `$$` is one dollar sign.
pub(crate) fn expand(text: &str, environment: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        let tail = &rest[dollar..];
        let (piece, used) = reference(tail, environment);
        expanded.push_str(piece);
        rest = &tail[used..];
    }
    expanded.push_str(rest);
    expanded
}

/// What stands for the `$…` at the start of `tail`, and how many bytes it took.
fn reference<'a>(tail: &'a str, environment: &'a BTreeMap<String, String>) -> (&'a str, usize) {
    if tail.starts_with("$$") {
        return ("$", 2);
    }
    let named = tail.strip_prefix("$(").and_then(|inner| inner.split_once(')'));
    match named {
        Some((name, _)) => {
            let used = name.len() + 3;
            (environment.get(name).map_or(&tail[..used], String::as_str), used)
        }
        None => ("$", 1),
    }
}
