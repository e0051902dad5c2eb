//! The moments at which a forwarded request is given up.
//!
//! All of them share one timer ([`Deadline`]): what counts is the earliest. Fields are cells, so that the two
//! directions of a request can note their progress while one of them waits here.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::fault::Fault;
use crate::timer::Deadline;

/// Timers of a request.
#[derive(Debug)]
pub(super) struct Timers {
    /// The route's timeout; counts from the end of the request.
    route_timeout: Option<Duration>,
    route_at: Cell<Option<Instant>>,
    per_try_at: Cell<Option<Instant>>,
    per_try_idle: Cell<Option<Duration>>,
    /// `request_timeout`: until the request is complete.
    request_at: Cell<Option<Instant>>,
    /// `max_stream_duration`.
    pub(super) max_duration_at: Cell<Option<Instant>>,
    idle: Option<Duration>,
    activity: Cell<Instant>,
    request_end: Cell<Option<Instant>>,
    deadline: RefCell<Deadline>,
}

impl Timers {
    pub(super) fn new(
        start: Instant,
        route_timeout: Option<Duration>,
        idle: Option<Duration>,
        request_timeout: Option<Duration>,
    ) -> Timers {
        Timers {
            route_timeout,
            route_at: Cell::new(None),
            per_try_at: Cell::new(None),
            per_try_idle: Cell::new(None),
            request_at: Cell::new(request_timeout.map(|timeout| start + timeout)),
            max_duration_at: Cell::new(None),
            idle,
            activity: Cell::new(start),
            request_end: Cell::new(None),
            deadline: RefCell::new(Deadline::new(None)),
        }
    }

    /// Something moved.
    pub(super) fn touch(&self) {
        self.activity.set(Instant::now());
    }

    /// The client sent all of its request.
    pub(super) fn request_complete(&self, at: Instant) {
        if self.request_end.get().is_some() {
            return;
        }
        self.request_end.set(Some(at));
        self.request_at.set(None);
        self.route_at.set(self.route_timeout.map(|timeout| at + timeout));
    }

    /// When the request was complete.
    pub(super) fn request_end(&self) -> Option<Instant> {
        self.request_end.get()
    }

    /// An attempt begins that has so long.
    pub(super) fn begin_try(&self, timeout: Option<Duration>, idle: Option<Duration>) {
        let now = Instant::now();
        self.activity.set(now);
        self.per_try_at.set(timeout.map(|timeout| now + timeout));
        self.per_try_idle.set(idle);
    }

    /// The attempt is answered; what is left of it may not stop.
    pub(super) fn head_received(&self) {
        self.per_try_at.set(None);
        self.touch();
    }

    /// The attempt is over.
    pub(super) fn end_try(&self) {
        self.per_try_at.set(None);
        self.per_try_idle.set(None);
    }

    /// Ready when a moment is there, with what it means.
    pub(super) fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<Fault> {
        let mut deadline = self.deadline.borrow_mut();
        loop {
            let Some((at, fault)) = self.earliest() else { return Poll::Pending };
            deadline.set(Some(at));
            if deadline.poll_due(cx).is_pending() {
                return Poll::Pending;
            }
            // While it waited, progress may have moved the moment.
            if self.earliest().is_some_and(|(at, _)| at <= Instant::now()) {
                return Poll::Ready(fault);
            }
        }
    }

    fn earliest(&self) -> Option<(Instant, Fault)> {
        let complete = self.request_end.get().is_some();
        let activity = self.activity.get();
        let moments = [
            (self.route_at.get(), Fault::RouteTimeout),
            (self.per_try_at.get(), Fault::PerTryTimeout),
            (self.per_try_idle.get().map(|idle| activity + idle), Fault::PerTryIdleTimeout),
            (self.idle.map(|idle| activity + idle), Fault::StreamIdle(complete)),
            (self.request_at.get(), Fault::RequestTimeout),
            (self.max_duration_at.get(), Fault::MaxDuration(complete)),
        ];
        moments.into_iter().filter_map(|(at, fault)| Some((at?, fault))).min_by_key(|(at, _)| *at)
    }
}
