//! A configuration dump taken apart: its sections, the resources in them with the trouble that they are in, and names as
//! protobuf's JSON writes them. Works on JSON, so that extensions which this executable does not know are shown, too.
//!
//! Source: `envoy.admin.v3.ConfigDump`; the JSON names of proto3.

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use super::Resource;
use super::source::Dump;

/// The sections of a dump.
#[derive(Debug)]
pub(super) struct Sections {
    /// Whose it is, for messages.
    pub(super) from: String,
    configs: Vec<Value>,
}

/// A resource that is in force, or is not.
#[derive(Debug)]
pub(super) struct Resources {
    /// Those in force.
    pub(super) active: Vec<Value>,
    /// Why others are not.
    pub(super) trouble: Vec<String>,
}

/// Where one kind of resource stands in a dump.
pub(super) struct Kind {
    /// The section's message.
    section: &'static str,
    /// Repeated fields with resources in force, and the path of the resource in an element.
    fields: &'static [(&'static str, &'static [&'static str])],
    /// A repeated field with resources that wait for something.
    warming: &'static str,
}

/// `ListenersConfigDump`.
pub(super) const LISTENERS: Kind = Kind {
    section: "ListenersConfigDump",
    fields: &[("dynamic_listeners", &["active_state", "listener"]), ("static_listeners", &["listener"])],
    warming: "dynamic_listeners",
};

/// `RoutesConfigDump`.
pub(super) const ROUTES: Kind = Kind {
    section: "RoutesConfigDump",
    fields: &[("dynamic_route_configs", &["route_config"]), ("static_route_configs", &["route_config"])],
    warming: "",
};

/// `ClustersConfigDump`.
pub(super) const CLUSTERS: Kind = Kind {
    section: "ClustersConfigDump",
    fields: &[("dynamic_active_clusters", &["cluster"]), ("static_clusters", &["cluster"])],
    warming: "dynamic_warming_clusters",
};

/// `EndpointsConfigDump`.
pub(super) const ENDPOINTS: Kind = Kind {
    section: "EndpointsConfigDump",
    fields: &[
        ("dynamic_endpoint_configs", &["endpoint_config"]),
        ("static_endpoint_configs", &["endpoint_config"]),
    ],
    warming: "",
};

impl Sections {
    /// Takes a dump apart.
    ///
    /// # Errors
    /// If it is no configuration dump.
    pub(super) fn read(dump: &Dump) -> anyhow::Result<Sections> {
        let from = dump.from.clone();
        let mut whole: Value = serde_json::from_slice(&dump.text)
            .with_context(|| format!("{from} is no JSON, and so no configuration dump"))?;
        let Some(Value::Array(configs)) = whole.get_mut("configs").map(Value::take) else {
            bail!(
                "{from} is no configuration dump: it is what /config_dump of a proxy says; it has no `configs`"
            );
        };
        Ok(Sections { from, configs })
    }

    /// The section of this message; nothing if the proxy has none.
    pub(super) fn section(&self, message: &str) -> Map<String, Value> {
        let is_it = |config: &&Value| {
            let name = config["@type"].as_str().and_then(|name| name.rsplit('.').next());
            name == Some(message)
        };
        let found = self.configs.iter().find(is_it).and_then(Value::as_object);
        found.cloned().unwrap_or_default()
    }

    /// The resources of a kind.
    pub(super) fn resources(&self, kind: &Kind) -> Resources {
        let section = self.section(kind.section);
        let mut resources = Resources { active: Vec::new(), trouble: Vec::new() };
        for (field, path) in kind.fields {
            for element in elements(&section, field) {
                let found = path.iter().try_fold(element, |value, name| value.get(*name));
                resources.active.extend(found.cloned());
                resources.trouble.extend(refused(element));
            }
        }
        for element in elements(&section, kind.warming) {
            let is_warming = kind.section != LISTENERS.section || element.get("warming_state").is_some();
            if is_warming {
                let name = name(element);
                resources
                    .trouble
                    .push(format!("{name} is not in force yet: it waits for something that it names"));
            }
        }
        resources
    }
}

impl Sections {
    /// What came from a control plane and is in force.
    pub(super) fn dynamic(&self) -> Vec<Resource> {
        let kinds =
            [("cluster", CLUSTERS), ("listener", LISTENERS), ("route", ROUTES), ("endpoint", ENDPOINTS)];
        let resources = kinds.into_iter().flat_map(|(kind, of)| {
            let section = self.section(of.section);
            let (field, path) = of.fields[0];
            let found: Vec<Resource> = elements(&section, field)
                .iter()
                .filter_map(|element| path.iter().try_fold(element, |value, name| value.get(*name)))
                .map(|body| {
                    let name = body["name"].as_str().or_else(|| body["cluster_name"].as_str());
                    Resource { kind, name: name.unwrap_or_default().to_owned(), body: body.clone() }
                })
                .collect();
            found
        });
        resources.collect()
    }
}

fn elements<'s>(section: &'s Map<String, Value>, field: &str) -> &'s [Value] {
    section.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// What a proxy says of an update that it did not take.
fn refused(element: &Value) -> Option<String> {
    let error = element.get("error_state")?;
    let details = error["details"].as_str().unwrap_or("without a reason");
    Some(format!("{}: the last update is refused: {details}", name(element)))
}

fn name(element: &Value) -> String {
    let inner = ["cluster", "listener", "route_config"]
        .iter()
        .find_map(|field| element.get(*field)?["name"].as_str());
    element["name"].as_str().or(inner).unwrap_or("a resource").to_owned()
}

/// The string at a path of field names.
pub(super) fn text<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    path.iter().fold(value, |value, name| &value[*name]).as_str().unwrap_or_default()
}

/// The elements at a path of field names.
pub(super) fn list<'v>(value: &'v Value, path: &[&str]) -> &'v [Value] {
    let found = path.iter().fold(value, |value, name| &value[*name]).as_array();
    found.map(Vec::as_slice).unwrap_or_default()
}

/// `ADDRESS` and port of an `envoy.config.core.v3.Address`.
pub(super) fn address(value: &Value) -> (String, Option<u64>) {
    let socket = &value["socket_address"];
    if socket.is_object() {
        return (text(socket, &["address"]).to_owned(), socket["port_value"].as_u64());
    }
    let internal = &value["envoy_internal_address"];
    match value["pipe"]["path"].as_str() {
        Some(path) => (format!("unix://{path}"), None),
        None if internal.is_object() => {
            let (listener, id) =
                (text(internal, &["server_listener_name"]), text(internal, &["endpoint_id"]));
            (format!("envoy://{listener}/{id}"), None)
        }
        None => ("unknown".to_owned(), None),
    }
}

/// The object of Istio's that a resource comes from, as `NAME.NAMESPACE`.
/// Source: the metadata `istio.config`, `/apis/GROUP/VERSION/namespaces/NAMESPACE/KIND/NAME`.
pub(super) fn managed_by(value: &Value) -> String {
    let path = text(value, &["metadata", "filter_metadata", "istio", "config"]);
    match path.split('/').collect::<Vec<_>>().as_slice() {
        [_, _, _, _, _, namespace, _, name] => format!("{name}.{namespace}"),
        _ => String::new(),
    }
}

/// Direction, subset, host and port of `outbound|9080|v1|reviews.default.svc.cluster.local`.
pub(super) fn subset_key(name: &str) -> Option<(&str, &str, &str, u16)> {
    match name.split('|').collect::<Vec<_>>().as_slice() {
        [direction, port, subset, host] => Some((direction, subset, host, port.parse().unwrap_or(0))),
        _ => None,
    }
}

/// Host, subset, port and direction: the order in which clusters are listed.
pub(super) fn cluster_order(name: &str) -> (String, String, u16, String) {
    match subset_key(name) {
        Some((direction, subset, host, port)) => (host.into(), subset.into(), port, direction.into()),
        None => (name.into(), String::new(), 0, String::new()),
    }
}

/// Field names as the JSON of protobuf writes them: a dump has them as they are in its definitions. Keys of maps and
/// the contents of structs are the user's, and stay.
pub(super) fn camel_case(value: Value) -> Value {
    match value {
        // A message that its sender knows by its name alone.
        Value::Object(fields) if is_typed_struct(&fields) => {
            fields.into_iter().map(|(name, value)| (camel_case_name(&name), value)).collect()
        }
        Value::Object(fields) => fields.into_iter().map(camel_case_field).collect(),
        Value::Array(items) => items.into_iter().map(camel_case).collect(),
        plain => plain,
    }
}

fn is_typed_struct(fields: &Map<String, Value>) -> bool {
    fields.get("@type").and_then(Value::as_str).is_some_and(|name| name.ends_with(".TypedStruct"))
}

/// Fields that are maps from names to messages.
const MAPS: [&str; 3] =
    ["typed_per_filter_config", "typed_extension_protocol_options", "typed_filter_metadata"];

fn camel_case_field((name, value): (String, Value)) -> (String, Value) {
    let is_struct = name == "filter_metadata"
        || (name == "metadata"
            && value.get("filter_metadata").is_none()
            && value.get("typed_filter_metadata").is_none());
    let inner = match value {
        value if is_struct => value,
        Value::Object(fields) if MAPS.contains(&name.as_str()) => {
            fields.into_iter().map(|(key, value)| (key, camel_case(value))).collect()
        }
        value => camel_case(value),
    };
    (camel_case_name(&name), inner)
}

fn camel_case_name(name: &str) -> String {
    let mut words = name.split('_');
    let mut joined = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        joined.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        joined.push_str(letters.as_str());
    }
    joined
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_those_of_protobuf_json_and_the_users_stay() {
        let resource = json!({
            "lb_policy": "RANDOM",
            "filter": {"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": "a", "value": {"b_c": 1}},
            "metadata": {"filter_metadata": {"istio": {"default_original_port": 80}}},
            "typed_extension_protocol_options": {"a_b": {"explicit_http_config": {}}},
            "node": {"user_agent_name": "envoy", "metadata": {"INSTANCE_IPS": "10.0.0.1"}},
        });
        assert_eq!(
            camel_case(resource),
            json!({
                "lbPolicy": "RANDOM",
                "filter": {"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "typeUrl": "a", "value": {"b_c": 1}},
                "metadata": {"filterMetadata": {"istio": {"default_original_port": 80}}},
                "typedExtensionProtocolOptions": {"a_b": {"explicitHttpConfig": {}}},
                "node": {"userAgentName": "envoy", "metadata": {"INSTANCE_IPS": "10.0.0.1"}},
            })
        );
    }

    #[test]
    fn what_is_refused_or_waits_is_told() {
        let dump = json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
            "dynamic_listeners": [
                {"name": "a", "active_state": {"listener": {"name": "a"}}, "error_state": {"details": "no such thing"}},
                {"name": "b", "warming_state": {"listener": {"name": "b"}}},
            ],
        }]});
        let dump = Dump { from: "web-0".into(), text: dump.to_string().into_bytes() };
        let listeners = Sections::read(&dump).unwrap().resources(&LISTENERS);
        assert_eq!(listeners.active, [json!({"name": "a"})]);
        assert_eq!(listeners.trouble.len(), 2, "{listeners:?}");
        assert!(
            listeners.trouble[0].contains("a: the last update is refused: no such thing"),
            "{listeners:?}"
        );
        assert!(listeners.trouble[1].starts_with("b is not in force yet"), "{listeners:?}");
    }

    #[test]
    fn names_of_clusters_are_read() {
        assert_eq!(subset_key("outbound|80|v1|a.b"), Some(("outbound", "v1", "a.b", 80)));
        assert_eq!(subset_key("prometheus_stats"), None);
        let object = json!({"metadata": {"filter_metadata": {"istio": {
            "config": "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/cart"}}}});
        assert_eq!(managed_by(&object), "cart.shop");
        assert_eq!(managed_by(&json!({})), "");
    }
}
