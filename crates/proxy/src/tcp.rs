//! `tcp_proxy`: bytes from a client to a host of a cluster and back.
//!
//! Buffers are 64 KiB, shared by all connections of a worker, and held only while bytes move; an idle connection
//! holds none. Source: Envoy's `TcpProxy` filter.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use meltemi_compile::program::{Reporter, TcpProxy};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::access_log::Logger;
use crate::istio_stats::IstioReporter;
use crate::random;
use crate::record::{ConnectionInfo, RequestRecord, ResponseFlags};
use crate::shared::Shared;
use crate::stats::TcpStats;
use crate::timer::Deadline;
use crate::upstream::outlier::{self, Outcome};
use crate::upstream::pool::{LeaseError, TcpLease};
use crate::upstream::{Cluster, PickContext};

/// A `tcp_proxy` of one filter chain, as one worker runs it.
#[derive(Debug)]
pub(crate) struct Proxy {
    settings: Arc<TcpProxy>,
    worker: Rc<Shared>,
    stats: Arc<TcpStats>,
    loggers: Vec<Logger>,
    istio: Option<Rc<IstioReporter>>,
    total_weight: u32,
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Both sides closed, or one broke off.
    Closed,
    /// `idle_timeout`.
    Idle,
}

impl Proxy {
    pub(crate) fn new(settings: &Arc<TcpProxy>, worker: &Rc<Shared>, reporter: Reporter) -> Proxy {
        Proxy {
            settings: settings.clone(),
            worker: worker.clone(),
            stats: worker.stats.tcp(&settings.stat_prefix),
            loggers: settings.access_log.iter().map(|log| worker.logs.logger(log)).collect(),
            istio: settings.istio_stats.then(|| worker.istio(reporter)),
            total_weight: settings.clusters.iter().map(|(_, weight)| weight).sum(),
        }
    }

    /// Serves a connection to its end.
    pub(crate) async fn serve(self: Rc<Proxy>, mut stream: TcpStream, connection: Rc<ConnectionInfo>) {
        self.stats.counts.downstream_cx_total.inc();
        let mut record = RequestRecord::new(connection, random::next(), None);
        let received = Cell::new(0);
        let sent = Cell::new(0);
        let lease = self.dial(&mut record).await;
        let series = self.istio.as_ref().map(|istio| istio.tcp(&record));
        if let Some(series) = &series {
            series.opened.inc();
        }
        if let Some(mut lease) = lease
            && self.relay(&mut stream, &mut lease.stream, &received, &sent).await == End::Idle
        {
            self.stats.counts.idle_timeout.inc();
        }
        record.bytes_received = received.get();
        record.bytes_sent = sent.get();
        record.end = Some(std::time::Instant::now());
        self.stats.counts.downstream_cx_rx_bytes_total.add(received.get());
        self.stats.counts.downstream_cx_tx_bytes_total.add(sent.get());
        if let Some(istio) = &self.istio {
            let series = istio.tcp(&record);
            series.closed.inc();
            series.received_bytes.add(received.get());
            series.sent_bytes.add(sent.get());
        }
        let view = record.view(None, None, None);
        self.loggers.iter().for_each(|logger| logger.log(&view));
    }

    /// A connection to a host, after at most `max_connect_attempts`.
    async fn dial(&self, record: &mut RequestRecord) -> Option<TcpLease> {
        let generation = self.worker.generation();
        let cluster = self.cluster_name().and_then(|name| generation.cluster(name));
        let Some(cluster) = cluster else {
            self.stats.counts.downstream_cx_no_route.inc();
            record.flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
            return None;
        };
        record.cluster = Some(cluster.stats.clone());
        for _ in 0..self.settings.max_connect_attempts.max(1) {
            match attempt(cluster, record).await {
                Ok(lease) => {
                    record.upstream_local = lease.local;
                    return Some(lease);
                }
                Err(Refusal::Final) => return None,
                Err(Refusal::Again) => {}
            }
        }
        cluster.stats.counts.upstream_cx_connect_attempts_exceeded.inc();
        record.flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        None
    }

    fn cluster_name(&self) -> Option<&str> {
        let mut point = random::below(self.total_weight as usize) as u32;
        let chosen = self.settings.clusters.iter().find(|(_, weight)| {
            let here = point < *weight;
            point = point.saturating_sub(*weight);
            here
        });
        chosen.map(|(name, _)| &**name)
    }

    async fn relay(
        &self,
        client: &mut TcpStream,
        upstream: &mut TcpStream,
        received: &Cell<u64>,
        sent: &Cell<u64>,
    ) -> End {
        let activity = Cell::new(Instant::now());
        let (client_read, client_write) = client.split();
        let (upstream_read, upstream_write) = upstream.split();
        let mut up = std::pin::pin!(pump(client_read, upstream_write, received, &activity));
        let mut down = std::pin::pin!(pump(upstream_read, client_write, sent, &activity));
        let idle = self.settings.idle_timeout;
        let mut deadline = Deadline::new(None);
        let (mut up_done, mut down_done) = (false, false);
        std::future::poll_fn(|cx| {
            if !up_done && let Poll::Ready(ended) = up.as_mut().poll(cx) {
                up_done = true;
                if ended.is_err() {
                    return Poll::Ready(End::Closed);
                }
            }
            if !down_done && let Poll::Ready(ended) = down.as_mut().poll(cx) {
                down_done = true;
                if ended.is_err() {
                    return Poll::Ready(End::Closed);
                }
            }
            if up_done && down_done {
                return Poll::Ready(End::Closed);
            }
            deadline.set(idle.map(|idle| activity.get() + idle));
            deadline.poll_due(cx).map(|()| End::Idle)
        })
        .await
    }
}

/// Why an attempt to connect failed.
enum Refusal {
    /// Another attempt may succeed.
    Again,
    /// No attempt would.
    Final,
}

async fn attempt(cluster: &Rc<Cluster>, record: &mut RequestRecord) -> Result<TcpLease, Refusal> {
    let context = PickContext {
        original_destination: record.connection.original_destination,
        ..PickContext::default()
    };
    let Some(host) = cluster.pick(&context) else {
        cluster.stats.counts.upstream_cx_none_healthy.inc();
        record.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
        return Err(Refusal::Final);
    };
    record.attempts += 1;
    record.host = Some(host.stats.clone());
    match host.pool.lease_tcp().await {
        Ok(lease) => {
            outlier::observe(cluster, &host, Outcome::ConnectedFinally);
            Ok(lease)
        }
        Err(LeaseError::Overflow) => {
            record.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
            Err(Refusal::Final)
        }
        Err(LeaseError::ConnectFailed(reason)) => {
            outlier::observe(cluster, &host, Outcome::ConnectFailed);
            record.upstream_failure = Some((*reason).into());
            record.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
            Err(Refusal::Again)
        }
        Err(LeaseError::ConnectTimeout | LeaseError::Refused) => {
            outlier::observe(cluster, &host, Outcome::TimedOut);
            record.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
            Err(Refusal::Again)
        }
    }
}

/// Bytes of a relay buffer. 8 KiB, tokio's default, costs half the throughput of 64 KiB.
const BUFFER_BYTES: usize = 64 << 10;

/// Buffers that a worker keeps between uses.
const SPARE_BUFFERS: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Moves one direction until its end, then passes the end on.
async fn pump(
    reader: ReadHalf<'_>,
    mut writer: WriteHalf<'_>,
    moved: &Cell<u64>,
    activity: &Cell<Instant>,
) -> io::Result<()> {
    loop {
        reader.readable().await?;
        let mut buffer =
            SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice());
        let result = pass_on(&reader, &mut writer, &mut buffer, moved, activity).await;
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_BUFFERS {
                spare.push(buffer);
            }
        });
        if result? {
            return writer.shutdown().await;
        }
    }
}

/// Passes on what is there; says whether that was the end.
async fn pass_on(
    reader: &ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
    buffer: &mut [u8],
    moved: &Cell<u64>,
    activity: &Cell<Instant>,
) -> io::Result<bool> {
    loop {
        match reader.try_read(buffer) {
            Ok(0) => return Ok(true),
            Ok(count) => {
                moved.set(moved.get() + count as u64);
                activity.set(Instant::now());
                writer.write_all(&buffer[..count]).await?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
