//! The bootstrap file: read, checked field by field, and turned into what the process starts with.
//!
//! Every field of `envoy.config.bootstrap.v3.Bootstrap` is used, refused by its path, or noted in the log as
//! having no effect, so nothing is accepted and ignored in silence.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use meltemi_compile::{EXTENSION_TYPES, Rejection};
use meltemi_envoy::config::bootstrap::v3::bootstrap::{DynamicResources, StaticResources};
use meltemi_envoy::config::bootstrap::v3::{Admin, Bootstrap, ClusterManager, cluster_manager};
use meltemi_envoy::config::core::v3::{
    Address, BuildVersion, Extension, Locality, Node, address, node::UserAgentVersionType, socket_address,
};
use meltemi_envoy::config::metrics::v3::TagSpecifier;
use meltemi_envoy::config::metrics::v3::tag_specifier::TagValue;
use meltemi_envoy::json::Codec;
use meltemi_envoy::r#type::v3::SemanticVersion;
use prost::Message as _;

use crate::command_line::ProxyArgs;
use crate::config::{Dynamic, Store};
use crate::stats::StatsConfig;

mod overload;

/// The extensions that this proxy has, as it tells the control plane. A control plane sends Istio's own filters
/// only to nodes that name them.
const EXTENSIONS: &[(&str, &str)] = &[
    ("envoy.access_loggers.file", "envoy.access_loggers"),
    ("envoy.access_loggers.stderr", "envoy.access_loggers"),
    ("envoy.access_loggers.stdout", "envoy.access_loggers"),
    ("envoy.filters.http.cors", "envoy.filters.http"),
    ("envoy.filters.http.fault", "envoy.filters.http"),
    ("envoy.filters.http.grpc_stats", "envoy.filters.http"),
    ("envoy.filters.http.router", "envoy.filters.http"),
    ("istio.metadata_exchange", "envoy.filters.http"),
    ("istio.stats", "envoy.filters.http"),
    ("envoy.filters.listener.http_inspector", "envoy.filters.listener"),
    ("envoy.filters.listener.original_dst", "envoy.filters.listener"),
    ("envoy.filters.listener.proxy_protocol", "envoy.filters.listener"),
    ("envoy.filters.listener.tls_inspector", "envoy.filters.listener"),
    ("envoy.filters.network.connection_limit", "envoy.filters.network"),
    ("envoy.filters.network.direct_response", "envoy.filters.network"),
    ("envoy.filters.network.http_connection_manager", "envoy.filters.network"),
    ("envoy.filters.network.sni_cluster", "envoy.filters.network"),
    ("envoy.filters.network.tcp_proxy", "envoy.filters.network"),
    ("istio.metadata_exchange", "envoy.filters.network"),
    ("istio.stats", "envoy.filters.network"),
    ("istio.metadata_exchange", "envoy.filters.upstream_network"),
    ("envoy.load_balancing_policies.least_request", "envoy.load_balancing_policies"),
    ("envoy.load_balancing_policies.random", "envoy.load_balancing_policies"),
    ("envoy.load_balancing_policies.round_robin", "envoy.load_balancing_policies"),
];

/// The entry that stands for all extensions, with the messages that configure them.
const ALL: &str = "meltemi";

/// This program, even if its file was replaced since.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// What the process starts with.
#[derive(Debug)]
pub(crate) struct Start {
    /// The message, with the node as it is announced.
    pub(crate) message: Bootstrap,
    /// Static resources, compiled.
    pub(crate) store: Store,
    /// Where configuration comes from besides.
    pub(crate) dynamic: Dynamic,
    /// Where the admin interface listens, if anywhere.
    pub(crate) admin: Option<SocketAddr>,
    /// `stats_config`.
    pub(crate) stats_config: StatsConfig,
    /// `max_active_downstream_connections` of the overload manager.
    pub(crate) max_downstream_connections: Option<u64>,
    /// Fields that have no effect.
    pub(crate) notes: Vec<(&'static str, &'static str)>,
}

/// Reads the file and `--config-yaml` in a process of its own: protobuf JSON needs megabytes of descriptors and code
/// for a moment, and a proxy would carry them for the rest of its life.
///
/// # Errors
/// If there is no configuration, or it cannot be read.
pub(crate) fn read_apart(args: &ProxyArgs) -> anyhow::Result<Bootstrap> {
    let child = Command::new(OWN_PROGRAM).arg("proxy").args(args.to_encode()).stdin(Stdio::null()).output();
    let child = match child {
        Ok(child) => child,
        Err(error) => {
            tracing::debug!(%error, "no process for reading the bootstrap: it is read here");
            return read(args);
        }
    };
    if !child.status.success() {
        let text = String::from_utf8_lossy(&child.stderr);
        anyhow::bail!("{}", text.trim().trim_start_matches("error: "));
    }
    Bootstrap::decode(child.stdout.as_slice()).context("decode the bootstrap as it was read")
}

/// What the process of [`read_apart`] does: reads, and writes the message in binary to standard output.
///
/// # Errors
/// As [`read`], or if nobody takes the message.
pub(crate) fn write_encoded(args: &ProxyArgs) -> anyhow::Result<()> {
    let encoded = read(args)?.encode_to_vec();
    std::io::stdout().write_all(&encoded).context("write the bootstrap to standard output")
}

/// Reads the file; the text of `--config-yaml` is merged over it as protobuf merges messages.
///
/// # Errors
/// If there is no configuration, or it cannot be read.
pub(crate) fn read(args: &ProxyArgs) -> anyhow::Result<Bootstrap> {
    let codec = Codec::new();
    let parse = |text: &str| match args.allow_unknown_static_fields {
        true => codec.parse_leniently::<Bootstrap>(text),
        false => codec.parse(text),
    };
    let mut message = Bootstrap::default();
    if let Some(path) = &args.config_path {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read bootstrap {}", path.display()))?;
        message = parse(&text).with_context(|| format!("bootstrap {}", path.display()))?;
    } else if args.config_yaml.is_none() {
        anyhow::bail!("no configuration: give --config-path FILE or --config-yaml TEXT");
    }
    if let Some(text) = &args.config_yaml {
        let over = parse(text).context("--config-yaml")?;
        message.merge(over.encode_to_vec().as_slice()).expect("invariant: what was just encoded decodes");
    }
    message.node = Some(announced(message.node.take().unwrap_or_default(), args));
    for tag in &args.stats_tag {
        let (name, value) = tag.split_once(':').with_context(|| format!("--stats-tag {tag}: no `:`"))?;
        let tag_value = Some(TagValue::FixedValue(value.to_owned()));
        let config = message.stats_config.get_or_insert_default();
        config.stats_tags.push(TagSpecifier { tag_name: name.to_owned(), tag_value });
    }
    Ok(message)
}

/// Checks and compiles everything.
///
/// # Errors
/// All that is refused.
pub(crate) fn start(message: Bootstrap) -> Result<Start, Vec<Rejection>> {
    let mut check = Check::default();
    check.fields(&message);
    let mut store = Store::default();
    let none = StaticResources::default();
    if let Err(refused) = store.load_static(message.static_resources.as_ref().unwrap_or(&none)) {
        check.refused.extend(refused);
    }
    let node = message.node.clone().unwrap_or_default();
    let none = DynamicResources::default();
    let dynamic = message.dynamic_resources.as_ref().unwrap_or(&none);
    let cluster = |name: &str| store.clusters().get(name)?.latest().map(|loaded| &*loaded.value);
    let dynamic = Dynamic::new(dynamic, node.clone(), cluster).unwrap_or_else(|refused| {
        check.refused.extend(refused);
        Dynamic::default()
    });
    if dynamic.has_server() && (node.id.is_empty() || node.cluster.is_empty()) {
        check.refuse(
            "node",
            "id and cluster are required when there is a control plane (--service-node, --service-cluster)",
        );
    }
    let admin = message.admin.as_ref().and_then(|admin| check.admin(admin));
    if !check.refused.is_empty() {
        return Err(check.refused);
    }
    let Check { notes, stats_config, max_downstream_connections, .. } = check;
    Ok(Start { message, store, dynamic, admin, stats_config, max_downstream_connections, notes })
}

/// Says what is refused of a bootstrap, else the fields without effect and why.
///
/// # Errors
/// All that is refused.
pub fn check(message: Bootstrap) -> Result<Vec<(&'static str, &'static str)>, Vec<Rejection>> {
    let start = start(message)?;
    Ok(start.notes)
}

/// The node as it is told to the control plane.
fn announced(mut node: Node, args: &ProxyArgs) -> Node {
    let fill = |field: &mut String, value: &Option<String>| {
        if let Some(value) = value.as_ref().filter(|_| field.is_empty()) {
            field.clone_from(value);
        }
    };
    fill(&mut node.id, &args.service_node);
    fill(&mut node.cluster, &args.service_cluster);
    if args.service_zone.is_some() {
        fill(&mut node.locality.get_or_insert_with(Locality::default).zone, &args.service_zone);
    }
    "meltemi".clone_into(&mut node.user_agent_name);
    let part = |text: &str| text.parse().unwrap_or(0);
    let version = SemanticVersion {
        major_number: part(env!("CARGO_PKG_VERSION_MAJOR")),
        minor_number: part(env!("CARGO_PKG_VERSION_MINOR")),
        patch: part(env!("CARGO_PKG_VERSION_PATCH")),
    };
    let version = BuildVersion { version: Some(version), metadata: None };
    node.user_agent_version_type = Some(UserAgentVersionType::UserAgentBuildVersion(version));
    let named = |(name, category): &(&str, &str)| Extension {
        name: (*name).to_owned(),
        category: (*category).to_owned(),
        ..Extension::default()
    };
    node.extensions = EXTENSIONS.iter().map(named).collect();
    node.extensions.push(Extension { name: ALL.to_owned(), type_urls: type_urls(), ..Extension::default() });
    node
}

/// Of every message that configures an extension here.
fn type_urls() -> Vec<String> {
    EXTENSION_TYPES.iter().map(|name| format!("type.googleapis.com/{name}")).collect()
}

#[derive(Default)]
struct Check {
    refused: Vec<Rejection>,
    notes: Vec<(&'static str, &'static str)>,
    stats_config: StatsConfig,
    max_downstream_connections: Option<u64>,
}

impl Check {
    fn stats_config(
        &mut self,
        message: Option<&meltemi_envoy::config::metrics::v3::StatsConfig>,
    ) -> StatsConfig {
        let config = message.map(StatsConfig::new).transpose();
        config.map_err(|refused| self.refused.extend(refused)).ok().flatten().unwrap_or_default()
    }

    fn refuse(&mut self, path: &str, reason: &str) {
        self.refused.push(Rejection::new("bootstrap", path, reason));
    }

    fn refuse_if(&mut self, set: bool, path: &str) {
        if set {
            self.refuse(path, "not supported yet");
        }
    }

    fn note_if(&mut self, set: bool, path: &'static str, reason: &'static str) {
        if set {
            self.notes.push((path, reason));
        }
    }

    fn cluster_manager(&mut self, message: Option<&ClusterManager>) {
        let Some(message) = message else { return };
        let ClusterManager {
            local_cluster_name,
            outlier_detection,
            upstream_bind_config,
            load_stats_config,
            enable_deferred_cluster_creation,
        } = message;
        let detection = outlier_detection.clone().unwrap_or_default();
        // The path is read where ejections are logged.
        let cluster_manager::OutlierDetection { event_log_path: _, event_service } = detection;
        self.refuse_if(event_service.is_some(), "cluster_manager.outlier_detection.event_service");
        self.refuse_if(upstream_bind_config.is_some(), "cluster_manager.upstream_bind_config");
        self.refuse_if(load_stats_config.is_some(), "cluster_manager.load_stats_config");
        self.note_if(!local_cluster_name.is_empty(), "cluster_manager.local_cluster_name", "not read yet");
        self.note_if(
            *enable_deferred_cluster_creation,
            "cluster_manager.enable_deferred_cluster_creation",
            "clusters are small",
        );
    }

    /// One line per field. A refusal is for what would change traffic, identity or what operators collect.
    #[expect(deprecated, reason = "every field is looked at, the deprecated ones too")]
    fn fields(&mut self, message: &Bootstrap) {
        let Bootstrap {
            node: _,
            static_resources: _,
            dynamic_resources: _,
            admin: _,
            node_context_params,
            cluster_manager,
            hds_config,
            flags_path,
            stats_sinks,
            deferred_stat_options,
            stats_config,
            stats_flush_interval,
            stats_flush,
            stats_eviction,
            watchdog,
            watchdogs,
            tracing,
            layered_runtime,
            overload_manager,
            enable_dispatcher_stats,
            header_prefix,
            stats_server_version_override,
            use_tcp_for_dns_lookups,
            dns_resolution_config,
            typed_dns_resolver_config,
            bootstrap_extensions,
            fatal_actions,
            config_sources,
            default_config_source,
            default_socket_interface,
            certificate_provider_instances,
            inline_headers,
            perf_tracing_file_path,
            default_regex_engine,
            xds_delegate_extension,
            xds_config_tracker_extension,
            listener_manager,
            application_log_config,
            grpc_async_client_manager_config,
            memory_allocator_manager,
            enable_worker_cpu_affinity,
        } = message;
        self.refuse_if(!node_context_params.is_empty(), "node_context_params");
        self.refuse_if(hds_config.is_some(), "hds_config");
        self.refuse_if(!stats_sinks.is_empty(), "stats_sinks");
        self.refuse_if(tracing.is_some(), "tracing");
        self.refuse_if(!header_prefix.is_empty(), "header_prefix");
        self.refuse_if(!config_sources.is_empty(), "config_sources");
        self.refuse_if(default_config_source.is_some(), "default_config_source");
        self.refuse_if(!default_socket_interface.is_empty(), "default_socket_interface");
        self.refuse_if(!certificate_provider_instances.is_empty(), "certificate_provider_instances");
        self.refuse_if(xds_delegate_extension.is_some(), "xds_delegate_extension");
        self.cluster_manager(cluster_manager.as_ref());
        self.note_if(!flags_path.is_empty(), "flags_path", "the runtime of files is not read");
        self.note_if(
            deferred_stat_options.is_some(),
            "deferred_stat_options",
            "statistics are made when they are needed anyway",
        );
        self.stats_config = self.stats_config(stats_config.as_ref());
        self.note_if(
            stats_flush_interval.is_some(),
            "stats_flush_interval",
            "there are no stats sinks to flush to",
        );
        self.note_if(stats_flush.is_some(), "stats_flush_on_admin", "there are no stats sinks to flush to");
        self.note_if(
            stats_eviction.is_some(),
            "stats_eviction_interval",
            "statistics of what is gone are dropped at once",
        );
        self.note_if(watchdog.is_some(), "watchdog", "a stuck worker is logged");
        self.note_if(watchdogs.is_some(), "watchdogs", "a stuck worker is logged");
        self.note_if(
            layered_runtime.is_some(),
            "layered_runtime",
            "there is no runtime layer; defaults hold",
        );
        self.overload_manager(overload_manager.as_ref());
        self.note_if(
            *enable_dispatcher_stats,
            "enable_dispatcher_stats",
            "there are no dispatchers of that kind",
        );
        self.note_if(
            stats_server_version_override.is_some(),
            "stats_server_version_override",
            "the version is our own",
        );
        self.note_if(*use_tcp_for_dns_lookups, "use_tcp_for_dns_lookups", "not read yet");
        self.note_if(dns_resolution_config.is_some(), "dns_resolution_config", "not read yet");
        self.note_if(typed_dns_resolver_config.is_some(), "typed_dns_resolver_config", "not read yet");
        self.note_if(!bootstrap_extensions.is_empty(), "bootstrap_extensions", "not read yet");
        self.note_if(!fatal_actions.is_empty(), "fatal_actions", "they act on crashes of Envoy");
        self.note_if(!inline_headers.is_empty(), "inline_headers", "header storage needs no registration");
        self.note_if(!perf_tracing_file_path.is_empty(), "perf_tracing_file_path", "it traces Envoy itself");
        self.note_if(default_regex_engine.is_some(), "default_regex_engine", "there is one regex engine");
        self.note_if(
            xds_config_tracker_extension.is_some(),
            "xds_config_tracker_extension",
            "it observes only",
        );
        self.note_if(listener_manager.is_some(), "listener_manager", "there is one listener manager");
        self.note_if(application_log_config.is_some(), "application_log_config", "not read yet");
        self.note_if(
            grpc_async_client_manager_config.is_some(),
            "grpc_async_client_manager_config",
            "it bounds a cache of Envoy",
        );
        self.note_if(
            memory_allocator_manager.is_some(),
            "memory_allocator_manager",
            "it tunes the allocator of Envoy",
        );
        self.note_if(
            *enable_worker_cpu_affinity,
            "enable_worker_cpu_affinity",
            "the scheduler places threads",
        );
    }

    #[expect(deprecated, reason = "every field is looked at, the deprecated ones too")]
    fn admin(&mut self, admin: &Admin) -> Option<SocketAddr> {
        let Admin {
            access_log,
            access_log_path,
            profile_path,
            address,
            socket_options,
            ignore_global_conn_limit,
            allow_paths,
        } = admin;
        self.note_if(!access_log.is_empty(), "admin.access_log", "not read yet");
        self.note_if(!access_log_path.is_empty(), "admin.access_log_path", "not read yet");
        self.note_if(!profile_path.is_empty(), "admin.profile_path", "there is no profiler");
        self.note_if(
            *ignore_global_conn_limit,
            "admin.ignore_global_conn_limit",
            "there is no such limit for admin connections",
        );
        self.refuse_if(!socket_options.is_empty(), "admin.socket_options");
        self.refuse_if(!allow_paths.is_empty(), "admin.allow_paths");
        let address = address.as_ref()?;
        match socket_address_of(address) {
            Ok(address) => Some(address),
            Err(reason) => {
                self.refuse("admin.address", reason);
                None
            }
        }
    }
}

fn socket_address_of(address: &Address) -> Result<SocketAddr, &'static str> {
    let Some(address::Address::SocketAddress(socket)) = &address.address else {
        return Err("only socket_address is supported");
    };
    let Some(socket_address::PortSpecifier::PortValue(port)) = socket.port_specifier else {
        return Err("port_value is missing");
    };
    let ip = socket.address.parse().map_err(|_| "address must be an IP address")?;
    Ok(SocketAddr::new(ip, u16::try_from(port).map_err(|_| "port_value is not a port")?))
}

#[cfg(test)]
mod tests;
