//! What an echo does with a request.

use std::cell::Cell;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use meltemi_http::server::Service;
use meltemi_http::{BodyError, Exchange, Frame, RequestHead, ResponseHead, SendError, Version};

use super::answer::{Answer, Called, headers};
use super::call::{Caller, status_after};
use super::fault::{Faults, query_parameter};

/// The response field that names who took part: `frontend@v1,recommendation@v2,product-info@v1`.
pub(crate) const VERSIONS: &str = "x-echo-versions";

/// Piece size of bodies made to measure.
const PIECE: &[u8] = &[b'x'; 16 << 10];

/// Who this is.
pub(crate) struct Identity {
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) instance: String,
    /// Paths answered; empty: all.
    pub(crate) routes: Vec<String>,
}

/// The service.
pub(crate) struct Echo {
    identity: Identity,
    faults: Faults,
    caller: Caller,
    requests: Cell<u64>,
    unhealthy: Cell<bool>,
    draining: Cell<bool>,
}

/// An answer ready to be sent.
struct Reply {
    status: StatusCode,
    content_type: &'static str,
    versions: Option<HeaderValue>,
    body: Body,
}

enum Body {
    Bytes(Bytes),
    /// That many `x`.
    Made(usize),
}

impl Service for Echo {
    async fn call(&self, mut exchange: Exchange<'_>) {
        let outcome = self.answer(&mut exchange).await;
        if let Err(error) = outcome {
            tracing::debug!(%error, path = &*exchange.request.path, "the exchange broke off");
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("receiving: {0}")]
    Receive(#[from] BodyError),
    #[error("sending: {0}")]
    Send(#[from] SendError),
}

impl Echo {
    pub(crate) fn new(identity: Identity, faults: Faults, caller: Caller) -> Echo {
        Echo {
            identity,
            faults,
            caller,
            requests: Cell::new(0),
            unhealthy: Cell::new(false),
            draining: Cell::new(false),
        }
    }

    /// From now on `/healthz` says no: nobody should send new requests here.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
    }

    async fn answer(&self, exchange: &mut Exchange<'_>) -> Result<(), Broken> {
        let expects = exchange.request.headers.get(&header::EXPECT);
        if expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            exchange.respond.informational(ResponseHead::new(StatusCode::CONTINUE)).await?;
        }
        let mut body_bytes = 0;
        while let Some(frame) = exchange.body.next().await? {
            if let Frame::Data(data) = frame {
                body_bytes += data.len() as u64;
            }
        }
        let reply = self.reply(&exchange.request, body_bytes).await;
        send(exchange, reply).await
    }

    async fn reply(&self, request: &RequestHead, body_bytes: u64) -> Reply {
        if request.authority.is_none() && request.version != Version::Http10 {
            return text(StatusCode::BAD_REQUEST, "the request names no host\n".into());
        }
        let path = request.path.split('?').next().unwrap_or_default();
        if path == "/healthz" {
            return self.health(request);
        }
        if !self.identity.routes.is_empty() && !self.identity.routes.iter().any(|route| route == path) {
            return text(
                StatusCode::NOT_FOUND,
                format!("{} does not answer {path}\n", self.identity.service),
            );
        }
        let faults = match self.faults.of(request) {
            Ok(faults) => faults,
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
        self.requests.set(self.requests.get() + 1);
        let fault = faults.status(self.requests.get());
        if let Some(delay) = faults.delay {
            tokio::time::sleep(delay).await;
        }
        // A fault stands for this service's own failure, which comes before it asks others.
        let calls = if fault.is_some() { Vec::new() } else { self.caller.call_all(request).await };
        let fault = fault.and_then(|status| StatusCode::from_u16(status).ok());
        let status = fault.or_else(|| status_after(&calls)).unwrap_or(StatusCode::OK);
        let versions = self.versions(&calls);
        let (content_type, body) = match faults.size {
            Some(size) => ("text/plain", Body::Made(size)),
            None => ("application/json", Body::Bytes(self.json(request, body_bytes, calls))),
        };
        Reply { status, content_type, versions, body }
    }

    /// Liveness and readiness in one: `POST /healthz?fail=true` makes it fail, `fail=false` heals it.
    fn health(&self, request: &RequestHead) -> Reply {
        if request.method == Method::POST {
            match query_parameter(&request.path, "fail") {
                Some("true" | "1") => self.unhealthy.set(true),
                Some("false" | "0") => self.unhealthy.set(false),
                _ => return text(StatusCode::BAD_REQUEST, "say ?fail=true or ?fail=false\n".into()),
            }
            return text(StatusCode::OK, "done\n".into());
        }
        match (self.draining.get(), self.unhealthy.get()) {
            (true, _) => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".into()),
            (false, true) => text(StatusCode::SERVICE_UNAVAILABLE, "told to fail\n".into()),
            (false, false) => text(StatusCode::OK, "ok\n".into()),
        }
    }

    fn versions(&self, calls: &[Called]) -> Option<HeaderValue> {
        let mut chain = format!("{}@{}", self.identity.service, self.identity.version);
        for versions in calls.iter().filter_map(|called| called.versions.as_deref()) {
            chain.push(',');
            chain.push_str(versions);
        }
        HeaderValue::try_from(chain).ok()
    }

    fn json(&self, request: &RequestHead, body_bytes: u64, calls: Vec<Called>) -> Bytes {
        let answer = Answer {
            service: self.identity.service.clone(),
            version: self.identity.version.clone(),
            instance: self.identity.instance.clone(),
            method: request.method.to_string(),
            path: request.path.to_string(),
            host: request.authority.as_deref().unwrap_or_default().to_owned(),
            protocol: request.version.as_str(),
            headers: headers(request),
            body_bytes,
            calls,
        };
        let mut json = serde_json::to_vec_pretty(&answer).expect("invariant: text and numbers make JSON");
        json.push(b'\n');
        Bytes::from(json)
    }
}

fn text(status: StatusCode, body: String) -> Reply {
    Reply { status, content_type: "text/plain", versions: None, body: Body::Bytes(body.into()) }
}

async fn send(exchange: &mut Exchange<'_>, reply: Reply) -> Result<(), Broken> {
    let length = match &reply.body {
        Body::Bytes(bytes) => bytes.len(),
        Body::Made(size) => *size,
    };
    let mut head = ResponseHead::new(reply.status);
    let bodiless = exchange.request.method == Method::HEAD
        || reply.status == StatusCode::NO_CONTENT
        || reply.status == StatusCode::NOT_MODIFIED;
    if reply.status != StatusCode::NO_CONTENT {
        head.headers.append(header::CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
        head.headers.append(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(versions) = reply.versions {
        head.headers.append(HeaderName::from_static(VERSIONS), versions);
    }
    exchange.respond.head(head, bodiless || length == 0).await?;
    if bodiless || length == 0 {
        return Ok(());
    }
    match reply.body {
        Body::Bytes(bytes) => exchange.respond.data(bytes, true).await?,
        Body::Made(mut left) => {
            while left > 0 {
                let piece = &PIECE[..left.min(PIECE.len())];
                left -= piece.len();
                exchange.respond.data(Bytes::from_static(piece), left == 0).await?;
            }
        }
    }
    Ok(())
}
