//! What the bootstrap says of dynamic resources: the ADS server, and where clusters and listeners come from.
//!
//! Source: `envoy.config.bootstrap.v3.Bootstrap.DynamicResources`. Servers are static clusters that speak HTTP/2, plain or
//! over TLS, by address, by name or by Unix socket; everything else is refused by name.

use std::time::Duration;

use meltemi_compile::program::{Cluster, Discovery, TransportSocket, UpstreamHttp};
use meltemi_compile::{GrpcOrigin, Origin, Rejection};
use meltemi_envoy::config::bootstrap::v3::bootstrap::DynamicResources;
use meltemi_envoy::config::core::v3::{ApiConfigSource, ConfigSource, Node};
use meltemi_xds::Mode;
use meltemi_xds::client::Options;

use super::files;
use super::server::{Secured, Server};
use super::store::ClusterEntry;

/// A type that is subscribed whole.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// Where it comes from.
    pub origin: Origin,
    /// How long start-up waits for it (`None`: for ever).
    pub wait: Option<Duration>,
}

/// Where configuration comes from besides the bootstrap itself.
#[derive(Debug, Clone, Default)]
pub struct Dynamic {
    /// The ADS server.
    pub ads: Option<Server>,
    /// Who this is, for streams of single types.
    pub node: Node,
    /// `cds_config`.
    pub clusters: Option<Subscription>,
    /// `lds_config`.
    pub listeners: Option<Subscription>,
}

impl Dynamic {
    /// Reads `dynamic_resources`; `cluster` finds a static cluster by name.
    ///
    /// # Errors
    /// All fields that are not supported.
    pub fn new<'c>(
        resources: &DynamicResources,
        node: Node,
        cluster: impl Fn(&str) -> Option<&'c ClusterEntry>,
    ) -> Result<Dynamic, Vec<Rejection>> {
        let DynamicResources {
            lds_config,
            lds_resources_locator,
            cds_config,
            cds_resources_locator,
            ads_config,
        } = resources;
        let mut problems = Problems::default();
        problems.refuse_locator("lds_resources_locator", lds_resources_locator);
        problems.refuse_locator("cds_resources_locator", cds_resources_locator);
        let listeners = problems.subscription("lds_config", lds_config.as_ref(), &cluster);
        let clusters = problems.subscription("cds_config", cds_config.as_ref(), &cluster);
        let ads = ads_config.as_ref().and_then(|source| problems.ads(source, &node, cluster));
        let is_ads = |subscription: &Subscription| subscription.origin == Origin::Ads;
        if ads_config.is_none() && [&listeners, &clusters].into_iter().flatten().any(is_ads) {
            problems.add("ads_config", "is missing, but lds_config or cds_config names ADS");
        }
        if !problems.0.is_empty() {
            return Err(problems.0);
        }
        Ok(Dynamic { ads, node, clusters, listeners })
    }

    /// Whether there is anybody to be told the node.
    pub fn has_server(&self) -> bool {
        let is_grpc = |subscription: &Subscription| matches!(subscription.origin, Origin::Grpc(_));
        self.ads.is_some() || [&self.clusters, &self.listeners].into_iter().flatten().any(is_grpc)
    }
}

#[derive(Default)]
struct Problems(Vec<Rejection>);

impl Problems {
    fn add(&mut self, field: &str, reason: &str) {
        self.0.push(Rejection::new("bootstrap", format!("dynamic_resources.{field}"), reason));
    }

    fn add_under(&mut self, field: &str, rejections: Vec<Rejection>) {
        for Rejection { path, reason, .. } in rejections {
            let dot = if path.is_empty() { "" } else { "." };
            self.add(&format!("{field}{dot}{path}"), &reason);
        }
    }

    fn refuse_locator(&mut self, field: &str, locator: &str) {
        if !locator.is_empty() {
            self.add(field, "xdstp resource locators are not supported");
        }
    }

    fn subscription<'c>(
        &mut self,
        field: &str,
        source: Option<&ConfigSource>,
        cluster: impl Fn(&str) -> Option<&'c ClusterEntry>,
    ) -> Option<Subscription> {
        let (origin, wait) =
            meltemi_compile::config_source(source?).map_err(|refused| self.add_under(field, refused)).ok()?;
        let problem = match &origin {
            Origin::Ads => Ok(()),
            Origin::File(file) => files::check(file),
            Origin::Grpc(grpc) => reached(grpc, cluster).map(drop),
        };
        if let Err(reason) = problem {
            self.add(field, &reason);
        }
        Some(Subscription { origin, wait })
    }

    fn ads<'c>(
        &mut self,
        source: &ApiConfigSource,
        node: &Node,
        cluster: impl Fn(&str) -> Option<&'c ClusterEntry>,
    ) -> Option<Server> {
        let grpc = meltemi_compile::ads_config(source)
            .map_err(|refused| self.add_under("ads_config", refused))
            .ok()?;
        match server(&grpc, None, node.clone(), cluster) {
            Ok(server) => Some(server),
            Err(reason) => {
                self.add("ads_config.grpc_services[0].envoy_grpc.cluster_name", &reason);
                None
            }
        }
    }
}

/// How to subscribe at a server: to everything, or `only` to one type.
pub(super) fn server<'c>(
    grpc: &GrpcOrigin,
    only: Option<&'static str>,
    node: Node,
    cluster: impl Fn(&str) -> Option<&'c ClusterEntry>,
) -> Result<Server, String> {
    let text = |text: &str| text.to_owned();
    let (uri, secured) = reached(grpc, cluster)?;
    let options = Options {
        uri,
        connector: None,
        // As Envoy: the name of the cluster stands for the server.
        authority: Some(text(grpc.authority.as_deref().unwrap_or(&grpc.cluster))),
        metadata: grpc.metadata.iter().map(|(key, value)| (text(key), text(value))).collect(),
        only,
        back_off: grpc.back_off,
        node,
        mode: if grpc.delta { Mode::Delta } else { Mode::Sotw },
    };
    Ok(Server { options, secured })
}

/// Where a server is, and its TLS.
fn reached<'c>(
    grpc: &GrpcOrigin,
    cluster: impl Fn(&str) -> Option<&'c ClusterEntry>,
) -> Result<(String, Option<Secured>), String> {
    let name = &grpc.cluster;
    let entry = cluster(name).ok_or_else(|| format!("no static cluster '{name}'"))?;
    let found = endpoint(&entry.cluster, entry).and_then(|endpoint| secured(&entry.cluster, endpoint));
    found.map_err(|reason| format!("cluster '{name}' {reason}"))
}

/// The first endpoint of a cluster.
enum Endpoint {
    Pipe(String),
    /// `HOST:PORT`, and the host's name.
    Tcp(String, Box<str>),
}

fn secured(cluster: &Cluster, endpoint: Endpoint) -> Result<(String, Option<Secured>), &'static str> {
    if !cluster.transport_sockets.matches.is_empty() {
        return Err("has transport_socket_matches, which streams to servers of configuration do not use");
    }
    match (&*cluster.transport_sockets.default, endpoint) {
        (TransportSocket::RawBuffer, Endpoint::Pipe(path)) => Ok((format!("unix:{path}"), None)),
        (TransportSocket::RawBuffer, Endpoint::Tcp(address, _)) => Ok((format!("http://{address}"), None)),
        (TransportSocket::Tls(tls), Endpoint::Tcp(address, hostname)) => {
            let uri = format!("http://{address}");
            Ok((uri, Some(Secured::new(cluster, tls, address, hostname))))
        }
        (TransportSocket::Tls(_), Endpoint::Pipe(_)) => Err("has TLS over a Unix socket"),
        (TransportSocket::ProxyProtocol(_), _) => {
            Err("has a PROXY protocol header, which streams to servers of configuration do not use")
        }
    }
}

fn endpoint(cluster: &Cluster, entry: &ClusterEntry) -> Result<Endpoint, &'static str> {
    if !matches!(cluster.http, UpstreamHttp::Http2(_)) {
        return Err("does not speak HTTP/2 (http2_protocol_options)");
    }
    if let Some(path) = &entry.pipe {
        return Ok(Endpoint::Pipe(path.to_string()));
    }
    match &cluster.discovery {
        Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => {
            let host = dns.names.first().ok_or("has no endpoint")?;
            let hosts = dns.template.priorities.iter().flatten();
            let port = hosts.map(|host| host.address.port()).next().ok_or("has no endpoint")?;
            Ok(Endpoint::Tcp(format!("{host}:{port}"), host.clone()))
        }
        Discovery::Static => {
            let endpoints = entry.inline.as_deref().ok_or("has no endpoint")?;
            let host = endpoints.priorities.iter().flatten().next().ok_or("has no endpoint")?;
            Ok(Endpoint::Tcp(host.address.to_string(), host.hostname.clone()))
        }
        Discovery::Eds(_) | Discovery::OriginalDst => Err("must be STATIC, STRICT_DNS or LOGICAL_DNS"),
    }
}
