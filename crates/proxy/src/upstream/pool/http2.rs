//! HTTP/2 connections to one host: few and full, shared by all requests of a worker.
//!
//! A burst before the first connection is up shares its dial, as far as one connection may carry it
//! (`max_concurrent_streams`, `max_requests_per_connection`); what is more gets further dials.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use meltemi_compile::program::{Http2Options, UpstreamHttp};
use meltemi_http::client::{ClientExchange, H2};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Connected, Counted, LeaseError, Pool};
use crate::codec::h2_options;
use crate::tls::TlsFacts;

/// The HTTP/2 part of a pool.
#[derive(Debug, Default)]
pub(super) struct Http2Pool {
    connections: RefCell<Vec<Rc<Multiplexed>>>,
    /// Dials under way, with the requests that wait for each.
    dials: RefCell<Vec<Dial>>,
    /// Connections that are open or being dialled.
    open: Cell<usize>,
    last_dial: Cell<u64>,
}

#[derive(Debug)]
struct Dial {
    number: u64,
    waiting: Vec<oneshot::Sender<Result<(), LeaseError>>>,
}

struct Multiplexed {
    h2: H2,
    local: Option<SocketAddr>,
    tls: Option<Rc<TlsFacts>>,
    requests: Cell<u32>,
    opened: Instant,
    last_used: Cell<Instant>,
}

/// A connection of the HTTP/2 part, as counted.
#[derive(Debug)]
struct Open(Option<Counted>);

impl Open {
    fn pool(&self) -> &Rc<Pool> {
        &self.counted().pool
    }

    fn counted(&self) -> &Counted {
        self.0.as_ref().expect("invariant: it is counted until it is dropped or taken")
    }

    /// No longer a connection of this part.
    fn take(mut self) -> Option<Counted> {
        let counted = self.0.take()?;
        let open = &counted.pool.http2.open;
        open.set(open.get() - 1);
        Some(counted)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(counted) = &self.0 {
            let open = &counted.pool.http2.open;
            open.set(open.get() - 1);
        }
    }
}

/// A stream on a connection.
pub(crate) struct Http2Lease {
    exchange: Option<ClientExchange<'static>>,
    connection: Rc<Multiplexed>,
}

impl Http2Lease {
    pub(super) fn exchange(&mut self) -> ClientExchange<'_> {
        self.exchange.take().expect("invariant: a stream is used once")
    }

    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.connection.local
    }

    pub(super) fn tls(&self) -> Option<&Rc<TlsFacts>> {
        self.connection.tls.as_ref()
    }
}

impl Http2Pool {
    pub(super) fn close(&self) {
        self.connections.borrow_mut().clear();
    }

    fn least_busy(&self) -> Option<Rc<Multiplexed>> {
        self.connections.borrow().iter().min_by_key(|connection| connection.h2.active()).cloned()
    }

    fn remove(&self, connection: &Rc<Multiplexed>) {
        self.connections.borrow_mut().retain(|other| !Rc::ptr_eq(other, connection));
    }
}

impl Pool {
    pub(super) async fn lease_http2(
        self: &Rc<Pool>,
        options: Http2Options,
    ) -> Result<Http2Lease, LeaseError> {
        let mut pending = None;
        loop {
            if let Some(connection) = self.roomy_connection() {
                return self.open_stream(connection).await;
            }
            if pending.is_none() {
                pending = Some(self.pend()?);
            }
            let Some(dialled) = self.join_dial(options) else {
                let least = self.http2.least_busy().ok_or(LeaseError::Overflow)?;
                return self.open_stream(least).await;
            };
            dialled.await.unwrap_or(Err(LeaseError::Overflow))?;
        }
    }

    /// The first connection that takes another stream: the earlier ones fill up first.
    fn roomy_connection(&self) -> Option<Rc<Multiplexed>> {
        let mut connections = self.http2.connections.borrow_mut();
        connections.retain(|connection| !connection.h2.is_closed());
        connections.iter().find(|connection| connection.h2.active() < connection.h2.max_streams()).cloned()
    }

    async fn open_stream(&self, connection: Rc<Multiplexed>) -> Result<Http2Lease, LeaseError> {
        let requests = connection.requests.get() + 1;
        connection.requests.set(requests);
        if self.cluster.max_requests_per_connection.is_some_and(|max| requests >= max) {
            self.stats.counts.upstream_cx_max_requests.inc();
            self.http2.remove(&connection);
        }
        let exchange = connection.h2.open().await.map_err(|_| LeaseError::Refused)?;
        Ok(Http2Lease { exchange: Some(exchange), connection })
    }

    /// How many requests one new connection is expected to carry.
    fn streams_per_dial(&self, options: &Http2Options) -> usize {
        let requests = self.cluster.max_requests_per_connection.unwrap_or(u32::MAX);
        usize::try_from(options.max_concurrent_streams.min(requests)).unwrap_or(usize::MAX)
    }

    /// Waits with others for a dial under way, or begins one; `None` when no connection may be added.
    fn join_dial(
        self: &Rc<Pool>,
        options: Http2Options,
    ) -> Option<oneshot::Receiver<Result<(), LeaseError>>> {
        let (sender, receiver) = oneshot::channel();
        let part = &self.http2;
        let capacity = self.streams_per_dial(&options);
        if let Some(dial) = part.dials.borrow_mut().iter_mut().find(|dial| dial.waiting.len() < capacity) {
            dial.waiting.push(sender);
            return Some(receiver);
        }
        let permit = self.pooled_connection_permit(part.open.get())?;
        part.open.set(part.open.get() + 1);
        let number = part.last_dial.get() + 1;
        part.last_dial.set(number);
        part.dials.borrow_mut().push(Dial { number, waiting: vec![sender] });
        // A task of its own: the request that began it may be cancelled, the others still wait.
        tokio::task::spawn_local(dial(Open(Some(Counted::new(self, permit))), number, options));
        Some(receiver)
    }

    fn end_dial(&self, number: u64, outcome: &Result<(), LeaseError>) {
        let mut dials = self.http2.dials.borrow_mut();
        let Some(at) = dials.iter().position(|dial| dial.number == number) else { return };
        for waiter in dials.swap_remove(at).waiting {
            // A waiter that was cancelled is no longer there to be told.
            let _ = waiter.send(outcome.clone());
        }
    }

    pub(super) fn reap_http2(&self, now: Instant) -> usize {
        let mut connections = self.http2.connections.borrow_mut();
        let counts = &self.stats.counts;
        connections.retain(|connection| {
            if connection.h2.active() > 0 {
                connection.last_used.set(now);
            }
            if self.is_idle_too_long(connection.last_used.get(), now) {
                counts.upstream_cx_idle_timeout.inc();
                return false;
            }
            // Requests under way finish: the connection lasts as long as someone uses it.
            if self.is_too_old(connection.opened, now) {
                counts.upstream_cx_max_duration_reached.inc();
                return false;
            }
            !connection.h2.is_closed()
        });
        connections.len()
    }
}

async fn dial(counted: Open, number: u64, options: Http2Options) {
    let pool = counted.pool().clone();
    let outcome = connect(counted, &options).await;
    pool.end_dial(number, &outcome);
}

async fn connect(counted: Open, options: &Http2Options) -> Result<(), LeaseError> {
    let pool = counted.pool().clone();
    let is_auto = matches!(pool.cluster.http, UpstreamHttp::Auto(_));
    let protocols: &[&str] = if is_auto { &["h2", "http/1.1"] } else { &["h2"] };
    let connected = pool.connect_counted(&pool.purpose, protocols).await?;
    let agreed = connected.io.tls().and_then(|tls| tls.session().state().alpn_protocol());
    if is_auto && agreed != Some(b"h2") {
        if let Some(counted) = counted.take() {
            pool.take_over_http1(connected, counted);
        }
        return Err(LeaseError::AgreedHttp1);
    }
    let Connected { io, local, tls } = connected;
    let refused = |_| LeaseError::ConnectFailed("http2 handshake failed".into());
    let options = h2_options(options, pool.cluster.max_response_headers_bytes);
    let (h2, driver) = H2::handshake(io, &options).await.map_err(refused)?;
    pool.stats.counts.upstream_cx_http2_total.inc();
    tokio::task::spawn_local(async move {
        if let Err(error) = driver.run().await {
            tracing::debug!(%error, "upstream http2 connection ended");
        }
        drop(counted);
    });
    let now = Instant::now();
    pool.http2.connections.borrow_mut().push(Rc::new(Multiplexed {
        h2,
        local,
        tls,
        requests: Cell::new(0),
        opened: now,
        last_used: Cell::new(now),
    }));
    Ok(())
}

impl std::fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Multiplexed").field("local", &self.local).field("requests", &self.requests).finish()
    }
}

impl std::fmt::Debug for Http2Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http2Lease").field("connection", &self.connection).finish()
    }
}
