//! Which ADS server the bootstrap names, and what is to be had from it.
//!
//! Source: `envoy.config.bootstrap.v3.Bootstrap.DynamicResources`. Only ADS over a plaintext gRPC cluster of the
//! bootstrap is supported; everything else is refused by name.

use std::time::Duration;

use meltemi_compile::Rejection;
use meltemi_compile::program::{Cluster, Discovery, UpstreamHttp};
use meltemi_envoy::config::bootstrap::v3::bootstrap::DynamicResources;
use meltemi_envoy::config::core::v3::Node;
use meltemi_envoy::config::core::v3::{
    ApiConfigSource, ConfigSource, api_config_source::ApiType, config_source::ConfigSourceSpecifier,
    grpc_service::TargetSpecifier,
};
use meltemi_xds::Mode;
use meltemi_xds::client::{Command, Event, Options};
use tokio::sync::mpsc;

use super::references::initial_fetch_timeout;
use super::store::ClusterEntry;

/// A type that is subscribed whole, and how long start-up waits for it (`None`: for ever).
pub(super) type Wanted = Option<Option<Duration>>;

/// Where and how to subscribe.
#[derive(Debug, Clone)]
pub struct AdsOptions {
    /// Server, node and variant of the protocol.
    pub client: Options,
    pub(super) clusters: Wanted,
    pub(super) listeners: Wanted,
}

/// A running ADS client.
#[derive(Debug)]
pub struct Ads {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) clusters: Wanted,
    pub(super) listeners: Wanted,
}

impl AdsOptions {
    /// Reads `dynamic_resources`; `cluster` finds a static cluster by name. `None`: everything is static.
    ///
    /// # Errors
    /// All fields that are not supported.
    pub fn new<'c>(
        resources: &DynamicResources,
        node: Node,
        cluster: impl Fn(&str) -> Option<&'c ClusterEntry>,
    ) -> Result<Option<AdsOptions>, Vec<Rejection>> {
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
        let listeners = problems.wanted("lds_config", lds_config.as_ref());
        let clusters = problems.wanted("cds_config", cds_config.as_ref());
        let server = ads_config.as_ref().and_then(|source| problems.server(source, cluster));
        if ads_config.is_none() && (listeners.is_some() || clusters.is_some()) {
            problems.add("ads_config", "is missing, but lds_config or cds_config names ADS");
        }
        if !problems.0.is_empty() {
            return Err(problems.0);
        }
        let Some((uri, mode)) = server else { return Ok(None) };
        Ok(Some(AdsOptions { client: Options { uri, node, mode }, clusters, listeners }))
    }

    /// Starts the client on the current runtime.
    pub fn start(self) -> Ads {
        let (commands, events) = meltemi_xds::client::run(self.client);
        Ads { commands, events, clusters: self.clusters, listeners: self.listeners }
    }
}

#[derive(Default)]
struct Problems(Vec<Rejection>);

impl Problems {
    fn add(&mut self, field: &str, reason: &str) {
        self.0.push(Rejection::new("bootstrap", format!("dynamic_resources.{field}"), reason));
    }

    fn refuse_locator(&mut self, field: &str, locator: &str) {
        if !locator.is_empty() {
            self.add(field, "xdstp resource locators are not supported");
        }
    }

    fn wanted(&mut self, field: &str, source: Option<&ConfigSource>) -> Wanted {
        let source = source?;
        if !matches!(source.config_source_specifier, Some(ConfigSourceSpecifier::Ads(_))) {
            self.add(field, "only `ads: {}` is supported");
            return None;
        }
        Some(initial_fetch_timeout(Some(source)))
    }

    fn server<'c>(
        &mut self,
        source: &ApiConfigSource,
        cluster: impl Fn(&str) -> Option<&'c ClusterEntry>,
    ) -> Option<(String, Mode)> {
        let mode = match ApiType::try_from(source.api_type) {
            Ok(ApiType::Grpc) => Mode::Sotw,
            Ok(ApiType::DeltaGrpc) => Mode::Delta,
            _ => {
                self.add("ads_config.api_type", "only GRPC and DELTA_GRPC are supported");
                return None;
            }
        };
        let [service] = source.grpc_services.as_slice() else {
            self.add("ads_config.grpc_services", "exactly one is supported");
            return None;
        };
        if !service.initial_metadata.is_empty() {
            self.add("ads_config.grpc_services[0].initial_metadata", "not supported yet");
        }
        let Some(TargetSpecifier::EnvoyGrpc(target)) = &service.target_specifier else {
            self.add("ads_config.grpc_services[0]", "only envoy_grpc is supported");
            return None;
        };
        let field = "ads_config.grpc_services[0].envoy_grpc.cluster_name";
        let Some(entry) = cluster(&target.cluster_name) else {
            self.add(field, &format!("no static cluster '{}'", target.cluster_name));
            return None;
        };
        match server_uri(&entry.cluster, entry) {
            Ok(uri) => Some((uri, mode)),
            Err(reason) => {
                self.add(field, &format!("cluster '{}' {reason}", target.cluster_name));
                None
            }
        }
    }
}

/// `http://HOST:PORT` of the first endpoint.
fn server_uri(cluster: &Cluster, entry: &ClusterEntry) -> Result<String, &'static str> {
    if !matches!(cluster.http, UpstreamHttp::Http2(_)) {
        return Err("does not speak HTTP/2 (http2_protocol_options)");
    }
    match &cluster.discovery {
        Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => {
            let (host, port, _) = dns.targets.first().ok_or("has no endpoint")?;
            Ok(format!("http://{host}:{port}"))
        }
        Discovery::Static => {
            let endpoints = entry.inline.as_deref().ok_or("has no endpoint")?;
            let host = endpoints.priorities.iter().flatten().next().ok_or("has no endpoint")?;
            Ok(format!("http://{}", host.address))
        }
        Discovery::Eds(_) | Discovery::OriginalDst => Err("must be STATIC, STRICT_DNS or LOGICAL_DNS"),
    }
}
