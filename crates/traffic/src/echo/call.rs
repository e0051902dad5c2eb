//! Calling the next services.
//!
//! Owns the client side of an echo: `HTTP_PROXY` and `NO_PROXY`, a small pool of connections, which headers are passed on.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::BytesMut;
use futures::future::join_all;
use http::{HeaderName, Method, StatusCode};
use meltemi_http::client::{H1, H1Options};
use meltemi_http::{ClientError, Frame, Headers, RequestHead, ResponseHead};
use serde_json::Value;

use super::answer::Called;
use super::service::VERSIONS;
use crate::dial::dial;
use crate::target::Target;

/// Idle connections kept per destination.
const IDLE_MAX: usize = 16;

/// Largest answer taken from a called service: answers nest, this ends it.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// What an application must hand on so that traces hang together (Istio's list), and the user that header routes look at.
const PASSED_ON: [&str; 17] = [
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "traceparent",
    "tracestate",
    "baggage",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "sw8",
    "end-user",
    "user-agent",
];

/// The services to call and the connections to them.
pub(crate) struct Caller {
    calls: Vec<Call>,
    timeout: Duration,
    idle: RefCell<HashMap<(String, u16), Vec<H1>>>,
}

struct Call {
    url: String,
    /// Where to connect: the proxy or the target itself.
    via: (String, u16),
    request: RequestHead,
}

impl Caller {
    /// Reads `http_proxy`, `HTTP_PROXY`, `no_proxy` and `NO_PROXY`.
    pub(crate) fn from_env(urls: &[String], timeout: Duration) -> anyhow::Result<Caller> {
        let env = |lower: &str, upper: &str| {
            let value = std::env::var(lower).or_else(|_| std::env::var(upper));
            value.ok().filter(|value| !value.is_empty())
        };
        let proxy = env("http_proxy", "HTTP_PROXY");
        let no_proxy = env("no_proxy", "NO_PROXY").unwrap_or_default();
        Caller::new(urls, proxy.as_deref(), &no_proxy, timeout)
    }

    /// Without any proxy.
    #[cfg(test)]
    pub(super) fn direct(urls: &[String], timeout: Duration) -> anyhow::Result<Caller> {
        Caller::new(urls, None, "", timeout)
    }

    fn new(
        urls: &[String],
        proxy: Option<&str>,
        no_proxy: &str,
        timeout: Duration,
    ) -> anyhow::Result<Caller> {
        let proxy = proxy.map(proxy_target).transpose()?;
        let calls = urls.iter().map(|url| Call::new(url, proxy.as_ref(), no_proxy));
        let calls = calls.collect::<anyhow::Result<_>>()?;
        Ok(Caller { calls, timeout, idle: RefCell::default() })
    }

    /// Calls every service at once.
    pub(crate) async fn call_all(&self, request: &RequestHead) -> Vec<Called> {
        join_all(self.calls.iter().map(|call| self.call(call, request))).await
    }

    async fn call(&self, call: &Call, original: &RequestHead) -> Called {
        let mut request = call.request.clone();
        pass_on(&original.headers, &mut request.headers);
        let answered = tokio::time::timeout(self.timeout, self.fetch(&call.via, request)).await;
        let answered = answered.unwrap_or_else(|_| bail!("no answer within {:?}", self.timeout));
        let mut called =
            Called { url: call.url.clone(), status: None, answer: None, error: None, versions: None };
        match answered {
            Ok((head, body)) => {
                called.status = Some(head.status.as_u16());
                called.versions = head.headers.get_str(&HeaderName::from_static(VERSIONS)).map(str::to_owned);
                called.answer = Some(
                    serde_json::from_slice(&body)
                        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned())),
                );
            }
            Err(error) => called.error = Some(format!("{error:#}")),
        }
        called
    }

    /// Takes an idle connection or dials. A connection that turns out to be closed already is replaced once.
    async fn fetch(
        &self,
        via: &(String, u16),
        request: RequestHead,
    ) -> anyhow::Result<(ResponseHead, BytesMut)> {
        if let Some(mut reused) = self.take_idle(via) {
            match exchange(&mut reused, request.clone()).await {
                Err(Failure::Http(ClientError::ClosedBeforeResponse)) => {}
                answered => return self.finish(via, reused, answered),
            }
        }
        let io = dial(&via.0, via.1).await.with_context(|| format!("connecting to {}:{}", via.0, via.1))?;
        let mut connection = H1::new(io, H1Options::default());
        let answered = exchange(&mut connection, request).await;
        self.finish(via, connection, answered)
    }

    fn take_idle(&self, via: &(String, u16)) -> Option<H1> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(via)?;
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        while let Some(mut connection) = connections.pop() {
            if connection.poll_idle_closed(&mut context).is_pending() {
                return Some(connection);
            }
        }
        None
    }

    fn finish(
        &self,
        via: &(String, u16),
        connection: H1,
        answered: Result<(ResponseHead, BytesMut), Failure>,
    ) -> anyhow::Result<(ResponseHead, BytesMut)> {
        if connection.is_reusable() {
            let mut idle = self.idle.borrow_mut();
            let connections = idle.entry(via.clone()).or_default();
            if connections.len() < IDLE_MAX {
                connections.push(connection);
            }
        }
        Ok(answered?)
    }
}

/// The status that the answer should have after these calls: that of the first call that went wrong.
pub(crate) fn status_after(calls: &[Called]) -> Option<StatusCode> {
    calls.iter().find_map(|called| match called.status {
        Some(status) if status < 400 => None,
        Some(status) => StatusCode::from_u16(status).ok(),
        None => Some(StatusCode::BAD_GATEWAY),
    })
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Http(#[from] ClientError),
    #[error("the answer is larger than {ANSWER_MAX_BYTES} bytes")]
    TooLarge,
}

async fn exchange(connection: &mut H1, request: RequestHead) -> Result<(ResponseHead, BytesMut), Failure> {
    let mut exchange = connection.exchange();
    exchange.send.head(request, true).await?;
    let mut head = exchange.recv.head().await?;
    while head.status.is_informational() {
        head = exchange.recv.head().await?;
    }
    let mut body = BytesMut::new();
    while let Some(frame) = exchange.recv.next().await? {
        let Frame::Data(data) = frame else { continue };
        if body.len() + data.len() > ANSWER_MAX_BYTES {
            return Err(Failure::TooLarge);
        }
        body.extend_from_slice(&data);
    }
    Ok((head, body))
}

impl Call {
    fn new(url: &str, proxy: Option<&Target>, no_proxy: &str) -> anyhow::Result<Call> {
        let target = Target::parse(url).context("--call")?;
        let proxy = proxy.filter(|_| !is_exempt(&target.host, no_proxy));
        // A proxy gets the whole URL as the target of the request (RFC 9112, 3.2.2).
        let path = match proxy {
            Some(_) => format!("http://{}{}", target.authority, target.path).into(),
            None => target.path,
        };
        let mut request = RequestHead::new(Method::GET, path);
        request.authority = Some(target.authority);
        let via = proxy.map_or((target.host, target.port), |proxy| (proxy.host.clone(), proxy.port));
        Ok(Call { url: url.to_owned(), via, request })
    }
}

/// `http://127.0.0.1:15002` or, as curl takes it too, `127.0.0.1:15002`.
fn proxy_target(proxy: &str) -> anyhow::Result<Target> {
    let url = if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") };
    Target::parse(&url).context("HTTP_PROXY")
}

/// `NO_PROXY` as curl reads it: names match themselves and what is below them, `*` matches everything.
fn is_exempt(host: &str, no_proxy: &str) -> bool {
    no_proxy.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let name = entry.trim_start_matches('.');
        entry == "*" || host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

fn pass_on(from: &Headers, to: &mut Headers) {
    for (name, value) in from {
        if PASSED_ON.contains(&name.as_str()) {
            to.append(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_gets_the_whole_url_unless_the_host_is_exempt() {
        let url = "http://recommendation:8080/v1/product-recommendation".to_owned();
        let timeout = Duration::from_secs(1);
        let caller =
            |no_proxy| Caller::new(std::slice::from_ref(&url), Some("127.1.2.3:15002"), no_proxy, timeout);
        let through = &caller("other, mendation").unwrap().calls[0];
        assert_eq!(through.via, ("127.1.2.3".to_owned(), 15002));
        assert_eq!(through.request.path, "http://recommendation:8080/v1/product-recommendation");
        assert_eq!(through.request.authority.as_deref(), Some("recommendation:8080"));
        for no_proxy in ["a,recommendation", "*"] {
            let direct = &caller(no_proxy).unwrap().calls[0];
            assert_eq!(direct.via, ("recommendation".to_owned(), 8080));
            assert_eq!(direct.request.path, "/v1/product-recommendation");
        }
        assert!(is_exempt("a.svc.cluster.local", ".svc.cluster.local"));
    }

    #[test]
    fn the_first_failed_call_decides_the_status() {
        let called =
            |status| Called { url: String::new(), status, answer: None, error: None, versions: None };
        assert_eq!(status_after(&[called(Some(200)), called(Some(204))]), None);
        assert_eq!(
            status_after(&[called(Some(200)), called(Some(503))]),
            Some(StatusCode::SERVICE_UNAVAILABLE)
        );
        assert_eq!(status_after(&[called(None)]), Some(StatusCode::BAD_GATEWAY));
    }
}
