//! The cells of Istio's standard metrics: one series per worker and set of labels.
//!
//! Which series a request belongs to is decided by `istio_stats`. Names and labels:
//! <https://istio.io/latest/docs/reference/config/metrics/>.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::value::{Counter, Distribution, Histogram};

/// Small numbers for the workloads behind endpoints, so that a worker can compare them cheaply. Grows with the
/// workloads (not their replicas) that the control plane ever named; clients have no influence.
#[derive(Debug, Default)]
pub(super) struct WorkloadIds(Mutex<HashMap<Box<str>, u32>>);

impl WorkloadIds {
    /// The number of a workload: 0 for none, else the same for the same text.
    pub(super) fn id(&self, workload: Option<&str>) -> u32 {
        let Some(workload) = workload else { return 0 };
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = ids.get(workload) {
            return *id;
        }
        let id = u32::try_from(ids.len() + 1).expect("invariant: fewer than 2^32 workloads");
        ids.insert(workload.into(), id);
        id
    }
}

/// `istio_requests_total` and its histograms for one set of labels, as one worker counts them.
#[derive(Debug)]
pub struct RequestSeries {
    labels: Box<str>,
    /// `istio_requests_total`.
    pub requests: Counter,
    /// `istio_request_duration_milliseconds`.
    pub duration_ms: Histogram,
    /// `istio_request_bytes`.
    pub request_bytes: Histogram,
    /// `istio_response_bytes`.
    pub response_bytes: Histogram,
}

/// `istio_tcp_*` for one set of labels, as one worker counts them.
#[derive(Debug)]
pub struct TcpSeries {
    labels: Box<str>,
    /// `istio_tcp_connections_opened_total`.
    pub opened: Counter,
    /// `istio_tcp_connections_closed_total`.
    pub closed: Counter,
    /// `istio_tcp_sent_bytes_total`: bytes of the response direction.
    pub sent_bytes: Counter,
    /// `istio_tcp_received_bytes_total`: bytes of the request direction.
    pub received_bytes: Counter,
}

/// All series of all workers. They live as long as the process, as Prometheus counters should.
#[derive(Debug, Default)]
pub(super) struct Tables {
    requests: Vec<Arc<RequestSeries>>,
    tcp: Vec<Arc<TcpSeries>>,
}

/// The series of requests with one set of labels, summed over workers.
#[derive(Debug, Default)]
pub(super) struct RequestTotals {
    pub(super) requests: u64,
    pub(super) duration_ms: Distribution,
    pub(super) request_bytes: Distribution,
    pub(super) response_bytes: Distribution,
}

impl Tables {
    /// A new series; `labels` in Prometheus form without braces.
    pub(super) fn request(&mut self, labels: String) -> Arc<RequestSeries> {
        let series = Arc::new(RequestSeries {
            labels: labels.into(),
            requests: Counter::default(),
            duration_ms: Histogram::default(),
            request_bytes: Histogram::default(),
            response_bytes: Histogram::default(),
        });
        self.requests.push(Arc::clone(&series));
        series
    }

    /// A new TCP series; `labels` in Prometheus form without braces.
    pub(super) fn tcp(&mut self, labels: String) -> Arc<TcpSeries> {
        let series = Arc::new(TcpSeries {
            labels: labels.into(),
            opened: Counter::default(),
            closed: Counter::default(),
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
        });
        self.tcp.push(Arc::clone(&series));
        series
    }

    /// Sums of the request series by labels.
    pub(super) fn request_totals(&self) -> BTreeMap<&str, RequestTotals> {
        let mut totals: BTreeMap<&str, RequestTotals> = BTreeMap::new();
        for series in &self.requests {
            let total = totals.entry(&series.labels).or_default();
            total.requests += series.requests.get();
            series.duration_ms.add_to(&mut total.duration_ms);
            series.request_bytes.add_to(&mut total.request_bytes);
            series.response_bytes.add_to(&mut total.response_bytes);
        }
        totals
    }

    /// Sums of the TCP series by labels: opened, closed, sent, received.
    pub(super) fn tcp_totals(&self) -> BTreeMap<&str, [u64; 4]> {
        let mut totals: BTreeMap<&str, [u64; 4]> = BTreeMap::new();
        for series in &self.tcp {
            let total = totals.entry(&series.labels).or_default();
            let cells = [&series.opened, &series.closed, &series.sent_bytes, &series.received_bytes];
            total.iter_mut().zip(cells).for_each(|(sum, cell)| *sum += cell.get());
        }
        totals
    }
}
