//! Checks over HTTP: a request, and whether its answer is good.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, USER_AGENT};
use http::{HeaderName, HeaderValue};
use meltemi_compile::header_edit::AppendAction;
use meltemi_compile::health_check::holds;
use meltemi_compile::program::{CheckHeader, HttpHealthCheck};
use meltemi_http::client::{ClientExchange, H1};
use meltemi_http::{ClientError, Frame, Headers, RequestHead, ResponseHead, Text};

use super::{Multiplexed, Target, connect_h1};
use crate::health::judge::{Failure, Outcome};
use crate::stream::names;
use crate::upstream::shared::CheckTotals;

pub(super) const USER_AGENT_VALUE: HeaderValue = HeaderValue::from_static("Envoy/HC");

/// See the module.
pub(in crate::health) struct HttpProbe<'c> {
    check: &'c HttpHealthCheck,
    target: Target,
    reuse: bool,
    head: RequestHead,
    kept: Option<Connection>,
}

enum Connection {
    H1(Box<H1>),
    H2(Multiplexed),
}

impl<'c> HttpProbe<'c> {
    pub(super) fn new(
        check: &'c HttpHealthCheck,
        target: Target,
        authority: &str,
        reuse: bool,
    ) -> HttpProbe<'c> {
        HttpProbe { check, target, reuse, head: request(check, authority), kept: None }
    }

    pub(super) async fn check(&mut self, totals: &CheckTotals) -> Outcome {
        let answer = self.exchange().await;
        match answer {
            Ok((head, body)) => verdict(self.check, &head, &body, totals),
            Err(error) => {
                tracing::debug!(host = %self.target.address, %error, "health check failed");
                self.close();
                Outcome::Failed(Failure::NETWORK)
            }
        }
    }

    async fn exchange(&mut self) -> Result<(ResponseHead, Bytes), ClientError> {
        let mut connection = match self.kept.take().and_then(Connection::still_open) {
            Some(connection) => connection,
            None => Connection::open(self.check.http2, &self.target).await?,
        };
        let (answer, reusable) = match &mut connection {
            Connection::H1(h1) => {
                let answer = self.ask(h1.exchange()).await?;
                (answer, h1.is_reusable())
            }
            Connection::H2(multiplexed) => {
                let exchange = multiplexed.h2.open().await?;
                (self.ask(exchange).await?, true)
            }
        };
        self.kept = (self.reuse && reusable).then_some(connection);
        Ok(answer)
    }

    async fn ask(&self, exchange: ClientExchange<'_>) -> Result<(ResponseHead, Bytes), ClientError> {
        let ClientExchange { mut send, mut recv } = exchange;
        let body = self.check.send.clone();
        send.head(&self.head, body.is_empty()).await?;
        if !body.is_empty() {
            send.data(body, true).await?;
        }
        send.flush().await?;
        let mut head = recv.head().await?;
        while head.status.is_informational() {
            head = recv.head().await?;
        }
        let mut kept = BytesMut::new();
        while let Some(frame) = recv.next().await? {
            let Frame::Data(data) = frame else { continue };
            let room =
                self.check.response_buffer_size.map_or(data.len(), |limit| limit.saturating_sub(kept.len()));
            if !self.check.receive.is_empty() {
                kept.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
        Ok((head, kept.freeze()))
    }

    pub(super) fn close(&mut self) {
        self.kept = None;
    }
}

impl Connection {
    async fn open(http2: bool, target: &Target) -> Result<Connection, ClientError> {
        match http2 {
            true => Multiplexed::connect(target).await.map(Connection::H2),
            false => Ok(Connection::H1(Box::new(connect_h1(target).await?))),
        }
    }

    /// Itself, if the peer left it open between checks.
    fn still_open(mut self) -> Option<Connection> {
        let is_open = match &mut self {
            Connection::H1(h1) => {
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                h1.poll_idle_closed(&mut cx).is_pending()
            }
            Connection::H2(multiplexed) => !multiplexed.h2.is_closed(),
        };
        is_open.then_some(self)
    }
}

fn request(check: &HttpHealthCheck, authority: &str) -> RequestHead {
    let mut head = RequestHead::new(check.method.clone(), Text::from(&*check.path));
    head.authority = Some(Text::from(authority));
    head.scheme = check.http2.then(|| Text::from("http"));
    head.headers.set(USER_AGENT, USER_AGENT_VALUE);
    for name in &check.remove {
        head.headers.remove(name);
    }
    check.add.iter().for_each(|header| add(&mut head.headers, header));
    if !check.send.is_empty() {
        head.headers.set(CONTENT_LENGTH, HeaderValue::from(check.send.len()));
    }
    head
}

pub(super) fn add(headers: &mut Headers, header: &CheckHeader) {
    let CheckHeader { name, value, action } = header;
    let exists = headers.contains(name);
    match (action, exists) {
        (AppendAction::AppendIfExistsOrAdd, _) | (AppendAction::AddIfAbsent, false) => {
            headers.append(name.clone(), value.clone());
        }
        (AppendAction::OverwriteIfExistsOrAdd, _) | (AppendAction::OverwriteIfExists, true) => {
            headers.set(name.clone(), value.clone());
        }
        (AppendAction::AddIfAbsent, true) | (AppendAction::OverwriteIfExists, false) => {}
    }
}

const HEALTH_CHECKED_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");
const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");

fn verdict(check: &HttpHealthCheck, head: &ResponseHead, body: &[u8], totals: &CheckTotals) -> Outcome {
    let status = head.status.as_u16();
    let excluded = head.headers.contains(&names::IMMEDIATE_HEALTH_CHECK_FAIL);
    let failed = Failure { status, ..Failure::ACTIVE };
    if !holds(body, &check.receive) {
        return Outcome::Failed(Failure { excluded, ..failed });
    }
    if !check.expects(status) {
        let may_pass_later = check.may_pass_later(status);
        return Outcome::Failed(Failure { excluded, may_pass_later, ..failed });
    }
    if let Some(matcher) = &check.service_name {
        totals.verify_cluster.inc();
        let name = head.headers.get(&HEALTH_CHECKED_CLUSTER).map_or(&b""[..], HeaderValue::as_bytes);
        if !matcher.matches(name) {
            return Outcome::Failed(failed);
        }
    }
    Outcome::Passed { degraded: head.headers.contains(&DEGRADED) }
}
