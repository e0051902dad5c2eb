//! The options of `meltemi proxy`: those of the `envoy` binary that Istio's agent and people use.
//!
//! Source: <https://www.envoyproxy.io/docs/envoy/latest/operations/cli>. Options of Envoy that mean nothing here
//! are accepted, so that existing wrappers work, and their help says that they have no effect.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use meltemi_runtime::logging::Level;

use crate::departure::DrainPolicy;

/// Carry the traffic of one workload or gateway, as an Envoy bootstrap file says.
#[derive(Debug, Clone, Args)]
pub struct ProxyArgs {
    /// Bootstrap file, YAML or JSON (protobuf JSON of envoy.config.bootstrap.v3.Bootstrap).
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config_path: Option<PathBuf>,

    /// Bootstrap text; merged over the file, field by field.
    #[arg(long, value_name = "YAML")]
    pub config_yaml: Option<String>,

    /// Worker threads; default: the CPUs that this process may use.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub concurrency: Option<u32>,

    /// How long connections may finish when a listener goes away, and at most when the process is asked to stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub drain_time_s: u32,

    /// Which responses ask their client to go while listeners drain: a share that grows over half of the drain time, or
    /// all of them. All do when the process is asked to stop.
    #[arg(long, value_name = "STRATEGY", value_enum, default_value_t = DrainStrategy::Gradual)]
    pub drain_strategy: DrainStrategy,

    /// No effect (hot restart is not supported).
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub parent_shutdown_time_s: u32,

    /// trace, debug, info, warning, error, critical or off.
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    pub log_level: Level,

    /// Levels of components, `name:level,…`. The most detailed of them applies to everything.
    #[arg(long, value_name = "LIST", default_value = "")]
    pub component_log_level: String,

    /// No effect (the format of process logs is fixed).
    #[arg(long, value_name = "FORMAT", default_value = "")]
    pub log_format: String,

    /// No effect (both versions are always served).
    #[arg(long, value_name = "VERSION", default_value = "v4")]
    pub local_address_ip_version: String,

    /// Access logs are written at the latest after this time.
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub file_flush_interval_msec: u64,

    /// Access logs are written as soon as so much is there.
    #[arg(long, value_name = "KIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub file_flush_min_size_kb: u64,

    /// No effect (hot restart is not supported).
    #[arg(long)]
    pub disable_hot_restart: bool,

    /// Pass over unknown fields in the bootstrap, which are refused by name otherwise.
    #[arg(long)]
    pub allow_unknown_static_fields: bool,

    /// Refused: unknown fields from the control plane are passed over, as Envoy does without this option.
    #[arg(long)]
    pub reject_unknown_dynamic_fields: bool,

    /// No effect (unknown fields from the control plane are ignored).
    #[arg(long)]
    pub ignore_unknown_dynamic_fields: bool,

    /// No effect (nothing here is deprecated).
    #[arg(long)]
    pub skip_deprecated_logs: bool,

    /// `node.cluster` when the bootstrap has none.
    #[arg(long, value_name = "NAME")]
    pub service_cluster: Option<String>,

    /// `node.id` when the bootstrap has none.
    #[arg(long, value_name = "ID")]
    pub service_node: Option<String>,

    /// `node.locality.zone` when the bootstrap has none.
    #[arg(long, value_name = "ZONE")]
    pub service_zone: Option<String>,

    /// Serve; or check the bootstrap and exit; or bring everything up and exit.
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub mode: Mode,

    /// `NAME:VALUE`, a tag on every statistic. May be given several times.
    #[arg(long, value_name = "TAG")]
    pub stats_tag: Vec<String>,

    /// No effect (there is no shared memory).
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub base_id: u32,

    /// Write the admin interface's address to this file.
    #[arg(long, value_name = "FILE")]
    pub admin_address_path: Option<PathBuf>,

    /// No effect (the default already follows the CPU set of the process).
    #[arg(long)]
    pub cpuset_threads: bool,

    /// No effect (core dumps follow the limits of the process).
    #[arg(long)]
    pub enable_core_dump: bool,

    /// Write the bootstrap to standard output in binary form and exit.
    #[arg(long, hide = true)]
    pub encode_bootstrap: bool,
}

/// `--drain-strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DrainStrategy {
    /// A growing share of responses asks the client to go.
    Gradual,
    /// Every response asks the client to go.
    Immediate,
}

/// `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Serve traffic.
    Serve,
    /// Check the bootstrap and exit.
    Validate,
    /// Bring everything up, then exit.
    #[value(name = "init_only")]
    InitOnly,
}

impl ProxyArgs {
    /// The level of `--log-level`, or a more detailed one of `--component-log-level`.
    ///
    /// # Errors
    /// If a component's level does not exist.
    pub(crate) fn effective_log_level(&self) -> anyhow::Result<Level> {
        let mut level = self.log_level;
        for component in self.component_log_level.split(',').filter(|part| !part.is_empty()) {
            let (name, text) = component
                .split_once(':')
                .with_context(|| format!("--component-log-level {component}: no `:`"))?;
            let own: Level = text.parse().with_context(|| format!("--component-log-level {name}"))?;
            level = level.min(own);
        }
        Ok(level)
    }

    /// How clients leave listeners that go away.
    pub(crate) fn drain_policy(&self) -> DrainPolicy {
        DrainPolicy { time: Duration::from_secs(self.drain_time_s.into()), strategy: self.drain_strategy }
    }

    /// The arguments of a process that only encodes the bootstrap.
    pub(crate) fn to_encode(&self) -> Vec<OsString> {
        let mut arguments = vec![OsString::from("--encode-bootstrap")];
        let mut add = |name: &str, value: Option<&OsStr>| {
            if let Some(value) = value {
                // One word: a value may begin with a hyphen.
                let mut word = OsString::from(format!("{name}="));
                word.push(value);
                arguments.push(word);
            }
        };
        add("--config-path", self.config_path.as_deref().map(Path::as_os_str));
        add("--config-yaml", self.config_yaml.as_deref().map(OsStr::new));
        add("--service-cluster", self.service_cluster.as_deref().map(OsStr::new));
        add("--service-node", self.service_node.as_deref().map(OsStr::new));
        add("--service-zone", self.service_zone.as_deref().map(OsStr::new));
        self.stats_tag.iter().for_each(|tag| add("--stats-tag", Some(OsStr::new(tag))));
        if self.allow_unknown_static_fields {
            arguments.push(OsString::from("--allow-unknown-static-fields"));
        }
        arguments
    }

    /// Options that were given and have no effect, for the log.
    pub(crate) fn without_effect(&self) -> Vec<&'static str> {
        let given = [
            (self.parent_shutdown_time_s != 900, "--parent-shutdown-time-s"),
            (!self.log_format.is_empty(), "--log-format"),
            (self.local_address_ip_version != "v4", "--local-address-ip-version"),
            (self.disable_hot_restart, "--disable-hot-restart"),
            (self.ignore_unknown_dynamic_fields, "--ignore-unknown-dynamic-fields"),
            (self.skip_deprecated_logs, "--skip-deprecated-logs"),
            (self.base_id != 0, "--base-id"),
            (self.cpuset_threads, "--cpuset-threads"),
            (self.enable_core_dump, "--enable-core-dump"),
        ];
        given.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect()
    }
}
