//! The statistics of subscriptions: of all listeners and clusters, and of what is asked for by name.
//!
//! Source: Envoy's `SubscriptionStats` and the scopes under which each kind of resource has them.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::UNIX_EPOCH;

use meltemi_compile::program::{Discovery, Name, NetworkFilter, RouteSource};
use meltemi_envoy::type_url;

use crate::config::{Store, TypeCounts};
use crate::stats::{Sample, Value};

/// Of what is asked for by name.
pub(super) fn samples(store: &Store, samples: &mut Vec<Sample>) {
    clusters(store, samples);
    routes(store, samples);
    filters(store, samples);
}

/// `cluster.<name>.*` of clusters whose endpoints come by EDS.
fn clusters(store: &Store, samples: &mut Vec<Sample>) {
    let latest = store.clusters().values().filter_map(|entry| entry.latest());
    for cluster in latest.map(|loaded| &loaded.value.cluster) {
        let Discovery::Eds(service) = &cluster.discovery else { continue };
        let counts = counts(store, type_url::ENDPOINT, service);
        let prefix = format!("cluster.{}", cluster.stat_name);
        subscription(&prefix, &counts, samples);
        let mut add = |field: &str, n| {
            samples.push(Sample::plain(&format!("{prefix}.{field}"), Value::Counter(n)));
        };
        add("init_fetch_timeout", counts.timeouts);
        add("update_empty", 0);
        add("update_no_rebuild", counts.successes - counts.added - counts.modified);
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
    for (prefix, name) in rds {
        let counts = counts(store, type_url::ROUTE, name);
        let prefix = format!("http.{prefix}.rds.{name}");
        subscription(&prefix, &counts, samples);
        let reloads = Value::Counter(counts.added + counts.modified);
        samples.push(Sample::plain(&format!("{prefix}.config_reload"), reloads));
        let timeouts = Value::Counter(counts.timeouts);
        samples.push(Sample::plain(&format!("{prefix}.init_fetch_timeout"), timeouts));
    }
}

/// `extension_config_discovery.http_filter.<name>.*`.
fn filters(store: &Store, samples: &mut Vec<Sample>) {
    for (name, counts) in store.subscriptions(type_url::EXTENSION_CONFIG) {
        let prefix = format!("extension_config_discovery.http_filter.{name}");
        subscription(&prefix, counts, samples);
        for (field, n) in [
            ("config_conflict", counts.conflicts),
            ("config_fail", counts.rejections + counts.timeouts + counts.failures),
            ("config_reload", counts.added + counts.modified + counts.removed),
            ("init_fetch_timeout", counts.timeouts),
        ] {
            samples.push(Sample::plain(&format!("{prefix}.{field}"), Value::Counter(n)));
        }
    }
}

fn counts(store: &Store, kind: &'static str, name: &Name) -> TypeCounts {
    let found = store.subscriptions(kind).find(|(of, _)| *of == name);
    found.map(|(_, counts)| counts.clone()).unwrap_or_default()
}

/// The statistics that every subscription has.
pub(super) fn subscription(prefix: &str, counts: &TypeCounts, samples: &mut Vec<Sample>) {
    // A gauge of a subscription that was never answered was never set.
    let used = counts.is_answered();
    let mut add = |field: &str, value| {
        let sample = Sample::plain(&format!("{prefix}.{field}"), value);
        let used = sample.used && used;
        samples.push(Sample { used, ..sample });
    };
    add("update_attempt", Value::Counter(counts.attempts));
    add("update_success", Value::Counter(counts.successes));
    add("update_rejected", Value::Counter(counts.rejections));
    add("update_failure", Value::Counter(counts.failures));
    let millis =
        counts.updated.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |at| at.as_millis());
    add("update_time", Value::Gauge(u64::try_from(millis).unwrap_or(u64::MAX)));
    let mut version = DefaultHasher::new();
    counts.version.hash(&mut version);
    let version = if counts.version.is_empty() { 0 } else { version.finish() };
    add("version", Value::Gauge(version));
    add("version_text", Value::Text(counts.version.clone()));
}
