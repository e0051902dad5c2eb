//! The statistics of subscriptions: of all listeners and clusters, and of what is asked for by name.
//!
//! Source: Envoy's `SubscriptionStats` and the scopes under which each kind of resource has them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

use meltemi_compile::program::{Discovery, Name, NetworkFilter, RouteSource};
use meltemi_envoy::type_url;
use xxhash_rust::xxh64::xxh64;

use crate::config::{Store, TypeCounts};
use crate::stats::{Sample, Value};

/// Under which name the numbers of a subscription stand.
struct Scope {
    name: String,
    /// For Prometheus: the name without what is a label.
    metric: &'static str,
    labels: Vec<(Cow<'static, str>, String)>,
}

impl Scope {
    fn new(name: String, metric: &'static str, labels: &[(&'static str, &str)]) -> Scope {
        let label = |(label, value): &(&'static str, &str)| (Cow::Borrowed(*label), (*value).to_owned());
        Scope { name, metric, labels: labels.iter().map(label).collect() }
    }

    fn sample(&self, field: &str, value: Value) -> Sample {
        Sample {
            metric: format!("{}_{field}", self.metric),
            labels: self.labels.clone(),
            ..Sample::plain(&format!("{}.{field}", self.name), value)
        }
    }

    fn counters(&self, counters: &[(&str, u64)], samples: &mut Vec<Sample>) {
        samples.extend(counters.iter().map(|(field, n)| self.sample(field, Value::Counter(*n))));
    }

    /// The statistics that every subscription has.
    fn subscription(&self, counts: &TypeCounts, samples: &mut Vec<Sample>) {
        // A gauge of a subscription that was never answered was never set.
        let used = counts.is_answered();
        let mut add = |field: &str, value| {
            let sample = self.sample(field, value);
            let used = sample.used && used;
            samples.push(Sample { used, ..sample });
        };
        add("update_attempt", Value::Counter(counts.attempts));
        add("update_success", Value::Counter(counts.successes));
        add("update_rejected", Value::Counter(counts.rejections));
        add("update_failure", Value::Counter(counts.failures));
        add("init_fetch_timeout", Value::Counter(counts.timeouts));
        let millis = counts.updated.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let millis = millis.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        add("update_time", Value::Gauge(millis));
        let version = if counts.version.is_empty() { 0 } else { xxh64(counts.version.as_bytes(), 0) };
        add("version", Value::Gauge(version));
        add("version_text", Value::Text(counts.version.clone()));
    }
}

/// Of all clusters and all listeners.
pub(super) fn of_types(store: &Store, samples: &mut Vec<Sample>) {
    for (name, metric, kind) in [
        ("cluster_manager.cds", "cluster_manager_cds", type_url::CLUSTER),
        ("listener_manager.lds", "listener_manager_lds", type_url::LISTENER),
    ] {
        Scope::new(name.to_owned(), metric, &[]).subscription(&store.counts(kind), samples);
    }
}

/// Of what is asked for by name.
pub(super) fn samples(store: &Store, samples: &mut Vec<Sample>) {
    clusters(store, samples);
    routes(store, samples);
    filters(store, samples);
    secrets(store, samples);
}

/// `cluster.<name>.*` of clusters whose endpoints come by EDS.
fn clusters(store: &Store, samples: &mut Vec<Sample>) {
    let latest = store.clusters().values().filter_map(|entry| entry.latest());
    for cluster in latest.map(|loaded| &loaded.value.cluster) {
        let Discovery::Eds(service) = &cluster.discovery else { continue };
        let counts = counts(store, type_url::ENDPOINT, service);
        let name = format!("cluster.{}", cluster.stat_name);
        let scope = Scope::new(name, "cluster", &[("envoy_cluster_name", &cluster.stat_name)]);
        scope.subscription(&counts, samples);
        let unchanged = counts.successes.saturating_sub(counts.added + counts.modified);
        scope.counters(&[("update_empty", 0), ("update_no_rebuild", unchanged)], samples);
    }
}

/// `http.<stat_prefix>.rds.<name>.*`.
fn routes(store: &Store, samples: &mut Vec<Sample>) {
    let listeners = store.listeners().values().filter_map(|entry| entry.latest());
    let chains = listeners.flat_map(|loaded| &loaded.value.chains);
    let rds: BTreeSet<(&Name, &Name)> = chains
        .filter_map(|chain| match &chain.filter {
            NetworkFilter::Http(manager) => match &manager.routes {
                RouteSource::Rds(name) => Some((&manager.stat_prefix, name)),
                RouteSource::Inline(_) => None,
            },
            NetworkFilter::Tcp(_) | NetworkFilter::DirectResponse(_) => None,
        })
        .collect();
    for (prefix, route) in rds {
        let counts = counts(store, type_url::ROUTE, route);
        let route = sanitised(route);
        let labels = [("envoy_rds_route_config", &*route), ("envoy_http_conn_manager_prefix", &**prefix)];
        let scope = Scope::new(format!("http.{prefix}.rds.{route}"), "http_rds", &labels);
        scope.subscription(&counts, samples);
        scope.counters(&[("config_reload", counts.added + counts.modified), ("update_empty", 0)], samples);
    }
}

/// `extension_config_discovery.http_filter.<name>.*`.
fn filters(store: &Store, samples: &mut Vec<Sample>) {
    for (name, counts) in store.subscriptions(type_url::EXTENSION_CONFIG) {
        let name = sanitised(name);
        let metric = "extension_config_discovery_http_filter";
        let labels = [("envoy_extension_config_name", &*name)];
        let scope = Scope::new(format!("extension_config_discovery.http_filter.{name}"), metric, &labels);
        scope.subscription(counts, samples);
        let counters = [
            ("config_conflict", counts.conflicts),
            ("config_fail", counts.rejections + counts.timeouts + counts.failures),
            ("config_reload", counts.added + counts.modified + counts.removed),
        ];
        scope.counters(&counters, samples);
    }
}

/// `sds.<name>.*`.
fn secrets(store: &Store, samples: &mut Vec<Sample>) {
    for (name, counts) in store.subscriptions(type_url::SECRET) {
        let name = sanitised(name);
        let scope = Scope::new(format!("sds.{name}"), "sds", &[("envoy_xds_resource_name", &name)]);
        scope.subscription(counts, samples);
        scope.counters(&[("key_rotation_failed", counts.unreadable)], samples);
    }
}

fn counts(store: &Store, kind: &'static str, name: &Name) -> TypeCounts {
    let found = store.subscriptions(kind).find(|(of, _)| *of == name);
    found.map(|(_, counts)| counts.clone()).unwrap_or_default()
}

/// A name as it stands in statistics.
fn sanitised(name: &str) -> String {
    name.replace("://", "_").replace(":/", "_").replace(':', "_")
}
