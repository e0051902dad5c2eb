//! Checks by the gRPC health checking protocol (`grpc.health.v1.Health/Check`).
//!
//! Source: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderValue, Method, StatusCode};
use meltemi_compile::program::GrpcHealthCheck;
use meltemi_http::client::ClientExchange;
use meltemi_http::{ClientError, Frame, Headers, Reason, RequestHead, ResponseHead, Text};
use prost::Message;

use super::http::{USER_AGENT_VALUE, add};
use super::{Multiplexed, Target};
use crate::health::judge::{Failure, Outcome};
use crate::stream::names;

/// Bytes of an answer: a status is two.
const MAX_ANSWER_BYTES: usize = 1024;
/// `SERVING`.
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// See the module.
pub(in crate::health) struct GrpcProbe {
    target: Target,
    reuse: bool,
    head: RequestHead,
    body: Bytes,
    kept: Option<Multiplexed>,
}

impl GrpcProbe {
    pub(super) fn new(
        check: &GrpcHealthCheck,
        timeout: Duration,
        target: Target,
        authority: &str,
        reuse: bool,
    ) -> GrpcProbe {
        let request = HealthCheckRequest { service: check.service_name.to_string() };
        let head = request_head(check, timeout, authority);
        GrpcProbe { target, reuse, head, body: framed(&request), kept: None }
    }

    pub(super) async fn check(&mut self) -> Outcome {
        match self.exchange().await {
            Ok(true) => Outcome::Passed { degraded: false },
            Ok(false) => Outcome::Failed(Failure::ACTIVE),
            Err(error) => {
                tracing::debug!(host = %self.target.address, %error, "health check failed");
                self.close();
                Outcome::Failed(Failure::NETWORK)
            }
        }
    }

    /// Whether the service is serving.
    async fn exchange(&mut self) -> Result<bool, ClientError> {
        let connection = match self.kept.take().filter(|kept| !kept.h2.is_closed()) {
            Some(connection) => connection,
            None => Multiplexed::connect(&self.target).await?,
        };
        let ClientExchange { mut send, mut recv } = connection.h2.open().await?;
        send.head(&self.head, false).await?;
        send.data(self.body.clone(), true).await?;
        let head = recv.head().await?;
        let mut serving = false;
        if is_grpc(&head) && !recv.is_end() {
            serving = is_serving(&mut recv).await?;
        }
        // An answer that is not read to its end is cut off, not waited for.
        send.reset(Reason::CANCEL);
        self.kept = self.reuse.then_some(connection);
        Ok(serving)
    }

    pub(super) fn close(&mut self) {
        self.kept = None;
    }
}

fn is_grpc(head: &ResponseHead) -> bool {
    let content_type = head.headers.get_str(&CONTENT_TYPE).unwrap_or_default();
    let is_grpc = content_type
        .strip_prefix("application/grpc")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']));
    head.status == StatusCode::OK && is_grpc
}

/// One message that says SERVING, and trailers that say OK.
async fn is_serving(recv: &mut meltemi_http::client::ResponseReceiver<'_>) -> Result<bool, ClientError> {
    let mut answer = BytesMut::new();
    let mut trailers = Headers::new();
    while let Some(frame) = recv.next().await? {
        match frame {
            Frame::Data(data) if answer.len() + data.len() <= MAX_ANSWER_BYTES => answer.put(data),
            Frame::Data(_) => return Ok(false),
            Frame::Trailers(found) => trailers = found,
        }
    }
    let is_ok = trailers.get_str(&names::GRPC_STATUS) == Some("0");
    Ok(is_ok && message(&answer).is_some_and(|response| response.status == SERVING))
}

fn framed(request: &HealthCheckRequest) -> Bytes {
    let encoded = request.encode_to_vec();
    let mut frame = BytesMut::with_capacity(encoded.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
    frame.put_slice(&encoded);
    frame.freeze()
}

/// The one message of an answer; none when there are more or it is compressed.
fn message(frame: &[u8]) -> Option<HealthCheckResponse> {
    let (prefix, encoded) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || length as usize != encoded.len() {
        return None;
    }
    HealthCheckResponse::decode(encoded).ok()
}

fn request_head(check: &GrpcHealthCheck, timeout: Duration, authority: &str) -> RequestHead {
    let mut head = RequestHead::new(Method::POST, Text::from("/grpc.health.v1.Health/Check"));
    head.authority = Some(Text::from(authority));
    head.scheme = Some(Text::from("http"));
    let headers = &mut head.headers;
    headers.set(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.set(TE, HeaderValue::from_static("trailers"));
    headers.set(USER_AGENT, USER_AGENT_VALUE);
    check.metadata.iter().for_each(|header| add(headers, header));
    let millis = format!("{}m", timeout.as_millis());
    if let Ok(value) = HeaderValue::try_from(millis) {
        headers.set(names::GRPC_TIMEOUT.clone(), value);
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_framed_and_read_back() {
        let request = HealthCheckRequest { service: "shop".to_owned() };
        let frame = framed(&request);
        assert_eq!(&frame[..], b"\0\0\0\0\x06\x0a\x04shop");
        assert_eq!(message(b"\0\0\0\0\x02\x08\x01").map(|response| response.status), Some(SERVING));
        assert_eq!(message(b"\0\0\0\0\0").map(|response| response.status), Some(0));
    }

    #[test]
    fn what_is_no_single_plain_message_is_none() {
        for bytes in
            [&b"\x01\0\0\0\x02\x08\x01"[..], b"\0\0\0\0\x02\x08\x01\0", b"\0\0\0", b"\0\0\0\0\x02\x08"]
        {
            assert_eq!(message(bytes), None, "{bytes:?}");
        }
    }
}
