//! Routes, rules, gateways and sidecars: objects with their names resolved and their rank decided.
//!
//! Source: Istio `pilot/pkg/model/push_context.go` (indexes).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use meltemi_api::{Object, Spec, istio};

use crate::destination_rule::DestinationRules;
use crate::envoy_filter::EnvoyFilters;
use crate::host::Host;
use crate::mesh_config::MeshConfig;
use crate::peer_authentication::PeerAuthentications;
use crate::protocol::Protocol;
use crate::route::{self, Delegates, Rules};
use crate::visibility::Visibility;

/// The name that stands for all sidecars in `gateways`.
const MESH: &str = "mesh";

/// Where two objects compete, Istio takes the older one: by creation time, objects without one last, then by
/// name and namespace.
pub fn oldest_first(a: &Object, b: &Object) -> Ordering {
    let rank = |o: &Object| {
        let created = o.meta.created_unix_seconds;
        (created.is_none(), created, Arc::clone(&o.id.name), Arc::clone(&o.id.namespace))
    };
    rank(a).cmp(&rank(b))
}

/// Whether `labels` hold everything that `selector` asks for.
pub fn labels_match(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The configuration objects of the mesh, each list oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// VirtualServices.
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// DestinationRules, those of the same host merged.
    pub destination_rules: DestinationRules,
    /// Gateways by name.
    pub gateways: BTreeMap<GatewayName, Arc<Gateway>>,
    /// Sidecars.
    pub sidecars: Vec<Arc<Sidecar>>,
    /// What holds for the whole mesh.
    pub mesh: MeshConfig,
    /// PeerAuthentications.
    pub peer_authentications: PeerAuthentications,
    /// EnvoyFilters.
    pub envoy_filters: EnvoyFilters,
}

/// A VirtualService with its references resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualService {
    /// `hosts`, resolved in the namespace of the object.
    pub hosts: Vec<Host>,
    /// `gateways`; [`GatewayName::mesh`] when the object names none.
    pub gateways: Vec<GatewayName>,
    /// `exportTo`.
    pub export_to: Visibility,
    /// Its routes, those of its delegates among them.
    pub rules: Rules,
    /// The object.
    pub object: Arc<Object>,
}

/// The name of a Gateway, or of all sidecars.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayName {
    /// Namespace; empty for the mesh.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// A Gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// Its name.
    pub name: GatewayName,
    /// The object.
    pub object: Arc<Object>,
}

/// A Sidecar.
#[derive(Debug, Clone, PartialEq)]
pub struct Sidecar {
    /// The object.
    pub object: Arc<Object>,
}

impl Config {
    pub(crate) fn build<'a>(objects: impl Iterator<Item = &'a Arc<Object>>, mesh: MeshConfig) -> Config {
        let mut objects: Vec<&Arc<Object>> = objects.collect();
        objects.sort_by(|a, b| oldest_first(a, b));
        let delegates = delegates(objects.iter().copied(), &mesh);
        let peer_authentications = PeerAuthentications::new(Arc::clone(&mesh.root_namespace));
        let mut config = Config { mesh, peer_authentications, ..Config::default() };
        for object in objects {
            config.add(object, &delegates);
        }
        config
    }

    fn add(&mut self, object: &Arc<Object>, delegates: &Delegates<'_>) {
        match &object.spec {
            // Without hosts it is in force only where another one delegates to it.
            Spec::VirtualService(spec) if !spec.hosts.is_empty() => {
                let built = VirtualService::new(object, spec, &self.mesh, delegates);
                self.virtual_services.push(Arc::new(built));
            }
            Spec::DestinationRule(spec) => self.destination_rules.add(object, spec, &self.mesh),
            Spec::Gateway(_) => {
                let name = GatewayName {
                    namespace: Arc::clone(&object.id.namespace),
                    name: Arc::clone(&object.id.name),
                };
                let gateway = Gateway { name: name.clone(), object: Arc::clone(object) };
                self.gateways.insert(name, Arc::new(gateway));
            }
            Spec::EnvoyFilter(_) => self.envoy_filters.add(object),
            Spec::PeerAuthentication(_) => self.peer_authentications.add(object),
            Spec::Sidecar(_) => self.sidecars.push(Arc::new(Sidecar { object: Arc::clone(object) })),
            _ => {}
        }
    }
}

/// The VirtualServices without hosts.
pub(crate) fn delegates<'a>(
    objects: impl Iterator<Item = &'a Arc<Object>>,
    mesh: &MeshConfig,
) -> Delegates<'a> {
    Delegates::of(objects, |spec, namespace| export_to(spec, namespace, mesh))
}

/// What the object says, else the mesh.
fn export_to(spec: &istio::VirtualService, namespace: &str, mesh: &MeshConfig) -> Visibility {
    let said = if spec.export_to.is_empty() { &mesh.virtual_service_export_to } else { &spec.export_to };
    Visibility::parse(said, namespace)
}

impl VirtualService {
    pub(crate) fn new(
        object: &Arc<Object>,
        spec: &istio::VirtualService,
        mesh: &MeshConfig,
        delegates: &Delegates<'_>,
    ) -> VirtualService {
        let namespace = &object.id.namespace;
        VirtualService {
            hosts: spec.hosts.iter().map(|h| Host::resolve(h, namespace)).collect(),
            gateways: GatewayName::resolve_all(&spec.gateways, namespace),
            export_to: export_to(spec, namespace, mesh),
            rules: route::lower(object, spec, delegates),
            object: Arc::clone(object),
        }
    }

    /// What the user wrote.
    pub fn spec(&self) -> &istio::VirtualService {
        match &self.object.spec {
            Spec::VirtualService(spec) => spec,
            _ => unreachable!("invariant: only built from a VirtualService"),
        }
    }

    /// The namespace of the object.
    pub fn namespace(&self) -> &Arc<str> {
        &self.object.id.namespace
    }

    /// Whether the object's `gateways` name this one.
    pub fn is_bound_to(&self, gateway: &GatewayName) -> bool {
        self.gateways.contains(gateway)
    }
}

impl GatewayName {
    /// All sidecars.
    pub fn mesh() -> GatewayName {
        GatewayName { namespace: "".into(), name: MESH.into() }
    }

    /// What `name` or `namespace/name` means in an object of `namespace`.
    pub fn resolve(name: &str, namespace: &str) -> GatewayName {
        match name.split_once('/') {
            _ if name == MESH => GatewayName::mesh(),
            Some((".", name)) => GatewayName { namespace: namespace.into(), name: name.into() },
            Some((namespace, name)) => GatewayName { namespace: namespace.into(), name: name.into() },
            None => GatewayName { namespace: namespace.into(), name: name.into() },
        }
    }

    /// The `gateways` list of an object or of a match, the mesh when it is empty.
    pub fn resolve_all(names: &[String], namespace: &str) -> Vec<GatewayName> {
        if names.is_empty() {
            return vec![GatewayName::mesh()];
        }
        names.iter().map(|n| GatewayName::resolve(n, namespace)).collect()
    }

    /// Whether it stands for all sidecars.
    pub fn is_mesh(&self) -> bool {
        self.namespace.is_empty() && &*self.name == MESH
    }
}

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_mesh() {
            true => f.write_str(MESH),
            false => write!(f, "{}/{}", self.namespace, self.name),
        }
    }
}

/// What a server of a Gateway makes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// Requests without encryption.
    Http,
    /// Bytes without encryption.
    Tcp,
    /// TLS is terminated, and there are requests in it.
    Https,
    /// TLS is terminated, and there are bytes in it.
    Tls,
    /// TLS goes on as it came, by its server name.
    TlsPassthrough,
}

impl ServerKind {
    /// Whether connections begin with TLS, so that servers of one port are told apart by server name.
    pub fn is_encrypted(self) -> bool {
        matches!(self, ServerKind::Https | ServerKind::Tls | ServerKind::TlsPassthrough)
    }

    /// Whether two servers may share a port.
    pub fn shares_port_with(self, other: ServerKind) -> bool {
        self == other || self.is_encrypted() && other.is_encrypted()
    }
}

impl Gateway {
    /// What a server makes of a connection.
    pub fn kind(server: &istio::Server) -> ServerKind {
        let protocol = Protocol::parse(&server.port.protocol);
        match &server.tls {
            Some(tls) if protocol.is_tls() && tls.mode().is_passthrough() => ServerKind::TlsPassthrough,
            Some(_) if protocol == Protocol::Https => ServerKind::Https,
            Some(_) if protocol.is_tls() => ServerKind::Tls,
            _ if protocol.is_http() => ServerKind::Http,
            _ => ServerKind::Tcp,
        }
    }

    /// What the user wrote.
    pub fn spec(&self) -> &istio::Gateway {
        match &self.object.spec {
            Spec::Gateway(spec) => spec,
            _ => unreachable!("invariant: only built from a Gateway"),
        }
    }
}

/// A host of a Gateway server: `namespace/host`, where the namespace limits whose VirtualServices may claim it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerHost {
    /// `None` for any namespace.
    pub namespace: Option<String>,
    /// The host.
    pub host: Host,
}

impl ServerHost {
    /// Reads an entry of `hosts` of a Gateway in `namespace`.
    pub fn parse(text: &str, namespace: &str) -> ServerHost {
        let (scope, host) = text.split_once('/').unwrap_or(("*", text));
        let scope = match scope {
            "*" => None,
            "." => Some(namespace.to_owned()),
            name => Some(name.to_owned()),
        };
        ServerHost { namespace: scope, host: Host::new(host) }
    }

    /// The host that a VirtualService of `namespace` gets when it asks for `wanted`: the more specific of the two.
    pub fn admit(&self, namespace: &str, wanted: &Host) -> Option<Host> {
        if self.namespace.as_deref().is_some_and(|n| n != namespace) {
            return None;
        }
        if self.host.covers(wanted) {
            return Some(wanted.clone());
        }
        wanted.covers(&self.host).then(|| self.host.clone())
    }
}

impl Sidecar {
    /// What the user wrote.
    pub fn spec(&self) -> &istio::Sidecar {
        match &self.object.spec {
            Spec::Sidecar(spec) => spec,
            _ => unreachable!("invariant: only built from a Sidecar"),
        }
    }

    /// The labels that workloads must have; `None` for all of the namespace.
    pub fn selector(&self) -> Option<&BTreeMap<String, String>> {
        let labels = &self.spec().workload_selector.as_ref()?.labels;
        (!labels.is_empty()).then_some(labels)
    }

    /// Limits of the connections to the workload on a port of it: those of the port, else of all ports.
    pub fn inbound_connection_pool(&self, port: u16) -> Option<&istio::ConnectionPoolSettings> {
        let spec = self.spec();
        let mut entries = spec.ingress.iter().filter(|entry| entry.port.number == u32::from(port));
        let of_port = entries.find_map(|entry| entry.connection_pool.as_ref());
        of_port.or(spec.inbound_connection_pool.as_ref())
    }
}
