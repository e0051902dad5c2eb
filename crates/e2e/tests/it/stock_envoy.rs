//! What translation sends, a stock Envoy takes: every golden case as its bootstrap, `--mode validate`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use meltemi_e2e::peers;
use meltemi_envoy::json::Codec;
use meltemi_snapshot::{Inputs, Snapshot};
use meltemi_translate::{MeshIdentity, Options, ProxyShape, Resource, translate};
use serde_json::{Value, json};

/// The clusters of the control plane and of the agent, by which stock Envoy would ask for what is not here.
fn server(name: &str) -> Value {
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 1 } });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
    })
}

fn bodies(codec: &Codec, resources: &[Arc<Resource>]) -> Vec<Value> {
    let body = |resource: &Arc<Resource>| {
        let mut json = codec.any_to_json(&resource.body).expect("a known message");
        json.as_object_mut().expect("a message").remove("@type");
        json
    };
    resources.iter().map(body).collect()
}

/// The mesh of a golden case, for a proxy with an agent and an identity, and without extensions of Istio's own proxy.
fn bootstrap(case: &Path) -> Value {
    let read = |name: &str| fs::read_to_string(case.join(name)).unwrap_or_default();
    let codec = Codec::of_whole_api();
    let (objects, _) = meltemi_api::parse(&read("input.yaml"), &"input.yaml".into());
    let (snapshot, _) = Snapshot::build(&Inputs { objects: objects.into_iter().map(Arc::new).collect() });
    let node = codec.parse(&read("node.yaml")).expect("a node");
    let shape = ProxyShape {
        extensions: Default::default(),
        has_sds: true,
        ..ProxyShape::from_node(&node).expect("a shape")
    };
    let identity =
        MeshIdentity { trust_domain: "cluster.local".to_owned(), aliases: vec!["old.example".to_owned()] };
    let options = Options { identity: Some(identity), ..Options::default() };
    let resources = translate(&snapshot, &shape, &options);
    let mut clusters = bodies(&codec, &resources.clusters);
    clusters.extend([server("xds-grpc"), server("sds-grpc")]);
    json!({
        "node": { "id": "validated", "cluster": "validated" },
        "dynamic_resources": { "ads_config": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }],
        } },
        "static_resources": { "clusters": clusters, "listeners": bodies(&codec, &resources.listeners) },
    })
}

#[test]
fn a_stock_envoy_takes_every_case_of_translation() {
    let Some(envoy) = peers::envoy() else { return peers::missing("no Envoy") };
    let scratch = tempfile::tempdir().expect("a folder");
    let root = peers::repository().join("crates/translate/testdata");
    let mut refused = Vec::new();
    for entry in fs::read_dir(root).expect("the cases") {
        let case = entry.expect("an entry").path();
        if fs::read_to_string(case.join("node.yaml")).expect("a node").contains("GENERATOR: grpc") {
            // For programs; a proxy has no use for a listener without an address of its own.
            continue;
        }
        let path = scratch.path().join("bootstrap.json");
        fs::write(&path, bootstrap(&case).to_string()).expect("the folder is writable");
        let arguments = ["--mode", "validate", "--log-level", "error", "--config-path"];
        let output = Command::new(&envoy).args(arguments).arg(&path).output().expect("Envoy starts");
        if !output.status.success() {
            refused.push(format!("{}: {}", case.display(), String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}
