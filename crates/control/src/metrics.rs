//! What the control plane counts, in the Prometheus text format under istiod's names.
//! Source: istiod's `pilot/pkg/xds/monitoring.go`; text format 0.0.4 of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use meltemi_api::{Diagnostic, Kind, Severity};
use meltemi_envoy::type_url;
use meltemi_snapshot::Resolution;

use crate::mesh::Generation;
use crate::proxies::short_type;

/// Upper bounds of istiod's `pilot_proxy_convergence_time`, with finer ones below: here an edit takes tens of
/// milliseconds.
const CONVERGENCE_SECONDS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];

/// Upper bounds of istiod's `pilot_debounce_time`.
const DEBOUNCE_SECONDS: [f64; 8] = [0.01, 0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];

/// Upper bounds of istiod's `pilot_xds_config_size_bytes`.
const CONFIG_BYTES: [f64; 6] = [1.0, 1e4, 1e6, 4e6, 1e7, 4e7];

/// The counters of one control plane.
#[derive(Debug)]
pub(crate) struct Metrics {
    started: Instant,
    pushes: Mutex<BTreeMap<String, u64>>,
    rejects: Mutex<BTreeMap<String, u64>>,
    convergence: Mutex<Histogram<12>>,
    debounce: Mutex<Histogram<8>>,
    config_bytes: Mutex<BTreeMap<&'static str, Histogram<6>>>,
    triggers: Mutex<BTreeMap<&'static str, u64>>,
    stale: Mutex<BTreeMap<&'static str, u64>>,
    unserved: AtomicU64,
    generation: AtomicU64,
    services: AtomicU64,
    virtual_services: AtomicU64,
    findings: Mutex<BTreeMap<&'static str, u64>>,
    reports_dropped: AtomicU64,
    internal_errors: AtomicU64,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let types = || type_url::PUSH_ORDER[..4].iter().map(|t| (short_type(t).to_owned(), 0)).collect();
        Metrics {
            started: Instant::now(),
            pushes: Mutex::new(types()),
            rejects: Mutex::new(types()),
            convergence: Mutex::new(Histogram::new(&CONVERGENCE_SECONDS)),
            debounce: Mutex::new(Histogram::new(&DEBOUNCE_SECONDS)),
            config_bytes: Mutex::default(),
            triggers: Mutex::default(),
            stale: Mutex::default(),
            unserved: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            services: AtomicU64::new(0),
            virtual_services: AtomicU64::new(0),
            findings: Mutex::default(),
            reports_dropped: AtomicU64::new(0),
            internal_errors: AtomicU64::new(0),
        }
    }

    /// An update of so many bytes went out.
    pub(crate) fn pushed(&self, type_url: &str, bytes: usize) {
        #[expect(clippy::cast_precision_loss, reason = "messages are far smaller than 2^52 bytes")]
        let bytes = bytes as f64;
        let mut sizes = lock(&self.config_bytes);
        sizes.entry(short_type(type_url)).or_insert_with(|| Histogram::new(&CONFIG_BYTES)).observe(bytes);
        drop(sizes);
        *lock(&self.pushes).entry(short_type(type_url).to_owned()).or_default() += 1;
    }

    pub(crate) fn rejected(&self, type_url: &str) {
        *lock(&self.rejects).entry(short_type(type_url).to_owned()).or_default() += 1;
    }

    /// A request came that was made before the client saw the latest response.
    pub(crate) fn stale(&self, type_url: &str) {
        *lock(&self.stale).entry(short_type(type_url)).or_default() += 1;
    }

    /// A generation goes out, for a reason in istiod's words: `endpoint`, `service`, `config`, `secret`, or `global` for the
    /// first one.
    pub(crate) fn triggered(&self, reason: &'static str) {
        *lock(&self.triggers).entry(reason).or_default() += 1;
    }

    pub(crate) fn converged(&self, took: Duration) {
        lock(&self.convergence).observe(took.as_secs_f64());
    }

    pub(crate) fn debounced(&self, took: Duration) {
        lock(&self.debounce).observe(took.as_secs_f64());
    }

    pub(crate) fn generation(&self, generation: &Generation) {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let snapshot = &generation.snapshot;
        let routes = snapshot.objects().filter(|object| object.kind() == Kind::VirtualService).count();
        let unserved = snapshot.services.iter().filter(|service| service.resolution == Resolution::Static);
        let unserved =
            unserved.flat_map(|service| service.ports.iter().map(move |port| (service, port.number)));
        let unserved = unserved.filter(|(service, port)| snapshot.endpoints.of(service, *port).is_empty());
        self.unserved.store(count(unserved.count()), Ordering::Relaxed);
        self.services.store(count(snapshot.services.iter().count()), Ordering::Relaxed);
        self.virtual_services.store(count(routes), Ordering::Relaxed);
        self.generation.store(generation.number, Ordering::Relaxed);
    }

    pub(crate) fn found(&self, diagnostics: &[Diagnostic]) {
        let mut findings = lock(&self.findings);
        for severity in [Severity::Info, Severity::Warning, Severity::Error] {
            let of_severity = diagnostics.iter().filter(|d| d.severity == severity).count();
            findings.insert(severity.as_str(), u64::try_from(of_severity).unwrap_or(u64::MAX));
        }
    }

    pub(crate) fn report_dropped(&self) {
        self.reports_dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn translation_failed(&self) {
        self.internal_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// The text format. `connected`: proxies by protocol variant.
    pub(crate) fn text(&self, connected: &BTreeMap<String, u64>) -> String {
        let mut page = Page(String::with_capacity(4 << 10));
        let version = concat!("meltemi-", env!("CARGO_PKG_VERSION"));
        page.family("pilot_info", "gauge", "Version of the control plane.");
        page.sample("pilot_info", &[("version", version)], 1.0);
        page.family("pilot_xds", "gauge", "Connected proxies, by protocol variant.");
        page.by_label("pilot_xds", "type", connected.iter().map(|(mode, n)| (mode.as_str(), *n)));
        page.family("pilot_xds_pushes", "counter", "Updates sent to proxies, by type.");
        page.by_label("pilot_xds_pushes", "type", pairs(&lock(&self.pushes)));
        page.family(
            "pilot_total_xds_rejects",
            "counter",
            "Updates that proxies refused, by type; look for the reason in the log.",
        );
        page.by_label("pilot_total_xds_rejects", "type", pairs(&lock(&self.rejects)));
        let help = "Translations that failed by a bug; the proxies concerned keep what they have. Report it.";
        page.single("pilot_total_xds_internal_errors", "counter", help, &self.internal_errors);
        let help = "Seconds from a change to a proxy having taken all of it.";
        page.histogram("pilot_proxy_convergence_time", help, &lock(&self.convergence));
        let help = "Seconds that changes were gathered before they were applied.";
        page.histogram("pilot_debounce_time", help, &lock(&self.debounce));
        page.family("pilot_xds_config_size_bytes", "histogram", "Bytes of an update, by type.");
        for (kind, sizes) in lock(&self.config_bytes).iter() {
            page.histogram_of("pilot_xds_config_size_bytes", &[("type", kind)], sizes);
        }
        page.family("pilot_push_triggers", "counter", "Generations that went out, by what they changed.");
        page.by_label(
            "pilot_push_triggers",
            "type",
            lock(&self.triggers).iter().map(|(kind, n)| (*kind, *n)),
        );
        let help =
            "Requests made before the client saw the latest response; many of one type mean a busy client.";
        page.family("pilot_xds_expired_nonce", "counter", help);
        page.by_label(
            "pilot_xds_expired_nonce",
            "type",
            lock(&self.stale).iter().map(|(kind, n)| (*kind, *n)),
        );
        let help = "Ports of services that no endpoint serves; requests to them get 503.";
        page.single("pilot_eds_no_instances", "gauge", help, &self.unserved);
        page.single("pilot_services", "gauge", "Services in the mesh.", &self.services);
        page.single("pilot_virt_services", "gauge", "VirtualServices in the mesh.", &self.virtual_services);
        page.single("meltemi_generation", "gauge", "Number of the generation in force.", &self.generation);
        page.family("meltemi_diagnostics", "gauge", "What is wrong with the input now, by severity.");
        page.by_label("meltemi_diagnostics", "severity", lock(&self.findings).iter().map(|(s, n)| (*s, *n)));
        let help = "Reports not printed because standard output was not read.";
        page.single("meltemi_reports_dropped_total", "counter", help, &self.reports_dropped);
        page.family("istiod_uptime_seconds", "gauge", "Seconds since the start.");
        page.sample("istiod_uptime_seconds", &[], self.started.elapsed().as_secs_f64());
        page.0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pairs(counts: &BTreeMap<String, u64>) -> impl Iterator<Item = (&str, u64)> {
    counts.iter().map(|(label, n)| (label.as_str(), *n))
}

#[derive(Debug)]
struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    buckets: [u64; N],
    count: u64,
    sum: f64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [f64; N]) -> Histogram<N> {
        Histogram { bounds, buckets: [0; N], count: 0, sum: 0.0 }
    }

    fn observe(&mut self, value: f64) {
        if let Some(bucket) = self.bounds.iter().position(|bound| value <= *bound) {
            self.buckets[bucket] += 1;
        }
        self.count += 1;
        self.sum += value;
    }
}

/// A page of the text format.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn by_label<'a>(&mut self, name: &str, label: &str, counts: impl Iterator<Item = (&'a str, u64)>) {
        counts.for_each(|(value, count)| self.sample(name, &[(label, value)], count as f64));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: &AtomicU64) {
        self.family(name, kind, help);
        self.sample(name, &[], value.load(Ordering::Relaxed) as f64);
    }

    fn histogram<const N: usize>(&mut self, name: &str, help: &str, histogram: &Histogram<N>) {
        self.family(name, "histogram", help);
        self.histogram_of(name, &[], histogram);
    }

    /// One histogram of a family.
    fn histogram_of<const N: usize>(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        histogram: &Histogram<N>,
    ) {
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (bound, count) in histogram.bounds.iter().zip(histogram.buckets) {
            below += count;
            let bound = bound.to_string();
            self.sample(&bucket, &[labels, &[("le", &*bound)]].concat(), below as f64);
        }
        self.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), histogram.count as f64);
        self.sample(&format!("{name}_sum"), labels, histogram.sum);
        self.sample(&format!("{name}_count"), labels, histogram.count as f64);
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_the_text_format() {
        let metrics = Metrics::new();
        metrics.pushed(type_url::ROUTE, 500);
        metrics.pushed(type_url::ROUTE, 20_000);
        metrics.stale(type_url::ROUTE);
        metrics.triggered("endpoint");
        metrics.rejected(type_url::ROUTE);
        metrics.converged(Duration::from_millis(30));
        metrics.converged(Duration::from_secs(60));
        let text = metrics.text(&BTreeMap::from([("delta".to_owned(), 3)]));
        for line in [
            "pilot_xds{type=\"delta\"} 3",
            "pilot_xds_pushes{type=\"rds\"} 2",
            "pilot_xds_pushes{type=\"cds\"} 0",
            "pilot_xds_config_size_bytes_bucket{type=\"rds\",le=\"10000\"} 1",
            "pilot_xds_config_size_bytes_count{type=\"rds\"} 2",
            "pilot_xds_expired_nonce{type=\"rds\"} 1",
            "pilot_push_triggers{type=\"endpoint\"} 1",
            "pilot_total_xds_rejects{type=\"rds\"} 1",
            "pilot_proxy_convergence_time_bucket{le=\"0.025\"} 0",
            "pilot_proxy_convergence_time_bucket{le=\"0.05\"} 1",
            "pilot_proxy_convergence_time_bucket{le=\"30\"} 1",
            "pilot_proxy_convergence_time_bucket{le=\"+Inf\"} 2",
            "pilot_proxy_convergence_time_count 2",
            "# TYPE pilot_proxy_convergence_time histogram",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
