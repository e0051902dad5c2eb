//! Statistics in the text format of Prometheus: Envoy's with the prefix `envoy_`, and Istio's under their names.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>, Envoy's `/stats/prometheus`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Registry;
use super::sample::{Sample, Value};
use super::value::{BUCKETS, Distribution};

/// A page in the making.
struct Page(String);

/// Envoy's statistics.
pub fn envoy(samples: &[Sample]) -> String {
    let mut families: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        families.entry(&sample.metric).or_default().push(sample);
    }
    let mut page = Page(String::new());
    for (metric, samples) in families {
        let name = format!("envoy_{}", sanitized(metric));
        let kind = match samples[0].value {
            Value::Counter(_) => "counter",
            Value::Gauge(_) => "gauge",
            Value::Histogram(_) => "histogram",
            Value::Text(_) => continue,
        };
        page.family(&name, kind);
        for sample in samples {
            let labels = rendered(&sample.labels);
            match &sample.value {
                Value::Counter(n) | Value::Gauge(n) => page.value(&name, &labels, *n),
                Value::Histogram(distribution) => page.histogram(&name, &labels, distribution),
                Value::Text(_) => {}
            }
        }
    }
    page.0
}

impl Registry {
    /// Istio's standard metrics.
    pub fn istio_metrics(&self, version: &str) -> String {
        let mut page = Page(String::new());
        page.family("istio_build", "gauge");
        page.value("istio_build", &format!("component=\"proxy\",tag=\"{version}\""), 1);
        let scopes = self.scopes();
        let requests = scopes.istio.request_totals();
        if !requests.is_empty() {
            page.family("istio_requests_total", "counter");
            requests
                .iter()
                .for_each(|(labels, total)| page.value("istio_requests_total", labels, total.requests));
            page.family("istio_request_duration_milliseconds", "histogram");
            for (labels, total) in &requests {
                page.histogram("istio_request_duration_milliseconds", labels, &total.duration_ms);
            }
            page.family("istio_request_bytes", "histogram");
            requests
                .iter()
                .for_each(|(labels, t)| page.histogram("istio_request_bytes", labels, &t.request_bytes));
            page.family("istio_response_bytes", "histogram");
            requests
                .iter()
                .for_each(|(labels, t)| page.histogram("istio_response_bytes", labels, &t.response_bytes));
        }
        let tcp = scopes.istio.tcp_totals();
        let names = [
            "istio_tcp_connections_opened_total",
            "istio_tcp_connections_closed_total",
            "istio_tcp_sent_bytes_total",
            "istio_tcp_received_bytes_total",
        ];
        for (index, name) in names.into_iter().enumerate().filter(|_| !tcp.is_empty()) {
            page.family(name, "counter");
            tcp.iter().for_each(|(labels, total)| page.value(name, labels, total[index]));
        }
        page.0
    }
}

impl Page {
    fn put(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.write_fmt(line).expect("invariant: writing to a string");
        self.0.push('\n');
    }

    fn family(&mut self, name: &str, kind: &str) {
        self.put(format_args!("# TYPE {name} {kind}"));
    }

    fn value(&mut self, name: &str, labels: &str, value: u64) {
        if labels.is_empty() {
            self.put(format_args!("{name} {value}"));
        } else {
            self.put(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, distribution: &Distribution) {
        let separator = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (bucket, n) in distribution.buckets.iter().enumerate() {
            count += n;
            match BUCKETS.get(bucket) {
                Some(bound) => {
                    self.put(format_args!("{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {count}"))
                }
                None => self.put(format_args!("{name}_bucket{{{labels}{separator}le=\"+Inf\"}} {count}")),
            }
        }
        self.value(&format!("{name}_sum"), labels, distribution.sum);
        self.value(&format!("{name}_count"), labels, count);
    }
}

/// `name="value",…` with the escapes of the format.
pub fn rendered<L: AsRef<str>>(labels: &[(L, String)]) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        if !out.is_empty() {
            out.push(',');
        }
        push_label(&mut out, name.as_ref(), value);
    }
    out
}

/// Appends `name="value"` with the escapes of the format.
pub fn push_label(out: &mut String, name: &str, value: &str) {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    write!(out, "{name}=\"{escaped}\"").expect("invariant: writing to a string");
}

/// Metric names hold letters, digits, `_` and `:` only.
fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' }).collect()
}

#[cfg(test)]
pub(crate) mod tests;
