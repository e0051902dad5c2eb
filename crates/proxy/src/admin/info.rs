//! `/ready`, `/server_info`, `/memory`, `/certs`, `/runtime`, `/hot_restart_version`.

use axum::http::StatusCode;
use meltemi_envoy::admin::v3::{CommandLineOptions, ServerInfo, command_line_options};
use meltemi_envoy::json::Codec;
use serde_json::json;

use super::{Admin, Params, Reply};
use crate::command_line::{DrainStrategy, Mode};
use crate::lifecycle::State;

/// The version that `/server_info` and `istio_build` name.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn ready(admin: &Admin, _: &Params) -> Reply {
    let state = admin.lifecycle.state();
    let status = if state == State::Live { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Reply { status, ..Reply::text(format!("{}\n", state.as_str())) }
}

pub(super) fn server_info(admin: &Admin, _: &Params) -> Reply {
    let uptime = prost_types::Duration { seconds: whole_seconds(admin), nanos: 0 };
    let info = ServerInfo {
        version: version(),
        state: admin.lifecycle.state() as i32,
        uptime_current_epoch: Some(uptime),
        uptime_all_epochs: Some(uptime),
        hot_restart_version: "disabled".to_owned(),
        command_line_options: Some(command_line(admin)),
        node: admin.bootstrap.node.clone(),
        hot_restart_initializing: false,
    };
    match Codec::new().to_json(&info) {
        Ok(json) => Reply::json(&json_with_state(json, admin)),
        Err(error) => Reply::error(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// `LIVE` is the default of the enum, which JSON would leave out; tools read it.
fn json_with_state(mut json: serde_json::Value, admin: &Admin) -> serde_json::Value {
    if let Some(object) = json.as_object_mut() {
        object.insert("state".to_owned(), admin.lifecycle.state().as_str().into());
    }
    json
}

/// Revision, version, state of the tree, build, TLS library: the form that istioctl takes apart.
fn version() -> String {
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!("meltemi/{VERSION}/Clean/{build}/rustls")
}

fn whole_seconds(admin: &Admin) -> i64 {
    i64::try_from(admin.uptime().as_secs()).unwrap_or(i64::MAX)
}

fn command_line(admin: &Admin) -> CommandLineOptions {
    let args = &admin.args;
    let seconds = |seconds: u32| Some(prost_types::Duration { seconds: i64::from(seconds), nanos: 0 });
    let level = admin.logging.as_ref().map_or(args.log_level, |logging| logging.level());
    let flush = std::time::Duration::from_millis(args.file_flush_interval_msec);
    CommandLineOptions {
        base_id: u64::from(args.base_id),
        concurrency: u32::try_from(admin.concurrency).unwrap_or(u32::MAX),
        config_path: args.config_path.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
        config_yaml: args.config_yaml.clone().unwrap_or_default(),
        allow_unknown_static_fields: args.allow_unknown_static_fields,
        reject_unknown_dynamic_fields: args.reject_unknown_dynamic_fields,
        ignore_unknown_dynamic_fields: args.ignore_unknown_dynamic_fields,
        skip_deprecated_logs: args.skip_deprecated_logs,
        admin_address_path: args
            .admin_address_path
            .as_deref()
            .map(|p| p.display().to_string())
            .unwrap_or_default(),
        log_level: level.to_string(),
        component_log_level: args.component_log_level.clone(),
        log_format: args.log_format.clone(),
        service_cluster: args.service_cluster.clone().unwrap_or_default(),
        service_node: args.service_node.clone().unwrap_or_default(),
        service_zone: args.service_zone.clone().unwrap_or_default(),
        file_flush_interval: prost_types::Duration::try_from(flush).ok(),
        file_flush_min_size: u32::try_from(args.file_flush_min_size_kb).unwrap_or(u32::MAX),
        drain_time: seconds(args.drain_time_s),
        drain_strategy: match args.drain_strategy {
            DrainStrategy::Gradual => command_line_options::DrainStrategy::Gradual as i32,
            DrainStrategy::Immediate => command_line_options::DrainStrategy::Immediate as i32,
        },
        parent_shutdown_time: seconds(args.parent_shutdown_time_s),
        mode: match args.mode {
            Mode::Serve => command_line_options::Mode::Serve as i32,
            Mode::Validate => command_line_options::Mode::Validate as i32,
            Mode::InitOnly => command_line_options::Mode::InitOnly as i32,
        },
        disable_hot_restart: true,
        cpuset_threads: args.cpuset_threads,
        enable_core_dump: args.enable_core_dump,
        ..CommandLineOptions::default()
    }
}

/// The allocator tells nothing, so resident memory stands for all of it.
pub(super) fn memory(_: &Admin, _: &Params) -> Reply {
    let resident = resident_bytes().unwrap_or(0).to_string();
    Reply::json(&json!({
        "allocated": resident,
        "heap_size": resident,
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": resident,
    }))
}

/// Resident memory of the process.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// There are no runtime layers.
pub(super) fn runtime(_: &Admin, _: &Params) -> Reply {
    Reply::json(&json!({"layers": [], "entries": {}}))
}

pub(super) fn hot_restart_version(_: &Admin, _: &Params) -> Reply {
    Reply::text("disabled")
}

/// There are no mutexes whose contention could be traced.
pub(super) fn contention(_: &Admin, _: &Params) -> Reply {
    Reply::text(
        "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.",
    )
}

/// What is still being initialized, by init manager; there is one here, and it is silent once done.
pub(super) fn init_dump(admin: &Admin, _: &Params) -> Reply {
    let store = admin.store();
    let warming = |what: &str, name: &str| json!(format!("{what} {name}"));
    let clusters = store.clusters().iter().filter(|(_, entry)| entry.warming.is_some());
    let listeners = store.listeners().iter().filter(|(_, entry)| entry.warming.is_some());
    let targets: Vec<serde_json::Value> = clusters
        .map(|(name, _)| warming("Cluster", name))
        .chain(listeners.map(|(name, _)| warming("Listener", name)))
        .collect();
    if targets.is_empty() {
        return Reply::json(&json!({}));
    }
    Reply::json(&json!({"unready_targets_dumps": [{"name": "Server", "target_names": targets}]}))
}
