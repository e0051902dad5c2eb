//! Connections of a worker to one host: who waits, who dials, who may be reused.
//!
//! A pool belongs to a host, a priority and, inside of it, an HTTP version: [`http1`] and [`http2`] keep their own
//! connections. What they share is here: breakers, counting, and connections for raw bytes. Source: Envoy's
//! `conn_pool_base`, and the circuit breakers of `envoy.config.cluster.v3`.

mod dial;
mod http1;
mod http2;
mod variants;

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use meltemi_compile::program::{self, Http2Options, TransportSocket, UpstreamHttp};
use meltemi_http::client::ClientExchange;
use meltemi_http::{Io, Version};
use tokio::time::Instant;

use self::http1::{Http1Lease, Http1Pool};
use self::http2::{Http2Lease, Http2Pool};
use self::variants::Variants;
use crate::peer::ExchangedPeer;
use crate::stats::{ClusterStats, HostStats};
use crate::tls::TlsFacts;
use crate::upstream::shared::{ClusterState, HostState, Permit, Resource};
use crate::upstream::transport::{ConnectError, Established, Purpose, Transport, TransportOptions};

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeaseError {
    /// A circuit breaker said no.
    Overflow,
    /// Connecting failed; the text is Envoy's transport failure reason.
    ConnectFailed(Rc<str>),
    /// `connect_timeout` passed.
    ConnectTimeout,
    /// The peer refused the stream unprocessed.
    Refused,
    /// The host wants HTTP/1.1, and the connection that told so waits there; see [`Pool::lease_agreed`].
    AgreedHttp1,
}

/// A worker's connections to one host, for requests of one priority.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) address: SocketAddr,
    /// All addresses of the host, in the order in which they are tried.
    addresses: Rc<[SocketAddr]>,
    pub(crate) cluster: Arc<program::Cluster>,
    /// What comes before the protocol on each connection.
    transport: Transport,
    /// What the connections were made for.
    purpose: Purpose,
    pub(crate) stats: Arc<ClusterStats>,
    pub(crate) host_stats: Arc<HostStats>,
    pub(crate) shared: Arc<ClusterState>,
    state: Arc<HostState>,
    /// Index of the circuit breaker.
    priority: usize,
    http1: Http1Pool,
    http2: Http2Pool,
    /// The host agreed to HTTP/1.1 when it was asked (`auto_config`).
    agreed_http1: Cell<bool>,
    /// The pool of requests of high priority, once there are any.
    high: OnceCell<Rc<Pool>>,
    /// The pools of connections that only serve whom they were made for.
    variants: Variants,
    /// The host is gone: nothing is kept for later.
    closed: Cell<bool>,
}

/// A connection, or a stream of one, for one request. Dropping it gives it back.
#[derive(Debug)]
pub(crate) enum Lease {
    Http1(Http1Lease),
    Http2(Http2Lease),
}

impl Lease {
    /// The exchange; once per lease.
    pub(crate) fn exchange(&mut self) -> ClientExchange<'_> {
        match self {
            Lease::Http1(lease) => lease.exchange(),
            Lease::Http2(lease) => lease.exchange(),
        }
    }

    /// Our address on the connection.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Lease::Http1(lease) => lease.local_address(),
            Lease::Http2(lease) => lease.local_address(),
        }
    }

    /// What the handshake of the connection told, if there was one.
    pub(crate) fn tls(&self) -> Option<&Rc<TlsFacts>> {
        match self {
            Lease::Http1(lease) => lease.tls(),
            Lease::Http2(lease) => lease.tls(),
        }
    }

    /// The version spoken.
    pub(crate) fn version(&self) -> Version {
        match self {
            Lease::Http1(_) => Version::Http11,
            Lease::Http2(_) => Version::Http2,
        }
    }
}

impl Pool {
    pub(crate) fn new(
        host: &program::Host,
        cluster: Arc<program::Cluster>,
        transport: Transport,
        stats: Arc<ClusterStats>,
        host_stats: Arc<HostStats>,
        shared: Arc<ClusterState>,
    ) -> Pool {
        let state = shared.host(host.address);
        Pool {
            address: host.address,
            addresses: dial::in_order(host).into(),
            cluster,
            transport,
            purpose: Purpose::default(),
            stats,
            host_stats,
            shared,
            state,
            priority: 0,
            http1: Http1Pool::default(),
            http2: Http2Pool::default(),
            agreed_http1: Cell::new(false),
            high: OnceCell::new(),
            variants: Variants::default(),
            closed: Cell::new(false),
        }
    }

    /// Whether the connections go to the addresses that this host has, in the way that it asks for.
    pub(crate) fn serves(&self, host: &program::Host, transport: &TransportSocket) -> bool {
        *self.addresses == *dial::in_order(host) && *self.transport.socket == *transport
    }

    /// An empty pool to the same host.
    fn sibling(&self, priority: usize, purpose: Purpose) -> Rc<Pool> {
        Rc::new(Pool {
            address: self.address,
            addresses: self.addresses.clone(),
            cluster: self.cluster.clone(),
            transport: self.transport.clone(),
            purpose,
            stats: self.stats.clone(),
            host_stats: self.host_stats.clone(),
            shared: self.shared.clone(),
            state: self.state.clone(),
            priority,
            http1: Http1Pool::default(),
            http2: Http2Pool::default(),
            agreed_http1: Cell::new(false),
            high: OnceCell::new(),
            variants: Variants::default(),
            closed: self.closed.clone(),
        })
    }

    /// The pool for requests of this priority.
    fn of(self: &Rc<Pool>, priority: usize) -> &Rc<Pool> {
        if priority == self.priority {
            return self;
        }
        self.high.get_or_init(|| self.sibling(priority, self.purpose.clone()))
    }

    /// A connection for a request that came with `version`. Cancel safe.
    pub(crate) async fn lease(
        self: &Rc<Pool>,
        version: Version,
        priority: usize,
        options: TransportOptions<'_>,
    ) -> Result<Lease, LeaseError> {
        let variant;
        let pool = match self.transport.socket.depends_on_client() {
            false => self.of(priority),
            true => {
                variant = self.serving(options);
                variant.of(priority)
            }
        };
        match (pool.cluster.http, version) {
            (UpstreamHttp::Http1, _)
            | (UpstreamHttp::UseDownstream(_), Version::Http10 | Version::Http11) => {
                pool.lease_http1().await.map(Lease::Http1)
            }
            (UpstreamHttp::Http2(options) | UpstreamHttp::UseDownstream(options), _) => {
                pool.lease_http2(options).await.map(Lease::Http2)
            }
            (UpstreamHttp::Auto(options), _) => pool.lease_agreed(options).await,
        }
    }

    /// A connection of the version that the host agrees to. The first connection tells, and the next one after there was
    /// none for a while.
    async fn lease_agreed(self: &Rc<Pool>, options: Http2Options) -> Result<Lease, LeaseError> {
        loop {
            if self.agreed_http1.get() && self.http1.is_in_use() {
                return self.lease_http1().await.map(Lease::Http1);
            }
            self.agreed_http1.set(false);
            match self.lease_http2(options).await {
                Err(LeaseError::AgreedHttp1) => {}
                leased => return leased.map(Lease::Http2),
            }
        }
    }

    /// A connection for the bytes of a CONNECT that ends here; never reused.
    pub(crate) async fn lease_raw(
        self: &Rc<Pool>,
        priority: usize,
        options: TransportOptions<'_>,
    ) -> Result<Lease, LeaseError> {
        let pool = self.of(priority);
        let _pending = pool.pend()?;
        let Some(permit) = pool.connection_permit() else {
            pool.stats.counts.upstream_cx_overflow.inc();
            return Err(LeaseError::Overflow);
        };
        let purpose = self.purpose_of(options);
        pool.dial_raw(permit, &purpose).await.map(Lease::Http1)
    }

    /// A connection for raw bytes (`tcp_proxy`); never reused.
    pub(crate) async fn lease_tcp(
        self: &Rc<Pool>,
        options: TransportOptions<'_>,
    ) -> Result<TcpLease, LeaseError> {
        let _pending = self.pend()?;
        let Some(permit) = self.connection_permit() else {
            self.stats.counts.upstream_cx_overflow.inc();
            return Err(LeaseError::Overflow);
        };
        let counted = Counted::new(self, permit);
        let Established { io, local, tls, exchange, sent } =
            self.connect(&self.purpose_of(options), &[]).await?;
        self.stats.bytes.moved(0, sent);
        Ok(TcpLease { io, local, tls, exchange, counted })
    }

    /// Closes what is idle; connections in use are closed when their requests are done.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.http1.close();
        self.http2.close();
        if let Some(high) = self.high.get() {
            high.close();
        }
        self.variants.close();
    }

    /// Closes connections that the peer closed, that were idle for too long or that are too old. Says how many idle
    /// ones remain.
    pub(crate) fn reap(&self, now: Instant) -> usize {
        let high = self.high.get().map_or(0, |high| high.reap(now));
        high + self.variants.reap(now) + self.reap_http1(now) + self.reap_http2(now)
    }

    fn pend(&self) -> Result<Pending, LeaseError> {
        let limit = self.cluster.circuit_breakers[self.priority].max_pending_requests;
        let Some(permit) = Permit::take(&self.shared, self.priority, Resource::Pending, limit) else {
            self.stats.counts.upstream_rq_pending_overflow.inc();
            return Err(LeaseError::Overflow);
        };
        self.stats.counts.upstream_rq_pending_total.inc();
        self.stats.counts.upstream_rq_pending_active.inc();
        Ok(Pending { stats: self.stats.clone(), _permit: permit })
    }

    /// Leave to open a connection, by the limits of the host and of the cluster.
    fn connection_permit(&self) -> Option<Permit> {
        if self.state.connections.load(Ordering::Relaxed) >= self.cluster.max_host_connections[self.priority]
        {
            return None;
        }
        let limit = self.cluster.circuit_breakers[self.priority].max_connections;
        Permit::take(&self.shared, self.priority, Resource::Connections, limit)
    }

    /// The same for a pool of requests: one that has no connection gets one even when a limit is reached, as in Envoy,
    /// or its requests would wait for nothing.
    fn pooled_connection_permit(&self, open: usize) -> Option<Permit> {
        let permit = self.connection_permit();
        if permit.is_some() {
            return permit;
        }
        self.stats.counts.upstream_cx_overflow.inc();
        (open == 0).then(|| Permit::exceed(&self.shared, self.priority, Resource::Connections))
    }

    fn purpose_of(&self, options: TransportOptions<'_>) -> Purpose {
        self.transport.purpose(self.cluster.auto_sni.as_ref(), options)
    }

    /// Dials the host, and makes the connection ready.
    async fn connect(
        &self,
        purpose: &Purpose,
        protocols: &'static [&'static str],
    ) -> Result<Established, LeaseError> {
        let start = Instant::now();
        let connecting = async {
            let stream = dial::dial(&self.addresses, &self.cluster).await?;
            self.transport.establish(stream, purpose, protocols).await
        };
        let connected = tokio::time::timeout(self.cluster.connect_timeout, connecting).await;
        if let Some(ssl) = self.stats.ssl() {
            match &connected {
                Ok(Ok(Established { tls: Some(facts), .. })) => facts.count(&ssl.ssl),
                Ok(Err(ConnectError::Tls(failure))) => failure.count_upstream(ssl),
                _ => {}
            }
        }
        match connected {
            Ok(Ok(established)) => {
                self.stats.counts.upstream_cx_connect_ms.record_millis(start.elapsed());
                Ok(established)
            }
            Ok(Err(error)) => {
                self.count_connect_failure();
                Err(LeaseError::ConnectFailed(failure_reason(&error).into()))
            }
            Err(_) => {
                self.count_connect_failure();
                self.stats.counts.upstream_cx_connect_timeout.inc();
                Err(LeaseError::ConnectTimeout)
            }
        }
    }

    /// The same for a protocol of requests, its bytes counted.
    async fn connect_counted(
        &self,
        purpose: &Purpose,
        protocols: &'static [&'static str],
    ) -> Result<Connected, LeaseError> {
        // Requests tell by their headers who sends them.
        let Established { io, local, tls, exchange: _, sent } = self.connect(purpose, protocols).await?;
        self.stats.bytes.moved(0, sent);
        Ok(Connected { io: io.counted(self.stats.bytes.clone()), local, tls })
    }

    fn count_connect_failure(&self) {
        self.stats.counts.upstream_cx_connect_fail.inc();
        self.host_stats.counts.cx_connect_fail.inc();
    }

    /// Whether a connection that was opened then may no longer be used (`max_connection_duration`).
    fn is_too_old(&self, opened: Instant, now: Instant) -> bool {
        self.cluster.max_connection_duration.is_some_and(|limit| now.duration_since(opened) >= limit)
    }

    fn is_idle_too_long(&self, since: Instant, now: Instant) -> bool {
        self.cluster.idle_timeout.is_some_and(|limit| now.duration_since(since) >= limit)
    }
}

/// A connection for a protocol of requests.
struct Connected {
    io: Io,
    local: Option<SocketAddr>,
    tls: Option<Rc<TlsFacts>>,
}

fn failure_reason(error: &ConnectError) -> String {
    match error {
        ConnectError::Io(error) => dial::failure_reason(error),
        ConnectError::Tls(failure) => failure.reason().unwrap_or_default(),
    }
}

/// A request that waits for a connection, as counted.
#[derive(Debug)]
struct Pending {
    stats: Arc<ClusterStats>,
    _permit: Permit,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.stats.counts.upstream_rq_pending_active.dec();
    }
}

/// A connection for raw bytes.
#[derive(Debug)]
pub(crate) struct TcpLease {
    pub(crate) io: Io,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) tls: Option<Rc<TlsFacts>>,
    pub(crate) exchange: Option<Rc<ExchangedPeer>>,
    /// Counts the connection as open until dropped.
    pub(crate) counted: Counted,
}

/// One connection that is open or being dialled, as breakers and statistics count it.
#[derive(Debug)]
pub(crate) struct Counted {
    pool: Rc<Pool>,
    _permit: Permit,
}

impl Counted {
    fn new(pool: &Rc<Pool>, permit: Permit) -> Counted {
        pool.state.connections.fetch_add(1, Ordering::Relaxed);
        pool.stats.counts.upstream_cx_total.inc();
        pool.stats.counts.upstream_cx_active.inc();
        pool.host_stats.counts.cx_total.inc();
        pool.host_stats.counts.cx_active.inc();
        Counted { pool: pool.clone(), _permit: permit }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let pool = &self.pool;
        pool.state.connections.fetch_sub(1, Ordering::Relaxed);
        pool.stats.counts.upstream_cx_active.dec();
        pool.stats.counts.upstream_cx_destroy.inc();
        pool.host_stats.counts.cx_active.dec();
    }
}
