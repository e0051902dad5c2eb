//! A bootstrap that holds a whole translation: routes, endpoints and secrets stand in it, which a control plane and an
//! agent would serve.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_envoy::config::core::v3::Node;
use meltemi_envoy::json::Codec;
use meltemi_snapshot::{Inputs, Snapshot};
use meltemi_translate::{MeshIdentity, Options, ProxyShape, Resource, translate};
use serde_json::{Map, Value, json};

use super::callers::{Identity, Root};

/// What the agent of a workload would serve.
pub(super) fn of_agent(identity: &Identity, root: &Root) -> Vec<Value> {
    let inline = |text: &str| json!({ "inline_string": text });
    let certificate = json!({
        "certificate_chain": inline(&identity.pem),
        "private_key": inline(&identity.key.serialize_pem()),
    });
    let roots = json!({ "trusted_ca": inline(&root.pem) });
    vec![
        json!({ "name": "default", "tls_certificate": certificate }),
        json!({ "name": "ROOTCA", "validation_context": roots }),
    ]
}

/// What the proxy of a node runs from in the mesh of these objects.
pub(crate) fn bootstrap(objects: &str, node: &str, secrets: Vec<Value>) -> Value {
    let (objects, broken) = meltemi_api::parse(objects, &"mesh.yaml".into());
    assert!(broken.is_empty(), "{broken:#?}");
    let (snapshot, _) = Snapshot::build(&Inputs { objects: objects.into_iter().map(Arc::new).collect() });
    let codec = Codec::new();
    let node: Node = codec.parse(node).expect("a node");
    let shape = ProxyShape::from_node(&node).expect("a shape");
    let shape = ProxyShape { is_authenticated: true, ..shape };
    let mesh = MeshIdentity { trust_domain: "cluster.local".to_owned(), aliases: Vec::new() };
    let options = Options { identity: Some(mesh), ..Options::default() };
    let resources = translate(&snapshot, &shape, &options);
    let by_name = |list: &[Arc<Resource>]| -> BTreeMap<String, Value> {
        list.iter().map(|resource| (resource.name.to_string(), body(&codec, resource))).collect()
    };
    let credentials = resources.secrets.iter().map(|resource| body(&codec, resource));
    let secrets = secrets.into_iter().chain(credentials);
    let served = Served {
        routes: by_name(&resources.routes),
        endpoints: by_name(&resources.endpoints),
        secrets: secrets
            .map(|secret| (secret["name"].as_str().expect("a name").to_owned(), secret))
            .collect(),
    };
    let whole = |list: &[Arc<Resource>]| -> Vec<Value> {
        list.iter().map(|resource| served.whole(body(&codec, resource))).collect()
    };
    json!({
        "node": codec.to_json(&node).expect("a known message"),
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        "static_resources": {
            "listeners": whole(&resources.listeners),
            "clusters": whole(&resources.clusters),
        },
    })
}

fn body(codec: &Codec, resource: &Resource) -> Value {
    let mut json = codec.any_to_json(&resource.body).expect("a known message");
    json.as_object_mut().expect("a message").remove("@type");
    json
}

/// What would be served.
struct Served {
    routes: BTreeMap<String, Value>,
    endpoints: BTreeMap<String, Value>,
    secrets: BTreeMap<String, Value>,
}

impl Served {
    /// The message with what it refers to in it.
    fn whole(&self, value: Value) -> Value {
        match value {
            Value::Array(items) => items.into_iter().map(|item| self.whole(item)).collect(),
            Value::Object(mut fields) => {
                self.certificates(&mut fields);
                if let Some(rds) = fields.remove("rds") {
                    let name = rds["route_config_name"].as_str().expect("a name");
                    fields.insert("route_config".to_owned(), self.routes[name].clone());
                }
                if let Some(eds) = fields.remove("eds_cluster_config") {
                    let name = eds["service_name"].as_str().expect("a name");
                    fields.insert("load_assignment".to_owned(), self.endpoints[name].clone());
                    fields.insert("type".to_owned(), json!("STATIC"));
                }
                fields.into_iter().map(|(key, value)| (key, self.whole(value))).collect()
            }
            other => other,
        }
    }

    /// The secrets of a TLS context.
    fn certificates(&self, context: &mut Map<String, Value>) {
        if let Some(Value::Array(named)) = context.remove("tls_certificate_sds_secret_configs") {
            let certificate = |config: &Value| self.secret(config)["tls_certificate"].clone();
            context.insert("tls_certificates".to_owned(), named.iter().map(certificate).collect());
        }
        if let Some(combined) = context.remove("combined_validation_context") {
            let mut rules = combined["default_validation_context"].clone();
            let named = self.secret(&combined["validation_context_sds_secret_config"]);
            let trust = named["validation_context"].as_object().expect("CA certificates").clone();
            rules.as_object_mut().expect("a message").extend(trust);
            context.insert("validation_context".to_owned(), rules);
        }
    }

    fn secret(&self, config: &Value) -> &Value {
        &self.secrets[config["name"].as_str().expect("a name")]
    }
}
