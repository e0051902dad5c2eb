//! [`ProxySpec`] and [`Proxy`]: who is asked.

use std::collections::BTreeMap;

use meltemi_api::Kind as ObjectKind;
use meltemi_compile::EXTENSION_TYPES;
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;
use meltemi_envoy::config::core::v3::{Extension, Node};
use meltemi_envoy::config::endpoint::v3::ClusterLoadAssignment;
use meltemi_envoy::config::listener::v3::Listener;
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_snapshot::Snapshot;
use meltemi_translate::{ISTIO_STATS, METADATA_EXCHANGE, ProxyShape, Resource, Resources};
use prost_types::Struct;
use prost_types::value::Kind as Value;
use serde::Deserialize;

/// The address of a proxy that says none.
const ADDRESS: &str = "1.1.1.1";

/// A proxy, by what the control plane may know of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxySpec {
    /// Sidecar, gateway or waypoint.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Name of the workload; it decides nothing.
    pub name: String,
    /// Its namespace; empty is `default`.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses; none is `1.1.1.1`.
    pub ip_addresses: Vec<String>,
    /// Its cluster.
    pub cluster_id: String,
    /// Its network.
    pub network: String,
    /// `DNS_CAPTURE`: its names are resolved by its agent.
    pub dns_capture: bool,
    /// `DNS_AUTO_ALLOCATE`: services without an address get one.
    pub dns_auto_allocate: bool,
    /// `REDIRECT`, `TPROXY` or `NONE`; empty is `REDIRECT`.
    pub interception_mode: String,
    /// Its service account.
    pub service_account: String,
}

/// What a proxy is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Beside a workload.
    #[default]
    Sidecar,
    /// A gateway.
    Router,
    /// A waypoint of an ambient mesh.
    Waypoint,
}

impl ProxySpec {
    /// What translation may know of it, read from its node as the control plane reads it.
    pub(crate) fn shape(&self) -> Result<ProxyShape, String> {
        ProxyShape::from_node(&self.node()).map_err(|error| format!("proxy.{error}"))
    }

    fn node(&self) -> Node {
        let kind = match self.kind {
            Kind::Sidecar => "sidecar",
            Kind::Router => "router",
            Kind::Waypoint => "waypoint",
        };
        let or = |text: &str, default: &str| if text.is_empty() { default } else { text }.to_owned();
        let namespace = or(&self.namespace, "default");
        let name = or(&self.name, "app");
        let address = self.ip_addresses.first().map_or(ADDRESS, String::as_str);
        let extension = |name: &str| Extension { name: name.to_owned(), ..Default::default() };
        let urls = EXTENSION_TYPES.iter().map(|name| format!("type.googleapis.com/{name}"));
        let all = Extension { type_urls: urls.collect(), ..extension("meltemi") };
        Node {
            id: format!("{kind}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local"),
            metadata: Some(self.metadata(&namespace)),
            extensions: vec![extension(METADATA_EXCHANGE), extension(ISTIO_STATS), all],
            ..Default::default()
        }
    }

    fn metadata(&self, namespace: &str) -> Struct {
        let labels = self.labels.iter().map(|(key, value)| (key.clone(), text(value))).collect();
        let addresses =
            if self.ip_addresses.is_empty() { ADDRESS.to_owned() } else { self.ip_addresses.join(",") };
        let entries = [
            ("NAMESPACE", namespace),
            ("INSTANCE_IPS", &addresses),
            ("CLUSTER_ID", &self.cluster_id),
            ("NETWORK", &self.network),
            ("INTERCEPTION_MODE", &self.interception_mode),
            ("SERVICE_ACCOUNT", &self.service_account),
            ("DNS_CAPTURE", if self.dns_capture { "true" } else { "" }),
            ("DNS_AUTO_ALLOCATE", if self.dns_auto_allocate { "true" } else { "" }),
            ("MELTEMI_SDS", "true"),
        ];
        let said = entries.into_iter().filter(|(_, value)| !value.is_empty());
        let mut fields: BTreeMap<String, prost_types::Value> =
            said.map(|(key, value)| (key.to_owned(), text(value))).collect();
        fields.insert(
            "LABELS".to_owned(),
            prost_types::Value { kind: Some(Value::StructValue(Struct { fields: labels })) },
        );
        Struct { fields }
    }
}

fn text(value: &str) -> prost_types::Value {
    prost_types::Value { kind: Some(Value::StringValue(value.to_owned())) }
}

/// A proxy with its configuration.
#[derive(Debug)]
pub struct Proxy {
    /// Everything it was sent.
    pub resources: Resources,
    pub(crate) listeners: Vec<Listener>,
    /// The mesh it is in.
    snapshot: Snapshot,
}

impl Proxy {
    pub(crate) fn new(snapshot: Snapshot, resources: Resources) -> Proxy {
        let listeners = resources.listeners.iter().filter_map(|r| r.body.unpack().ok()).collect();
        Proxy { resources, listeners, snapshot }
    }

    pub(crate) fn cluster(&self, name: &str) -> Option<Cluster> {
        find(&self.resources.clusters, name)?.body.unpack().ok()
    }

    /// The endpoints of a cluster: discovered ones, else those within it.
    pub(crate) fn assignment(&self, cluster: &str) -> Option<ClusterLoadAssignment> {
        match find(&self.resources.endpoints, cluster) {
            Some(resource) => resource.body.unpack().ok(),
            None => self.cluster(cluster)?.load_assignment,
        }
    }

    /// Whether a cluster goes by the weights of localities.
    pub(crate) fn weighs_localities(&self, cluster: &str) -> bool {
        let config =
            self.cluster(cluster).and_then(|cluster| cluster.common_lb_config?.locality_config_specifier);
        matches!(config, Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)))
    }

    /// Whether a VirtualService says this host in full.
    pub(crate) fn is_written(&self, host: &str) -> bool {
        let mut objects =
            self.snapshot.objects().filter(|object| object.kind() == ObjectKind::VirtualService);
        objects.any(|object| object.spec.to_json().to_string().contains(host))
    }

    pub(crate) fn has_cluster(&self, name: &str) -> bool {
        find(&self.resources.clusters, name).is_some()
    }

    pub(crate) fn route_configuration(&self, name: &str) -> Option<RouteConfiguration> {
        find(&self.resources.routes, name)?.body.unpack().ok()
    }
}

fn find<'r>(list: &'r [std::sync::Arc<Resource>], name: &str) -> Option<&'r Resource> {
    list.iter().find(|resource| *resource.name == *name).map(|resource| &**resource)
}
