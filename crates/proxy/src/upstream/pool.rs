//! Connections of a worker to one host: who waits, who dials, who may be reused.
//!
//! HTTP/1 connections are kept in a stack, the last used on top, so that few stay warm and the others run into
//! their idle timeout. HTTP/2 requests share few, full connections, and a burst before the first one is up shares
//! its dial. Source: Envoy's `conn_pool_base`, and the circuit breakers of `envoy.config.cluster.v3`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use meltemi_compile::program::{self, Http2Options, UpstreamHttp};
use meltemi_http::client::{ClientExchange, H1, H1Options, H2};
use meltemi_http::{H2Options, Io, Version};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::stats::{ClusterStats, HostStats};
use crate::upstream::shared::{ClusterState, Permit, Resource};

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
}

/// A worker's connections to one host.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) address: SocketAddr,
    pub(crate) cluster: Arc<program::Cluster>,
    pub(crate) stats: Arc<ClusterStats>,
    pub(crate) host_stats: Arc<HostStats>,
    pub(crate) shared: Arc<ClusterState>,
    /// HTTP/1 connections between requests, the last used at the end.
    #[expect(
        clippy::vec_box,
        reason = "connections wander between requests and this stack; a pointer moves cheaper"
    )]
    idle: RefCell<Vec<Box<H1Connection>>>,
    /// Connections that are open or being dialled.
    open: Cell<usize>,
    /// Requests that wait for an HTTP/1 connection because no further one may be made. At most
    /// `max_pending_requests`.
    waiting: RefCell<VecDeque<oneshot::Sender<Grant>>>,
    /// HTTP/2 connections.
    multiplexed: RefCell<Vec<Rc<Multiplexed>>>,
    /// Requests that wait for the HTTP/2 dial that is under way; `None` when there is none.
    dialling: RefCell<Option<Vec<Dialled>>>,
    /// The host is gone: nothing is kept for later.
    closed: Cell<bool>,
}

/// Tells a request that waits for a dial how it went.
type Dialled = oneshot::Sender<Result<(), LeaseError>>;

/// What a waiting request gets.
#[derive(Debug)]
enum Grant {
    Connection(Box<H1Connection>),
    Dial(Option<Permit>),
}

/// One open connection, as breakers and statistics count it.
#[derive(Debug)]
struct Counted {
    pool: Rc<Pool>,
    permit: Option<Permit>,
}

struct H1Connection {
    h1: H1,
    local: Option<SocketAddr>,
    requests: u32,
    idle_since: Instant,
    counted: Counted,
}

struct Multiplexed {
    h2: H2,
    local: Option<SocketAddr>,
    requests: Cell<u32>,
    last_used: Cell<Instant>,
}

/// A connection, or a stream of one, for one request. Dropping it gives it back.
#[derive(Debug)]
pub(crate) enum Lease {
    H1(H1Lease),
    H2(H2Lease),
}

/// An HTTP/1 connection in use.
#[derive(Debug)]
pub(crate) struct H1Lease {
    connection: Option<Box<H1Connection>>,
}

/// A stream on an HTTP/2 connection.
pub(crate) struct H2Lease {
    exchange: Option<ClientExchange<'static>>,
    connection: Rc<Multiplexed>,
}

impl Lease {
    /// The exchange; once per lease.
    pub(crate) fn exchange(&mut self) -> ClientExchange<'_> {
        match self {
            Lease::H1(lease) => lease
                .connection
                .as_mut()
                .expect("invariant: a lease holds its connection until dropped")
                .h1
                .exchange(),
            Lease::H2(lease) => lease.exchange.take().expect("invariant: a stream is used once"),
        }
    }

    /// Our address on the connection.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Lease::H1(lease) => lease.connection.as_ref().and_then(|connection| connection.local),
            Lease::H2(lease) => lease.connection.local,
        }
    }

    /// The version spoken.
    pub(crate) fn version(&self) -> Version {
        match self {
            Lease::H1(_) => Version::Http11,
            Lease::H2(_) => Version::Http2,
        }
    }
}

impl Pool {
    pub(crate) fn new(
        address: SocketAddr,
        cluster: Arc<program::Cluster>,
        stats: Arc<ClusterStats>,
        host_stats: Arc<HostStats>,
        shared: Arc<ClusterState>,
    ) -> Pool {
        Pool {
            address,
            cluster,
            stats,
            host_stats,
            shared,
            idle: RefCell::default(),
            open: Cell::new(0),
            waiting: RefCell::default(),
            multiplexed: RefCell::default(),
            dialling: RefCell::default(),
            closed: Cell::new(false),
        }
    }

    /// A connection for a request that came with `version`. Cancel safe.
    pub(crate) async fn lease(
        self: &Rc<Pool>,
        version: Version,
        priority: usize,
    ) -> Result<Lease, LeaseError> {
        match (self.cluster.http, version) {
            (UpstreamHttp::Http1, _)
            | (UpstreamHttp::UseDownstream(_), Version::Http10 | Version::Http11) => {
                self.lease_h1(priority).await
            }
            (UpstreamHttp::Http2(options) | UpstreamHttp::UseDownstream(options), _) => {
                self.lease_h2(options, priority).await
            }
        }
    }

    async fn lease_h1(self: &Rc<Pool>, priority: usize) -> Result<Lease, LeaseError> {
        if let Some(connection) = self.take_idle() {
            return Ok(Lease::H1(H1Lease { connection: Some(connection) }));
        }
        let _pending = self.pend(priority)?;
        let connection = match self.connection_permit(priority) {
            Ok(permit) => self.dial_h1(permit).await?,
            Err(Saturated) => match self.wait().await? {
                Grant::Connection(connection) => connection,
                Grant::Dial(permit) => self.dial_h1(permit).await?,
            },
        };
        Ok(Lease::H1(H1Lease { connection: Some(connection) }))
    }

    /// The connection used last, unless the peer closed it in the meantime.
    fn take_idle(&self) -> Option<Box<H1Connection>> {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            if connection.h1.poll_idle_closed(&mut cx).is_pending() {
                return Some(connection);
            }
            self.stats.counts.upstream_cx_destroy_remote.inc();
        }
    }

    fn pend(self: &Rc<Pool>, priority: usize) -> Result<Pending, LeaseError> {
        let limit = self.cluster.circuit_breakers[priority].max_pending_requests;
        let Some(permit) = Permit::take(&self.shared, priority, Resource::Pending, limit) else {
            self.stats.counts.upstream_rq_pending_overflow.inc();
            return Err(LeaseError::Overflow);
        };
        self.stats.counts.upstream_rq_pending_total.inc();
        self.stats.counts.upstream_rq_pending_active.inc();
        Ok(Pending { stats: self.stats.clone(), _permit: permit })
    }

    /// Leave to open a connection. A host without any gets one even when the cluster has reached its limit, as in
    /// Envoy; it is not counted then.
    fn connection_permit(&self, priority: usize) -> Result<Option<Permit>, Saturated> {
        let limit = self.cluster.circuit_breakers[priority].max_connections;
        match Permit::take(&self.shared, priority, Resource::Connections, limit) {
            Some(permit) => Ok(Some(permit)),
            None if self.open.get() == 0 => Ok(None),
            None => {
                self.stats.counts.upstream_cx_overflow.inc();
                Err(Saturated)
            }
        }
    }

    async fn wait(&self) -> Result<Grant, LeaseError> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().push_back(sender);
        // The sender goes only with the pool, whose host was removed then.
        receiver.await.map_err(|_| LeaseError::Overflow)
    }

    async fn dial_h1(self: &Rc<Pool>, permit: Option<Permit>) -> Result<Box<H1Connection>, LeaseError> {
        let counted = Counted::new(self, permit);
        let (stream, local) = self.connect().await?;
        self.stats.counts.upstream_cx_http1_total.inc();
        let h1 = H1::new(Io::Tcp(stream), H1Options::default());
        Ok(Box::new(H1Connection { h1, local, requests: 0, idle_since: Instant::now(), counted }))
    }

    async fn connect(&self) -> Result<(TcpStream, Option<SocketAddr>), LeaseError> {
        let start = Instant::now();
        self.stats.counts.upstream_cx_total.inc();
        self.host_stats.counts.cx_total.inc();
        match tokio::time::timeout(self.cluster.connect_timeout, TcpStream::connect(self.address)).await {
            Ok(Ok(stream)) => {
                self.stats.counts.upstream_cx_connect_ms.record_millis(start.elapsed());
                // Without it small writes wait for acknowledgements; a failure only costs speed.
                let _ = stream.set_nodelay(true);
                let local = stream.local_addr().ok();
                Ok((stream, local))
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

    fn count_connect_failure(&self) {
        self.stats.counts.upstream_cx_connect_fail.inc();
        self.host_stats.counts.cx_connect_fail.inc();
    }

    /// A connection comes back after a request: to whoever waits, to the stack, or to its end.
    fn give_back(&self, mut connection: Box<H1Connection>) {
        connection.requests += 1;
        let full = self.cluster.max_requests_per_connection.is_some_and(|max| connection.requests >= max);
        if full {
            self.stats.counts.upstream_cx_max_requests.inc();
        }
        if full || self.closed.get() || !connection.h1.is_reusable() {
            return drop(connection);
        }
        let mut grant = Grant::Connection(connection);
        while let Some(waiter) = self.next_waiter() {
            match waiter.send(grant) {
                Ok(()) => return,
                Err(back) => grant = back,
            }
        }
        if let Grant::Connection(mut connection) = grant {
            connection.idle_since = Instant::now();
            self.idle.borrow_mut().push(connection);
        }
    }

    fn next_waiter(&self) -> Option<oneshot::Sender<Grant>> {
        self.waiting.borrow_mut().pop_front()
    }

    async fn lease_h2(self: &Rc<Pool>, options: Http2Options, priority: usize) -> Result<Lease, LeaseError> {
        let mut pending = None;
        loop {
            if let Some(connection) = self.roomy_connection() {
                return self.open_stream(connection).await;
            }
            if pending.is_none() {
                pending = Some(self.pend(priority)?);
            }
            let Some(dialled) = self.join_dial(options, priority) else {
                let least = self.least_busy_connection().ok_or(LeaseError::Overflow)?;
                return self.open_stream(least).await;
            };
            dialled.await.unwrap_or(Err(LeaseError::Overflow))?;
        }
    }

    /// The first connection that takes another stream: the earlier ones fill up first.
    fn roomy_connection(&self) -> Option<Rc<Multiplexed>> {
        let mut connections = self.multiplexed.borrow_mut();
        connections.retain(|connection| !connection.h2.is_closed());
        connections.iter().find(|connection| connection.h2.active() < connection.h2.max_streams()).cloned()
    }

    fn least_busy_connection(&self) -> Option<Rc<Multiplexed>> {
        self.multiplexed.borrow().iter().min_by_key(|connection| connection.h2.active()).cloned()
    }

    async fn open_stream(&self, connection: Rc<Multiplexed>) -> Result<Lease, LeaseError> {
        let requests = connection.requests.get() + 1;
        connection.requests.set(requests);
        if self.cluster.max_requests_per_connection.is_some_and(|max| requests >= max) {
            self.stats.counts.upstream_cx_max_requests.inc();
            self.multiplexed.borrow_mut().retain(|other| !Rc::ptr_eq(other, &connection));
        }
        let exchange = connection.h2.open().await.map_err(|_| LeaseError::Refused)?;
        Ok(Lease::H2(H2Lease { exchange: Some(exchange), connection }))
    }

    /// Waits with others for the dial under way, or begins one; `None` when no connection may be added.
    fn join_dial(
        self: &Rc<Pool>,
        options: Http2Options,
        priority: usize,
    ) -> Option<oneshot::Receiver<Result<(), LeaseError>>> {
        let (sender, receiver) = oneshot::channel();
        if let Some(waiting) = self.dialling.borrow_mut().as_mut() {
            waiting.push(sender);
            return Some(receiver);
        }
        let permit = self.connection_permit(priority).ok()?;
        *self.dialling.borrow_mut() = Some(vec![sender]);
        let pool = self.clone();
        // A task of its own: the request that began it may be cancelled, the others still wait.
        tokio::task::spawn_local(async move {
            let outcome = pool.dial_h2(options, permit).await;
            let waiting = pool.dialling.borrow_mut().take().unwrap_or_default();
            for waiter in waiting {
                // A waiter that was cancelled is no longer there to be told.
                let _ = waiter.send(outcome.clone());
            }
        });
        Some(receiver)
    }

    async fn dial_h2(
        self: &Rc<Pool>,
        options: Http2Options,
        permit: Option<Permit>,
    ) -> Result<(), LeaseError> {
        let counted = Counted::new(self, permit);
        let (stream, local) = self.connect().await?;
        let refused = |_| LeaseError::ConnectFailed("http2 handshake failed".into());
        let (h2, driver) = H2::handshake(Io::Tcp(stream), &h2_options(&options)).await.map_err(refused)?;
        self.stats.counts.upstream_cx_http2_total.inc();
        tokio::task::spawn_local(async move {
            if let Err(error) = driver.run().await {
                tracing::debug!(%error, "upstream http2 connection ended");
            }
            drop(counted);
        });
        let last_used = Cell::new(Instant::now());
        self.multiplexed.borrow_mut().push(Rc::new(Multiplexed {
            h2,
            local,
            requests: Cell::new(0),
            last_used,
        }));
        Ok(())
    }

    /// A connection for raw bytes (`tcp_proxy`); never reused.
    pub(crate) async fn lease_tcp(self: &Rc<Pool>) -> Result<TcpLease, LeaseError> {
        let _pending = self.pend(0)?;
        let limit = self.cluster.circuit_breakers[0].max_connections;
        let permit = Permit::take(&self.shared, 0, Resource::Connections, limit);
        if permit.is_none() {
            self.stats.counts.upstream_cx_overflow.inc();
            return Err(LeaseError::Overflow);
        }
        let counted = Counted::new(self, permit);
        let (stream, local) = self.connect().await?;
        Ok(TcpLease { stream, local, _counted: counted })
    }

    /// A connection for the bytes of a CONNECT that ends here; never reused.
    pub(crate) async fn lease_raw(self: &Rc<Pool>, priority: usize) -> Result<Lease, LeaseError> {
        let _pending = self.pend(priority)?;
        let limit = self.cluster.circuit_breakers[priority].max_connections;
        let Some(permit) = Permit::take(&self.shared, priority, Resource::Connections, limit) else {
            self.stats.counts.upstream_cx_overflow.inc();
            return Err(LeaseError::Overflow);
        };
        let counted = Counted::new(self, Some(permit));
        let (stream, local) = self.connect().await?;
        let h1 = H1::raw(Io::Tcp(stream));
        let connection = H1Connection { h1, local, requests: 0, idle_since: Instant::now(), counted };
        Ok(Lease::H1(H1Lease { connection: Some(Box::new(connection)) }))
    }

    /// Closes what is idle; connections in use are closed when their requests are done.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
        self.multiplexed.borrow_mut().clear();
    }

    /// Closes connections that the peer closed or that were idle for too long. Says how many idle ones remain.
    pub(crate) fn reap(&self, now: Instant) -> usize {
        let limit = self.cluster.idle_timeout;
        let expired = |since: Instant| limit.is_some_and(|limit| now.duration_since(since) >= limit);
        let mut cx = Context::from_waker(Waker::noop());
        let mut reaped = Vec::new();
        let mut idle = self.idle.borrow_mut();
        for i in (0..idle.len()).rev() {
            let late = expired(idle[i].idle_since);
            if late {
                self.stats.counts.upstream_cx_idle_timeout.inc();
            }
            if late || idle[i].h1.poll_idle_closed(&mut cx).is_ready() {
                reaped.push(idle.remove(i));
            }
        }
        let left = idle.len();
        drop(idle);
        drop(reaped);
        left + self.reap_multiplexed(now, expired)
    }

    fn reap_multiplexed(&self, now: Instant, expired: impl Fn(Instant) -> bool) -> usize {
        let mut connections = self.multiplexed.borrow_mut();
        connections.retain(|connection| {
            if connection.h2.active() > 0 {
                connection.last_used.set(now);
            }
            let late = expired(connection.last_used.get());
            if late {
                self.stats.counts.upstream_cx_idle_timeout.inc();
            }
            !late && !connection.h2.is_closed()
        });
        connections.len()
    }
}

/// `max_connections` is reached.
struct Saturated;

/// A request that waits for a connection, as counted.
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
    pub(crate) stream: TcpStream,
    pub(crate) local: Option<SocketAddr>,
    _counted: Counted,
}

impl Counted {
    fn new(pool: &Rc<Pool>, permit: Option<Permit>) -> Counted {
        pool.open.set(pool.open.get() + 1);
        pool.stats.counts.upstream_cx_active.inc();
        pool.host_stats.counts.cx_active.inc();
        Counted { pool: pool.clone(), permit }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let pool = &self.pool;
        pool.open.set(pool.open.get() - 1);
        pool.stats.counts.upstream_cx_active.dec();
        pool.stats.counts.upstream_cx_destroy.inc();
        pool.host_stats.counts.cx_active.dec();
        // Who waits for a connection may open one in place of this.
        let mut permit = self.permit.take();
        while let Some(waiter) = pool.next_waiter() {
            match waiter.send(Grant::Dial(permit)) {
                Ok(()) => return,
                Err(Grant::Dial(back)) => permit = back,
                Err(Grant::Connection(_)) => return,
            }
        }
    }
}

impl Drop for H1Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let pool = connection.counted.pool.clone();
            pool.give_back(connection);
        }
    }
}

impl std::fmt::Debug for H1Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("H1Connection").field("local", &self.local).field("requests", &self.requests).finish()
    }
}

impl std::fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Multiplexed").field("local", &self.local).field("requests", &self.requests).finish()
    }
}

impl std::fmt::Debug for H2Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("H2Lease").field("connection", &self.connection).finish()
    }
}

fn h2_options(options: &Http2Options) -> H2Options {
    H2Options {
        max_concurrent_streams: options.max_concurrent_streams,
        initial_stream_window_bytes: options.initial_stream_window_bytes,
        initial_connection_window_bytes: options.initial_connection_window_bytes,
        allow_connect: options.allow_connect,
        ..H2Options::default()
    }
}

/// Envoy's words: `delayed connect error: Connection refused`.
fn failure_reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("delayed connect error: {text}")
}
