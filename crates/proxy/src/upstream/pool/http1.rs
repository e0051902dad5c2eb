//! HTTP/1 connections to one host.
//!
//! They are kept in a stack, the last used on top, so that few stay warm and the others run into their idle timeout.
//! A request that finds none waits in a queue, and a dial begins for it; it gets whatever is there first, a connection
//! that another request gives back or a new one. A dial that fails fails all who wait, as in Envoy.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Waker};

use meltemi_compile::program::Cluster;
use meltemi_http::client::{ClientExchange, H1, H1Options};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Connected, Counted, LeaseError, Pool};
use crate::codec::h1_options;
use crate::tls::TlsFacts;
use crate::upstream::shared::Permit;
use crate::upstream::transport::Purpose;

/// The HTTP/1 part of a pool.
#[derive(Debug, Default)]
pub(super) struct Http1Pool {
    /// Connections between requests, the last used at the end.
    #[expect(
        clippy::vec_box,
        reason = "connections wander between requests and this stack; a pointer moves cheaper"
    )]
    idle: RefCell<Vec<Box<Http1Connection>>>,
    /// Requests that wait. At most `max_pending_requests`.
    waiting: RefCell<VecDeque<Waiter>>,
    /// Connections that are open or being dialled.
    open: Cell<usize>,
    dialling: Cell<usize>,
}

/// Tells a request that waits what it got.
type Waiter = oneshot::Sender<Result<Box<Http1Connection>, LeaseError>>;

struct Http1Connection {
    h1: H1,
    local: Option<SocketAddr>,
    tls: Option<Rc<TlsFacts>>,
    requests: u32,
    opened: Instant,
    idle_since: Instant,
    counted: Open,
}

impl Http1Connection {
    fn new(h1: H1, local: Option<SocketAddr>, tls: Option<Rc<TlsFacts>>, counted: Open) -> Http1Connection {
        let now = Instant::now();
        Http1Connection { h1, local, tls, requests: 0, opened: now, idle_since: now, counted }
    }
}

/// A connection of the HTTP/1 part, as counted.
#[derive(Debug)]
struct Open(Counted);

impl Open {
    fn new(pool: &Rc<Pool>, permit: Permit) -> Open {
        pool.http1.open.set(pool.http1.open.get() + 1);
        Open(Counted::new(pool, permit))
    }

    fn pool(&self) -> &Rc<Pool> {
        &self.0.pool
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let open = &self.0.pool.http1.open;
        open.set(open.get() - 1);
    }
}

/// A connection in use.
#[derive(Debug)]
pub(crate) struct Http1Lease {
    connection: Option<Box<Http1Connection>>,
}

impl Http1Lease {
    pub(super) fn exchange(&mut self) -> ClientExchange<'_> {
        let connection = self.connection.as_mut();
        connection.expect("invariant: a lease holds its connection until dropped").h1.exchange()
    }

    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.connection.as_ref().and_then(|connection| connection.local)
    }

    pub(super) fn tls(&self) -> Option<&Rc<TlsFacts>> {
        self.connection.as_ref()?.tls.as_ref()
    }
}

impl Drop for Http1Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let pool = connection.counted.pool().clone();
            pool.give_back(connection);
        }
    }
}

impl Http1Pool {
    pub(super) fn close(&self) {
        // Taken out first: what goes with a connection may look at the stack.
        let idle = self.idle.take();
        drop(idle);
    }

    /// Whether there is a connection, or one is on its way.
    pub(super) fn is_in_use(&self) -> bool {
        self.open.get() > 0
    }

    fn next_waiter(&self) -> Option<Waiter> {
        self.waiting.borrow_mut().pop_front()
    }
}

impl Pool {
    pub(super) async fn lease_http1(self: &Rc<Pool>) -> Result<Http1Lease, LeaseError> {
        if let Some(connection) = self.take_idle() {
            return Ok(Http1Lease { connection: Some(connection) });
        }
        let _pending = self.pend()?;
        let (sender, receiver) = oneshot::channel();
        self.http1.waiting.borrow_mut().push_back(sender);
        self.dial_for_waiters();
        // The sender goes only with the pool, whose host was removed then.
        let connection = receiver.await.unwrap_or(Err(LeaseError::Overflow))?;
        Ok(Http1Lease { connection: Some(connection) })
    }

    /// A connection whose one exchange is bytes in both directions.
    pub(super) async fn dial_raw(
        self: &Rc<Pool>,
        permit: Permit,
        purpose: &Purpose,
    ) -> Result<Http1Lease, LeaseError> {
        let counted = Open::new(self, permit);
        let Connected { io, local, tls } = self.connect_counted(purpose, &[]).await?;
        let connection = Http1Connection::new(H1::raw(io), local, tls, counted);
        Ok(Http1Lease { connection: Some(Box::new(connection)) })
    }

    /// The connection used last, unless the peer closed it in the meantime.
    fn take_idle(&self) -> Option<Box<Http1Connection>> {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let mut connection = self.http1.idle.borrow_mut().pop()?;
            if connection.h1.poll_idle_closed(&mut cx).is_pending() {
                return Some(connection);
            }
            self.stats.counts.upstream_cx_destroy_remote.inc();
        }
    }

    /// Begins dials until there is one for everybody who waits, or no further connection may be made.
    fn dial_for_waiters(self: &Rc<Pool>) {
        let part = &self.http1;
        while part.dialling.get() < part.waiting.borrow().len() {
            let Some(permit) = self.pooled_connection_permit(part.open.get()) else { return };
            part.dialling.set(part.dialling.get() + 1);
            let counted = Open::new(self, permit);
            // A task of its own: the request that it began for may be cancelled or served by another connection.
            tokio::task::spawn_local(dial(counted));
        }
    }

    /// A connection comes back after a request: to whoever waits, to the stack, or to its end.
    fn give_back(self: &Rc<Pool>, mut connection: Box<Http1Connection>) {
        connection.requests += 1;
        let is_full = self.cluster.max_requests_per_connection.is_some_and(|max| connection.requests >= max);
        if is_full {
            self.stats.counts.upstream_cx_max_requests.inc();
        }
        if is_full || self.closed.get() || !connection.h1.is_reusable() || self.outlived(connection.opened) {
            drop(connection);
            return self.dial_for_waiters();
        }
        self.hand_over(connection);
    }

    /// Counts a connection that is too old.
    fn outlived(&self, opened: Instant) -> bool {
        let is_old =
            self.cluster.max_connection_duration.is_some() && self.is_too_old(opened, Instant::now());
        if is_old {
            self.stats.counts.upstream_cx_max_duration_reached.inc();
        }
        is_old
    }

    /// Gives a connection to the first who waits and is still there, or to the stack.
    fn hand_over(&self, connection: Box<Http1Connection>) {
        let mut grant = Ok(connection);
        while let Some(waiter) = self.http1.next_waiter() {
            match waiter.send(grant) {
                Ok(()) => return,
                Err(back) => grant = back,
            }
        }
        if let Ok(mut connection) = grant
            && !self.closed.get()
        {
            connection.idle_since = Instant::now();
            self.http1.idle.borrow_mut().push(connection);
        }
    }

    fn begin_http1(&self, connected: Connected, counted: Open) {
        self.stats.counts.upstream_cx_http1_total.inc();
        let Connected { io, local, tls } = connected;
        let h1 = H1::new(io, options(&self.cluster));
        self.hand_over(Box::new(Http1Connection::new(h1, local, tls, counted)));
    }

    /// Takes over a connection on which HTTP/2 was offered and HTTP/1.1 was agreed upon.
    pub(super) fn take_over_http1(self: &Rc<Pool>, connected: Connected, counted: Counted) {
        self.agreed_http1.set(true);
        self.http1.open.set(self.http1.open.get() + 1);
        self.begin_http1(connected, Open(counted));
    }

    fn fail_waiters(&self, error: &LeaseError) {
        for waiter in self.http1.waiting.take() {
            // Who is no longer there need not be told.
            let _ = waiter.send(Err(error.clone()));
        }
    }

    pub(super) fn reap_http1(&self, now: Instant) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let mut reaped = Vec::new();
        let mut idle = self.http1.idle.borrow_mut();
        for i in (0..idle.len()).rev() {
            let connection = &mut idle[i];
            if self.is_idle_too_long(connection.idle_since, now) {
                self.stats.counts.upstream_cx_idle_timeout.inc();
            } else if self.is_too_old(connection.opened, now) {
                self.stats.counts.upstream_cx_max_duration_reached.inc();
            } else if connection.h1.poll_idle_closed(&mut cx).is_pending() {
                continue;
            }
            reaped.push(idle.remove(i));
        }
        let left = idle.len();
        drop(idle);
        drop(reaped);
        left
    }
}

fn options(cluster: &Cluster) -> H1Options {
    h1_options(&cluster.http1, cluster.max_response_headers_bytes, cluster.max_headers_count)
}

async fn dial(counted: Open) {
    let pool = counted.pool().clone();
    let connected = pool.connect_counted(&pool.purpose, &["http/1.1"]).await;
    pool.http1.dialling.set(pool.http1.dialling.get() - 1);
    match connected {
        Ok(connected) => pool.begin_http1(connected, counted),
        Err(error) => {
            drop(counted);
            pool.fail_waiters(&error);
        }
    }
}

impl std::fmt::Debug for Http1Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http1Connection")
            .field("local", &self.local)
            .field("requests", &self.requests)
            .finish()
    }
}
