//! PINGs that find out whether a peer is still there.
//!
//! Source: Envoy's `connection_keepalive`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

/// When to ask, and how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// `interval` between an answer and the next PING.
    pub interval: Duration,
    /// `timeout` for the answer.
    pub timeout: Duration,
}

/// The PINGs of one connection.
pub(crate) struct Pinger {
    settings: Keepalive,
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    waits: bool,
}

impl Pinger {
    pub(crate) fn new(settings: Option<Keepalive>, pings: Option<PingPong>) -> Option<Pinger> {
        let (settings, pings) = (settings?, pings?);
        Some(Pinger { settings, pings, timer: Box::pin(sleep(settings.interval)), waits: false })
    }

    /// Ready when the peer did not answer in time, or cannot any more.
    pub(crate) fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waits && self.pings.poll_pong(cx).is_ready() {
                self.rest(false, self.settings.interval);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.waits || self.pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.rest(true, self.settings.timeout);
        }
    }

    fn rest(&mut self, waits: bool, time: Duration) {
        self.waits = waits;
        self.timer.as_mut().reset(Instant::now() + time);
    }
}
