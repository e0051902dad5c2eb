//! `/stats` and `/stats/prometheus`: what workers counted and what the main thread knows.

use std::sync::PoisonError;

use axum::http::StatusCode;
use meltemi_envoy::type_url;

use super::{Admin, Params, Reply, has, health, info, param, regex_param, subscriptions};
use crate::config::Store;
use crate::lifecycle::State;
use crate::stats::{Sample, Value, prometheus as page, text};

pub(super) const PARAMS: &[(&str, &str)] = &[
    ("usedonly", "Only include stats that have been written by system since restart"),
    ("filter", "Regular expression for filtering stats"),
    ("format", "Format to use; One of (text, json, prometheus)"),
    ("type", "Stat types to include; One of (All, Counters, Histograms, Gauges, TextReadouts)"),
];

pub(super) const PROMETHEUS_PARAMS: &[(&str, &str)] =
    &[("usedonly", "Only include stats that have been written by system since restart")];

pub(super) fn stats(admin: &Admin, params: &Params) -> Reply {
    let samples = match selected(admin, params) {
        Ok(samples) => samples,
        Err(reply) => return reply,
    };
    match param(params, "format").unwrap_or("text") {
        "text" | "" => Reply::text(text::lines(&samples)),
        "json" => Reply::compact_json(&text::json(&samples)),
        "prometheus" => exposition(admin, samples),
        _ => Reply::error(
            StatusCode::BAD_REQUEST,
            "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n",
        ),
    }
}

pub(super) fn prometheus(admin: &Admin, params: &Params) -> Reply {
    match selected(admin, params) {
        Ok(samples) => exposition(admin, samples),
        Err(reply) => reply,
    }
}

fn exposition(admin: &Admin, mut samples: Vec<Sample>) -> Reply {
    samples.iter_mut().for_each(|sample| admin.stats_config.tag(sample));
    let mut body = page::envoy(&samples);
    // Istio's metrics belong to proxies of a mesh, which say in their metadata who they are.
    if admin.bootstrap.node.as_ref().is_some_and(|node| node.metadata.is_some()) {
        body.push_str(&admin.registry.istio_metrics(info::VERSION));
    }
    Reply::text(body)
}

fn selected(admin: &Admin, params: &Params) -> Result<Vec<Sample>, Reply> {
    let filter = regex_param(params, "filter")?;
    let used_only = has(params, "usedonly");
    let kind = param(params, "type").unwrap_or("All");
    if !["All", "Counters", "Gauges", "Histograms", "TextReadouts"].contains(&kind) {
        return Err(Reply::error(StatusCode::BAD_REQUEST, "invalid &type= param"));
    }
    let mut samples = admin.registry.samples();
    samples.extend(process(admin));
    samples.retain(|sample| {
        (!used_only || sample.used)
            && admin.stats_config.allows(&sample.name)
            && filter.as_ref().is_none_or(|filter| filter.is_match(&sample.name))
            && (kind == "All" || kind == kind_of(&sample.value))
    });
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    since_reset(admin, &mut samples);
    Ok(samples)
}

/// Workers own their counters, so resetting remembers what they were.
fn since_reset(admin: &Admin, samples: &mut [Sample]) {
    let before = admin.counters_before.lock().unwrap_or_else(PoisonError::into_inner);
    for sample in samples {
        if let (Value::Counter(n), Some(before)) = (&mut sample.value, before.get(&sample.name)) {
            *n = n.saturating_sub(*before);
        }
    }
}

/// `/reset_counters`.
pub(super) fn reset_counters(admin: &Admin, _: &Params) -> Reply {
    let mut samples = admin.registry.samples();
    samples.extend(process(admin));
    let counters = samples.into_iter().filter_map(|sample| match sample.value {
        Value::Counter(n) => Some((sample.name, n)),
        _ => None,
    });
    *admin.counters_before.lock().unwrap_or_else(PoisonError::into_inner) = counters.collect();
    Reply::text("OK\n")
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Counter(_) => "Counters",
        Value::Gauge(_) => "Gauges",
        Value::Histogram(_) => "Histograms",
        Value::Text(_) => "TextReadouts",
    }
}

/// What no worker counts.
fn process(admin: &Admin) -> Vec<Sample> {
    let counter = |name: &str, n| Sample::plain(name, Value::Counter(n));
    let gauge = |name: &str, n| Sample::plain(name, Value::Gauge(n));
    let state = admin.lifecycle.state();
    let resident = info::resident_bytes().unwrap_or(0);
    let (connections, accepted) = admin.registry.downstream_connections(|_| true);
    let mut samples = vec![
        gauge("server.state", state as u64),
        gauge("server.live", u64::from(state == State::Live)),
        gauge("server.uptime", admin.uptime().as_secs()),
        gauge("server.concurrency", admin.concurrency as u64),
        gauge("server.memory_allocated", resident),
        gauge("server.memory_heap_size", resident),
        gauge("server.memory_physical_size", resident),
        gauge("server.total_connections", connections),
        counter("server.downstream_cx_total", accepted),
        counter("access_log.chunks_dropped", admin.logs.dropped()),
        gauge("listener_manager.workers_started", 1),
        // There are no certificates, no parent process, no sinks; unknown fields are refused or not looked for.
        gauge("server.days_until_first_cert_expiring", u64::from(u32::MAX)),
        gauge("server.hot_restart_epoch", 0),
        gauge("server.parent_connections", 0),
        counter("server.debug_assertion_failures", 0),
        counter("server.dropped_stat_flushes", 0),
        counter("server.dynamic_unknown_fields", 0),
        counter("server.static_unknown_fields", 0),
        counter("server.wip_protos", 0),
    ];
    let store = admin.store();
    managers(&store, admin.concurrency as u64, &mut samples);
    subscriptions::samples(&store, &mut samples);
    health::samples(&store, &admin.hosts, &mut samples);
    samples
}

fn managers(store: &Store, workers: u64, samples: &mut Vec<Sample>) {
    let mut counter = |name: &str, n| samples.push(Sample::plain(name, Value::Counter(n)));
    let clusters = store.counts(type_url::CLUSTER);
    let listeners = store.counts(type_url::LISTENER);
    let count = |is_static: &dyn Fn() -> usize| is_static() as u64;
    let static_clusters = count(&|| store.clusters().values().filter(|entry| entry.is_static).count());
    let static_listeners = count(&|| store.listeners().values().filter(|entry| entry.is_static).count());
    counter("cluster_manager.cluster_added", clusters.added + static_clusters);
    counter("cluster_manager.cluster_modified", clusters.modified);
    counter("cluster_manager.cluster_removed", clusters.removed);
    let per_worker = (listeners.added + listeners.modified + static_listeners) * workers;
    counter("listener_manager.listener_create_success", per_worker);
    counter("listener_manager.listener_added", listeners.added + static_listeners);
    counter("listener_manager.listener_modified", listeners.modified);
    counter("listener_manager.listener_removed", listeners.removed);
    let (active_clusters, warming_clusters) = store.cluster_counts();
    let (active_listeners, warming_listeners) = store.listener_counts();
    for (name, n) in [
        ("cluster_manager.active_clusters", active_clusters),
        ("cluster_manager.warming_clusters", warming_clusters),
        ("listener_manager.total_listeners_active", active_listeners),
        ("listener_manager.total_listeners_warming", warming_listeners),
    ] {
        // Envoy sets this one only when a listener warms.
        let used = n > 0 || name != "listener_manager.total_listeners_warming";
        samples.push(Sample { used, ..Sample::plain(name, Value::Gauge(n)) });
    }
    subscriptions::of_types(store, samples);
}
