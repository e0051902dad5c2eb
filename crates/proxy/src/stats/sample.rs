//! Statistics as values with names: what the admin interface prints.

use std::borrow::Cow;
use std::collections::BTreeMap;

use meltemi_compile::program::Name;
use meltemi_http::ByteCounts;

use super::scope::{Cell, ResponseCodes};
use super::value::{Counter, Distribution};
use super::{Parts, Registry, Scopes};

/// One statistic, summed over workers.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Envoy's dotted name without tags taken out, such as `cluster.reviews.upstream_rq_total`.
    pub name: String,
    /// The name for Prometheus without `envoy_`, such as `cluster_upstream_rq_total`.
    pub metric: String,
    /// The tags that were taken out of the name.
    pub labels: Vec<(Cow<'static, str>, String)>,
    /// The value.
    pub value: Value,
    /// Whether it was ever written.
    pub used: bool,
}

/// The value of a [`Sample`].
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Only grows.
    Counter(u64),
    /// Goes up and down.
    Gauge(u64),
    /// A distribution.
    Histogram(Box<Distribution>),
    /// A text; Prometheus does not see it.
    Text(String),
}

impl Sample {
    /// A statistic without tags.
    pub fn plain(name: &str, value: Value) -> Sample {
        // Whoever tells a gauge has set it.
        let used = matches!(value, Value::Gauge(_)) || value.is_there();
        Sample {
            name: name.to_owned(),
            metric: name.replace(['.', '-'], "_"),
            labels: Vec::new(),
            value,
            used,
        }
    }
}

impl Value {
    /// Whether anything was counted.
    fn is_there(&self) -> bool {
        match self {
            Value::Counter(n) | Value::Gauge(n) => *n > 0,
            Value::Histogram(distribution) => distribution.count() > 0,
            Value::Text(text) => !text.is_empty(),
        }
    }

    fn of(cell: Cell<'_>) -> Value {
        match cell {
            Cell::Counter(counter) => Value::Counter(counter.get()),
            Cell::Gauge(gauge) => Value::Gauge(gauge.get()),
            Cell::Histogram(histogram) => {
                let mut distribution = Distribution::default();
                histogram.add_to(&mut distribution);
                Value::Histogram(Box::new(distribution))
            }
        }
    }

    fn add(&mut self, other: Value) {
        match (self, other) {
            (Value::Counter(sum), Value::Counter(n)) | (Value::Gauge(sum), Value::Gauge(n)) => {
                *sum = sum.wrapping_add(n);
            }
            (Value::Histogram(sum), Value::Histogram(other)) => sum.add(&other),
            _ => {}
        }
    }
}

/// Samples by name, while they are summed.
#[derive(Default)]
struct Sums(BTreeMap<String, Sample>);

impl Sums {
    fn add(&mut self, sample: Sample) {
        match self.0.get_mut(&sample.name) {
            Some(sum) => {
                sum.value.add(sample.value);
                sum.used |= sample.used;
            }
            None => drop(self.0.insert(sample.name.clone(), sample)),
        }
    }
}

/// The naming of a scope: `<kind>.<instance>.<field>`, and `<kind>_<field>{<tag>="<instance>"}`.
struct Naming<'a> {
    kind: &'static str,
    tag: &'static str,
    instance: &'a str,
}

impl Naming<'_> {
    fn sample(&self, field: &str, cell: Cell<'_>) -> Sample {
        self.tagged(field, field, None, cell)
    }

    fn tagged(
        &self,
        field: &str,
        metric: &str,
        tag: Option<(&'static str, String)>,
        cell: Cell<'_>,
    ) -> Sample {
        let tags = tag.into_iter().chain([(self.tag, self.instance.to_owned())]);
        let value = Value::of(cell);
        let used = match cell {
            Cell::Gauge(gauge) => gauge.is_used(),
            _ => value.is_there(),
        };
        Sample {
            name: format!("{}.{}.{field}", self.kind, self.instance),
            metric: format!("{}_{metric}", self.kind),
            labels: tags.map(|(label, value)| (Cow::Borrowed(label), value)).collect(),
            value,
            used,
        }
    }

    fn gauge(&self, field: &str, value: u64) -> Sample {
        Sample {
            name: format!("{}.{}.{field}", self.kind, self.instance),
            metric: format!("{}_{}", self.kind, field.replace('.', "_")),
            labels: vec![(self.tag.into(), self.instance.to_owned())],
            value: Value::Gauge(value),
            used: true,
        }
    }

    /// `<prefix>_rx_bytes_total` and `<prefix>_tx_bytes_total`.
    fn bytes(&self, prefix: &str, of: &ByteCounts, sums: &mut Sums) {
        for (side, n) in [("rx", of.received()), ("tx", of.sent())] {
            let counter = Counter::default();
            counter.add(n);
            sums.add(self.sample(&format!("{prefix}_{side}_bytes_total"), Cell::Counter(&counter)));
        }
    }

    /// `ssl.<field>`; of `ssl.ciphers.<cipher>` and its kin, the last part is a tag.
    fn ssl(&self, field: &str, cell: Cell<'_>) -> Sample {
        let (metric, tag) = match field.split_once('.') {
            Some((kind, name)) => {
                let tag = match kind {
                    "ciphers" => "envoy_ssl_cipher",
                    "versions" => "envoy_ssl_version",
                    _ => "envoy_ssl_curve",
                };
                (format!("ssl_{kind}"), Some((tag, name.to_owned())))
            }
            None => (format!("ssl_{field}"), None),
        };
        self.tagged(&format!("ssl.{field}"), &metric, tag, cell)
    }

    /// `grpc.<field>`, or `grpc.<service>.<method>.<field>`; `method` is `service/method`.
    fn grpc(&self, method: &str, field: &str, cell: Cell<'_>) -> Sample {
        let mut sample = self.tagged(&format!("grpc.{field}"), &format!("grpc_{field}"), None, cell);
        if let Some((service, method)) = method.split_once('/') {
            sample.name = format!("{}.{}.grpc.{service}.{method}.{field}", self.kind, self.instance);
            sample.labels.push(("envoy_grpc_bridge_service".into(), service.to_owned()));
            sample.labels.push(("envoy_grpc_bridge_method".into(), method.to_owned()));
        }
        sample
    }

    /// `<prefix>_2xx`, `<prefix>_completed` and, where `codes`, `<prefix>_200`.
    fn codes(&self, prefix: &str, of: &ResponseCodes, codes: bool, sums: &mut Sums) {
        sums.add(self.sample(&format!("{prefix}_completed"), Cell::Counter(&of.completed)));
        of.visit_classes(&mut |class, counter| {
            let tag = ("envoy_response_code_class", class.to_string());
            let field = format!("{prefix}_{class}xx");
            sums.add(self.tagged(&field, &format!("{prefix}_xx"), Some(tag), Cell::Counter(counter)));
        });
        if !codes {
            return;
        }
        of.visit_codes(&mut |code, counter| {
            let tag = ("envoy_response_code", code.to_string());
            sums.add(self.tagged(&format!("{prefix}_{code}"), prefix, Some(tag), Cell::Counter(counter)));
        });
    }
}

impl Registry {
    /// Everything that workers count, by name, without Istio's metrics.
    pub fn samples(&self) -> Vec<Sample> {
        let mut sums = Sums::default();
        let scopes = self.scopes();
        let Scopes { clusters, listeners, http, tcp, .. } = &*scopes;
        filters(&scopes, &mut sums);
        each(clusters, |stats| {
            let naming = Naming { kind: "cluster", tag: "envoy_cluster_name", instance: &stats.stat_name };
            stats.counts.visit(&mut |field, cell| sums.add(naming.sample(field, cell)));
            naming.codes("upstream_rq", &stats.codes, true, &mut sums);
            stats.grpc.visit(&mut |method, field, cell| sums.add(naming.grpc(method, field, cell)));
            naming.bytes("upstream_cx", &stats.bytes, &mut sums);
            if let Some(tls) = stats.ssl() {
                tls.ssl.visit(&mut |field, cell| sums.add(naming.ssl(field, cell)));
                tls.factory.visit(&mut |field, cell| {
                    let field = format!("client_ssl_socket_factory.{field}");
                    sums.add(naming.tagged(&field, &field.replace('.', "_"), None, cell));
                });
            }
        });
        // The breakers are the same for all workers.
        for stats in clusters.values().filter_map(|workers| workers.values().next()) {
            let naming = Naming { kind: "cluster", tag: "envoy_cluster_name", instance: &stats.stat_name };
            stats.visit_breakers(|field, value| sums.add(naming.gauge(&field, value)));
        }
        each(listeners, |stats| {
            let naming = Naming { kind: "listener", tag: "envoy_listener_address", instance: &stats.address };
            stats.counts.visit(&mut |field, cell| sums.add(naming.sample(field, cell)));
            if let Some(tls) = stats.tls.get() {
                tls.ssl.visit(&mut |field, cell| sums.add(naming.ssl(field, cell)));
                tls.factory.visit(&mut |field, cell| {
                    let field = format!("server_ssl_socket_factory.{field}");
                    sums.add(naming.tagged(&field, &field.replace('.', "_"), None, cell));
                });
            }
        });
        each(http, |stats| {
            let naming =
                Naming { kind: "http", tag: "envoy_http_conn_manager_prefix", instance: &stats.prefix };
            stats.counts.visit(&mut |field, cell| sums.add(naming.sample(field, cell)));
            naming.codes("downstream_rq", &stats.codes, false, &mut sums);
            naming.bytes("downstream_cx", &stats.bytes, &mut sums);
            stats.filters.visit(&mut |field, cell| {
                let metric = field.replace(['.', '-'], "_");
                sums.add(naming.tagged(field, &metric, None, cell));
            });
        });
        each(tcp, |stats| {
            let naming = Naming { kind: "tcp", tag: "envoy_tcp_prefix", instance: &stats.prefix };
            stats.counts.visit(&mut |field, cell| sums.add(naming.sample(field, cell)));
        });
        sums.0.into_values().collect()
    }

    /// Connections open on the listeners of these names, and connections that they accepted so far.
    pub fn downstream_connections(&self, counts: impl Fn(&Name) -> bool) -> (u64, u64) {
        let (mut active, mut total) = (0, 0);
        each(&self.scopes().listeners, |stats| {
            if counts(&stats.name) {
                active += stats.counts.downstream_cx_active.get();
                total += stats.counts.downstream_cx_total.get();
            }
        });
        (active, total)
    }

    /// Numbers of every host of a cluster, summed over workers, in the order of the addresses.
    pub fn hosts(&self, cluster: &str) -> BTreeMap<std::net::SocketAddr, Vec<(&'static str, Value)>> {
        let mut hosts: BTreeMap<_, Vec<(&'static str, Value)>> = BTreeMap::new();
        let scopes = self.scopes();
        for part in scopes.clusters.get(cluster).into_iter().flat_map(BTreeMap::values) {
            for host in part.hosts() {
                let mut fields = Vec::new();
                host.counts.visit(&mut |field, cell| fields.push((field, Value::of(cell))));
                match hosts.get_mut(&host.address) {
                    Some(sum) => sum.iter_mut().zip(fields).for_each(|((_, sum), (_, value))| sum.add(value)),
                    None => drop(hosts.insert(host.address, fields)),
                }
            }
        }
        hosts
    }
}

/// Listener and network filters.
fn filters(scopes: &Scopes, sums: &mut Sums) {
    let mut plain = |prefix: &str, field: &str, cell: Cell<'_>| {
        sums.add(Sample::plain(&format!("{prefix}{field}"), Value::of(cell)));
    };
    each(&scopes.tls_inspector, |counts| {
        counts.visit(&mut |field, cell| plain("tls_inspector.", field, cell));
    });
    each(&scopes.http_inspector, |counts| {
        counts.visit(&mut |field, cell| plain("http_inspector.", field, cell));
    });
    for (prefix, parts) in &scopes.proxy_protocol {
        let prefix = match &**prefix {
            "" => "proxy_proto.".to_owned(),
            prefix => format!("proxy_proto.{prefix}."),
        };
        parts.values().for_each(|counts| counts.visit(&mut |field, cell| plain(&prefix, field, cell)));
    }
    for (prefix, parts) in &scopes.connection_limits {
        let naming =
            Naming { kind: "connection_limit", tag: "envoy_connection_limit_prefix", instance: prefix };
        for counts in parts.values() {
            counts.visit(&mut |field, cell| sums.add(naming.sample(field, cell)));
        }
    }
}

fn each<K, S>(parts: &Parts<K, S>, mut visit: impl FnMut(&S)) {
    parts.values().flat_map(BTreeMap::values).for_each(|part| visit(part));
}
