//! The pages that are made of our own state.

use meltemi_api::Kind;
use meltemi_envoy::type_url;
use meltemi_snapshot::{EndpointAddress, Snapshot};
use serde_json::{Map, Value, json};

use crate::proxies::ProxyStatus;

/// One entry per proxy with istiod's field names; equal `_sent` and `_acked` mean in sync. What istiod has
/// not (`mode`, `generation`, `errors`, …) stands beside them.
pub(super) fn syncz(proxies: &[ProxyStatus]) -> Vec<Value> {
    proxies.iter().map(sync_status).collect()
}

fn sync_status(proxy: &ProxyStatus) -> Value {
    let node = &proxy.client.node;
    let mut status = Map::new();
    let mut errors = Map::new();
    status.insert("proxy".into(), json!(proxy.name()));
    status.insert("proxy_type".into(), json!(node.id.split('~').next()));
    status.insert("proxy_version".into(), json!(node.user_agent_name));
    status.extend(metadata(proxy, "CLUSTER_ID").map(|id| ("cluster_id".to_owned(), json!(id))));
    for (type_url, name) in [
        (type_url::CLUSTER, "cluster"),
        (type_url::LISTENER, "listener"),
        (type_url::ROUTE, "route"),
        (type_url::ENDPOINT, "endpoint"),
    ] {
        let Some(of_type) = proxy.types.get(type_url) else { continue };
        status.insert(format!("{name}_sent"), json!(of_type.sent));
        status.insert(format!("{name}_acked"), json!(of_type.acked));
        status.insert(format!("{name}_generation"), json!(of_type.generation));
        errors.extend(of_type.error.as_ref().map(|error| (name.to_owned(), json!(error))));
    }
    status.insert("node".into(), json!(node.id));
    status.insert("peer".into(), json!(proxy.client.peer.to_string()));
    status.insert("mode".into(), json!(proxy.mode().to_string()));
    status.insert("connected_seconds".into(), json!(proxy.since.elapsed().as_secs()));
    if !errors.is_empty() {
        status.insert("errors".into(), Value::Object(errors));
    }
    Value::Object(status)
}

fn metadata(proxy: &ProxyStatus, key: &str) -> Option<String> {
    let fields = &proxy.client.node.metadata.as_ref()?.fields;
    match fields.get(key)?.kind.as_ref()? {
        prost_types::value::Kind::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

/// The Istio objects in force, as the API writes them.
pub(super) fn configz(snapshot: &Snapshot) -> Vec<Value> {
    let is_config = |kind: Kind| kind.group().ends_with("istio.io");
    snapshot.objects().filter(|object| is_config(object.kind())).map(|object| object.to_json()).collect()
}

/// Services with the endpoints of each port. Source: istiod's `/debug/endpointz` (`svc`, `ep`).
pub(super) fn endpointz(snapshot: &Snapshot) -> Vec<Value> {
    let services = snapshot.services.iter();
    let ports = services.flat_map(|service| service.ports.iter().map(move |port| (service, port)));
    let page = ports.map(|(service, port)| {
        let endpoints = snapshot.endpoints.of(service, port.number).iter().map(|endpoint| {
            let address = match &endpoint.address {
                EndpointAddress::Ip(ip) => ip.to_string(),
                EndpointAddress::Name(name) => name.clone(),
                EndpointAddress::Pipe(path) => format!("unix://{path}"),
            };
            json!({
                "address": address,
                "port": endpoint.port,
                "labels": endpoint.labels,
                "locality": endpoint.locality,
                "weight": endpoint.weight,
                "workload": endpoint.workload,
                "namespace": endpoint.namespace,
                "service_account": endpoint.service_account,
            })
        });
        json!({
            "svc": format!("{}:{}", service.host.as_str(), port.name),
            "namespace": service.namespace,
            "port": port.number,
            "ep": endpoints.collect::<Vec<_>>(),
        })
    });
    page.collect()
}
