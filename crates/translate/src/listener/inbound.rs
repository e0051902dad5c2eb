//! Inbound listeners and clusters from `Sidecar.ingress`.

use std::net::IpAddr;

use meltemi_api::Spec;
use meltemi_api::istio::{IstioIngressListener, ServerTlsSettings};
use meltemi_envoy::Any;
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::cluster::v3::cluster::DiscoveryType;
use meltemi_envoy::config::core::v3::{Address, TrafficDirection};
use meltemi_envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use meltemi_envoy::config::listener::v3::{Filter, FilterChain, Listener};
use meltemi_envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use meltemi_envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use meltemi_snapshot::{MtlsMode, Protocol, Service, ServicePort, Sidecar, TargetPort, labels_match};

use crate::cluster::{self, Upstream};
use crate::connection_manager::{Http, Place, Routes, Tcp};
use crate::context::{Context, origin};
use crate::endpoint::{address_endpoint, pipe};
use crate::listener::chain::{self, Chain};
use crate::listener::{Built, listener};
use crate::message::socket;
use crate::names;
use crate::route;
use crate::tls::downstream::{of_mesh, of_server};
use crate::tls::transport_socket;

/// The listeners and clusters of one proxy's ingress.
pub(crate) fn build(context: &Context<'_>, address: IpAddr) -> Vec<(Option<Built>, cluster::Built)> {
    let Some(sidecar) = context.scope.sidecar() else { return Vec::new() };
    let entries = sidecar.spec().ingress.iter().enumerate();
    entries
        .filter_map(|(i, ingress)| Ingress::new(context, address, sidecar, i, ingress))
        .map(|i| i.build())
        .collect()
}

/// An entry of `ingress`.
struct Ingress<'a> {
    context: &'a Context<'a>,
    address: IpAddr,
    sidecar: &'a Sidecar,
    index: usize,
    entry: &'a IstioIngressListener,
    port: u16,
    /// The service that the port belongs to, when there is one.
    service: Option<(&'a Service, &'a ServicePort)>,
}

impl<'a> Ingress<'a> {
    fn new(
        context: &'a Context<'a>,
        address: IpAddr,
        sidecar: &'a Sidecar,
        index: usize,
        entry: &'a IstioIngressListener,
    ) -> Option<Ingress<'a>> {
        let port = u16::try_from(entry.port.number).ok()?;
        let service = service_of(context, port, entry.port.name.as_deref());
        Some(Ingress { context, address, sidecar, index, entry, port, service })
    }

    fn build(&self) -> (Option<Built>, cluster::Built) {
        let origin = || Some(origin(&self.sidecar.object, format!("spec.ingress[{}]", self.index)));
        let listener = self.listener().map(|listener| Built { listener, origin: origin() });
        (listener, cluster::Built { cluster: self.cluster(), endpoints: None, origin: origin() })
    }

    /// What is spoken on the port; inside of TLS, where the entry terminates it.
    fn protocol(&self) -> Protocol {
        let protocol = match self.entry.port.protocol.as_deref() {
            Some(word) if !word.is_empty() => Protocol::parse(word),
            _ => self.service.map_or(Protocol::Unsupported, |(_, port)| port.protocol),
        };
        match (&self.entry.tls, protocol) {
            (Some(_), Protocol::Https) => Protocol::Http,
            (Some(_), Protocol::Tls) => Protocol::Tcp,
            _ => protocol,
        }
    }

    fn bind(&self) -> String {
        match self.entry.bind.as_deref() {
            Some(bind) if !bind.is_empty() => bind.to_owned(),
            _ => self.address.to_string(),
        }
    }

    /// `None` where mutual TLS is demanded and the proxy has no certificate for it: then nobody is let in.
    fn listener(&self) -> Option<Listener> {
        let shape = self.context.shape;
        let policies = &self.context.snapshot.config.peer_authentications;
        let mode = policies.let_in(&shape.namespace, &shape.labels, self.port);
        let Some(identity) = self.context.identity() else {
            return match &self.entry.tls {
                _ if mode == MtlsMode::Strict => None,
                Some(tls) => Some(self.of_user_tls(tls)),
                None => Some(self.plaintext()),
            };
        };
        match &self.entry.tls {
            Some(tls) if mode == MtlsMode::Disable => Some(self.of_user_tls(tls)),
            _ => {
                let wanted = &self.context.snapshot.config.mesh.mesh_mtls;
                let context = |chain: &Chain| {
                    chain.is_mutual.then(|| of_mesh((shape, identity), wanted, chain.is_http))
                };
                Some(self.with_chains(&chain::of_port(mode, self.protocol()), context))
            }
        }
    }

    fn plaintext(&self) -> Listener {
        let filters = self.filters(self.protocol().is_http());
        listener(&self.bind(), self.port, TrafficDirection::Inbound, filters)
    }

    fn of_user_tls(&self, tls: &ServerTlsSettings) -> Listener {
        let chain = chain::of_user_tls(self.protocol().is_http());
        self.with_chains(&[chain], |chain| Some(of_server(self.context, tls, chain.is_http)))
    }

    /// Connections that say nothing for too long go on as plaintext, so that servers which speak first can be
    /// reached where plaintext is let in.
    ///
    /// Differs: Istio waits for ever (`protocolDetectionTimeout: 0s`), Envoy's own limit is 15 s.
    fn with_chains(&self, chains: &[Chain], context: impl Fn(&Chain) -> Option<Any>) -> Listener {
        let name = names::listener(&self.bind(), self.port);
        let filter_chain = |chain: &Chain| FilterChain {
            name: name.clone(),
            filter_chain_match: Some(chain.filter_chain_match(self.port)),
            filters: self.filters(chain.is_http),
            transport_socket: context(chain).map(transport_socket),
            ..Default::default()
        };
        Listener {
            filter_chains: chains.iter().map(filter_chain).collect(),
            listener_filters: chain::inspectors(chains, self.port),
            continue_on_listener_filters_timeout: true,
            ..listener(&self.bind(), self.port, TrafficDirection::Inbound, Vec::new())
        }
    }

    fn filters(&self, is_http: bool) -> Vec<Filter> {
        let (bind, cluster) = (self.bind(), names::inbound(self.port));
        if is_http {
            let http = Http {
                shape: self.context.shape,
                options: self.context.options,
                stat_prefix: format!("inbound_{};", names::listener(&bind, self.port)),
                routes: Routes::Inline(Box::new(self.routes(&cluster))),
                place: Place::Inbound { has_identity: self.context.identity().is_some() },
            };
            return http.filters();
        }
        let tcp = Tcp {
            shape: self.context.shape,
            options: self.context.options,
            listener: &names::listener(&bind, self.port),
            destination: ClusterSpecifier::Cluster(cluster),
            limits: None,
            exchanges: true,
        };
        tcp.filters()
    }

    fn routes(&self, cluster: &str) -> RouteConfiguration {
        let operation = match self.service {
            Some((service, port)) => format!("{}:{}/*", service.host, port.number),
            None => format!(
                "{}.{}:{}/*",
                self.sidecar.object.id.name, self.sidecar.object.id.namespace, self.port
            ),
        };
        let host = VirtualHost {
            name: format!("inbound|http|{}", self.port),
            domains: vec!["*".to_owned()],
            routes: vec![route::default_inbound(cluster, operation)],
            ..Default::default()
        };
        RouteConfiguration {
            name: cluster.to_owned(),
            virtual_hosts: vec![host],
            validate_clusters: Some(false),
            ..Default::default()
        }
    }

    fn cluster(&self) -> Cluster {
        let name = names::inbound(self.port);
        let mut cluster = cluster::base(&name, DiscoveryType::Static);
        cluster.load_assignment = Some(ClusterLoadAssignment {
            cluster_name: name,
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: vec![address_endpoint(self.application())],
                ..Default::default()
            }],
            ..Default::default()
        });
        cluster.metadata = self.service.map(|(service, _)| cluster::service_metadata(service));
        let upstream = match self.protocol() {
            protocol if protocol.is_http2() => Upstream::Http2 { max_concurrent_streams: None },
            // What is found out to be HTTP goes on as it came.
            Protocol::Unsupported if self.context.identity().is_some() => {
                Upstream::AsDownstream { max_concurrent_streams: None }
            }
            _ => return cluster,
        };
        cluster::set_protocol(&mut cluster, upstream, HttpProtocolOptions::default());
        cluster
    }

    /// `defaultEndpoint`: the unspecified address stands for the workload's own; without one the same port on
    /// localhost.
    fn application(&self) -> Address {
        let Some(endpoint) = self.entry.default_endpoint.as_deref().filter(|e| !e.is_empty()) else {
            return socket("127.0.0.1", self.port);
        };
        if let Some(path) = endpoint.strip_prefix("unix://") {
            return pipe(path);
        }
        let (host, port) = endpoint.rsplit_once(':').unwrap_or((endpoint, ""));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_own = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        let host = if is_own { self.address.to_string() } else { host.to_owned() };
        socket(&host, port.parse().unwrap_or(self.port))
    }
}

/// The service of the workload's own namespace that selects it and has this target port.
fn service_of<'a>(
    context: &'a Context<'a>,
    target: u16,
    target_name: Option<&str>,
) -> Option<(&'a Service, &'a ServicePort)> {
    let selects = |service: &Service| match &service.object.spec {
        Spec::Service(spec) => {
            !spec.selector.is_empty() && labels_match(&spec.selector, &context.shape.labels)
        }
        Spec::ServiceEntry(spec) => spec
            .workload_selector
            .as_ref()
            .is_some_and(|s| !s.labels.is_empty() && labels_match(&s.labels, &context.shape.labels)),
        _ => false,
    };
    let leads_here = |port: &ServicePort| match &port.target {
        TargetPort::Default(number) | TargetPort::Number(number) => *number == target,
        TargetPort::Named(name) => Some(name.as_str()) == target_name,
    };
    let own = context.snapshot.services.iter().filter(|s| *s.namespace == *context.shape.namespace);
    own.filter(|s| selects(s)).find_map(|s| Some((&**s, s.ports.iter().find(|p| leads_here(p))?)))
}
