//! Istio's standard metrics: which series a request or a TCP connection belongs to.
//!
//! Labels come from the own node, from what the peer says of itself or else the endpoint's `istio.workload`, from the
//! certificates of the connection and from the cluster's `istio.services`; what is not known is `unknown`. Source: the `istio.stats` filter of Istio's proxy and
//! <https://istio.io/latest/docs/reference/config/metrics/>.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use meltemi_compile::program::Reporter;

use crate::peer::{ExchangedPeer, Interned, Peer, Principals};
use crate::record::{RecordView, RequestRecord};
use crate::stats::{RequestSeries, TcpSeries, WorkerStats};

mod labels;

pub use crate::peer::NodeFacts;

/// Series that one reporter may hold. A `Host` header, or what a peer says of itself, can be part of a label, so clients must
/// not be able to grow the table without end; what does not fit is counted in one series whose labels are `unknown`.
const MAX_SERIES: usize = 10_000;

/// Reports Istio's metrics from one side of the call, on one worker.
#[derive(Debug)]
pub struct IstioReporter {
    stats: WorkerStats,
    node: Arc<NodeFacts>,
    reporter: Reporter,
    requests: RefCell<HashMap<RequestKey, Arc<RequestSeries>, foldhash::fast::RandomState>>,
    tcp: RefCell<HashMap<TcpKey, Arc<TcpSeries>, foldhash::fast::RandomState>>,
}

/// What distinguishes series of requests on a worker; small and cheap to hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RequestKey {
    peer: PeerKey,
    code: u16,
    flags: u32,
    grpc: Option<Option<u8>>,
}

/// What distinguishes series of TCP connections on a worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TcpKey {
    peer: PeerKey,
    flags: u32,
}

/// Who is at the other end: whom the request went to, or came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PeerKey {
    cluster: u32,
    workload: u32,
    /// The `Host` header where it stands for the service.
    host: Option<Box<str>>,
    /// Who the peer says it is.
    peer: Option<Peer>,
    /// Whom certificates prove.
    principals: Option<Interned<Principals>>,
}

impl IstioReporter {
    /// A reporter for a worker; make one per side at configuration time and share it by `Rc`.
    pub fn new(stats: WorkerStats, node: Arc<NodeFacts>, reporter: Reporter) -> IstioReporter {
        IstioReporter { stats, node, reporter, requests: RefCell::default(), tcp: RefCell::default() }
    }

    /// Counts a finished request.
    pub fn request(&self, view: &RecordView<'_>) {
        let series = self.request_series(view);
        let record = view.record;
        series.requests.inc();
        let end = record.end.unwrap_or_else(std::time::Instant::now);
        series.duration_ms.record_millis(end.duration_since(record.start));
        series.request_bytes.record(record.bytes_received);
        series.response_bytes.record(record.bytes_sent);
    }

    /// The series that a TCP connection counts in. Ask again when its flags change; the first series got `opened`,
    /// the last gets `closed`.
    pub fn tcp(&self, record: &RequestRecord) -> Arc<TcpSeries> {
        let key = TcpKey { peer: self.peer_key(record, None), flags: record.flags.bits() };
        let mut table = self.tcp.borrow_mut();
        if let Some(series) = table.get(&key) {
            return Arc::clone(series);
        }
        if table.len() >= MAX_SERIES {
            let overflow = TcpKey { peer: PeerKey::overflow(), flags: 0 };
            let make = || self.stats.tcp_series(labels::tcp_overflow(&self.node, self.reporter));
            return Arc::clone(table.entry(overflow).or_insert_with(make));
        }
        let flow = labels::Flow { record, peer: &key.peer };
        let series = self.stats.tcp_series(labels::tcp(&self.node, self.reporter, flow));
        table.insert(key, Arc::clone(&series));
        series
    }

    /// Whoever decides the series of a connection and has not said yet who it is.
    pub(crate) fn awaited(&self, record: &RequestRecord) -> Option<Rc<ExchangedPeer>> {
        let exchange = match self.reporter {
            Reporter::Source => &record.upstream_exchange,
            Reporter::Destination => &record.connection.exchange,
        };
        exchange.clone().filter(|exchange| !exchange.is_settled())
    }

    fn request_series(&self, view: &RecordView<'_>) -> Arc<RequestSeries> {
        let record = view.record;
        let authority = view.request.and_then(|head| head.authority.as_deref());
        let key = RequestKey {
            peer: self.peer_key(record, authority),
            code: record.response_code,
            flags: record.flags.bits(),
            grpc: labels::grpc_status(view),
        };
        let mut table = self.requests.borrow_mut();
        if let Some(series) = table.get(&key) {
            return Arc::clone(series);
        }
        if table.len() >= MAX_SERIES {
            let overflow = RequestKey { peer: PeerKey::overflow(), code: 0, flags: 0, grpc: None };
            let make = || self.stats.request_series(labels::request_overflow(&self.node, self.reporter));
            return Arc::clone(table.entry(overflow).or_insert_with(make));
        }
        let flow = labels::Flow { record, peer: &key.peer };
        let labels = labels::request(&self.node, self.reporter, flow, key.grpc);
        let series = self.stats.request_series(labels);
        table.insert(key, Arc::clone(&series));
        series
    }

    fn peer_key(&self, record: &RequestRecord, authority: Option<&str>) -> PeerKey {
        let cluster = record.cluster.as_deref();
        let named = cluster.is_some_and(|c| c.service.is_some() || labels::is_catch_all(&c.name));
        let host = authority.filter(|_| !named && self.node.falls_back_to_host(self.reporter));
        let (told, exchange, tls) = match self.reporter {
            Reporter::Source => (&record.upstream_peer, &record.upstream_exchange, &record.upstream_tls),
            Reporter::Destination => {
                let connection = &record.connection;
                (&record.downstream_peer, &connection.exchange, &connection.tls)
            }
        };
        let exchanged = || exchange.as_deref().and_then(ExchangedPeer::peer);
        PeerKey {
            peer: told.as_ref().or_else(exchanged).cloned(),
            principals: tls.as_deref().map(|tls| tls.principals().clone()),
            cluster: cluster.map_or(0, |cluster| cluster.id),
            workload: record.host.as_deref().map_or(0, |host| host.workload_id),
            host: host.map(Into::into),
        }
    }
}

impl PeerKey {
    /// The key of what does not fit; no cluster has this id.
    fn overflow() -> PeerKey {
        PeerKey { cluster: u32::MAX, workload: 0, host: None, peer: None, principals: None }
    }
}

#[cfg(test)]
mod tests;
