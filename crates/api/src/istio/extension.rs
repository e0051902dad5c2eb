//! WasmPlugin and TrafficExtension: code of the user in the proxies. Leaves out where it is fetched and how it runs.
//! Source: Istio `extensions.WasmPlugin`, `extensions.TrafficExtension`.

use serde_json::{Map, Value as Json};

use crate::check;
use crate::decode::{Decoder, Leaf, Wire, wire, wire_enum};
use crate::istio::{PodSelector, PolicyTargetReference};
use crate::node::{Entry, Node, Value};
use crate::syntax;

wire! {
    /// A WebAssembly module in the proxies.
    pub struct WasmPlugin {
        /// Workloads it applies to; absent: all of the namespace, or of the mesh in the root namespace.
        selector: Option<PodSelector>, "selector";
        /// Older form of `targetRefs`.
        target_ref: Option<PolicyTargetReference>, "targetRef";
        /// What it is attached to instead.
        target_refs: Vec<PolicyTargetReference>, "targetRefs";
        /// Where the module is: `oci://`, `file://`, `http://`, `https://`; absent scheme: `oci://`.
        url: String, "url", required => syntax::module_url;
        /// Hex of its SHA-256.
        sha256: Option<String>, "sha256" => syntax::sha256_hex;
        /// When an image is fetched again.
        image_pull_policy: Option<ImagePullPolicy>, "imagePullPolicy";
        /// Secret for the registry.
        image_pull_secret: Option<String>, "imagePullSecret" => syntax::dns_name;
        /// Key by which the module's signature is verified.
        verification_key: Option<String>, "verificationKey";
        /// What the module is told.
        plugin_config: Option<Struct>, "pluginConfig";
        /// Name of the plugin in the module.
        plugin_name: Option<String>, "pluginName" => syntax::at_most_256;
        /// Where in the chain of filters it stands.
        phase: Option<PluginPhase>, "phase";
        /// Order within the phase; the highest comes first.
        priority: Option<i32>, "priority";
        /// What happens when it fails.
        fail_strategy: Option<FailStrategy>, "failStrategy";
        /// The environment of its machine.
        vm_config: Option<VmConfig>, "vmConfig";
        /// Traffic it is for; empty: all.
        matches: Vec<TrafficSelector>, "match";
        /// Filter of requests or of connections.
        plugin_type: Option<PluginType>, "type";
    }
    rule check::wasm_plugin;
}

wire! {
    /// A WebAssembly module or a Lua program in the proxies.
    pub struct TrafficExtension {
        /// Workloads it applies to; absent: all of the namespace, or of the mesh in the root namespace.
        selector: Option<PodSelector>, "selector";
        /// What it is attached to instead.
        target_refs: Vec<PolicyTargetReference>, "targetRefs";
        /// Where in the chain of filters it stands.
        phase: Option<ExtensionPhase>, "phase";
        /// Order within the phase; the highest comes first.
        priority: Option<i32>, "priority";
        /// Traffic it is for; empty: all.
        matches: Vec<TrafficSelector>, "match";
        /// A WebAssembly module.
        wasm: Option<WasmConfig>, "wasm";
        /// A Lua program.
        lua: Option<LuaConfig>, "lua";
    }
    rule check::traffic_extension;
}

wire! {
    /// A WebAssembly module, its configuration and its machine.
    pub struct WasmConfig {
        /// Where the module is.
        url: String, "url", required => syntax::module_url;
        /// Hex of its SHA-256.
        sha256: Option<String>, "sha256" => syntax::sha256_hex;
        /// When an image is fetched again.
        image_pull_policy: Option<ImagePullPolicy>, "imagePullPolicy";
        /// Secret for the registry.
        image_pull_secret: Option<String>, "imagePullSecret" => syntax::dns_name;
        /// Key by which the module's signature is verified.
        verification_key: Option<String>, "verificationKey";
        /// What the module is told.
        plugin_config: Option<Struct>, "pluginConfig";
        /// Name of the plugin in the module.
        plugin_name: Option<String>, "pluginName" => syntax::at_most_256;
        /// What happens when it fails.
        fail_strategy: Option<FailStrategy>, "failStrategy";
        /// The environment of its machine.
        vm_config: Option<VmConfig>, "vmConfig";
        /// Filter of requests or of connections.
        plugin_type: Option<PluginType>, "type";
    }
}

wire! {
    /// A Lua program.
    pub struct LuaConfig {
        /// Its text, at most 64 KiB.
        inline_code: String, "inlineCode", required => syntax::at_most_64_kib;
    }
}

wire! {
    /// The machine of a module.
    pub struct VmConfig {
        /// Its environment.
        env: Vec<VmEnvVar>, "env";
    }
    rule check::vm_config;
}

wire! {
    /// A variable of a module's environment.
    pub struct VmEnvVar {
        /// Its name.
        name: String, "name", required => syntax::at_most_256;
        /// Where its value comes from.
        value_from: Option<EnvValueSource>, "valueFrom";
        /// Its value.
        value: Option<String>, "value" => syntax::at_most_2048;
    }
    rule check::vm_env_var;
}

wire! {
    /// Traffic by its side and port.
    pub struct TrafficSelector {
        /// The side of the call.
        mode: Option<TrafficMode>, "mode";
        /// Its ports; empty: all.
        ports: Vec<TrafficPort>, "ports";
    }
}

wire! {
    /// A port.
    pub struct TrafficPort {
        /// The number.
        number: u32, "number", required => syntax::port;
    }
}

wire_enum! {
    /// Which side of a call.
    pub enum TrafficMode {
        /// Both.
        Undefined = "UNDEFINED",
        /// The caller's.
        Client = "CLIENT",
        /// The callee's.
        Server = "SERVER",
        /// Both.
        ClientAndServer = "CLIENT_AND_SERVER",
    }
}

wire_enum! {
    /// When an image is fetched again.
    pub enum ImagePullPolicy {
        /// Always for the tag `latest`, otherwise once.
        Unspecified = "UNSPECIFIED_POLICY",
        /// Once.
        IfNotPresent = "IfNotPresent",
        /// At every change of the plugin.
        Always = "Always",
    }
}

wire_enum! {
    /// Where in the chain of filters a plugin stands.
    pub enum PluginPhase {
        /// At its end, before the router.
        Unspecified = "UNSPECIFIED_PHASE",
        /// Before authentication.
        Authn = "AUTHN",
        /// Before authorization.
        Authz = "AUTHZ",
        /// Before statistics.
        Stats = "STATS",
    }
}

wire_enum! {
    /// Where in the chain of filters an extension stands.
    pub enum ExtensionPhase {
        /// At its end, before the router.
        Unspecified = "UNSPECIFIED",
        /// Before authentication.
        Authn = "AUTHN",
        /// Before authorization.
        Authz = "AUTHZ",
        /// Before statistics.
        Stats = "STATS",
    }
}

wire_enum! {
    /// What happens to traffic when a plugin fails.
    pub enum FailStrategy {
        /// It is refused.
        Close = "FAIL_CLOSE",
        /// It goes on without the plugin.
        Open = "FAIL_OPEN",
        /// The plugin is started anew.
        Reload = "FAIL_RELOAD",
    }
}

wire_enum! {
    /// Filter of requests or of connections.
    pub enum PluginType {
        /// Of requests.
        Unspecified = "UNSPECIFIED_PLUGIN_TYPE",
        /// Of requests.
        Http = "HTTP",
        /// Of connections.
        Network = "NETWORK",
    }
}

wire_enum! {
    /// Where the value of a variable comes from.
    pub enum EnvValueSource {
        /// From the object itself.
        Inline = "INLINE",
        /// From the proxy's environment.
        Host = "HOST",
    }
}

/// A mapping of any content (`google.protobuf.Struct`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Struct(pub Map<String, Json>);

impl Wire for Struct {
    const EXPECTED: &'static str = "a mapping";

    fn decode(node: &Node, decoder: &mut Decoder, _: Option<Leaf>) -> Option<Self> {
        decoder.mapping(node, Self::EXPECTED)?;
        match json(node, decoder) {
            Json::Object(map) => Some(Self(map)),
            _ => None,
        }
    }

    fn encode(&self) -> Option<Json> {
        Some(Json::Object(self.0.clone()))
    }
}

/// A node as JSON; numbers that JSON does not have become null. The place of everything in it is kept.
fn json(node: &Node, decoder: &mut Decoder) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::String => Json::String(node.text.clone()),
        Value::Sequence(items) => {
            let items = items.iter().enumerate();
            Json::Array(items.map(|(i, item)| decoder.within_index(i, item, |d| json(item, d))).collect())
        }
        Value::Mapping(entries) => {
            let value =
                |entry: &Entry| (entry.key.clone(), decoder.within_key(entry, |d| json(&entry.value, d)));
            Json::Object(entries.iter().map(value).collect())
        }
    }
}
