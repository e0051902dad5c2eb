//! Clusters that lead to the workload of a sidecar: `inbound|PORT||`, and `InboundPassthroughCluster` for ports that nobody
//! has declared. Leaves out which ports there are (`listener/inbound/ports.rs`).
//!
//! Source: Istio `pilot/pkg/networking/core/cluster_builder.go` (`buildInboundCluster`, `buildInboundPassthroughCluster`).
//! Differs: the source address is bound only where connections are redirected; nothing loops elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use meltemi_api::istio::ConnectionPoolSettings;
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::cluster::v3::cluster::DiscoveryType;
use meltemi_envoy::config::core::v3::{
    Address, BindConfig, ExtraSourceAddress, SocketAddress, address, socket_address::PortSpecifier,
};
use meltemi_envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use meltemi_snapshot::{Policy, Protocol, Service, ServicePort};

use super::{Names, base, passthrough_of, policy, services_metadata};
use crate::context::Context;
use crate::endpoint::address_endpoint;
use crate::message::{config_path, text};
use crate::names;

/// Sources of the proxy's own connections to the workload. Those of its rules that redirect connections leave them alone.
const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// The longest time that Istio can say; hosts of a workload's own cluster do not come and go.
const FOR_EVER: prost_types::Duration = prost_types::Duration { seconds: 9_223_372_035, nanos: 0 };

/// A port of the workload.
pub(crate) struct Inbound<'a> {
    /// In the name of the cluster.
    pub(crate) port: u16,
    /// The service ports that lead to it; the first one decides.
    pub(crate) services: Vec<(&'a Service, &'a ServicePort)>,
    /// What is spoken on it.
    pub(crate) protocol: Protocol,
    /// Where the workload listens; `None` for where the connection was meant to go.
    pub(crate) application: Option<Address>,
    /// What its Sidecar says of it.
    pub(crate) pool: Option<&'a ConnectionPoolSettings>,
    /// The addresses of the proxy, if connections are redirected to it.
    pub(crate) redirected: Option<&'a [IpAddr]>,
}

impl Inbound<'_> {
    /// The cluster.
    pub(crate) fn build(&self, context: &Context<'_>) -> Cluster {
        let name = names::inbound(self.port);
        let mesh = &context.snapshot.config.mesh;
        let discovery = match self.application {
            Some(_) => DiscoveryType::Static,
            None => DiscoveryType::OriginalDst,
        };
        let mut cluster = base(mesh, &name, discovery);
        match &self.application {
            Some(address) => cluster.load_assignment = Some(only(&name, address.clone())),
            None => cluster.cleanup_interval = Some(FOR_EVER),
        }
        cluster.upstream_bind_config = self.source();
        self.describe(context, &mut cluster);
        let rule = self.services.first().and_then(|(service, _)| context.scope.inbound_rule(service));
        let number = self.services.first().map_or(self.port, |(_, port)| port.number);
        let mut in_force = Policy::in_mesh(mesh, rule.map(|rule| &**rule), None, number);
        in_force.connection_pool = self.pool.or(in_force.connection_pool);
        let connection = policy::Connection {
            mesh,
            protocol: self.protocol,
            is_gateway: false,
            is_inbound: true,
            preserves_case: context.preserves_case(),
            tls: None,
        };
        policy::connections(&in_force, &connection, &mut cluster);
        cluster
    }

    /// Programs on the loopback address are never reached by redirection.
    fn source(&self) -> Option<BindConfig> {
        let is_local = |address: &Address| match &address.address {
            Some(address::Address::SocketAddress(socket)) => {
                matches!(socket.address.as_str(), "127.0.0.1" | "::1")
            }
            _ => false,
        };
        let addresses = self.redirected.filter(|_| !self.application.as_ref().is_some_and(is_local))?;
        Some(source(addresses, false))
    }

    /// Says whom the cluster stands for.
    fn describe(&self, context: &Context<'_>, cluster: &mut Cluster) {
        let Some((service, port)) = self.services.first() else { return };
        let on_port = self.services.iter().filter(|(_, other)| other.number == port.number);
        let mut services: Vec<&Service> = Vec::new();
        for (service, _) in on_port {
            if !services.iter().any(|known| known.host == service.host) {
                services.push(service);
            }
        }
        if !service.external {
            cluster.metadata = Some(services_metadata(services));
        }
        let rule = context.scope.inbound_rule(service).filter(|rule| rule.traffic_policy().is_some());
        if let (Some(object), Some(metadata)) =
            (rule.and_then(|rule| rule.objects.first()), cluster.metadata.as_mut())
        {
            let config = text(config_path(object));
            metadata.filter_metadata.values_mut().for_each(|istio| {
                istio.fields.insert("config".to_owned(), config.clone());
            });
        }
        let pattern =
            context.snapshot.config.mesh.wire().and_then(|w| w.inbound_cluster_stat_name.as_deref());
        let names = Names { service, port, subset: "", target: self.port };
        cluster.alt_stat_name = pattern.map_or_else(String::new, |pattern| names.fill(pattern));
    }
}

/// Where connections go that were redirected on their way to a port that nobody has declared.
pub(crate) fn passthrough(context: &Context<'_>, addresses: &[IpAddr]) -> Cluster {
    let mut cluster = passthrough_of(context, names::INBOUND_PASSTHROUGH_CLUSTER);
    cluster.upstream_bind_config = Some(source(addresses, true));
    cluster
}

/// Of the proxy's families; the second only where a connection may be of either.
fn source(addresses: &[IpAddr], of_both: bool) -> BindConfig {
    let has_v4 = addresses.is_empty() || addresses.iter().any(IpAddr::is_ipv4);
    let has_v6 = addresses.iter().any(IpAddr::is_ipv6);
    let first: IpAddr = if has_v4 { SOURCE_V4.into() } else { SOURCE_V6.into() };
    let extra = ExtraSourceAddress { address: Some(any_port(SOURCE_V6.into())), ..Default::default() };
    BindConfig {
        source_address: Some(any_port(first)),
        extra_source_addresses: if of_both && has_v4 && has_v6 { vec![extra] } else { Vec::new() },
        ..Default::default()
    }
}

fn any_port(address: IpAddr) -> SocketAddress {
    SocketAddress {
        address: address.to_string(),
        port_specifier: Some(PortSpecifier::PortValue(0)),
        ..Default::default()
    }
}

fn only(cluster: &str, address: Address) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![address_endpoint(address)],
            ..Default::default()
        }],
        ..Default::default()
    }
}
