//! Inbound listeners: the one that connections are redirected to, with chains for each port of the workload and for what
//! nobody declares, and those of `Sidecar.ingress` with a port of their own.
//!
//! Source: Istio `pilot/pkg/networking/core/listener_inbound.go`.

mod cluster;
mod inspectors;
mod ports;

use meltemi_envoy::Any;
use meltemi_envoy::config::core::v3::{Metadata, TrafficDirection};
use meltemi_envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use meltemi_envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use meltemi_snapshot::{MtlsMode, Protocol};

use crate::cluster::Built as BuiltCluster;
use crate::connection_manager::{Http, Place, Routes, tcp_filters};
use crate::context::Context;
use crate::listener::address::Families;
use crate::listener::chain::{self, Chain};
use crate::listener::inbound::ports::Port;
use crate::listener::{ACCEPTS_PER_EVENT, Built, INBOUND_PORT, additional, bound};
use crate::message::{UNLIMITED, config_metadata};
use crate::names::{self, BLACK_HOLE_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER};
use crate::route;
use crate::shape::{Interception, SidecarShape};
use crate::tls::downstream::{of_mesh, of_server};
use crate::tls::transport_socket;

const NAME: &str = "virtualInbound";
const CATCH_ALL_HTTP_CHAIN: &str = "virtualInbound-catchall-http";
const BLACK_HOLE_CHAIN: &str = "virtualInbound-blackhole";

/// What comes into a sidecar.
pub(crate) struct Inbound {
    pub(crate) listeners: Vec<Built>,
    pub(crate) clusters: Vec<BuiltCluster>,
}

/// The listeners and clusters of one proxy's inbound side.
pub(crate) fn build(context: &Context<'_>, sidecar: &SidecarShape) -> Inbound {
    let builder = Builder { context, sidecar, families: Families::of(sidecar) };
    let ports = ports::of_workload(context, sidecar);
    let mut clusters: Vec<BuiltCluster> =
        ports.iter().filter_map(|port| cluster::of_port(context, sidecar, port)).collect();
    let mut listeners = Vec::new();
    let mut shared = Vec::new();
    for port in &ports {
        let chains = builder.chains(port);
        if !port.is_real {
            shared.extend(chains);
        } else if !chains.is_empty() {
            listeners
                .push(Built { listener: builder.of_one_port(port, chains), origin: port.origin.clone() });
        }
    }
    if sidecar.own_address().is_none() {
        clusters.push(cluster::passthrough(context, sidecar));
    }
    if sidecar.interception != Interception::None {
        listeners.push(Built { listener: builder.of_all_ports(&ports, shared), origin: None });
    }
    Inbound { listeners, clusters }
}

struct Builder<'a> {
    context: &'a Context<'a>,
    sidecar: &'a SidecarShape,
    families: Families,
}

/// Where the connections of a chain go, and what they are called.
struct Target<'a> {
    /// The port that they came to; 0 for all that are not declared.
    number: u16,
    cluster: &'a str,
    /// Name of the chain for requests, and of the one for bytes.
    names: [&'a str; 2],
    stat_prefix: String,
    /// The port in the name of the virtual host.
    service_port: u16,
    operation: String,
    /// The object that asked for it.
    metadata: Option<Metadata>,
}

impl Builder<'_> {
    /// None where mutual TLS is demanded and the proxy has no certificate for it: then nobody is let in.
    fn chains(&self, port: &Port<'_>) -> Vec<FilterChain> {
        let name = names::listener(port.bind.first().map_or("", String::as_str), port.number);
        let cluster = names::inbound(port.number);
        let target = Target {
            number: port.number,
            cluster: &cluster,
            names: [&name, &name],
            stat_prefix: format!("inbound_{name};"),
            service_port: port.service_port,
            operation: port.operation.clone(),
            metadata: port.entry_of.map(config_metadata),
        };
        let mode = self.mode(port.number);
        if let Some(tls) =
            port.tls.filter(|_| mode != Some(MtlsMode::Strict) && self.lets_in(port) == MtlsMode::Disable)
        {
            let chain = chain::of_user_tls(port.protocol.is_http());
            return vec![self.chain(&target, chain, Some(of_server(self.context, tls, chain.is_http)))];
        }
        self.of_mode(&target, mode, port.protocol)
    }

    /// Without a certificate TLS cannot be terminated.
    fn lets_in(&self, port: &Port<'_>) -> MtlsMode {
        match self.context.identity() {
            Some(_) => self.policy(port.number),
            None => MtlsMode::Disable,
        }
    }

    fn policy(&self, port: u16) -> MtlsMode {
        let shape = self.context.shape;
        self.context.snapshot.config.peer_authentications.let_in(&shape.namespace, &shape.labels, port)
    }

    /// What is let in on a port; `None` for nothing, since mutual TLS cannot be spoken without a certificate.
    fn mode(&self, port: u16) -> Option<MtlsMode> {
        match (self.context.identity(), self.policy(port)) {
            (Some(_), mode) => Some(mode),
            (None, MtlsMode::Strict) => None,
            (None, _) => Some(MtlsMode::Disable),
        }
    }

    fn of_mode(&self, target: &Target<'_>, mode: Option<MtlsMode>, protocol: Protocol) -> Vec<FilterChain> {
        let Some(mode) = mode else { return Vec::new() };
        let wanted = &self.context.snapshot.config.mesh.mesh_mtls;
        let shape = self.context.shape;
        let chains = chain::of_port(mode, protocol).into_iter();
        let context = |chain: &Chain| {
            let identity = self.context.identity().filter(|_| chain.is_mutual)?;
            Some(of_mesh((shape, identity), wanted, chain.is_http))
        };
        chains.map(|chain| self.chain(target, chain, context(&chain))).collect()
    }

    fn chain(&self, target: &Target<'_>, chain: Chain, tls: Option<Any>) -> FilterChain {
        let [http, tcp] = target.names;
        FilterChain {
            name: if chain.is_http { http } else { tcp }.to_owned(),
            filter_chain_match: Some(chain.filter_chain_match(target.number)),
            filters: if chain.is_http { self.http(target) } else { self.tcp(target.cluster) },
            transport_socket: tls.map(transport_socket),
            metadata: target.metadata.clone(),
            ..Default::default()
        }
    }

    fn tcp(&self, cluster: &str) -> Vec<Filter> {
        let proxy = TcpProxy {
            stat_prefix: cluster.to_owned(),
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
            ..Default::default()
        };
        tcp_filters((self.context.shape, self.context.options), proxy, true)
    }

    fn http(&self, target: &Target<'_>) -> Vec<Filter> {
        let http = Http {
            shape: self.context.shape,
            options: self.context.options,
            stat_prefix: target.stat_prefix.clone(),
            routes: Routes::Inline(Box::new(routes(target))),
            place: Place::Inbound { has_identity: self.context.identity().is_some() },
        };
        http.filters()
    }

    /// A listener that callers connect to. Connections that say nothing for too long go on as plaintext, so that servers
    /// which speak first can be reached where plaintext is let in.
    ///
    /// Differs: Istio waits for ever (`protocolDetectionTimeout: 0s`), Envoy's own limit is 15 s.
    fn of_one_port(&self, port: &Port<'_>, chains: Vec<FilterChain>) -> Listener {
        let name = names::listener(port.bind.first().map_or("", String::as_str), port.number);
        let is_as_in_istio = self.sidecar.own_address().is_none();
        Listener {
            listener_filters_timeout: is_as_in_istio.then_some(UNLIMITED),
            max_connections_to_accept_per_socket_event: is_as_in_istio.then_some(ACCEPTS_PER_EVENT),
            ..self.listener(name, &port.bind, port.number, chains)
        }
    }

    /// The listener that connections are redirected to.
    fn of_all_ports(&self, ports: &[Port<'_>], declared: Vec<FilterChain>) -> Listener {
        let mut chains = vec![self.black_hole(INBOUND_PORT)];
        chains.extend(self.undeclared(ports));
        chains.extend(declared);
        let wildcards = self.families.wildcards();
        let mut listener = self.listener(NAME.to_owned(), &wildcards, INBOUND_PORT, chains);
        let is_transparent = self.sidecar.interception == Interception::Tproxy;
        let mut filters = inspectors::of_redirect(self.context.shape, is_transparent);
        filters.append(&mut listener.listener_filters);
        listener.listener_filters = filters;
        listener.listener_filters_timeout = Some(UNLIMITED);
        listener.transparent = is_transparent.then_some(true);
        listener.max_connections_to_accept_per_socket_event = Some(ACCEPTS_PER_EVENT);
        listener
    }

    fn listener(&self, name: String, addresses: &[String], port: u16, chains: Vec<FilterChain>) -> Listener {
        Listener {
            name,
            address: bound(addresses.first().map_or("", String::as_str), port),
            additional_addresses: additional(addresses, port),
            traffic_direction: TrafficDirection::Inbound as i32,
            continue_on_listener_filters_timeout: true,
            listener_filters: inspectors::of_chains(&chains),
            filter_chains: chains,
            ..Default::default()
        }
    }

    /// What comes to ports that nobody declares goes on to where it was meant to, if it may; ports that only a policy knows
    /// have chains of their own, so that its mode holds.
    fn undeclared(&self, ports: &[Port<'_>]) -> Vec<FilterChain> {
        let shape = self.context.shape;
        let policies = &self.context.snapshot.config.peer_authentications;
        let policy = policies.of_workload(&shape.namespace, &shape.labels);
        let is_declared = |number: &u16| ports.iter().any(|port| port.number == *number);
        let own = policy.ports().into_iter().filter(|number| !is_declared(number));
        let mut chains = Vec::new();
        for number in std::iter::once(0).chain(own) {
            let target = Target {
                number,
                cluster: INBOUND_PASSTHROUGH_CLUSTER,
                names: [CATCH_ALL_HTTP_CHAIN, NAME],
                stat_prefix: format!("{INBOUND_PASSTHROUGH_CLUSTER};"),
                service_port: 0,
                operation: ":0/*".to_owned(),
                metadata: None,
            };
            let built = self.of_mode(&target, self.mode(number), Protocol::Unsupported);
            chains.extend(self.closed_if_empty(number, built));
        }
        let closed = ports.iter().filter(|port| !port.is_real && self.mode(port.number).is_none());
        chains.extend(closed.map(|port| self.black_hole(port.number)));
        chains
    }

    /// A port that lets nobody in must not fall to the chains of all ports.
    fn closed_if_empty(&self, number: u16, chains: Vec<FilterChain>) -> Vec<FilterChain> {
        if chains.is_empty() && number > 0 { vec![self.black_hole(number)] } else { chains }
    }

    fn black_hole(&self, port: u16) -> FilterChain {
        FilterChain {
            name: BLACK_HOLE_CHAIN.to_owned(),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: Some(port.into()),
                ..Default::default()
            }),
            filters: self.tcp(BLACK_HOLE_CLUSTER),
            ..Default::default()
        }
    }
}

fn routes(target: &Target<'_>) -> RouteConfiguration {
    let host = VirtualHost {
        name: format!("inbound|http|{}", target.service_port),
        domains: vec!["*".to_owned()],
        routes: vec![route::default_inbound(target.cluster, target.operation.clone())],
        ..Default::default()
    };
    RouteConfiguration {
        name: target.cluster.to_owned(),
        virtual_hosts: vec![host],
        validate_clusters: Some(false),
        ..Default::default()
    }
}
