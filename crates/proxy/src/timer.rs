//! Deadlines that cost nothing while they do not fire.
//!
//! Every request has a timeout (15 s unless a route says otherwise) and almost none runs out. Registering and
//! cancelling a timer per request would cost more than routing it, so a worker keeps registered timers and hands
//! them from request to request: a timer that was armed for an earlier moment fires early, is found not to be due,
//! and is set to the moment that is wanted now.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// Timers that a worker keeps for later requests. More than that are in use only in bursts.
const SPARE_TIMERS: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Pin<Box<Sleep>>>> = const { RefCell::new(Vec::new()) };
}

/// A moment to wait for, or none.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Waits for `at`; for ever when there is none.
    pub(crate) fn new(at: Option<Instant>) -> Deadline {
        Deadline { at, timer: None }
    }

    /// Waits for another moment from now on.
    pub(crate) fn set(&mut self, at: Option<Instant>) {
        self.at = at;
    }

    /// Ready once the moment is there. Takes a timer at the first poll only.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| spare_timer(at));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let Some(timer) = self.timer.take() else { return };
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_TIMERS {
                spare.push(timer);
            }
        });
    }
}

/// A kept timer if there is one: armed for some moment, maybe long gone.
fn spare_timer(at: Instant) -> Pin<Box<Sleep>> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Box::pin(sleep_until(at)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn due(deadline: &mut Deadline) {
        std::future::poll_fn(|cx| deadline.poll_due(cx)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_armed_earlier_does_not_fire_early_for_its_next_owner() {
        let start = Instant::now();
        {
            let mut first = Deadline::new(Some(start + Duration::from_millis(10)));
            assert!(futures::poll!(std::pin::pin!(due(&mut first))).is_pending());
        }
        let mut second = Deadline::new(Some(start + Duration::from_secs(1)));
        due(&mut second).await;
        assert!(start.elapsed() >= Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_moment_wins_over_the_timer_taken_for_a_later_one() {
        let start = Instant::now();
        let mut deadline = Deadline::new(Some(start + Duration::from_secs(60)));
        assert!(futures::poll!(std::pin::pin!(due(&mut deadline))).is_pending());
        deadline.set(Some(start + Duration::from_secs(1)));
        due(&mut deadline).await;
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}
