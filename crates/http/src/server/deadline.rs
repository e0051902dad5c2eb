//! One timer per connection, armed anew for every phase.
//!
//! Owns the trick that makes it cheap: moving a registered timer to a later time touches no shared structure.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that may be absent. The timer exists only once it was needed.
#[derive(Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Sets the deadline to `after` from now; `None` removes it.
    pub(crate) fn arm(&mut self, after: Option<Duration>) {
        self.at = after.and_then(|after| Instant::now().checked_add(after));
        if let (Some(at), Some(sleep)) = (self.at, &mut self.sleep) {
            sleep.as_mut().reset(at);
        }
    }

    /// Completes when the deadline has passed. Cancel safe.
    pub(crate) async fn passed(&mut self) {
        poll_fn(|cx| self.poll_passed(cx)).await;
    }

    /// As [`Deadline::passed`].
    pub(crate) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut().poll(cx)
    }
}
