//! The bootstrap: node, admin interface, the two static listeners, the control plane's cluster, and ADS for all
//! the rest. Leaves out what the control plane sends, and where the file is written.
//!
//! Differs from Istio's: without an agent the proxy asks for its configuration directly, so `xds-grpc` is then the control
//! plane's address; and the readiness listener goes to the proxy's own admin interface.

use std::path::Path;

use serde_json::{Value, json};

use crate::agent::{SDS_SOCKET, XDS_SOCKET};
use crate::spec::{ProxyKind, ProxySpec, XdsServer, node_id};
use crate::{ADMIN_PORT, HTTP_PROXY_PORT, PROMETHEUS_PORT, READINESS_PORT};

/// The bootstrap of a proxy, in protobuf JSON (which is YAML too).
pub fn bootstrap(spec: &ProxySpec) -> Value {
    json!({
        "node": node(spec),
        "admin": { "address": socket_address(&spec.address.to_string(), ADMIN_PORT) },
        "stats_config": stats_config(),
        "dynamic_resources": dynamic_resources(spec),
        "static_resources": {
            "clusters": clusters(spec),
            "listeners": [prometheus_listener(spec), readiness_listener(spec)],
        },
    })
}

fn node(spec: &ProxySpec) -> Value {
    json!({
        "id": node_id(spec),
        "cluster": format!("{}.{}", spec.workload, spec.namespace),
        "metadata": metadata(spec),
    })
}

/// Keys and value types of Istio's `NodeMetadata`: everything but lists and maps is a string.
fn metadata(spec: &ProxySpec) -> Value {
    let mut metadata = json!({
        "NAME": spec.name,
        "NAMESPACE": spec.namespace,
        "WORKLOAD_NAME": spec.workload,
        "SERVICE_ACCOUNT": spec.service_account,
        "LABELS": spec.labels,
        "INSTANCE_IPS": spec.address.to_string(),
        "CLUSTER_ID": "Kubernetes",
        "MESH_ID": "cluster.local",
    });
    if let XdsServer::Agent(_) = spec.xds {
        metadata["MELTEMI_SDS"] = json!("true");
    }
    match spec.kind {
        ProxyKind::Sidecar => {
            metadata["INTERCEPTION_MODE"] = json!("NONE");
            metadata["HTTP_PROXY_PORT"] = json!(HTTP_PROXY_PORT.to_string());
        }
        ProxyKind::Router => {
            if let Some(bind) = spec.gateway_bind {
                metadata["MELTEMI_GATEWAY_BIND"] = json!(bind.to_string());
            }
        }
    }
    metadata
}

fn dynamic_resources(spec: &ProxySpec) -> Value {
    // No initial fetch timeout: a proxy without its listeners is not ready, however long it takes.
    let ads = json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
    json!({
        "lds_config": ads,
        "cds_config": ads,
        "ads_config": {
            "api_type": spec.protocol.api_type(),
            "set_node_on_first_message_only": true,
            "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }],
        },
    })
}

fn clusters(spec: &ProxySpec) -> Vec<Value> {
    let mut clusters = vec![prometheus_stats(spec), agent(spec)];
    match &spec.xds {
        XdsServer::Plaintext(address) => {
            clusters
                .push(grpc_cluster("xds-grpc", &socket_address(&address.ip().to_string(), address.port())));
        }
        XdsServer::Agent(directory) => {
            clusters.push(grpc_cluster("xds-grpc", &pipe(&directory.join(XDS_SOCKET))));
            clusters.push(grpc_cluster("sds-grpc", &pipe(&directory.join(SDS_SOCKET))));
        }
    }
    clusters
}

fn grpc_cluster(name: &str, address: &Value) -> Value {
    let mut cluster = cluster(name, address);
    cluster["connect_timeout"] = json!("1s");
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        },
    });
    cluster
}

fn prometheus_stats(spec: &ProxySpec) -> Value {
    static_cluster("prometheus_stats", &spec.address.to_string(), ADMIN_PORT)
}

fn agent(spec: &ProxySpec) -> Value {
    static_cluster("agent", &spec.address.to_string(), ADMIN_PORT)
}

fn static_cluster(name: &str, address: &str, port: u16) -> Value {
    cluster(name, &socket_address(address, port))
}

fn cluster(name: &str, address: &Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.250s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    })
}

fn prometheus_listener(spec: &ProxySpec) -> Value {
    let route = json!({
        "match": { "prefix": "/stats/prometheus" },
        "route": { "cluster": "prometheus_stats" },
    });
    static_listener(spec, PROMETHEUS_PORT, "stats", &route)
}

fn readiness_listener(spec: &ProxySpec) -> Value {
    let route = json!({
        "match": { "prefix": "/healthz/ready" },
        "route": { "cluster": "agent", "prefix_rewrite": "/ready" },
    });
    static_listener(spec, READINESS_PORT, "agent", &route)
}

fn static_listener(spec: &ProxySpec, port: u16, stat_prefix: &str, route: &Value) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "AUTO",
        "stat_prefix": stat_prefix,
        "route_config": { "virtual_hosts": [{ "name": "backend", "domains": ["*"], "routes": [route] }] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    json!({
        "address": socket_address(&spec.address.to_string(), port),
        "filter_chains": [{
            "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }],
        }],
    })
}

fn pipe(path: &Path) -> Value {
    json!({ "pipe": { "path": path.to_string_lossy() } })
}

fn socket_address(address: &str, port: u16) -> Value {
    json!({ "socket_address": { "protocol": "TCP", "address": address, "port_value": port } })
}

/// Which statistics a stock Envoy keeps: without a matcher it would keep tens of thousands per sidecar. Ours
/// counts the same whatever is written here.
fn stats_config() -> Value {
    let prefixes = [
        "reporter=",
        "component",
        "istio",
        "cluster_manager",
        "listener_manager",
        "server",
        "cluster.xds-grpc",
        "wasm",
    ];
    let suffixes = ["rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied", "downstream_cx_active"];
    let patterns: Vec<Value> = prefixes
        .iter()
        .map(|prefix| json!({ "prefix": prefix }))
        .chain(suffixes.iter().map(|suffix| json!({ "suffix": suffix })))
        .chain([json!({ "safe_regex": { "regex": "vhost\\..*\\.route\\..*" } })])
        .collect();
    json!({
        "use_all_default_tags": false,
        "stats_tags": stats_tags(),
        "stats_matcher": { "inclusion_list": { "patterns": patterns } },
    })
}

/// Labels cut out of the names of Envoy's own statistics.
fn stats_tags() -> Value {
    json!([
        { "tag_name": "cluster_name", "regex": "^cluster\\.((.+?(\\..+?\\.svc\\.cluster\\.local)?)\\.)" },
        { "tag_name": "tcp_prefix", "regex": "^tcp\\.((.*?)\\.)\\w+?$" },
        { "tag_name": "response_code", "regex": "(response_code=\\.=(.+?);\\.;)|_rq(_(\\.d{3}))$" },
        { "tag_name": "response_code_class", "regex": "_rq(_(\\dxx))$" },
        { "tag_name": "http_conn_manager_prefix", "regex": "^http\\.(((?:[_.[:digit:]]*|[_\\[\\]aAbBcCdDeEfF[:digit:]]*))\\.)" },
        { "tag_name": "listener_address", "regex": "^listener\\.(((?:[_.[:digit:]]*|[_\\[\\]aAbBcCdDeEfF[:digit:]]*))\\.)" },
    ])
}

#[cfg(test)]
mod tests;
