//! The relay of a connection: both directions at once, on one task, until both have ended or a deadline passes.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use meltemi_http::{DrainSignal, DrainStage, Io};
use tokio::time::Instant;

use super::flow::{Broken, Flow, Side};
use crate::peer::ExchangedPeer;
use crate::timer::Deadline;

/// How a relay ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both sides closed.
    Closed,
    /// One side broke off.
    Broken(Broken),
    /// `idle_timeout`.
    Idle,
    /// `max_downstream_connection_duration`.
    MaxDuration,
    /// The listener or chain is gone, and the time to drain is over.
    Drained,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// `access_log_flush_interval` has passed.
    Flush,
    /// The peer that was awaited has said who it is, or that it will not.
    PeerKnown,
    Ended(End),
}

/// When a relay ends by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) idle: Option<Duration>,
    pub(super) max_duration: Option<Instant>,
    pub(super) flush: Option<Duration>,
    /// `per_connection_buffer_limit_bytes`.
    pub(super) buffer: usize,
}

impl End {
    /// How a connection ended that waited until `limit`.
    pub(super) fn late(limit: Option<Instant>, max_duration: Option<Instant>) -> End {
        if limit == max_duration { End::MaxDuration } else { End::Idle }
    }
}

/// The deadlines of a connection whose bytes somebody else moves.
#[derive(Debug)]
pub(super) struct Clock {
    limits: Limits,
    began: Instant,
    idle: Deadline,
    max_duration: Deadline,
    flush: Deadline,
}

impl Clock {
    pub(super) fn new(limits: Limits) -> Clock {
        let began = Instant::now();
        Clock {
            limits,
            began,
            idle: Deadline::new(limits.idle.map(|idle| began + idle)),
            max_duration: Deadline::new(limits.max_duration),
            flush: Deadline::new(limits.flush.map(|every| began + every)),
        }
    }

    /// What comes first: an event, or else (`Err`) the end of `moving`. `activity` is when bytes last moved.
    pub(super) async fn race<T>(
        &mut self,
        mut moving: Pin<&mut impl Future<Output = T>>,
        drain: &mut DrainSignal,
        activity: impl Fn() -> Option<Instant>,
    ) -> Result<Event, T> {
        let mut drained = pin!(drain.reached(DrainStage::Ended));
        std::future::poll_fn(|cx| {
            if drained.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(Event::Ended(End::Drained)));
            }
            if let Poll::Ready(done) = moving.as_mut().poll(cx) {
                return Poll::Ready(Err(done));
            }
            self.poll(activity().unwrap_or(self.began), cx).map(Ok)
        })
        .await
    }

    fn poll(&mut self, activity: Instant, cx: &mut Context<'_>) -> Poll<Event> {
        if self.max_duration.poll_due(cx).is_ready() {
            return Poll::Ready(Event::Ended(End::MaxDuration));
        }
        if let Some(idle) = self.limits.idle {
            self.idle.set(Some(activity + idle));
            if self.idle.poll_due(cx).is_ready() {
                return Poll::Ready(Event::Ended(End::Idle));
            }
        }
        if let Some(every) = self.limits.flush
            && self.flush.poll_due(cx).is_ready()
        {
            self.flush.set(Some(Instant::now() + every));
            return Poll::Ready(Event::Flush);
        }
        Poll::Pending
    }
}

/// Both directions and their deadlines.
#[derive(Debug)]
pub(super) struct Relay {
    /// From the client to the upstream.
    pub(super) up: Flow,
    /// From the upstream to the client.
    pub(super) down: Flow,
    /// The upstream ended after we had ended towards it.
    pub(super) upstream_closed: bool,
    /// Whoever has not said yet who it is.
    pub(super) awaited: Option<Rc<ExchangedPeer>>,
    activity: Instant,
    clock: Clock,
}

impl Relay {
    pub(super) fn new(limits: Limits) -> Relay {
        Relay {
            up: Flow::new(Side::Client, Side::Upstream, limits.buffer),
            down: Flow::new(Side::Upstream, Side::Client, limits.buffer),
            upstream_closed: false,
            awaited: None,
            activity: Instant::now(),
            clock: Clock::new(limits),
        }
    }

    /// Moves bytes until something happens.
    pub(super) async fn next(
        &mut self,
        client: &mut Io,
        upstream: &mut Io,
        drain: &mut DrainSignal,
    ) -> Event {
        let mut drained = pin!(drain.reached(DrainStage::Ended));
        std::future::poll_fn(|cx| {
            if drained.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Ended(End::Drained));
            }
            if let Poll::Ready(end) = self.poll_flows(client, upstream, cx) {
                return Poll::Ready(Event::Ended(end));
            }
            // What it says comes with the bytes that were just moved.
            if self.awaited.as_ref().is_some_and(|peer| peer.is_settled()) {
                self.awaited = None;
                return Poll::Ready(Event::PeerKnown);
            }
            self.clock.poll(self.activity, cx)
        })
        .await
    }

    fn poll_flows(&mut self, client: &mut Io, upstream: &mut Io, cx: &mut Context<'_>) -> Poll<End> {
        let before = self.up.received + self.up.sent + self.down.received + self.down.sent;
        let was_ended = self.up.is_done();
        let up = self.up.poll(client, upstream, cx);
        let down = self.down.poll(upstream, client, cx);
        if self.up.received + self.up.sent + self.down.received + self.down.sent != before {
            self.activity = Instant::now();
        }
        if let Poll::Ready(Err(broken)) = up {
            return Poll::Ready(End::Broken(broken));
        }
        if let Poll::Ready(Err(broken)) = down {
            return Poll::Ready(End::Broken(broken));
        }
        if !(self.up.is_done() && self.down.is_done()) {
            return Poll::Pending;
        }
        self.upstream_closed = was_ended;
        Poll::Ready(End::Closed)
    }
}

/// Runs `future`, but no longer than until `at`; `None` when the time is over.
pub(super) async fn until<T>(at: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    let Some(at) = at else { return Some(future.await) };
    let mut deadline = Deadline::new(Some(at));
    let mut future: Pin<&mut _> = pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => deadline.poll_due(cx).map(|()| None),
    })
    .await
}
