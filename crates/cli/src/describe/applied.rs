//! What applies to a service or a workload, from the snapshot and from what selectors say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_api::{Kind, Object, ObjectId, Spec};
use meltemi_snapshot::{DestinationRule, Host, Snapshot, labels_match};
use serde::Serialize;
use serde_json::Value;

use super::Description;
use crate::mesh::cited;

/// Where objects without a selector are for all namespaces unless MeshConfig says otherwise.
const ROOT_NAMESPACE: &str = "istio-system";

/// A service, with everything that shapes calls to it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Service {
    pub(super) host: String,
    pub(super) object: String,
    pub(super) ports: Vec<ServicePort>,
    pub(super) destination_rules: Vec<Rule>,
    pub(super) virtual_services: Vec<Routes>,
    #[serde(skip)]
    ids: Vec<ObjectId>,
}

/// A port of a service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServicePort {
    pub(super) number: u16,
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) endpoints: usize,
}

/// A DestinationRule for a service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    pub(super) object: String,
    /// Each with how many endpoints it has.
    pub(super) subsets: BTreeMap<String, usize>,
    /// The parts of its traffic policy.
    pub(super) policy: Vec<String>,
}

/// A VirtualService that has to do with a service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Routes {
    pub(super) object: String,
    /// Whether calls of the service are routed by it; else it only sends requests there.
    pub(super) is_for_host: bool,
    pub(super) routes: usize,
    /// Subsets that it names.
    pub(super) subsets: BTreeSet<String>,
    /// `NAMESPACE/NAME` of gateways with their ports.
    pub(super) gateways: Vec<String>,
}

/// A port of a workload.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port {
    pub(super) port: u16,
    pub(super) mode: &'static str,
    pub(super) by: Option<String>,
}

/// The services of a host or name; `None` if there is none.
pub(super) fn services_called(
    snapshot: &Snapshot,
    whole: &str,
    name: &str,
    namespace: &str,
) -> Option<Vec<Service>> {
    let hosts = [Host::new(whole), Host::service(name, namespace)];
    let is_called = |service: &&Arc<meltemi_snapshot::Service>| hosts.contains(&service.host);
    let found: Vec<Service> =
        snapshot.services.iter().filter(is_called).map(|one| service(snapshot, one)).collect();
    (!found.is_empty()).then_some(found)
}

/// The labels of a workload: of a Deployment's pods, or of a WorkloadEntry.
pub(super) fn workload_labels(
    objects: &[Arc<Object>],
    name: &str,
    namespace: &str,
) -> Option<BTreeMap<String, String>> {
    let named =
        objects.iter().filter(|object| &*object.id.name == name && &*object.id.namespace == namespace);
    named.filter(|object| object.kind() != Kind::Service).find_map(|object| {
        let json = object.to_json();
        let labels = match object.kind() {
            Kind::WorkloadEntry => json.pointer("/spec/labels").or_else(|| json.pointer("/metadata/labels")),
            Kind::Pod => json.pointer("/metadata/labels"),
            _ => json.pointer("/spec/template/metadata/labels"),
        };
        labels.map(strings)
    })
}

fn strings(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The services that select a workload.
pub(super) fn services_of(
    snapshot: &Snapshot,
    labels: &BTreeMap<String, String>,
    namespace: &str,
) -> Vec<Service> {
    let selects = |service: &&Arc<meltemi_snapshot::Service>| {
        *service.namespace == *namespace
            && selector(&service.object).is_some_and(|wanted| labels_match(&wanted, labels))
    };
    snapshot.services.iter().filter(selects).map(|one| service(snapshot, one)).collect()
}

/// What an object selects workloads by; `None` if it does not select any.
fn selector(object: &Object) -> Option<BTreeMap<String, String>> {
    let json = object.to_json();
    let paths = match object.kind() {
        Kind::Service | Kind::Gateway => &["/spec/selector"][..],
        _ => &["/spec/selector/matchLabels", "/spec/workloadSelector/labels"],
    };
    let found = paths.iter().find_map(|path| json.pointer(path)).map(strings);
    found.filter(|labels| !labels.is_empty())
}

fn service(snapshot: &Snapshot, of: &Arc<meltemi_snapshot::Service>) -> Service {
    let ports = of.ports.iter().map(|port| ServicePort {
        number: port.number,
        name: port.name.clone(),
        protocol: format!("{:?}", port.protocol).to_ascii_uppercase(),
        endpoints: snapshot.endpoints.of(of, port.number).len(),
    });
    let rule = snapshot.destination_rule(&of.namespace, of);
    let mut ids = vec![of.object.id.clone()];
    ids.extend(rule.iter().flat_map(|rule| rule.objects.iter().map(|object| object.id.clone())));
    let virtual_services: Vec<(ObjectId, Routes)> = snapshot
        .config
        .virtual_services
        .iter()
        .filter_map(|object| Some((object.object.id.clone(), routes(snapshot, &object.object, &of.host)?)))
        .collect();
    ids.extend(virtual_services.iter().map(|(id, _)| id.clone()));
    Service {
        host: of.host.as_str().to_owned(),
        object: cited(&of.object),
        ports: ports.collect(),
        destination_rules: rule.map(|rule| rules(snapshot, of, rule)).unwrap_or_default(),
        virtual_services: virtual_services.into_iter().map(|(_, routes)| routes).collect(),
        ids,
    }
}

fn rules(snapshot: &Snapshot, of: &meltemi_snapshot::Service, rule: &DestinationRule) -> Vec<Rule> {
    let endpoints = |labels: &BTreeMap<String, String>| {
        let first = of.ports.first().map(|port| snapshot.endpoints.of(of, port.number)).unwrap_or_default();
        first.iter().filter(|endpoint| labels_match(labels, &endpoint.labels)).count()
    };
    let each = rule.specs().map(|(object, spec)| {
        let json = object.to_json();
        let policy = json.pointer("/spec/trafficPolicy").and_then(Value::as_object);
        Rule {
            object: cited(object),
            subsets: spec
                .subsets
                .iter()
                .map(|subset| (subset.name.clone(), endpoints(&subset.labels)))
                .collect(),
            policy: policy.map(|fields| fields.keys().cloned().collect()).unwrap_or_default(),
        }
    });
    each.collect()
}

/// What a VirtualService has to do with a host; `None` if nothing.
fn routes(snapshot: &Snapshot, object: &Arc<Object>, host: &Host) -> Option<Routes> {
    let Spec::VirtualService(spec) = &object.spec else { return None };
    let namespace = &object.id.namespace;
    let resolved = |name: &str| Host::resolve(name, namespace);
    // One that is bound to gateways alone has nothing to do with calls in the mesh.
    let is_for_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|name| name == "mesh");
    let is_for_host =
        is_for_mesh && spec.hosts.iter().any(|name| resolved(name) == *host || resolved(name).covers(host));
    let json = object.to_json();
    let mut destinations = Vec::new();
    destinations_in(&json["spec"], &mut destinations);
    let here: Vec<&Value> = destinations
        .into_iter()
        .filter(|destination| destination["host"].as_str().is_some_and(|name| resolved(name) == *host))
        .collect();
    if !is_for_host && here.is_empty() {
        return None;
    }
    let routes =
        ["http", "tls", "tcp"].iter().map(|kind| json["spec"][*kind].as_array().map_or(0, Vec::len)).sum();
    let names = spec.gateways.iter().filter(|name| *name != "mesh");
    Some(Routes {
        object: cited(object),
        is_for_host,
        routes,
        subsets: here.iter().filter_map(|each| each["subset"].as_str()).map(str::to_owned).collect(),
        gateways: names.map(|name| gateway(snapshot, name, namespace)).collect(),
    })
}

/// Every `destination` below a value.
fn destinations_in<'v>(value: &'v Value, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, field)| match name.as_str() {
            "destination" => found.push(field),
            _ => destinations_in(field, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| destinations_in(item, found)),
        _ => {}
    }
}

/// `default/shop (port 8080)`.
fn gateway(snapshot: &Snapshot, name: &str, namespace: &str) -> String {
    let wanted = match name.split_once('/') {
        Some((".", name)) => (namespace, name),
        Some(parts) => parts,
        None => (namespace, name),
    };
    let object = snapshot
        .objects()
        .find(|object| object.kind() == Kind::Gateway && (&*object.id.namespace, &*object.id.name) == wanted);
    let shown = format!("{}/{}", wanted.0, wanted.1);
    let Some(object) = object else { return format!("{shown} (there is no such Gateway)") };
    let json = object.to_json();
    let servers = json["spec"]["servers"].as_array().into_iter().flatten();
    let ports: BTreeSet<String> = servers.map(|server| server["port"]["number"].to_string()).collect();
    format!("{shown} (port {})", ports.into_iter().collect::<Vec<_>>().join(", "))
}

/// What the ports of a workload let in.
pub(super) fn lets_in(
    snapshot: &Snapshot,
    services: &[Service],
    labels: &BTreeMap<String, String>,
    namespace: &str,
) -> Vec<Port> {
    let mtls = snapshot.config.peer_authentications.of_workload(namespace, labels);
    let ports: BTreeSet<u16> = services.iter().flat_map(|service| target_ports(snapshot, service)).collect();
    let each = ports.into_iter().map(|port| {
        let (mode, by) = mtls.said_at_port(port);
        Port { port, mode: mode.as_str(), by: by.map(|object| cited(object)) }
    });
    each.collect()
}

/// Where the endpoints of a service listen.
fn target_ports(snapshot: &Snapshot, of: &Service) -> Vec<u16> {
    let services = snapshot.services.iter().filter(|service| service.host.as_str() == of.host);
    let ports = services.flat_map(|service| {
        service
            .ports
            .iter()
            .flat_map(|port| snapshot.endpoints.of(service, port.number).iter().map(|one| one.port))
    });
    ports.collect()
}

/// Objects that select a workload, or all workloads of its namespace or of the mesh.
pub(super) fn policies(
    objects: &[Arc<Object>],
    snapshot: &Snapshot,
    labels: &BTreeMap<String, String>,
    namespace: &str,
) -> Vec<String> {
    let said = snapshot.config.mesh.wire().and_then(|mesh| mesh.root_namespace.clone());
    let root = said.unwrap_or_else(|| ROOT_NAMESPACE.to_owned());
    let is_policy = |object: &Object| {
        let group = object.kind().group();
        let is_other = matches!(object.kind(), Kind::Sidecar | Kind::Gateway);
        is_other
            || ["security.istio.io", "telemetry.istio.io", "extensions.istio.io"].contains(&group)
            || ["EnvoyFilter", "ProxyConfig"].contains(&object.kind().as_str())
    };
    let applies = |object: &Object| {
        let place = &*object.id.namespace;
        match selector(object) {
            Some(wanted) => {
                (place == namespace || object.kind() == Kind::Gateway) && labels_match(&wanted, labels)
            }
            None => object.kind() != Kind::Gateway && (place == namespace || place == root),
        }
    };
    objects.iter().filter(|object| is_policy(object) && applies(object)).map(|object| cited(object)).collect()
}

/// The objects that a description speaks of.
pub(super) fn related(description: &Description, objects: &[Arc<Object>]) -> BTreeSet<ObjectId> {
    let of_services = description.services.iter().flat_map(|service| service.ids.iter().cloned());
    let policies = objects.iter().filter(|object| description.policies.contains(&cited(object)));
    let is_subject = |object: &&Arc<Object>| {
        description.kind == "workload"
            && *object.id.name == *description.name
            && *object.id.namespace == *description.namespace
    };
    let itself = objects.iter().filter(is_subject);
    of_services.chain(policies.chain(itself).map(|object| object.id.clone())).collect()
}
