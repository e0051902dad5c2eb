//! From objects to services.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::kubernetes::InternalTrafficPolicy;
use meltemi_api::{Object, Spec, istio, kubernetes};

use super::address::{AutoAddresses, normal};
use super::{Registry, Resolution, Service, ServicePort, TargetPort, TrafficDistribution};
use crate::host::Host;
use crate::mesh_config::MeshConfig;
use crate::protocol::Protocol;
use crate::visibility::Visibility;

/// The annotation that holds `exportTo` of a Kubernetes Service, comma-separated.
const EXPORT_TO_ANNOTATION: &str = "networking.istio.io/exportTo";

/// The annotation that says `trafficDistribution` of a service or of all of a namespace.
const TRAFFIC_DISTRIBUTION_ANNOTATION: &str = "networking.istio.io/traffic-distribution";

/// Annotations with identities of the workloads behind a Kubernetes Service: whole ones, and service accounts.
const CANONICAL_ACCOUNTS_ANNOTATION: &str = "alpha.istio.io/canonical-serviceaccounts";
const KUBERNETES_ACCOUNTS_ANNOTATION: &str = "alpha.istio.io/kubernetes-serviceaccounts";

/// What is said elsewhere than in the object itself.
struct Surroundings<'a> {
    mesh: &'a MeshConfig,
    /// Namespaces with annotations.
    namespaces: BTreeMap<&'a str, &'a BTreeMap<String, String>>,
}

/// The services of all objects, in no particular order.
pub(super) fn services<'a>(
    objects: impl Iterator<Item = &'a Arc<Object>>,
    mesh: &MeshConfig,
) -> Vec<Service> {
    let mut defining = Vec::new();
    let mut namespaces = BTreeMap::new();
    for object in objects {
        match &object.spec {
            Spec::Namespace(_) => _ = namespaces.insert(&*object.id.name, &object.meta.annotations),
            Spec::Service(_) | Spec::ServiceEntry(_) => defining.push(object),
            _ => {}
        }
    }
    let surroundings = Surroundings { mesh, namespaces };
    defining.into_iter().flat_map(|object| surroundings.of_object(object)).collect()
}

impl Surroundings<'_> {
    fn of_object(&self, object: &Arc<Object>) -> Vec<Service> {
        match &object.spec {
            Spec::Service(spec) => vec![self.of_kubernetes(object, spec)],
            Spec::ServiceEntry(spec) => {
                spec.hosts.iter().map(|host| self.of_entry(object, spec, host)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn of_kubernetes(&self, object: &Arc<Object>, spec: &kubernetes::Service) -> Service {
        let annotation = object.meta.annotations.get(EXPORT_TO_ANNOTATION).map_or("", String::as_str);
        let exported: Vec<&str> =
            annotation.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        let external_name = match spec.service_type {
            Some(kubernetes::ServiceType::ExternalName) => spec.external_name.as_deref().map(Host::new),
            _ => None,
        };
        let is_headless = spec.cluster_ip.as_deref() == Some("None");
        Service {
            host: Host::service(&object.id.name, &object.id.namespace),
            namespace: Arc::clone(&object.id.namespace),
            name: Arc::clone(&object.id.name),
            ports: spec.ports.iter().filter_map(kubernetes_port).collect(),
            addresses: cluster_ips(spec),
            auto_addresses: AutoAddresses::default(),
            external_addresses: external_addresses(object, spec),
            resolution: match &external_name {
                Some(_) => Resolution::Alias,
                None if is_headless => Resolution::Passthrough,
                None => Resolution::Static,
            },
            registry: Registry::Kubernetes,
            external: external_name.is_some(),
            selector: spec.selector.clone(),
            external_name,
            aliases: Default::default(),
            traffic_distribution: self.traffic_distribution(object, spec.traffic_distribution),
            is_node_local: spec.internal_traffic_policy == Some(InternalTrafficPolicy::Local),
            subject_alt_names: self.accounts(object),
            export_to: self.export_to(&exported, object),
            object: Arc::clone(object),
        }
    }

    fn of_entry(&self, object: &Arc<Object>, spec: &istio::ServiceEntry, host: &str) -> Service {
        let host = Host::new(host);
        let exported: Vec<&str> = spec.export_to.iter().map(String::as_str).collect();
        let selector = spec.workload_selector.as_ref();
        Service {
            namespace: Arc::clone(&object.id.namespace),
            name: host.as_str().into(),
            ports: spec.ports.iter().filter_map(entry_port).collect(),
            addresses: spec.addresses.iter().map(|address| normal(address)).collect(),
            auto_addresses: AutoAddresses::of_status(object, spec, host.as_str()),
            external_addresses: Vec::new(),
            resolution: match spec.resolution.unwrap_or_default() {
                istio::Resolution::Static => Resolution::Static,
                istio::Resolution::Dns => Resolution::Dns,
                istio::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
                istio::Resolution::DynamicDns => Resolution::DynamicDns,
                istio::Resolution::None => Resolution::Passthrough,
            },
            registry: Registry::External,
            external: spec.location.unwrap_or_default() == istio::Location::MeshExternal,
            selector: selector.map(|selector| selector.labels.clone()).unwrap_or_default(),
            external_name: None,
            aliases: Default::default(),
            traffic_distribution: self.traffic_distribution(object, None),
            is_node_local: false,
            subject_alt_names: spec.subject_alt_names.clone(),
            export_to: self.export_to(&exported, object),
            object: Arc::clone(object),
            host,
        }
    }

    fn export_to(&self, said: &[&str], object: &Object) -> Visibility {
        match said {
            [] => Visibility::parse(&self.mesh.default_service_export_to, &object.id.namespace),
            some => Visibility::parse(some, &object.id.namespace),
        }
    }

    /// The field, else the annotation of the object, else that of its namespace.
    fn traffic_distribution(
        &self,
        object: &Object,
        field: Option<kubernetes::TrafficDistribution>,
    ) -> TrafficDistribution {
        use kubernetes::TrafficDistribution as Field;
        match field {
            Some(Field::PreferSameZone | Field::PreferClose) => return TrafficDistribution::PreferSameZone,
            Some(Field::PreferSameNode) => return TrafficDistribution::PreferSameNode,
            None => {}
        }
        let of = |annotations: &BTreeMap<String, String>| {
            let word = annotations.get(TRAFFIC_DISTRIBUTION_ANNOTATION)?.to_ascii_lowercase();
            match word.as_str() {
                "" => None,
                "prefersamezone" | "preferclose" => Some(TrafficDistribution::PreferSameZone),
                "prefersamenode" => Some(TrafficDistribution::PreferSameNode),
                _ => Some(TrafficDistribution::Any),
            }
        };
        let namespace = self.namespaces.get(&*object.id.namespace);
        of(&object.meta.annotations).or_else(|| of(namespace?)).unwrap_or_default()
    }

    fn accounts(&self, object: &Object) -> Vec<String> {
        let list = |key| object.meta.annotations.get(key).map_or("", String::as_str).split(',');
        let words = |key| list(key).map(str::trim).filter(|word| !word.is_empty());
        let whole = words(CANONICAL_ACCOUNTS_ANNOTATION).map(str::to_owned);
        let domain = &self.mesh.trust_domain;
        let named = words(KUBERNETES_ACCOUNTS_ANNOTATION)
            .map(|account| format!("spiffe://{domain}/ns/{}/sa/{account}", object.id.namespace));
        whole.chain(named).collect()
    }
}

fn cluster_ips(spec: &kubernetes::Service) -> Vec<String> {
    let all: Vec<&String> = match spec.cluster_ips.len() {
        0 | 1 => spec.cluster_ip.iter().collect(),
        _ => spec.cluster_ips.iter().collect(),
    };
    all.into_iter().filter(|ip| !ip.is_empty() && *ip != "None").cloned().collect()
}

fn external_addresses(object: &Object, spec: &kubernetes::Service) -> Vec<String> {
    let balancer = object.status.load_balancer.iter().flat_map(|status| &status.ingress);
    let given = balancer.filter_map(|ingress| ingress.ip.as_ref().or(ingress.hostname.as_ref()));
    spec.external_ips.iter().chain(given).cloned().collect()
}

fn kubernetes_port(port: &kubernetes::ServicePort) -> Option<ServicePort> {
    let number = u16::try_from(port.port).ok()?;
    let target = match &port.target_port {
        None => TargetPort::Default(number),
        Some(kubernetes::PortRef::Number(target)) => TargetPort::Number(u16::try_from(*target).ok()?),
        Some(kubernetes::PortRef::Name(name)) => TargetPort::Named(name.clone()),
    };
    let protocol = Protocol::of_service_port(
        port.protocol.as_deref(),
        port.app_protocol.as_deref(),
        port.name.as_deref(),
        number,
    );
    Some(ServicePort { number, name: port.name.clone().unwrap_or_default(), protocol, target })
}

/// The name of such a port says nothing of its protocol.
fn entry_port(port: &istio::ServicePort) -> Option<ServicePort> {
    let number = u16::try_from(port.number).ok()?;
    let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or_default());
    let target = match port.target_port {
        Some(target) if target != 0 => TargetPort::Number(u16::try_from(target).ok()?),
        _ => TargetPort::Default(number),
    };
    Some(ServicePort { number, name: port.name.clone(), protocol, target })
}
