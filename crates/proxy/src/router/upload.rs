//! Sending a request body, from what was kept and from the client.

use std::task::Poll;

use bytes::Bytes;
use meltemi_http::client::RequestSender;
use meltemi_http::{BodyError, ClientError, Frame};

use super::timers::Timers;
use crate::stream::RequestBody;

/// Why an upload stopped.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The client did not deliver.
    Client(BodyError),
    /// The upstream takes no more; its response or the end of its connection says why.
    Upstream(ClientError),
}

/// Sends the body from the frame with this number.
pub(super) async fn upload(
    body: &RequestBody<'_>,
    mut number: usize,
    send: &mut RequestSender<'_>,
    timers: &Timers,
) -> Result<(), UploadError> {
    loop {
        let first = std::future::poll_fn(|cx| Poll::Ready(body.poll_frame(number, cx))).await;
        let frame = match first {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                send.flush().await.map_err(UploadError::Upstream)?;
                std::future::poll_fn(|cx| body.poll_frame(number, cx)).await
            }
        };
        number += 1;
        timers.touch();
        if let Err(BodyError::Protocol(_)) = frame {
            // Envoy has sent the head on by the time that it finds a body broken.
            send.flush().await.map_err(UploadError::Upstream)?;
        }
        let sent = match frame.map_err(UploadError::Client)? {
            None => return send.data(Bytes::new(), true).await.map_err(UploadError::Upstream),
            Some(Frame::Trailers(fields)) => {
                return send.trailers(fields).await.map_err(UploadError::Upstream);
            }
            Some(Frame::Data(bytes)) => {
                let end = body.ends_before(number);
                send.data(bytes, end).await.map(|()| end)
            }
        };
        if sent.map_err(UploadError::Upstream)? {
            return Ok(());
        }
    }
}
