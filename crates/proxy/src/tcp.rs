//! `tcp_proxy`: bytes from a client to a host of a cluster and back.
//!
//! Owns the life of such a connection: choose a cluster, connect, relay ([`relay`]), record. Source: Envoy's `TcpProxy`
//! filter.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use meltemi_compile::log_filter::LogType;
use meltemi_compile::metadata_match::MetadataMatch;
use meltemi_compile::program::{Reporter, TCP_PROXY_CLUSTER, TcpHashPolicy, TcpProxy};
use meltemi_http::{DrainSignal, Io};
use tokio::time::Instant;

use self::flow::{Broken, Side};
use self::relay::{End, Event, Limits, Relay};
use crate::access_log::Logger;
use crate::generation::Generation;
use crate::istio_stats::IstioReporter;
use crate::random;
use crate::record::{ConnectionInfo, RequestRecord, ResponseFlags};
use crate::shared::Shared;
use crate::stats::{ClusterStats, TcpStats};
use crate::upstream::outlier::{self, Outcome};
use crate::upstream::pool::{LeaseError, TcpLease};
use crate::upstream::transport::TransportOptions;
use crate::upstream::{Cluster, Host, PickContext};

mod flow;
mod pipe;
mod relay;
mod tunnel;

/// The filter state that holds the idle timeout of one connection.
const IDLE_TIMEOUT_MS: &str = "envoy.tcp_proxy.per_connection_idle_timeout_ms";

/// A `tcp_proxy` of one filter chain, as one worker runs it.
#[derive(Debug)]
pub(crate) struct Proxy {
    settings: Arc<TcpProxy>,
    worker: Rc<Shared>,
    stats: Arc<TcpStats>,
    loggers: Vec<Logger>,
    istio: Option<Rc<IstioReporter>>,
    total_weight: u32,
    /// `per_connection_buffer_limit_bytes` of the listener.
    buffer_limit: usize,
}

impl Proxy {
    pub(crate) fn new(
        settings: &Arc<TcpProxy>,
        worker: &Rc<Shared>,
        reporter: Reporter,
        buffer_limit: u32,
    ) -> Proxy {
        Proxy {
            settings: settings.clone(),
            worker: worker.clone(),
            stats: worker.stats.tcp(&settings.stat_prefix),
            loggers: settings.access_log.iter().map(|log| worker.logs.logger(log)).collect(),
            istio: settings.istio_stats.then(|| worker.istio(reporter)),
            total_weight: settings.clusters.iter().map(|cluster| cluster.weight).sum(),
            buffer_limit: usize::try_from(buffer_limit).unwrap_or(usize::MAX),
        }
    }

    /// Serves a connection to its end; what is known of it then is for the log of its listener.
    pub(crate) async fn serve(
        self: Rc<Proxy>,
        mut client: Io,
        connection: Rc<ConnectionInfo>,
        drain: DrainSignal,
    ) -> RequestRecord {
        self.stats.counts.downstream_cx_total.inc();
        let mut record = RequestRecord::new(connection, random::next(), None);
        if self.settings.log_options.on_start {
            self.log(&record, LogType::TcpConnectionStart);
        }
        let max_duration = self.max_duration();
        if let Some(tunneling) = &self.settings.tunneling {
            self.serve_tunnel(tunneling, &mut client, max_duration, drain, &mut record).await;
            drop(client);
            self.record(&mut record);
            return record;
        }
        let lease = relay::until(max_duration, self.dial(&mut record)).await;
        match lease {
            Some(Some(lease)) => {
                if self.settings.log_options.on_connected {
                    self.log(&record, LogType::TcpUpstreamConnected);
                }
                self.relay(&mut client, lease, max_duration, drain, &mut record).await;
            }
            Some(None) => self.count_opened(&record),
            None => {
                self.count_opened(&record);
                self.ended(&End::MaxDuration, &mut record);
            }
        }
        // Closed before it is logged: what was counted is final.
        drop(client);
        self.record(&mut record);
        record
    }

    fn count_opened(&self, record: &RequestRecord) {
        if let Some(istio) = &self.istio {
            istio.tcp(record).opened.inc();
        }
    }

    fn record(&self, record: &mut RequestRecord) {
        record.end = Some(std::time::Instant::now());
        self.stats.counts.downstream_cx_rx_bytes_total.add(record.bytes_received);
        self.stats.counts.downstream_cx_tx_bytes_total.add(record.bytes_sent);
        if let Some(istio) = &self.istio {
            let series = istio.tcp(record);
            series.closed.inc();
            series.received_bytes.add(record.bytes_received);
            series.sent_bytes.add(record.bytes_sent);
        }
        self.log(record, LogType::TcpConnectionEnd);
    }

    fn log(&self, record: &RequestRecord, log_type: LogType) {
        let view = record.connection_view(log_type);
        self.loggers.iter().for_each(|logger| logger.log(&view));
    }

    /// When the connection ends however busy it is.
    fn max_duration(&self) -> Option<Instant> {
        let duration = self.settings.max_downstream_connection_duration?;
        let jitter = self.settings.max_downstream_connection_duration_jitter_percent / 100.0;
        let share = random::below(1 << 20) as f64 / f64::from(1 << 20);
        Some(Instant::now() + duration.mul_f64(1.0 + jitter * share))
    }

    /// A connection to a host, after at most `max_connect_attempts`.
    async fn dial(&self, record: &mut RequestRecord) -> Option<TcpLease> {
        let generation = self.worker.generation();
        let (cluster, metadata) = self.cluster(&generation, record)?;
        for number in 1..=self.settings.max_connect_attempts {
            match self.attempt(cluster, metadata, record).await {
                Ok(lease) => {
                    record.upstream_local = lease.local;
                    record.upstream_tls = lease.tls.clone();
                    record.upstream_exchange = lease.exchange.clone();
                    return Some(lease);
                }
                Err(Refusal::Final) => return None,
                Err(Refusal::Again) => self.pause(number).await,
            }
        }
        exhausted(cluster, record);
        None
    }

    /// The cluster of the connection, and what the metadata of its host must hold.
    fn cluster<'g>(
        &'g self,
        generation: &'g Generation,
        record: &mut RequestRecord,
    ) -> Option<(&'g Rc<Cluster>, Option<&'g MetadataMatch>)> {
        let connection = record.connection.clone();
        let (name, metadata) = self.choice(&connection);
        let Some(cluster) = name.and_then(|name| generation.cluster(name)) else {
            self.stats.counts.downstream_cx_no_route.inc();
            record.flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
            return None;
        };
        record.cluster = Some(cluster.stats.clone());
        Some((cluster, metadata))
    }

    /// `backoff_options`, before another attempt.
    async fn pause(&self, number: u32) {
        let is_last = number >= self.settings.max_connect_attempts;
        let Some(backoff) = self.settings.backoff.filter(|_| !is_last) else { return };
        let ceiling = usize::try_from(backoff.ceiling(number).as_micros()).unwrap_or(usize::MAX);
        tokio::time::sleep(Duration::from_micros(random::below(ceiling) as u64)).await;
    }

    /// The cluster, and what the metadata of its host must hold.
    fn choice<'p, 'c>(
        &'p self,
        connection: &'c ConnectionInfo,
    ) -> (Option<&'c str>, Option<&'p MetadataMatch>)
    where
        'p: 'c,
    {
        if let Some(object) = connection.state.object(TCP_PROXY_CLUSTER) {
            return (Some(&object.text), self.settings.metadata_match.as_ref());
        }
        let mut point = random::below(self.total_weight as usize) as u32;
        let chosen = self.settings.clusters.iter().find(|cluster| {
            let here = point < cluster.weight;
            point = point.saturating_sub(cluster.weight);
            here
        });
        chosen.map_or((None, None), |cluster| (Some(&*cluster.name), cluster.metadata_match.as_ref()))
    }

    fn hash(&self, connection: &ConnectionInfo) -> Option<u64> {
        match self.settings.hash_policy.as_ref()? {
            TcpHashPolicy::SourceIp => Some(TcpHashPolicy::of_address(connection.remote.ip())),
            TcpHashPolicy::FilterState(key) => {
                let object = connection.state.object(key)?;
                Some(TcpHashPolicy::of_text(&object.text))
            }
        }
    }

    async fn attempt(
        &self,
        cluster: &Rc<Cluster>,
        metadata: Option<&MetadataMatch>,
        record: &mut RequestRecord,
    ) -> Result<TcpLease, Refusal> {
        let host = self.pick(cluster, metadata, record).ok_or(Refusal::Final)?;
        let options = TransportOptions { record: Some(record), request: None };
        let leased = host.pool.lease_tcp(options).await;
        attempted(cluster, &host, leased, record)
    }

    /// A host for the next attempt.
    fn pick(
        &self,
        cluster: &Cluster,
        metadata: Option<&MetadataMatch>,
        record: &mut RequestRecord,
    ) -> Option<Rc<Host>> {
        let context = PickContext {
            hash: self.hash(&record.connection),
            metadata,
            original_destination: record.connection.original_destination,
            ..PickContext::default()
        };
        let host = cluster.pick(&context);
        if host.is_none() {
            cluster.stats.counts.upstream_cx_none_healthy.inc();
            record.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
        }
        host
    }

    /// Moves bytes both ways until the end of the connection.
    async fn relay(
        &self,
        client: &mut Io,
        lease: TcpLease,
        max_duration: Option<Instant>,
        mut drain: DrainSignal,
        record: &mut RequestRecord,
    ) {
        let TcpLease { io: mut upstream, counted, .. } = lease;
        let mut relay = Relay::new(self.limits(max_duration, &record.connection));
        // Which series the connection opens in is known when its peer is.
        relay.awaited = self.istio.as_ref().and_then(|istio| istio.awaited(record));
        if relay.awaited.is_none() {
            self.count_opened(record);
        }
        let end = loop {
            let event = relay.next(client, &mut upstream, &mut drain).await;
            record.bytes_received = relay.up.received;
            record.bytes_sent = relay.down.received;
            match event {
                Event::Flush => self.log(record, LogType::TcpPeriodic),
                Event::PeerKnown => self.count_opened(record),
                Event::Ended(end) => break end,
            }
        };
        if relay.awaited.is_some() {
            self.count_opened(record);
        }
        self.ended(&end, record);
        if let End::Broken(Broken { side, is_reset: true }) = &end {
            // Whoever is left learns how it ended.
            abort(match side {
                Side::Client => &upstream,
                Side::Upstream => client,
            });
        }
        if let Some(cluster) = &record.cluster {
            count_upstream(cluster, &end, &relay);
        }
        drop(upstream);
        drop(counted);
    }

    fn limits(&self, max_duration: Option<Instant>, connection: &ConnectionInfo) -> Limits {
        let own = connection.state.object(IDLE_TIMEOUT_MS).and_then(|object| object.text.parse().ok());
        Limits {
            idle: own.map(Duration::from_millis).or(self.settings.idle_timeout),
            max_duration,
            flush: self.settings.log_options.flush_interval,
            buffer: self.buffer_limit,
        }
    }

    fn ended(&self, end: &End, record: &mut RequestRecord) {
        match end {
            End::Idle => self.stats.counts.idle_timeout.inc(),
            End::MaxDuration => {
                self.stats.counts.max_downstream_connection_duration.inc();
                record.flags.insert(ResponseFlags::DURATION_TIMEOUT);
            }
            End::Broken(Broken { side: Side::Upstream, is_reset: true }) => {
                record.flags.insert(ResponseFlags::UPSTREAM_REMOTE_RESET);
            }
            End::Broken(_) | End::Closed | End::Drained => {}
        }
    }
}

/// Why an attempt to connect failed.
enum Refusal {
    /// Another attempt may succeed.
    Again,
    /// No attempt would.
    Final,
}

/// Notes how an attempt to connect went.
fn attempted<L>(
    cluster: &Cluster,
    host: &Rc<Host>,
    leased: Result<L, LeaseError>,
    record: &mut RequestRecord,
) -> Result<L, Refusal> {
    if matches!(leased, Err(LeaseError::Overflow)) {
        record.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
        return Err(Refusal::Final);
    }
    record.attempts += 1;
    record.host = Some(host.stats.clone());
    let outcome = match &leased {
        Ok(_) => Outcome::ConnectedFinally,
        Err(LeaseError::ConnectFailed(_)) => Outcome::ConnectFailed,
        Err(_) => Outcome::TimedOut,
    };
    outlier::observe(cluster, host, outcome);
    leased.map_err(|error| {
        if let LeaseError::ConnectFailed(reason) = error {
            record.upstream_failure = Some((*reason).into());
        }
        record.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        Refusal::Again
    })
}

/// All attempts failed.
fn exhausted(cluster: &Cluster, record: &mut RequestRecord) {
    cluster.stats.counts.upstream_cx_connect_attempts_exceeded.inc();
    record.flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
}

/// The close that follows resets the connection.
fn abort(stream: &Io) {
    if let Some(stream) = stream.tcp() {
        // Without it the connection only closes in the usual way.
        let _graceful = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}

fn count_upstream(cluster: &ClusterStats, end: &End, relay: &Relay) {
    let counts = &cluster.counts;
    cluster.bytes.moved(relay.down.received, relay.up.sent);
    let by_upstream = match end {
        End::Broken(broken) => broken.side == Side::Upstream,
        End::Closed => relay.upstream_closed,
        End::Idle | End::MaxDuration | End::Drained => false,
    };
    match by_upstream {
        true => counts.upstream_cx_destroy_remote.inc(),
        false => counts.upstream_cx_destroy_local.inc(),
    }
    counts.upstream_cx_destroy_with_active_rq.inc();
}
