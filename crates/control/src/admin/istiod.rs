//! More pages in the shapes of istiod's: what is registered, who is connected, what went wrong with a push.
//! Source: `pilot/pkg/xds/debug.go`, `pilot/pkg/model/push_context.go` (`StatusJSON`).
//!
//! Differs: `adsz` counts the resources that a client has of a type and does not name them; they are in its `config_dump`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use meltemi_api::Kind;
use meltemi_envoy::json::Codec;
use meltemi_envoy::type_url;
use meltemi_snapshot::{EndpointAddress, Resolution, Service, Snapshot};
use serde_json::{Map, Value, json};

use super::{PAGES, Subject, Which, json};
use crate::proxies::{ProxyStatus, short_type};

/// The cluster that endpoints are registered under, with its registry.
const SHARD: &str = "Kubernetes/Kubernetes";

pub(super) fn router() -> Router<Subject> {
    Router::new()
        .route("/debug/list", get(list))
        .route("/debug/registryz", get(registryz))
        .route("/debug/endpointShardz", get(endpoint_shardz))
        .route("/debug/adsz", get(adsz))
        .route("/debug/connections", get(connections))
        .route("/debug/edsz", get(edsz))
        .route("/debug/push_status", get(push_status))
        .route("/debug/mesh", get(mesh))
}

async fn list() -> Response {
    let names = PAGES.iter().filter_map(|(path, _)| path.strip_prefix("/debug/"));
    let mut names: Vec<&str> = names.map(|name| name.split('?').next().unwrap_or(name)).collect();
    names.retain(|name| *name != "list");
    names.sort_unstable();
    json(&names)
}

async fn registryz(State(subject): State<Subject>) -> Response {
    let generation = subject.proxies.generation();
    let page = |snapshot: &Snapshot| snapshot.services.iter().map(|s| service(s)).collect::<Vec<_>>();
    json(&generation.map(|g| page(&g.snapshot)).unwrap_or_default())
}

fn service(service: &Service) -> Value {
    let ports = service.ports.iter().map(|port| {
        let protocol = format!("{:?}", port.protocol);
        json!({"name": port.name, "port": port.number, "protocol": protocol})
    });
    let resolution = match service.resolution {
        Resolution::Static => "ClientSideLB",
        Resolution::Dns => "DNSLB",
        Resolution::DnsRoundRobin => "DNSRoundRobinLB",
        Resolution::DynamicDns => "DynamicDNS",
        Resolution::Passthrough => "Passthrough",
        Resolution::Alias => "Alias",
    };
    json!({
        "Attributes": {
            "ServiceRegistry": format!("{:?}", service.registry),
            "Name": service.object.id.name,
            "Namespace": service.namespace,
            "Labels": service.object.meta.labels,
            "LabelSelectors": service.selector,
        },
        "ports": ports.collect::<Vec<_>>(),
        "hostname": service.host.as_str(),
        "clusterVIPs": {"Addresses": {"Kubernetes": service.addresses}},
        "Resolution": resolution,
        "MeshExternal": service.external,
    })
}

/// Host, namespace, and the endpoints of all ports.
async fn endpoint_shardz(State(subject): State<Subject>) -> Response {
    let Some(generation) = subject.proxies.generation() else { return json(&json!({})) };
    let snapshot = &generation.snapshot;
    let mut hosts: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for service in snapshot.services.iter() {
        let endpoints = service.ports.iter().flat_map(|port| {
            snapshot.endpoints.of(service, port.number).iter().map(move |endpoint| (port, endpoint))
        });
        let endpoints = endpoints.map(|(port, endpoint)| {
            json!({
                "Addresses": [address(&endpoint.address)],
                "EndpointPort": endpoint.port,
                "ServicePortName": port.name,
                "Labels": endpoint.labels,
                "Locality": {"Label": endpoint.locality, "ClusterID": "Kubernetes"},
                "LbWeight": endpoint.weight,
                "Network": endpoint.network,
                "Namespace": endpoint.namespace,
                "WorkloadName": endpoint.workload,
                "ServiceAccount": endpoint.service_account,
                "TLSMode": if endpoint.has_mtls { "istio" } else { "disabled" },
            })
        });
        let shards = json!({"Shards": {SHARD: endpoints.collect::<Vec<_>>()}});
        hosts.entry(service.host.as_str()).or_default().insert(service.namespace.to_string(), shards);
    }
    json(&hosts)
}

fn address(address: &EndpointAddress) -> String {
    match address {
        EndpointAddress::Ip(ip) => ip.to_string(),
        EndpointAddress::Name(name) => name.clone(),
        EndpointAddress::Pipe(path) => format!("unix://{path}"),
    }
}

async fn connections(State(subject): State<Subject>) -> Response {
    let proxies = subject.proxies.connected();
    let clients: Vec<Value> = proxies.iter().map(connection).map(Value::Object).collect();
    json(&json!({"totalClients": clients.len(), "clients": clients}))
}

fn connection(proxy: &ProxyStatus) -> Map<String, Value> {
    let at = SystemTime::now().checked_sub(proxy.since.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
    let at = jiff::Timestamp::try_from(at).map(|at| at.to_string()).unwrap_or_default();
    let mut connection = Map::new();
    connection.insert("connectionId".into(), json!(format!("{}-{}", proxy.client.node.id, proxy.client.id)));
    connection.insert("connectedAt".into(), json!(at));
    connection.insert("address".into(), json!(proxy.client.peer.to_string()));
    connection
}

async fn adsz(State(subject): State<Subject>) -> Response {
    let proxies = subject.proxies.connected();
    let clients = proxies.iter().map(|proxy| {
        let mut client = connection(proxy);
        let watches: Map<String, Value> = proxy
            .types
            .iter()
            .map(|(kind, status)| {
                let watch = json!({"sent": status.sent, "acked": status.acked, "lastError": status.error});
                (short_type(kind).to_owned(), watch)
            })
            .collect();
        client.insert("labels".into(), json!(proxy.shape.labels));
        client.insert("watches".into(), Value::Object(watches));
        Value::Object(client)
    });
    let clients: Vec<Value> = clients.collect();
    json(&json!({"totalClients": clients.len(), "clients": clients}))
}

/// The endpoints that a proxy is served.
async fn edsz(State(subject): State<Subject>, Query(which): Query<Which>) -> Response {
    let Some(id) = which.proxy_id else {
        return (StatusCode::BAD_REQUEST, "proxyID is required: a node id, or name.namespace\n")
            .into_response();
    };
    let Some(config) = subject.proxies.served(&id) else {
        return (StatusCode::NOT_FOUND, format!("no proxy {id} is connected\n")).into_response();
    };
    let codec = Codec::new();
    let all = config.of_type(type_url::ENDPOINT).into_iter().flat_map(|set| set.iter());
    let assignments: Result<Vec<Value>, _> = all.map(|resource| codec.any_to_json(&resource.body)).collect();
    match assignments {
        Ok(assignments) => json(&assignments),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// What is wrong, by code and object, as istiod tells by metric and object.
async fn push_status(State(subject): State<Subject>) -> Response {
    let findings = subject.proxies.findings();
    let mut by_code: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for diagnostic in &findings.diagnostics {
        let object = diagnostic.object.as_ref().map(ToString::to_string).unwrap_or_default();
        let message = json!({"message": diagnostic.message});
        by_code.entry(diagnostic.code).or_default().insert(object, message);
    }
    json(&json!({"proxyStatus": by_code}))
}

/// What makes the MeshConfig in force: the objects that hold it, as they are written.
async fn mesh(State(subject): State<Subject>) -> Response {
    let Some(generation) = subject.proxies.generation() else { return json(&json!([])) };
    let is_mesh = |kind: Kind| matches!(kind, Kind::ConfigMap | Kind::IstioOperator);
    let objects = generation.snapshot.objects().filter(|object| is_mesh(object.kind()));
    json(&objects.map(|object| object.to_json()).collect::<Vec<_>>())
}
