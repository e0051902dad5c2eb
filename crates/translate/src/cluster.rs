//! Clusters: a default one for each port of each visible service, one for each subset, and the two of the
//! outbound traffic policy.
//!
//! Source: Istio `pilot/pkg/networking/core/cluster*.go`.

pub(crate) mod inbound;
mod load_balancing;
mod policy;
mod protocol;
pub(crate) mod proxyless;
mod stat_name;

pub(crate) use protocol::preserving_case;
pub(crate) use stat_name::Names;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use meltemi_api::{Object, istio};
use meltemi_envoy::Any;
use meltemi_envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
};
use meltemi_envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use meltemi_envoy::config::core::v3::{
    HttpProtocolOptions as CommonOptions, Metadata, TypedExtensionConfig, UpstreamHttpProtocolOptions,
};
use meltemi_envoy::config::endpoint::v3::ClusterLoadAssignment;
use meltemi_envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use meltemi_envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use meltemi_envoy::r#type::v3::Percent;
use meltemi_snapshot::{
    CA_SUFFIX, ClientTls, DestinationRule, Endpoint, EndpointAddress, MeshConfig, Policy, Protocol, Registry,
    Resolution, Service, ServicePort, endpoint_has_mtls, labels_match,
};

use crate::context::{Context, origin};
use crate::endpoint::{Preference, Setting, load_assignment};
use crate::message::{ads, boolean, config_path, duration, fields, istio_metadata, list, structure, text};
use crate::names::{BLACK_HOLE_CLUSTER, PASSTHROUGH_CLUSTER, outbound_cluster, server_name};
use crate::peer_metadata::exchange_upstream;
use crate::resources::Origin;
use crate::tls::upstream::{self, Secured};

use protocol::{Upstream, Version, set_protocol};

/// Proxies ask for a name at different times (`PILOT_DNS_JITTER_DURATION`).
const DNS_JITTER: Duration = Duration::from_millis(100);

/// Queries per connection of c-ares (`PILOT_DNS_CARES_UDP_MAX_QUERIES`), without which its port never changes.
const DNS_MAX_QUERIES: u32 = 100;

/// Idle time of connections to where nobody knows who is.
const PASSTHROUGH_IDLE: Duration = Duration::from_mins(5);

/// A cluster with what belongs to it.
pub(crate) struct Built {
    pub(crate) cluster: Cluster,
    /// For EDS clusters.
    pub(crate) endpoints: Option<ClusterLoadAssignment>,
    pub(crate) origin: Option<Origin>,
}

/// Every cluster that leads out of the proxy.
pub(crate) fn outbound(context: &Context<'_>) -> Vec<Built> {
    let services = context.scope.services();
    services.flat_map(|s| of_service(context, s)).chain(of_policy(context)).collect()
}

/// The clusters of the outbound traffic policy.
pub(crate) fn of_policy(context: &Context<'_>) -> Vec<Built> {
    let mut clusters = vec![Built { cluster: black_hole(context), endpoints: None, origin: None }];
    if !context.is_gateway() {
        let cluster = passthrough(context);
        clusters.push(Built { cluster, endpoints: None, origin: None });
    }
    clusters
}

/// The clusters that lead to a service.
pub(crate) fn of_service(context: &Context<'_>, service: &Service) -> Vec<Built> {
    let mut clusters = Vec::new();
    if service.resolution == Resolution::Alias {
        return clusters;
    }
    let rule = context.scope.destination_rule(service);
    for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
        let whole = Outbound {
            context,
            service,
            port,
            subset: None,
            policy: context.policy(rule.map(|r| &**r), None, port.number),
        };
        clusters.extend(whole.build());
        for (object, index, subset) in rule.map_or(Vec::new(), |r| r.subsets()) {
            let policy = context.policy(rule.map(|r| &**r), Some(subset), port.number);
            let part = Outbound { context, service, port, subset: Some((object, index, subset)), policy };
            clusters.extend(part.build());
        }
    }
    clusters
}

/// One cluster to be.
struct Outbound<'a> {
    context: &'a Context<'a>,
    service: &'a Service,
    port: &'a ServicePort,
    subset: Option<(&'a Arc<Object>, usize, &'a istio::Subset)>,
    policy: Policy<'a>,
}

impl Outbound<'_> {
    /// `None` for a cluster that Envoy would refuse: one of DNS without a name; or that would have to do without the
    /// certificate that is asked for.
    fn build(&self) -> Option<Built> {
        let subset = self.subset.map_or("", |(_, _, s)| s.name.as_str());
        let name = outbound_cluster(self.port.number, subset, &self.service.host);
        let discovery = self.discovery();
        let members = self.members(discovery);
        let mut cluster = self.base(&name, discovery);
        let secured = self.secure(&mut cluster)?;
        policy::apply(&self.policy, &self.connection(secured.http_options()), &mut cluster);
        if let Some(settings) = self.policy.proxy_protocol {
            policy::proxy_protocol(settings, &mut cluster);
        }
        if secured.keeps_alpn {
            keep_alpn(&mut cluster);
        }
        let tls_mode = |e: &Endpoint| secured.by_endpoint && self.has_mtls(e);
        let members = members.into_iter().map(|e| (e, tls_mode(e))).collect();
        self.with_members(name, cluster, discovery, members)
    }

    /// As [`Outbound::build`], but nothing of TLS is looked at.
    fn unopened(&self) -> Option<Built> {
        let subset = self.subset.map_or("", |(_, _, s)| s.name.as_str());
        let name = server_name(self.port.number, subset, &self.service.host);
        let discovery = self.discovery();
        let mut members = self.members(discovery);
        members.retain(|endpoint| self.has_mtls(endpoint));
        let mut cluster = self.base(&name, discovery);
        policy::apply(&self.policy, &self.connection(None), &mut cluster);
        self.with_members(
            name,
            cluster,
            discovery,
            members.into_iter().map(|endpoint| (endpoint, false)).collect(),
        )
    }

    fn base(&self, name: &str, discovery: DiscoveryType) -> Cluster {
        let mesh = &self.context.snapshot.config.mesh;
        let mut cluster = base(mesh, name, discovery);
        cluster.metadata = Some(self.metadata());
        cluster.common_lb_config = Some(CommonLbConfig {
            healthy_panic_threshold: Some(Percent { value: 0.0 }),
            ..Default::default()
        });
        let pattern = mesh.wire().and_then(|wire| wire.outbound_cluster_stat_name.as_deref());
        let subset = self.subset.map_or("", |(_, _, s)| s.name.as_str());
        let names = Names { service: self.service, port: self.port, subset, target: 0 };
        cluster.alt_stat_name = pattern.map_or_else(String::new, |pattern| names.fill(pattern));
        cluster
    }

    fn connection(&self, tls: Option<UpstreamHttpProtocolOptions>) -> policy::Connection<'_> {
        policy::Connection {
            mesh: &self.context.snapshot.config.mesh,
            protocol: self.port.protocol,
            is_gateway: self.context.is_gateway(),
            is_inbound: false,
            preserves_case: self.context.preserves_case(),
            tls,
        }
    }

    /// Finishes a cluster with its endpoints, each with whether mutual TLS is spoken with it.
    fn with_members(
        &self,
        name: String,
        mut cluster: Cluster,
        discovery: DiscoveryType,
        members: Vec<(&Endpoint, bool)>,
    ) -> Option<Built> {
        let is_empty = members.is_empty();
        exchange_upstream(self.context.shape, &mut cluster);
        let assignment = self.assignment(&name, members, &mut cluster);
        let mut endpoints = None;
        match discovery {
            DiscoveryType::Eds => {
                cluster.eds_cluster_config =
                    Some(EdsClusterConfig { eds_config: Some(ads()), service_name: name });
                endpoints = Some(assignment);
            }
            DiscoveryType::OriginalDst => {}
            _ if is_empty => return None,
            _ => {
                resolve_by_dns(self.context, &mut cluster);
                cluster.load_assignment = Some(assignment);
            }
        }
        Some(Built { cluster, endpoints, origin: Some(self.origin()) })
    }

    /// The endpoints in the order that the proxy prefers; the cluster has to know of it. For endpoints by EDS only the rule's
    /// own outlier detection makes others stand in, not the mesh's.
    fn assignment(
        &self,
        name: &str,
        members: Vec<(&Endpoint, bool)>,
        cluster: &mut Cluster,
    ) -> ClusterLoadAssignment {
        let setting = Setting::of(&self.context.snapshot.config.mesh, self.policy.load_balancer);
        let detects = cluster.outlier_detection.is_some();
        let of_rule = || {
            let policy = Policy::of(self.rule(), self.subset.map(|(_, _, s)| s), self.port.number);
            policy.outlier_detection.is_some()
        };
        let by_eds =
            cluster.cluster_discovery_type == Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32));
        if cluster.lb_policy != LbPolicy::ClusterProvided as i32 {
            load_balancing::localities(setting, detects, cluster);
        }
        let preference = Preference {
            setting,
            locality: &self.context.shape.locality,
            labels: &self.context.shape.labels,
            fails_over: if by_eds { of_rule() } else { detects },
        };
        load_assignment(name, members, &preference)
    }

    /// `None` if the proxy has no certificate for what the rule asks for.
    fn secure(&self, cluster: &mut Cluster) -> Option<Secured> {
        let subset = self.subset.map_or("", |(_, _, s)| s.name.as_str());
        let http = self.policy.connection_pool.and_then(|pool| pool.http.as_ref());
        let speaks = self.connection(None).upstream(http);
        let upstream = upstream::Upstream {
            context: self.context,
            server_name: server_name(self.port.number, subset, &self.service.host),
            identities: self.identities(),
            subject_alt_names: if self.service.registry == Registry::External {
                &self.service.subject_alt_names
            } else {
                &[]
            },
            is_http2: speaks.version == Version::Http2,
            has_selector: self.rule().is_some_and(|rule| rule.selector.is_some()),
        };
        let tls = ClientTls::of(self.context.snapshot, self.service, self.port.number, &self.policy);
        upstream.secure(tls, cluster)
    }

    fn rule(&self) -> Option<&DestinationRule> {
        self.context.scope.destination_rule(self.service).map(|rule| &**rule)
    }

    /// The identities of all endpoints of the service, and the names that its object says.
    fn identities(&self) -> Vec<String> {
        let Some(identity) = self.context.identity() else { return Vec::new() };
        let accounts = self.context.snapshot.endpoints.service_accounts(self.service);
        let known = accounts.iter().flat_map(|(namespace, account)| identity.of_account(namespace, account));
        let mut all: Vec<String> = known.chain(self.service.subject_alt_names.iter().cloned()).collect();
        all.sort();
        all.dedup();
        all
    }

    fn has_mtls(&self, endpoint: &Endpoint) -> bool {
        let subset = self.subset.map(|(_, _, subset)| subset);
        endpoint_has_mtls(self.context.snapshot, endpoint, self.rule(), subset, self.port.number)
    }

    /// A gateway has no original destination, so it can only balance over what is known; nor has a headless service one
    /// where nothing is captured.
    fn discovery(&self) -> DiscoveryType {
        let asks_passthrough =
            self.policy.load_balancer.and_then(|lb| lb.simple) == Some(istio::SimpleLb::Passthrough);
        match self.service.resolution {
            _ if asks_passthrough && !self.context.is_gateway() => DiscoveryType::OriginalDst,
            Resolution::Static => DiscoveryType::Eds,
            Resolution::Dns => DiscoveryType::StrictDns,
            Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
            Resolution::Passthrough if self.context.is_gateway() || self.service.is_headless() => {
                DiscoveryType::Eds
            }
            Resolution::Passthrough | Resolution::DynamicDns | Resolution::Alias => {
                DiscoveryType::OriginalDst
            }
        }
    }

    fn members(&self, discovery: DiscoveryType) -> Vec<&Endpoint> {
        let all = self.context.snapshot.endpoints.of(self.service, self.port.number).iter();
        let chosen = all.filter(|e| self.subset.is_none_or(|(_, _, s)| labels_match(&s.labels, &e.labels)));
        match discovery {
            // EDS resolves no names; LOGICAL_DNS has exactly one.
            DiscoveryType::Eds => chosen.filter(|e| !matches!(e.address, EndpointAddress::Name(_))).collect(),
            DiscoveryType::LogicalDns => chosen.take(1).collect(),
            _ => chosen.collect(),
        }
    }

    fn metadata(&self) -> Metadata {
        let mut metadata = services_metadata([self.service]);
        let istio =
            metadata.filter_metadata.values_mut().next().expect("invariant: one entry was just put in");
        if self.service.external && self.subset.is_none() {
            istio.fields.insert("external".to_owned(), boolean(true));
        }
        if let Some((object, _, subset)) = self.subset {
            istio.fields.insert("subset".to_owned(), text(&subset.name));
            istio.fields.insert("config".to_owned(), text(config_path(object)));
        } else if let Some(object) = self.rule().and_then(|r| r.objects.first()) {
            istio.fields.insert("config".to_owned(), text(config_path(object)));
        }
        metadata
    }

    fn origin(&self) -> Origin {
        match self.subset {
            Some((object, index, _)) => origin(object, format!("spec.subsets[{index}]")),
            None => origin(&self.service.object, "spec"),
        }
    }
}

/// The credentials that the clusters of a proxy name: those of a gateway, and those of a sidecar whose rule is for it alone.
pub(crate) fn credentials(context: &Context<'_>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for service in context.scope.services() {
        let rule = context.scope.destination_rule(service).map(|rule| &**rule);
        let rule = rule.filter(|rule| context.is_gateway() || rule.selector.is_some());
        let subsets = rule.map_or(Vec::new(), |rule| rule.subsets());
        let subsets: Vec<_> = std::iter::once(None).chain(subsets.iter().map(|(_, _, s)| Some(*s))).collect();
        for (port, subset) in service.ports.iter().flat_map(|port| subsets.iter().map(move |s| (port, s))) {
            let settings = Policy::of(rule, *subset, port.number).tls;
            let Some(name) = settings.and_then(|settings| settings.credential_name.as_ref()) else {
                continue;
            };
            names.extend([name.clone(), format!("{name}{CA_SUFFIX}")]);
        }
    }
    names
}

/// Istio's ALPN filter leaves the cluster's own ALPN alone.
fn keep_alpn(cluster: &mut Cluster) {
    let metadata = cluster.metadata.get_or_insert_default().filter_metadata.values_mut();
    metadata.for_each(|istio| _ = istio.fields.insert("alpn_override".to_owned(), text("false")));
}

/// `filter_metadata.istio.services`: whom a cluster stands for.
pub(crate) fn services_metadata<'a>(services: impl IntoIterator<Item = &'a Service>) -> Metadata {
    let entry = |service: &Service| {
        structure([
            ("host", text(service.host.as_str())),
            ("name", text(&*service.name)),
            ("namespace", text(&*service.namespace)),
        ])
    };
    istio_metadata(fields([("services", list(services.into_iter().map(entry)))]))
}

/// A cluster with what all of Istio's clusters have.
pub(crate) fn base(mesh: &MeshConfig, name: &str, discovery: DiscoveryType) -> Cluster {
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery as i32)),
        connect_timeout: Some(duration(mesh.connect_timeout)),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![policy::unlimited()],
            ..Default::default()
        }),
        lb_policy: match discovery {
            DiscoveryType::OriginalDst => LbPolicy::ClusterProvided as i32,
            _ => LbPolicy::RoundRobin as i32,
        },
        ..Default::default()
    }
}

/// The rate is for names that fail; others are asked for again when their time is over.
#[expect(deprecated, reason = "as Istio sends it, and as every Envoy version understands it")]
fn resolve_by_dns(context: &Context<'_>, cluster: &mut Cluster) {
    let resolver = CaresDnsResolverConfig { udp_max_queries: Some(DNS_MAX_QUERIES), ..Default::default() };
    cluster.dns_refresh_rate = Some(duration(context.snapshot.config.mesh.dns_refresh_rate));
    cluster.dns_jitter = Some(duration(DNS_JITTER));
    cluster.respect_dns_ttl = true;
    cluster.dns_lookup_family = match context.is_ipv6_only() {
        true => DnsLookupFamily::V6Only,
        false => DnsLookupFamily::V4Only,
    } as i32;
    cluster.typed_dns_resolver_config = Some(TypedExtensionConfig {
        name: "envoy.network.dns_resolver.cares".to_owned(),
        typed_config: Some(Any::pack(&resolver)),
    });
}

fn black_hole(context: &Context<'_>) -> Cluster {
    let mesh = &context.snapshot.config.mesh;
    Cluster { circuit_breakers: None, ..base(mesh, BLACK_HOLE_CLUSTER, DiscoveryType::Static) }
}

fn passthrough(context: &Context<'_>) -> Cluster {
    let mut cluster = passthrough_of(context, PASSTHROUGH_CLUSTER);
    exchange_upstream(context.shape, &mut cluster);
    cluster
}

/// A cluster that goes on to where the connection was meant to go. Of the mesh's policy only limits have a meaning there.
pub(crate) fn passthrough_of(context: &Context<'_>, name: &str) -> Cluster {
    let mesh = &context.snapshot.config.mesh;
    let mut cluster = base(mesh, name, DiscoveryType::OriginalDst);
    policy::unconditional(&Policy::in_mesh(mesh, None, None, 0), mesh, &mut cluster);
    let options = HttpProtocolOptions {
        common_http_protocol_options: Some(CommonOptions {
            idle_timeout: Some(duration(PASSTHROUGH_IDLE)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let upstream =
        Upstream { preserves_case: context.preserves_case(), ..Upstream::from(Version::AsDownstream) };
    set_protocol(&mut cluster, upstream, options);
    cluster
}

/// The clusters that a gateway forwards mutual TLS of the mesh to, unopened: they are named as its server name, and
/// have only endpoints that speak it.
pub(crate) fn by_server_name(context: &Context<'_>, service: &Service, port: &ServicePort) -> Vec<Built> {
    let rule = context.scope.destination_rule(service).map(|rule| &**rule);
    let subsets = rule.map_or(Vec::new(), |rule| rule.subsets());
    let of = |subset: Option<(_, _, &istio::Subset)>| {
        let policy = context.policy(rule, subset.map(|(_, _, subset)| subset), port.number);
        Outbound { context, service, port, subset, policy }.unopened()
    };
    std::iter::once(None).chain(subsets.into_iter().map(Some)).filter_map(of).collect()
}
