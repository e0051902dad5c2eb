//! What translation may know of a proxy: the equivalence class of proxies that get the same resources.
//!
//! Source: the xDS node as Istio fills it (`type~ip~name.namespace~domain` and node metadata). A fact that is
//! not in the shape cannot influence a resource, so shapes are memoisation keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use meltemi_api::istio::ForwardClientCertDetails;
use meltemi_envoy::config::core::v3::Node;
use meltemi_snapshot::GatewayTopology;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use crate::endpoint::Locality;

/// Name of the extension that reports Istio's standard metrics.
pub const ISTIO_STATS: &str = "istio.stats";

/// Name of the extension that tells the other sidecar by ALPN which HTTP version is in mutual TLS.
pub const ISTIO_ALPN: &str = "istio.alpn";

/// Name of the extension by which proxies tell each other who they are.
pub const METADATA_EXCHANGE: &str = "istio.metadata_exchange";

/// The label that says where a workload runs.
const LOCALITY_LABEL: &str = "istio-locality";

/// Metadata that tells one proxy of a workload from another.
pub(crate) const OF_ONE_PROXY: [&str; 3] = ["NAME", "INSTANCE_IPS", "NODE_NAME"];

/// `user_agent_name` of a stock Envoy.
const STOCK_ENVOY: &str = "envoy";

/// `GENERATOR` of a gRPC program without a proxy.
const PROXYLESS: &str = "grpc";

/// Name of the extension that connects to the workload from the caller's address.
pub(crate) const ORIGINAL_SRC: &str = "envoy.filters.listener.original_src";

/// The extensions of a node that change what it is sent.
const KNOWN_EXTENSIONS: [&str; 4] = [ORIGINAL_SRC, ISTIO_ALPN, METADATA_EXCHANGE, ISTIO_STATS];

/// A class of proxies with the same configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyShape {
    /// The role, with the facts that only it needs.
    pub role: Role,
    /// Namespace of the workload.
    pub namespace: String,
    /// Labels of the workload, which selectors match.
    pub labels: BTreeMap<String, String>,
    /// Text that its metadata holds, for patches to match; without what tells one proxy of a workload from another.
    pub metadata: BTreeMap<String, String>,
    /// The messages of extensions that it says it takes; `None` for any, as a stock Envoy has them.
    pub extension_types: Option<BTreeSet<String>>,
    /// The extensions it names in `node.extensions`, of those that make a difference.
    pub extensions: BTreeSet<String>,
    /// An agent beside it serves its certificates in the cluster `sds-grpc`: `MELTEMI_SDS`, or `ISTIO_VERSION`, which
    /// every node of Istio's own agent has.
    pub has_sds: bool,
    /// `DNS_CAPTURE`: the workload asks the proxy's agent for names, which knows the addresses that ServiceEntries without one are
    /// given.
    pub captures_dns: bool,
    /// `DNS_AUTO_ALLOCATE`: ServiceEntries without an address have one for it.
    pub allocates_addresses: bool,
    /// Where it runs: the label `istio-locality`, else the node's.
    pub locality: Locality,
    /// The stream has proved to be of this namespace, so it may read the Secrets there. The node alone proves
    /// nothing.
    pub is_authenticated: bool,
}

/// What the proxy is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Beside a workload.
    Sidecar(SidecarShape),
    /// A gRPC program that asks for its configuration itself: `GENERATOR: grpc`.
    Proxyless,
    /// A gateway.
    Router(Edge),
}

/// What only the configuration of a gateway depends on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// `MELTEMI_GATEWAY_BIND`: where Gateway servers without `bind` listen; `0.0.0.0` unless said.
    pub bind: IpAddr,
    /// The addresses by which Services know it, if it is behind any: `INSTANCE_IPS`, else the one in the node id.
    pub addresses: Vec<IpAddr>,
    /// Clients come through Services, so that servers listen on their target ports. Not so where
    /// `MELTEMI_GATEWAY_BIND` says that the gateway stands for itself.
    pub is_behind_services: bool,
    /// What stands before it, as `PROXY_CONFIG` says; `None` for what the mesh says.
    pub topology: Option<GatewayTopology>,
    /// `UNPRIVILEGED_POD`: ports below 1024 cannot be listened on.
    pub is_unprivileged: bool,
}

/// What only sidecars have. The services of the workload are found by its addresses, and some listeners bind them, so
/// they are part of the shape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SidecarShape {
    /// How connections come to the proxy.
    pub interception: Interception,
    /// `INSTANCE_IPS`, else the address in the node id; at least one.
    pub addresses: Vec<IpAddr>,
    /// `HTTP_PROXY_PORT`: where the listener for all outbound HTTP is, if wanted.
    pub http_proxy_port: Option<u16>,
    /// Ports that the bootstrap's own listeners have: `ENVOY_STATUS_PORT`, `ENVOY_PROMETHEUS_PORT`.
    pub static_ports: BTreeSet<u16>,
    /// `UNPRIVILEGED_POD`: it may not bind ports below 1024.
    pub is_unprivileged: bool,
}

/// How connections come to a sidecar: `INTERCEPTION_MODE`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interception {
    /// The kernel redirects them, and the proxy asks it where they were meant to go.
    #[default]
    Redirect,
    /// The kernel hands them over as they are.
    Tproxy,
    /// Callers connect to its listeners.
    None,
}

impl SidecarShape {
    /// The address that it goes by.
    pub fn address(&self) -> IpAddr {
        self.addresses.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// The address that its listeners have where nothing else is said, if that is its own: of several workloads on one
    /// machine each has a loopback address of its own, and nothing is redirected.
    pub fn own_address(&self) -> Option<IpAddr> {
        let is_alone = self.interception == Interception::None;
        Some(self.address()).filter(|address| is_alone && address.is_loopback())
    }
}

/// A node that no configuration can be made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeError {
    /// The part of the node.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl std::error::Error for ShapeError {}

impl ProxyShape {
    /// Reads the shape from the node of an xDS stream.
    ///
    /// # Errors
    /// If the id is not `type~ip~name.namespace~domain`, the type is neither `sidecar` nor `router`, a
    /// metadata value has the wrong form.
    pub fn from_node(node: &Node) -> Result<ProxyShape, ShapeError> {
        let id = NodeId::parse(&node.id)?;
        let empty = Struct::default();
        let metadata = Metadata(node.metadata.as_ref().unwrap_or(&empty));
        let role = match id.kind {
            _ if metadata.text("GENERATOR") == Some(PROXYLESS) => Role::Proxyless,
            "sidecar" => sidecar(&id, &metadata)?,
            "router" => Role::Router(edge(&id, &metadata)?),
            other => {
                return Err(error("id", format!("proxy type `{other}` is not supported (sidecar, router)")));
            }
        };
        Ok(ProxyShape {
            namespace: metadata.text("NAMESPACE").unwrap_or(id.namespace).to_owned(),
            labels: metadata.labels(),
            extensions: node
                .extensions
                .iter()
                .filter(|e| KNOWN_EXTENSIONS.contains(&e.name.as_str()))
                .map(|e| e.name.clone())
                .collect(),
            metadata: metadata.texts(),
            extension_types: extension_types(node),
            has_sds: metadata.text("MELTEMI_SDS") == Some("true") || metadata.text("ISTIO_VERSION").is_some(),
            captures_dns: metadata.is_set("DNS_CAPTURE"),
            allocates_addresses: metadata.is_set("DNS_AUTO_ALLOCATE"),
            locality: locality(node, &metadata.labels()),
            is_authenticated: false,
            role,
        })
    }

    /// Whether it listens on Unix sockets and connects to them. Our proxy does not; a stock Envoy is known by an extension
    /// that ours has not.
    pub(crate) fn takes_unix_sockets(&self) -> bool {
        self.has_extension(ORIGINAL_SRC)
    }

    /// Whether the proxy takes configuration in this message.
    pub fn takes(&self, message: &str) -> bool {
        self.extension_types.as_ref().is_none_or(|types| types.contains(message))
    }

    /// Whether the proxy says that it has the extension.
    pub fn has_extension(&self, name: &str) -> bool {
        self.extensions.contains(name)
    }
}

/// A stock Envoy has them all; of others, those count that say what they take.
fn extension_types(node: &Node) -> Option<BTreeSet<String>> {
    let urls = node.extensions.iter().flat_map(|extension| &extension.type_urls);
    let name = |url: &String| url.rsplit('/').next().unwrap_or_default().to_owned();
    let types: BTreeSet<String> = urls.map(name).collect();
    (node.user_agent_name != STOCK_ENVOY && !types.is_empty()).then_some(types)
}

fn error(field: &'static str, reason: impl Into<String>) -> ShapeError {
    ShapeError { field, reason: reason.into() }
}

/// In the label, `.` stands for `/`, which labels cannot have.
fn locality(node: &Node, labels: &BTreeMap<String, String>) -> Locality {
    if let Some(label) = labels.get(LOCALITY_LABEL).filter(|label| !label.is_empty()) {
        return Locality::parse(&if label.contains('/') { label.clone() } else { label.replace('.', "/") });
    }
    node.locality.as_ref().map_or_else(Locality::default, |locality| Locality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        subzone: locality.sub_zone.clone(),
    })
}

struct NodeId<'a> {
    kind: &'a str,
    address: &'a str,
    namespace: &'a str,
}

impl<'a> NodeId<'a> {
    fn parse(id: &'a str) -> Result<NodeId<'a>, ShapeError> {
        let mut parts = id.split('~');
        let (Some(kind), Some(address), Some(name), Some(domain), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(error("id", format!("`{id}` is not type~ip~name.namespace~domain")));
        };
        let by_domain = domain.split('.').next().unwrap_or_default();
        let namespace = name.rsplit_once('.').map_or(by_domain, |(_, namespace)| namespace);
        Ok(NodeId { kind, address, namespace })
    }
}

struct Metadata<'a>(&'a Struct);

impl<'a> Metadata<'a> {
    fn value(&self, key: &str) -> Option<&'a Kind> {
        self.0.fields.get(key).and_then(|v| v.kind.as_ref())
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        match self.value(key) {
            Some(Kind::StringValue(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// Istio's agent writes booleans as text.
    fn is_set(&self, key: &str) -> bool {
        match self.value(key) {
            Some(Kind::BoolValue(value)) => *value,
            Some(Kind::StringValue(text)) => {
                matches!(text.as_str(), "true" | "TRUE" | "True" | "t" | "T" | "1")
            }
            _ => false,
        }
    }

    fn texts(&self) -> BTreeMap<String, String> {
        let text = |(key, value): (&String, &Value)| match &value.kind {
            Some(Kind::StringValue(text)) if !OF_ONE_PROXY.contains(&key.as_str()) => {
                Some((key.clone(), text.clone()))
            }
            _ => None,
        };
        self.0.fields.iter().filter_map(text).collect()
    }

    /// `PROXY_CONFIG` is the whole configuration of the proxy, so what is not in it has its default.
    fn topology(&self) -> Option<GatewayTopology> {
        let Some(Kind::StructValue(config)) = self.value("PROXY_CONFIG") else { return None };
        let Some(Kind::StructValue(topology)) = Metadata(config).value("gatewayTopology") else {
            return Some(GatewayTopology::default());
        };
        let topology = Metadata(topology);
        let trusted_proxies = match topology.value("numTrustedProxies") {
            // More proxies than a number holds are as good as all.
            Some(Kind::NumberValue(number)) => number.clamp(0.0, f64::from(u32::MAX)) as u32,
            _ => 0,
        };
        Some(GatewayTopology {
            trusted_proxies,
            client_certificates: client_certificates(topology.text("forwardClientCertDetails")),
            has_proxy_protocol: matches!(topology.value("proxyProtocol"), Some(Kind::StructValue(_))),
        })
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let Some(Kind::StructValue(labels)) = self.value("LABELS") else { return BTreeMap::new() };
        let text = |v: &Value| match &v.kind {
            Some(Kind::StringValue(text)) => Some(text.clone()),
            _ => None,
        };
        labels.fields.iter().filter_map(|(k, v)| Some((k.clone(), text(v)?))).collect()
    }
}

fn sidecar(id: &NodeId<'_>, metadata: &Metadata<'_>) -> Result<Role, ShapeError> {
    let interception = match metadata.text("INTERCEPTION_MODE") {
        None | Some("REDIRECT") => Interception::Redirect,
        Some("TPROXY") => Interception::Tproxy,
        Some("NONE") => Interception::None,
        Some(mode) => {
            let reason = format!("`{mode}` is none of REDIRECT, TPROXY, NONE");
            return Err(error("metadata.INTERCEPTION_MODE", reason));
        }
    };
    let listed = metadata.text("INSTANCE_IPS").unwrap_or(id.address);
    let addresses: Result<Vec<IpAddr>, _> = listed.split(',').map(|ip| ip.trim().parse()).collect();
    let optional_port = |key: &str, field: &'static str| match metadata.value(key) {
        None => Ok(None),
        Some(Kind::StringValue(text)) if text.is_empty() => Ok(None),
        Some(value) => port(field, value).map(Some),
    };
    let status = optional_port("ENVOY_STATUS_PORT", "metadata.ENVOY_STATUS_PORT")?;
    let prometheus = optional_port("ENVOY_PROMETHEUS_PORT", "metadata.ENVOY_PROMETHEUS_PORT")?;
    Ok(Role::Sidecar(SidecarShape {
        interception,
        addresses: addresses.map_err(|_| error("metadata.INSTANCE_IPS", "is not a list of IP addresses"))?,
        http_proxy_port: optional_port("HTTP_PROXY_PORT", "metadata.HTTP_PROXY_PORT")?,
        static_ports: status.into_iter().chain(prometheus).collect(),
        is_unprivileged: metadata.is_set("UNPRIVILEGED_POD"),
    }))
}

fn port(field: &'static str, value: &Kind) -> Result<u16, ShapeError> {
    let text = match value {
        Kind::StringValue(text) => text.clone(),
        Kind::NumberValue(number) => number.to_string(),
        _ => String::new(),
    };
    match text.parse() {
        Ok(0) | Err(_) => Err(error(field, "is not a port number")),
        Ok(port) => Ok(port),
    }
}

fn edge(id: &NodeId<'_>, metadata: &Metadata<'_>) -> Result<Edge, ShapeError> {
    let is_behind_services = metadata.text("MELTEMI_GATEWAY_BIND").is_none();
    let known = metadata.text("INSTANCE_IPS").unwrap_or(id.address);
    let addresses = known.split(',').filter_map(|text| text.trim().parse().ok());
    Ok(Edge {
        bind: gateway_bind(metadata)?,
        // One that no Service stands before has the shape of every other such.
        addresses: if is_behind_services { addresses.collect() } else { Vec::new() },
        is_behind_services,
        topology: metadata.topology(),
        is_unprivileged: metadata.text("UNPRIVILEGED_POD") == Some("true"),
    })
}

fn client_certificates(word: Option<&str>) -> ForwardClientCertDetails {
    use ForwardClientCertDetails as Is;
    let known = [Is::Sanitize, Is::ForwardOnly, Is::AppendForward, Is::SanitizeSet, Is::AlwaysForwardOnly];
    known.into_iter().find(|known| Some(known.as_str()) == word).unwrap_or_default()
}

fn gateway_bind(metadata: &Metadata<'_>) -> Result<IpAddr, ShapeError> {
    match metadata.text("MELTEMI_GATEWAY_BIND") {
        None => Ok(Ipv4Addr::UNSPECIFIED.into()),
        Some(text) => {
            text.parse().map_err(|_| error("metadata.MELTEMI_GATEWAY_BIND", "is not an IP address"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meltemi_envoy::json::Codec;

    fn shape(yaml: &str) -> Result<ProxyShape, ShapeError> {
        ProxyShape::from_node(&Codec::new().parse(yaml).expect("valid node"))
    }

    #[test]
    fn a_sidecar_of_up() {
        let shape = shape(
            "id: sidecar~127.1.2.3~frontend-0.shop~shop.svc.cluster.local
metadata: {NAMESPACE: shop, INTERCEPTION_MODE: NONE, HTTP_PROXY_PORT: '15002', INSTANCE_IPS: 127.1.2.3, LABELS: {app: frontend}}
extensions: [{name: istio.stats}, {name: other}]",
        )
        .expect("supported");
        let Role::Sidecar(sidecar) = &shape.role else { panic!("{:?}", shape.role) };
        assert_eq!(sidecar.own_address(), Some("127.1.2.3".parse().expect("address")));
        assert_eq!((sidecar.interception, sidecar.http_proxy_port), (Interception::None, Some(15002)));
        assert_eq!(shape.namespace, "shop");
        assert_eq!(shape.labels["app"], "frontend");
        assert_eq!(shape.extensions.len(), 1);
        assert!(shape.has_extension(ISTIO_STATS));
        assert!(!shape.has_sds && !shape.is_authenticated);
    }

    #[test]
    fn a_sidecar_of_a_pod() {
        let shape = shape(
            "id: sidecar~10.0.0.1~cart-0.shop~shop.svc.cluster.local
metadata: {INSTANCE_IPS: '10.0.0.1,fd00::1', DNS_CAPTURE: 'true', ENVOY_STATUS_PORT: 15021}",
        )
        .expect("supported");
        let Role::Sidecar(sidecar) = &shape.role else { panic!("{:?}", shape.role) };
        assert_eq!((sidecar.interception, sidecar.addresses.len()), (Interception::Redirect, 2));
        assert_eq!((sidecar.own_address(), sidecar.http_proxy_port), (None, None));
        assert!(sidecar.static_ports.contains(&15021) && !sidecar.is_unprivileged);
        assert!(shape.captures_dns);
    }

    #[test]
    fn a_gateway_without_bind_listens_everywhere() {
        let shape = shape("id: router~10.0.0.1~gw-0.infra~infra.svc.cluster.local").expect("supported");
        let edge = Edge {
            bind: Ipv4Addr::UNSPECIFIED.into(),
            addresses: vec![Ipv4Addr::new(10, 0, 0, 1).into()],
            is_behind_services: true,
            topology: None,
            is_unprivileged: false,
        };
        assert_eq!(shape.role, Role::Router(edge));
        assert_eq!(shape.namespace, "infra");
    }

    #[test]
    fn what_stands_before_a_gateway_is_in_its_configuration() {
        let topology = |config: &str| {
            let node = format!("id: router~10.0.0.1~gw-0.infra~x\nmetadata: {{PROXY_CONFIG: {config}}}");
            match shape(&node).expect("supported").role {
                Role::Router(edge) => edge.topology,
                other => panic!("no gateway: {other:?}"),
            }
        };
        assert_eq!(topology("text"), None);
        assert_eq!(topology("{}"), Some(GatewayTopology::default()));
        let said = "{gatewayTopology: {numTrustedProxies: 3, forwardClientCertDetails: SANITIZE, proxyProtocol: {}}}";
        let expected = GatewayTopology {
            trusted_proxies: 3,
            client_certificates: ForwardClientCertDetails::Sanitize,
            has_proxy_protocol: true,
        };
        assert_eq!(topology(said), Some(expected));
    }

    #[test]
    fn what_a_node_says_of_itself_is_kept_for_patches() {
        let of = |node: &str| shape(&format!("id: router~10.0.0.1~gw-0.infra~x\n{node}")).expect("supported");
        let node = "metadata: {NAME: gw-0, SEASON: winter, ISTIO_VERSION: 1.30.0}";
        let expected = [("ISTIO_VERSION", "1.30.0"), ("SEASON", "winter")];
        assert!(of(node).metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected));
        let lists = "extensions: [{name: a, type_urls: [type.googleapis.com/a.B]}]";
        assert!(of(lists).takes("a.B") && !of(lists).takes("a.C"));
        assert!(of(&format!("{lists}\nuser_agent_name: envoy")).takes("a.C") && of("").takes("a.C"));
    }

    #[test]
    fn a_program_asks_for_itself() {
        let node = "id: sidecar~127.1.2.3~client-0.shop~shop.svc.cluster.local\nmetadata: {GENERATOR: grpc}";
        let shape = shape(node).expect("supported");
        assert_eq!((shape.role, shape.namespace.as_str()), (Role::Proxyless, "shop"));
    }

    #[test]
    fn an_agent_serves_certificates() {
        let has_sds = |metadata| {
            shape(&format!("id: router~10.0.0.1~gw-0.infra~x\nmetadata: {metadata}"))
                .expect("supported")
                .has_sds
        };
        assert!(has_sds("{MELTEMI_SDS: 'true'}") && has_sds("{ISTIO_VERSION: 1.30.0}"));
        assert!(!has_sds("{}") && !has_sds("{MELTEMI_SDS: 'false'}"));
    }

    #[test]
    fn refuses_what_it_cannot_serve() {
        let field = |yaml| shape(yaml).expect_err("refused").field;
        assert_eq!(field("id: plain"), "id");
        assert_eq!(field("id: ztunnel~1.1.1.1~a.b~c"), "id");
        let mode = "id: sidecar~1.1.1.1~a.b~c\nmetadata: {INTERCEPTION_MODE: redirect}";
        assert_eq!(field(mode), "metadata.INTERCEPTION_MODE");
        let addresses = "id: sidecar~1.1.1.1~a.b~c\nmetadata: {INSTANCE_IPS: '10.0.0.1,x'}";
        assert_eq!(field(addresses), "metadata.INSTANCE_IPS");
        assert_eq!(
            field("id: sidecar~1.1.1.1~a.b~c\nmetadata: {INTERCEPTION_MODE: NONE, HTTP_PROXY_PORT: x}"),
            "metadata.HTTP_PROXY_PORT"
        );
        assert_eq!(
            field("id: router~1.1.1.1~a.b~c\nmetadata: {MELTEMI_GATEWAY_BIND: x}"),
            "metadata.MELTEMI_GATEWAY_BIND"
        );
    }
}
