//! Moving a response body from an upstream to a client, whatever versions they speak.
//!
//! One loop for every pair of codecs. What is there is passed on at once; nothing is flushed while more is ready, and
//! everything is flushed before waiting.

use std::task::Poll;

use bytes::Bytes;
use meltemi_http::client::ResponseReceiver;
use meltemi_http::{ClientError, Frame, Headers, Responder};

use crate::filter::BodyTap;

/// A response that was relayed to its end.
#[derive(Debug, Default)]
pub(crate) struct Relayed {
    /// Its trailers.
    pub(crate) trailers: Option<Headers>,
}

/// Why relaying stopped early.
#[derive(Debug)]
pub(crate) enum RelayError {
    /// The upstream broke off.
    Upstream(ClientError),
    /// The client takes no more.
    Client,
}

/// Relays everything after the head. `touch` is called for every piece. `tap` is what
/// filters do with the body.
pub(crate) async fn relay(
    recv: &mut ResponseReceiver<'_>,
    respond: &mut Responder<'_>,
    mut tap: Option<&mut BodyTap>,
    touch: impl Fn(),
) -> Result<Relayed, RelayError> {
    loop {
        let frame = next_frame(recv, respond).await?;
        touch();
        let sent = match frame {
            None => {
                respond.data(Bytes::new(), true).await.map_err(|_| RelayError::Client)?;
                return Ok(Relayed::default());
            }
            Some(Frame::Trailers(mut fields)) => {
                if let Some(tap) = &mut tap {
                    tap.trailers(&mut fields);
                }
                respond.trailers(fields.clone()).await.map_err(|_| RelayError::Client)?;
                return Ok(Relayed { trailers: Some(fields) });
            }
            Some(Frame::Data(bytes)) => {
                let end = recv.is_end();
                match &mut tap {
                    None => respond.data(bytes, end).await.map_err(|_| RelayError::Client)?,
                    Some(tap) => {
                        tap.send(respond, bytes, end, &touch).await.map_err(|_| RelayError::Client)?;
                    }
                }
                end
            }
        };
        if sent {
            return Ok(Relayed::default());
        }
    }
}

/// The next piece; flushes what was sent before it waits.
async fn next_frame(
    recv: &mut ResponseReceiver<'_>,
    respond: &mut Responder<'_>,
) -> Result<Option<Frame>, RelayError> {
    let first = std::future::poll_fn(|cx| Poll::Ready(recv.poll_next(cx))).await;
    if let Poll::Ready(frame) = first {
        if frame.is_err() {
            // What came before the break belongs to the client.
            respond.flush().await.map_err(|_| RelayError::Client)?;
        }
        return frame.map_err(RelayError::Upstream);
    }
    respond.flush().await.map_err(|_| RelayError::Client)?;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(frame) = recv.poll_next(cx) {
            return Poll::Ready(frame.map_err(RelayError::Upstream));
        }
        respond.poll_closed(cx).map(|()| Err(RelayError::Client))
    })
    .await
}
