//! One request: read_head, route, and what becomes of it; then its record.
//!
//! Owns the request while it is under way. Every way out passes through [`Stream::record`], once.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use meltemi_compile::matcher::RequestView;
use meltemi_compile::route::{Found, RequireTls, RouteAction, RouteTable, WeightedCluster};
use meltemi_http::{Headers, RequestHead, Responder, ResponseHead, SendError, Text, Version};

use super::path::{self, PathVerdict};
use super::{LocalReply, Manager, RequestTraits, names, request_head, response_head};
use crate::generation::Generation;
use crate::random;
use crate::record::{ConnectionInfo, RequestRecord, ResponseFlags};
use crate::router::request_body::RequestBody;
use crate::router::{self, edits};

/// A request and its response, on one worker.
pub(crate) struct Stream<'s, 'c> {
    pub(crate) manager: Rc<Manager>,
    pub(crate) generation: Rc<Generation>,
    pub(crate) request: RequestHead,
    pub(crate) body: &'s RequestBody<'c>,
    pub(crate) respond: Responder<'c>,
    pub(crate) record: RequestRecord,
    pub(crate) traits: RequestTraits,
    /// The response's headers as they went out, kept while someone logs them.
    pub(crate) response: Option<Headers>,
    /// The response's trailers as they went out.
    pub(crate) trailers: Option<Headers>,
    /// One number per request, for weights and fractions.
    random: u64,
}

impl<'s, 'c> Stream<'s, 'c> {
    pub(super) fn begin(
        manager: &Rc<Manager>,
        connection: &Rc<ConnectionInfo>,
        request: RequestHead,
        body: &'s RequestBody<'c>,
        respond: Responder<'c>,
    ) -> Stream<'s, 'c> {
        let counts = &manager.stats.counts;
        counts.downstream_rq_total.inc();
        counts.downstream_rq_active.inc();
        match request.version {
            Version::Http2 => counts.downstream_rq_http2_total.inc(),
            Version::Http10 | Version::Http11 => counts.downstream_rq_http1_total.inc(),
        }
        let mut record = RequestRecord::new(connection.clone(), random::next(), Some(request.version));
        if body.is_complete() {
            record.request_end = Some(record.start);
        }
        Stream {
            manager: manager.clone(),
            generation: manager.worker.generation(),
            request,
            body,
            respond,
            record,
            traits: RequestTraits::default(),
            response: None,
            trailers: None,
            random: random::next(),
        }
    }

    /// Answers the request, one way or another.
    pub(super) async fn serve(&mut self) {
        let refused = match self.read_head() {
            Ok(()) => {
                self.answer_expectation().await;
                match self.route() {
                    Ok(found) => self.decide(found).await,
                    Err(reply) => Err(reply),
                }
            }
            Err(reply) => Err(reply),
        };
        if let Err(reply) = refused {
            self.answer(*reply).await;
        }
    }

    /// `expect: 100-continue` is answered here; the upstream does not see it.
    async fn answer_expectation(&mut self) {
        let Some(expectation) = self.request.headers.get(&header::EXPECT) else { return };
        if !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return;
        }
        self.request.headers.remove(&header::EXPECT);
        // Who cannot be told to go on has gone; the exchange finds out.
        let _ = self.respond.informational(ResponseHead::new(StatusCode::CONTINUE)).await;
    }

    /// Checks the head, cleans it and writes ourselves into it.
    fn read_head(&mut self) -> Result<(), Box<LocalReply>> {
        let settings = self.manager.settings.clone();
        let is_connect = self.request.method == Method::CONNECT;
        if self.request.authority.as_ref().is_none_or(|authority| authority.is_empty()) {
            return Err(Box::new(LocalReply::new(StatusCode::BAD_REQUEST, "missing_host_header")));
        }
        if !is_connect && !self.request.path.starts_with('/') {
            let counts = &self.manager.stats.counts;
            counts.downstream_rq_non_relative_path.inc();
            return Err(Box::new(LocalReply::new(StatusCode::NOT_FOUND, "absolute_path_rejected")));
        }
        if !is_connect {
            let verdict = path::normalise(&self.request.path, &settings);
            self.take_path(verdict)?;
        }
        let own_address = self.manager.worker.own_address;
        let (remote, traits) =
            request_head::prepare(&mut self.request, &settings, &self.record.connection, own_address);
        self.record.remote = remote;
        self.traits = traits;
        Ok(())
    }

    fn take_path(&mut self, verdict: PathVerdict) -> Result<(), Box<LocalReply>> {
        let (path, reply) = match verdict {
            PathVerdict::Keep => return Ok(()),
            PathVerdict::Change(path) => (path, None),
            PathVerdict::Reject(path) => {
                (path, Some(LocalReply::new(StatusCode::BAD_REQUEST, "path_normalization_failed")))
            }
            PathVerdict::Redirect(path) => {
                self.manager.stats.counts.downstream_rq_redirected_with_normalized_path.inc();
                let location = HeaderValue::try_from(path.as_str()).unwrap_or(HeaderValue::from_static("/"));
                let reply = LocalReply::new(StatusCode::TEMPORARY_REDIRECT, "path_normalization_failed");
                (path, Some(reply.header(header::LOCATION, location)))
            }
        };
        self.request.path = Text::from(path);
        reply.map_or(Ok(()), |reply| Err(Box::new(reply)))
    }

    /// Finds the virtual host and the route.
    fn route(&mut self) -> Result<Found, Box<LocalReply>> {
        let counts = &self.manager.stats.counts;
        counts.rq_total.inc();
        let found = self.manager.routes(&self.generation).and_then(|table| table.find(&*self));
        let Some(found) = found else {
            counts.no_route.inc();
            let reply = LocalReply::new(StatusCode::NOT_FOUND, "route_not_found");
            return Err(Box::new(reply.flags(ResponseFlags::NO_ROUTE_FOUND)));
        };
        Ok(found)
    }

    /// Does what the route says.
    async fn decide(&mut self, found: Found) -> Result<(), Box<LocalReply>> {
        if let Some(reply) = self.require_tls(&found) {
            return Err(Box::new(reply));
        }
        self.record.found = Some(found.clone());
        match &found.route.action {
            RouteAction::Forward(forward) => router::forward(self, &found, forward).await.map_err(Box::new),
            RouteAction::Redirect(redirect) => {
                self.manager.stats.counts.rq_redirect.inc();
                let location = redirect.location(&*self, &found.route);
                Err(Box::new(self.direct(&found, redirect.status, Bytes::new(), Some(location))))
            }
            RouteAction::Respond { status, body } => {
                self.manager.stats.counts.rq_direct_response.inc();
                Err(Box::new(self.direct(&found, *status, body.clone(), None)))
            }
        }
    }

    /// `require_tls`: a redirect to https.
    fn require_tls(&self, found: &Found) -> Option<LocalReply> {
        let is_https = self.request.headers.get(&names::X_FORWARDED_PROTO).is_some_and(|proto| proto == "https");
        if is_https || found.virtual_host.require_tls == RequireTls::None {
            return None;
        }
        let location = format!("https://{}{}", self.request.authority.as_deref().unwrap_or_default(), self.request.path);
        let location = HeaderValue::try_from(location).ok()?;
        let reply = LocalReply::new(StatusCode::MOVED_PERMANENTLY, "direct_response");
        Some(reply.header(header::LOCATION, location))
    }

    /// A redirect or direct response, with the route's header changes.
    fn direct(&mut self, found: &Found, status: StatusCode, body: Bytes, location: Option<String>) -> LocalReply {
        self.record.response_code = status.as_u16();
        let mut reply = LocalReply::new(status, "direct_response").body(body);
        if let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
            reply = reply.header(header::LOCATION, location);
        }
        reply.edits = Some(found.clone());
        reply
    }

    /// Sends an answer of ours.
    async fn answer(&mut self, reply: LocalReply) {
        self.record.flags.insert(reply.flags);
        self.record.details = Some(reply.details.clone());
        let edits = reply.edits.clone();
        let (mut head, body) = reply.into_response(&self.request.method, self.traits.is_grpc);
        self.record.response_code = head.status.as_u16();
        if let Some(found) = edits {
            self.edit_response(&mut head.headers, &found, None);
        }
        // A client that went away is noticed and recorded by whoever sends; there is nobody left to tell.
        let end = body.is_empty();
        if self.send_head(head, end).await.is_ok() && !end {
            let _ = self.respond.data(body, true).await;
        }
    }

    /// Response header changes of the levels of a route.
    pub(crate) fn edit_response(
        &self,
        headers: &mut Headers,
        found: &Found,
        entry: Option<&WeightedCluster>,
    ) {
        let Some(table) = self.manager.routes(&self.generation) else { return };
        edits::response(headers, &Levels { table, found, entry }, &self.record, &self.request);
    }

    /// Finishes a response head and queues it.
    pub(crate) async fn send_head(&mut self, mut head: ResponseHead, end: bool) -> Result<(), SendError> {
        self.finish_head(&mut head, false);
        self.respond.head(head, end).await
    }

    /// What every response head gets, whether it comes from upstream or from us.
    pub(crate) fn finish_head(&mut self, head: &mut ResponseHead, is_upgrade: bool) {
        let request_id = self.request.headers.get(&names::X_REQUEST_ID);
        response_head::finish(&mut head.headers, &self.manager.settings, request_id, is_upgrade);
        // HTTP/1 has no way to stop a request that is still coming in.
        if !is_upgrade && !self.body.is_complete() {
            self.respond.close_after();
        }
        if self.manager.reads_heads() {
            self.response = Some(head.headers.clone());
        }
    }

    /// Logs and counts the request. The last thing done with it.
    pub(super) fn record(mut self) {
        self.record.bytes_received = self.body.received_bytes();
        self.record.bytes_sent = self.respond.sent_bytes();
        self.record.end = Some(Instant::now());
        self.manager.stats.counts.downstream_rq_active.dec();
        let view = self.record.view(Some(&self.request), self.response.as_ref(), self.trailers.as_ref());
        self.manager.record(&view);
    }
}

/// Where header changes come from, most specific first.
pub(crate) struct Levels<'a> {
    pub(crate) table: &'a RouteTable,
    pub(crate) found: &'a Found,
    pub(crate) entry: Option<&'a WeightedCluster>,
}

impl RequestView for Stream<'_, '_> {
    fn method(&self) -> &str {
        self.request.method.as_str()
    }

    fn scheme(&self) -> &str {
        self.request.scheme.as_deref().unwrap_or("http")
    }

    fn authority(&self) -> &str {
        self.request.authority.as_deref().unwrap_or_default()
    }

    fn path(&self) -> &str {
        &self.request.path
    }

    fn header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        joined(&self.request.headers, name)
    }

    fn random(&self) -> u64 {
        self.random
    }
}

/// All values of a header, with commas between them when there are several.
fn joined<'h>(headers: &'h Headers, name: &HeaderName) -> Option<Cow<'h, [u8]>> {
    let mut values = headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_bytes());
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
    let mut all = [first, b",", second].concat();
    for value in values {
        all.push(b',');
        all.extend_from_slice(value);
    }
    Some(Cow::Owned(all))
}
