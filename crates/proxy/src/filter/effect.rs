//! What filters wait for. Later effects (a check by another service, a quota, keys to fetch) have their place here.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::router;
use crate::stream::Stream;

/// The client went away meanwhile; the record says so.
#[derive(Debug)]
pub(crate) struct Gone;

/// Waits, while the client does. What it sends meanwhile stays where it is.
pub(super) async fn delay(stream: &mut Stream<'_, '_>, delay: Duration) -> Result<(), Gone> {
    let mut over = pin!(tokio::time::sleep(delay));
    let is_gone = std::future::poll_fn(|cx| {
        if over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        stream.respond.poll_closed(cx).map(|()| true)
    });
    if is_gone.await {
        router::client_gone(stream);
        return Err(Gone);
    }
    Ok(())
}
