//! Gateway processes: one per distinct selector that no Deployment matches. Leaves out merging servers, which is the
//! control plane's work, and whether a port can be had (`preflight`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use meltemi_api::istio::{Gateway, Server, TlsMode};
use meltemi_api::kubernetes::Deployment;
use meltemi_api::{Diagnostic, Object, ObjectId, Spec, codes};

use crate::plan::memory::Memory;
use crate::plan::ports::selects;
use crate::plan::{Plan, instance_name};
use crate::security::Sent;

/// Lines that `up` prints once everything runs; on a Gateway or a VirtualService.
const TRY_ANNOTATION: &str = "meltemi.dev/try";

/// One gateway process.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GatewayInstance {
    /// `<name of its first Gateway>-0`, or with `-gateway` inside where a replica is called that.
    pub(crate) name: String,
    /// The name of its first Gateway.
    pub(crate) workload: String,
    pub(crate) namespace: String,
    /// The selector.
    pub(crate) labels: BTreeMap<String, String>,
    /// Of its admin interface and static listeners; its servers listen elsewhere.
    pub(crate) address: Ipv4Addr,
    pub(crate) servers: Vec<GatewayServer>,
}

/// One server of a Gateway object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GatewayServer {
    /// The Gateway.
    pub(crate) gateway: ObjectId,
    /// Where in the object it stands.
    pub(crate) field: String,
    /// Its own `bind`, when it has one that is an address.
    pub(crate) bind: Option<IpAddr>,
    pub(crate) port: u16,
    /// Istio's word.
    pub(crate) protocol: String,
    /// The first host a client may ask for; `*` when any.
    pub(crate) host: String,
    /// How clients must come.
    pub(crate) takes: Sent,
}

/// The gateways of these objects, in order of namespace and name.
pub(crate) fn gateways(
    objects: &[Arc<Object>],
    deployments: &[(&Object, &Deployment)],
    memory: &mut Memory,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<GatewayInstance> {
    let is_a_deployments = |selector: &BTreeMap<String, String>| {
        deployments.iter().any(|(_, deployment)| selects(selector, &deployment.template.metadata.labels))
    };
    let mut declared: Vec<(&Object, &Gateway)> = objects
        .iter()
        .filter_map(|object| match &object.spec {
            Spec::Gateway(gateway) => Some((&**object, gateway)),
            _ => None,
        })
        .collect();
    declared.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    let selectors: BTreeSet<&BTreeMap<String, String>> = declared
        .iter()
        .map(|(_, gateway)| &gateway.selector)
        .filter(|selector| !is_a_deployments(selector))
        .collect();
    let mut instances = Vec::new();
    for selector in
        selectors.iter().filter(|selector| !selectors.iter().any(|other| is_part(selector, other)))
    {
        let serving: Vec<_> =
            declared.iter().filter(|(_, gateway)| includes(selector, &gateway.selector)).copied().collect();
        instances.extend(instance(selector, &serving, deployments, memory, diagnostics));
    }
    instances.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    report_shared_ports(&declared, &instances, diagnostics);
    instances
}

/// A gateway with all labels of `other` serves the Gateways of `selector` as well; a second process for it alone would
/// fight for the same ports.
fn is_part(selector: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> bool {
    selector.len() < other.len() && includes(other, selector)
}

fn includes(labels: &BTreeMap<String, String>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn instance(
    selector: &BTreeMap<String, String>,
    serving: &[(&Object, &Gateway)],
    deployments: &[(&Object, &Deployment)],
    memory: &mut Memory,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<GatewayInstance> {
    let exact = |(_, gateway): &&(&Object, &Gateway)| gateway.selector == *selector;
    let (first, _) = serving.iter().find(exact)?;
    let namespace = first.id.namespace.to_string();
    let is_namesake = |(object, _): &(&Object, &Deployment)| {
        object.id.name == first.id.name && object.id.namespace == first.id.namespace
    };
    let name = match deployments.iter().any(is_namesake) {
        true => format!("{}-gateway-0", first.id.name),
        false => format!("{}-0", first.id.name),
    };
    let Some(address) = memory.address(&instance_name(&namespace, &name)) else {
        let diagnostic = Diagnostic::new(&codes::TOO_MANY_REPLICAS, "no address left for the gateway")
            .at(first, "metadata.name")
            .help("lower the `replicas` of some Deployment");
        diagnostics.push(diagnostic);
        return None;
    };
    let servers = serving
        .iter()
        .flat_map(|(object, gateway)| {
            gateway.servers.iter().enumerate().map(|(index, declared)| server(object, index, declared))
        })
        .collect();
    let (workload, labels) = (first.id.name.to_string(), selector.clone());
    Some(GatewayInstance { name, workload, namespace, labels, address, servers })
}

fn server(object: &Object, index: usize, server: &Server) -> GatewayServer {
    let host = server.hosts.first().map_or("*", |host| host.rsplit('/').next().unwrap_or(host));
    GatewayServer {
        gateway: object.id.clone(),
        field: format!("spec.servers[{index}].port.number"),
        bind: server.bind.as_ref().and_then(|bind| bind.parse().ok()),
        port: u16::try_from(server.port.number).unwrap_or_default(),
        protocol: server.port.protocol.to_ascii_uppercase(),
        host: host.to_owned(),
        takes: takes(server),
    }
}

/// Settings of a server that speaks no TLS only redirect.
fn takes(server: &Server) -> Sent {
    let protocol = server.port.protocol.to_ascii_uppercase();
    match &server.tls {
        Some(tls) if is_encrypted(&protocol) && tls.mode() == TlsMode::IstioMutual => Sent::Mtls,
        Some(_) if is_encrypted(&protocol) => Sent::Tls,
        _ => Sent::Plaintext,
    }
}

fn is_encrypted(protocol: &str) -> bool {
    matches!(protocol, "HTTPS" | "TLS")
}

/// Sockets are shared inside one process only.
fn report_shared_ports(
    declared: &[(&Object, &Gateway)],
    instances: &[GatewayInstance],
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut owners: BTreeMap<(Option<IpAddr>, u16), (&GatewayInstance, &GatewayServer)> = BTreeMap::new();
    for instance in instances {
        for server in &instance.servers {
            let (owner, first) = owners.entry((server.bind, server.port)).or_insert((instance, server));
            let is_own = owner.name == instance.name && owner.namespace == instance.namespace;
            let Some((object, _)) = declared.iter().find(|(object, _)| object.id == server.gateway) else {
                continue;
            };
            if is_own {
                continue;
            }
            let message = format!(
                "port {} belongs to {} already, which another gateway serves",
                server.port, first.gateway
            );
            let diagnostic = Diagnostic::new(&codes::GATEWAY_PORT_SHARED, message)
                .at(object, server.field.clone())
                .help("choose another port or a `bind` address of its own, or give both Gateways the same selector");
            diagnostics.push(diagnostic);
        }
    }
}

/// The commands that the manifests suggest trying, with `{REPLICA}` replaced by the address of that replica's program;
/// without any suggestion, one `curl` per server.
pub(crate) fn try_lines(objects: &[Arc<Object>], plan: &Plan, default_bind: IpAddr) -> Vec<String> {
    let suggested: Vec<String> = objects
        .iter()
        .filter_map(|object| object.meta.annotations.get(TRY_ANNOTATION))
        .flat_map(|text| text.lines())
        .map(|line| with_addresses(line, plan))
        .collect();
    if !suggested.is_empty() {
        return suggested;
    }
    plan.gateways
        .iter()
        .flat_map(|gateway| &gateway.servers)
        .filter(|server| server.protocol.starts_with("HTTP") && server.protocol != "HTTPS")
        .map(|server| curl(server, default_bind))
        .collect()
}

fn curl(server: &GatewayServer, default_bind: IpAddr) -> String {
    let url = server.url(default_bind);
    match server.host.contains('*') {
        true => format!("curl -i {url}/"),
        false => format!("curl -i -H 'Host: {}' {url}/", server.host),
    }
}

impl GatewayServer {
    /// Where a client of this machine reaches it.
    pub(crate) fn url(&self, default_bind: IpAddr) -> String {
        let bind = self.bind.unwrap_or(default_bind);
        let scheme = if is_encrypted(&self.protocol) { "https" } else { "http" };
        match bind {
            bind if bind.is_unspecified() || bind == IpAddr::V4(Ipv4Addr::LOCALHOST) => {
                format!("{scheme}://localhost:{}", self.port)
            }
            IpAddr::V4(bind) => format!("{scheme}://{bind}:{}", self.port),
            IpAddr::V6(bind) => format!("{scheme}://[{bind}]:{}", self.port),
        }
    }
}

fn with_addresses(line: &str, plan: &Plan) -> String {
    let mut line = line.to_owned();
    for workload in &plan.workloads {
        for replica in &workload.replicas {
            let name = format!("{{{}}}", instance_name(&workload.id.namespace, &replica.name));
            line = line.replace(&name, &format!("{}:{}", replica.address, workload.port));
        }
    }
    line
}
