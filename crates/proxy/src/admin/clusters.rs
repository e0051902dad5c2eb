//! `/clusters`: clusters in force with their hosts and what was counted for each.

use std::sync::Arc;

use meltemi_compile::program::{CircuitBreaker, Cluster, Discovery, Endpoints, Host, Locality, Program};
use meltemi_envoy::config::core::v3::HealthStatus;
use serde_json::{Value as Json, json};

use super::health;
use super::listeners::socket_address;
use super::{Admin, Params, Reply, param, regex_param};
use crate::stats::Value;
use crate::upstream::shared::{ClusterState, HostState, Origin};

pub(super) const PARAMS: &[(&str, &str)] = &[
    ("filter", "Regular expression for filtering clusters by name"),
    ("format", "File format to use; One of (text, json)"),
];

pub(super) fn clusters(admin: &Admin, params: &Params) -> Reply {
    let filter = match regex_param(params, "filter") {
        Ok(filter) => filter,
        Err(reply) => return reply,
    };
    let (program, statics) = {
        let store = admin.store();
        let statics = store.clusters().iter().filter(|(_, entry)| entry.is_static);
        let statics: std::collections::BTreeSet<_> = statics.map(|(name, _)| name.clone()).collect();
        (store.program(), statics)
    };
    let shown = program.clusters.values().filter(|c| filter.as_ref().is_none_or(|f| f.is_match(&c.name)));
    let statuses = shown.map(|cluster| Status {
        added_via_api: !statics.contains(&cluster.name),
        state: admin.hosts.cluster(cluster),
        hosts: hosts(admin, cluster, &program),
        cluster,
    });
    if param(params, "format") == Some("json") {
        let statuses: Vec<Json> = statuses.map(|status| status.json()).collect();
        return Reply::json(&json!({ "cluster_statuses": statuses }));
    }
    Reply::text(statuses.map(|status| status.text()).collect::<String>())
}

struct Status<'a> {
    cluster: &'a Arc<Cluster>,
    added_via_api: bool,
    state: Arc<ClusterState>,
    hosts: Vec<HostStatus>,
}

struct HostStatus {
    host: Host,
    priority: usize,
    state: Arc<HostState>,
    numbers: Vec<(&'static str, Value)>,
}

fn hosts(admin: &Admin, cluster: &Cluster, program: &Program) -> Vec<HostStatus> {
    let Some(endpoints) = program.endpoints.get(&cluster.name) else { return Vec::new() };
    let mut numbers = admin.registry.hosts(&cluster.name);
    let state = admin.hosts.cluster(cluster);
    let each = |(priority, host): (usize, &Host)| HostStatus {
        host: host.clone(),
        priority,
        state: state.host(host.address),
        numbers: numbers.remove(&host.address).unwrap_or_default(),
    };
    by_priority(endpoints).map(each).collect()
}

fn by_priority(endpoints: &Endpoints) -> impl Iterator<Item = (usize, &Host)> {
    let priorities = endpoints.priorities.iter().enumerate();
    priorities.flat_map(|(priority, hosts)| hosts.iter().map(move |host| (priority, host)))
}

impl Status<'_> {
    fn text(&self) -> String {
        let name = &self.cluster.name;
        let mut lines = vec![format!("observability_name::{}", self.cluster.stat_name)];
        lines.extend(self.outlier_rates());
        for (priority, breaker) in ["default", "high"].into_iter().zip(&self.cluster.circuit_breakers) {
            let CircuitBreaker { max_connections, max_pending_requests, max_requests, max_retries, .. } =
                breaker;
            lines.extend([
                format!("{priority}_priority::max_connections::{max_connections}"),
                format!("{priority}_priority::max_pending_requests::{max_pending_requests}"),
                format!("{priority}_priority::max_requests::{max_requests}"),
                format!("{priority}_priority::max_retries::{max_retries}"),
            ]);
        }
        lines.push(format!("added_via_api::{}", self.added_via_api));
        if let Discovery::Eds(service) = &self.cluster.discovery {
            lines.push(format!("eds_service_name::{service}"));
        }
        lines.extend(self.hosts.iter().flat_map(HostStatus::text));
        lines.iter().map(|line| format!("{name}::{line}\n")).collect()
    }

    fn json(&self) -> Json {
        let mut status = json!({
            "name": &*self.cluster.name,
            "observability_name": &*self.cluster.stat_name,
            "host_statuses": self.hosts.iter().map(HostStatus::json).collect::<Vec<_>>(),
            "circuit_breakers": {"thresholds": self.thresholds()},
        });
        if self.added_via_api {
            status["added_via_api"] = true.into();
        }
        if let Discovery::Eds(service) = &self.cluster.discovery {
            status["eds_service_name"] = (**service).into();
        }
        status
    }

    /// Success rates of the cluster in the last interval, with outlier detection.
    fn outlier_rates(&self) -> Vec<String> {
        if self.cluster.outlier.is_none() {
            return Vec::new();
        }
        let rates = self.state.outlier.rates();
        let lines = |prefix, origin| {
            let rate = rates[origin as usize];
            let (average, threshold) = rate.map_or((-1.0, -1.0), |rate| (rate.average, rate.threshold));
            [
                format!("outlier::{prefix}success_rate_average::{average}"),
                format!("outlier::{prefix}success_rate_ejection_threshold::{threshold}"),
            ]
        };
        [lines("", Origin::External), lines("local_origin_", Origin::Local)].concat()
    }

    fn thresholds(&self) -> Vec<Json> {
        let priorities = ["DEFAULT", "HIGH"].into_iter().zip(&self.cluster.circuit_breakers);
        priorities
            .map(|(priority, breaker)| {
                json!({
                    "priority": priority,
                    "max_connections": breaker.max_connections,
                    "max_pending_requests": breaker.max_pending_requests,
                    "max_requests": breaker.max_requests,
                    "max_retries": breaker.max_retries,
                })
            })
            .collect()
    }
}

impl HostStatus {
    fn text(&self) -> Vec<String> {
        let address = self.host.address;
        let mut fields: Vec<String> =
            self.numbers.iter().map(|(name, value)| format!("{name}::{}", number(value))).collect();
        let Locality { region, zone, sub_zone } = &*self.host.locality;
        fields.extend([
            format!("hostname::{}", self.host.hostname),
            format!("health_flags::{}", health::flags_text(&self.state, self.host.health)),
            format!("weight::{}", self.host.weight),
            format!("region::{region}"),
            format!("zone::{zone}"),
            format!("sub_zone::{sub_zone}"),
            "canary::false".to_owned(),
            format!("priority::{}", self.priority),
            format!("success_rate::{}", self.success_rate(Origin::External)),
            format!("local_origin_success_rate::{}", self.success_rate(Origin::Local)),
        ]);
        fields.into_iter().map(|field| format!("{address}::{field}")).collect()
    }

    fn success_rate(&self, origin: Origin) -> f64 {
        self.state.outlier.success_rate(origin)
    }

    fn json(&self) -> Json {
        let mut health = json!({"eds_health_status": self.eds_health_status()});
        health::flags(&self.state).for_each(|flag| health[flag] = true.into());
        let mut status = json!({
            "address": socket_address(self.host.address),
            "stats": self.numbers.iter().map(metric).collect::<Vec<_>>(),
            "health_status": health,
            "weight": self.host.weight,
            "locality": self.locality(),
        });
        if !self.host.hostname.is_empty() {
            status["hostname"] = (*self.host.hostname).into();
        }
        if self.priority > 0 {
            status["priority"] = self.priority.into();
        }
        status
    }

    fn eds_health_status(&self) -> &'static str {
        match self.host.health {
            HealthStatus::Unknown => HealthStatus::Healthy.as_str_name(),
            status => status.as_str_name(),
        }
    }

    fn locality(&self) -> Json {
        let Locality { region, zone, sub_zone } = &*self.host.locality;
        let parts = [("region", region), ("zone", zone), ("sub_zone", sub_zone)].into_iter();
        parts
            .filter(|(_, part)| !part.is_empty())
            .map(|(name, part)| (name.to_owned(), Json::from(&**part)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

fn number(value: &Value) -> u64 {
    match value {
        Value::Counter(n) | Value::Gauge(n) => *n,
        Value::Histogram(_) | Value::Text(_) => 0,
    }
}

/// `envoy.admin.v3.SimpleMetric`; defaults are left out, 64-bit numbers are strings.
fn metric((name, value): &(&'static str, Value)) -> Json {
    let mut metric = json!({ "name": name });
    if let Value::Gauge(_) = value {
        metric["type"] = "GAUGE".into();
    }
    if number(value) > 0 {
        metric["value"] = number(value).to_string().into();
    }
    metric
}
