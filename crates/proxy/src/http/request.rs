//! The verbs of a request before it is forwarded: read_head, route, decide; and answers of ours.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use meltemi_compile::route::{RedirectPath, RouteAction};
use meltemi_http::{Reason, ResponseHead, Text, Version};

use super::request_head;
use crate::access_log::format::Missing;
use crate::filter::Stop;
use crate::record::{ResponseFlags, TakenRoute};
use crate::router;
use crate::stream::{LocalReply, Stream, edits};
use meltemi_compile::path::{self, PathVerdict};

impl Stream<'_, '_> {
    /// Answers the request, one way or another.
    pub(super) async fn serve(&mut self) {
        if self.has_too_many_headers() {
            return self.reset_unread();
        }
        self.meet_client();
        let mut refused = match self.read_head() {
            Ok(()) => {
                self.answer_expectation().await;
                self.pass().await
            }
            Err(reply) => Err(reply),
        };
        while refused.is_ok() && self.begin_redirected() {
            // The proxy has written itself into the head already.
            refused = match self.normalise_path() {
                Ok(()) => self.pass().await,
                Err(reply) => Err(reply),
            };
        }
        if let Err(reply) = refused {
            self.answer(*reply).await;
        }
    }

    /// Finds the route, passes the filters, and does what the route says.
    async fn pass(&mut self) -> Result<(), Box<LocalReply>> {
        self.find_route();
        if !self.manager.settings.filters.is_empty() {
            match self.decode_filters().await {
                Ok(()) => {}
                Err(Stop::Reply(reply)) => return Err(reply),
                Err(Stop::Done) => return Ok(()),
            }
        }
        self.decide().await
    }

    /// HTTP/2 has no answer for that before the head is read: the stream is reset. HTTP/1 is checked by its codec.
    fn has_too_many_headers(&self) -> bool {
        const PSEUDO_HEADERS: usize = 4;
        self.request.version == Version::Http2
            && self.request.headers.len() + PSEUDO_HEADERS > self.manager.settings.max_headers_count as usize
    }

    fn reset_unread(&mut self) {
        self.is_unread = true;
        self.record.flags = ResponseFlags::DOWNSTREAM_REMOTE_RESET;
        self.record.details = Some("http2.too_many_headers".into());
        self.manager.stats.counts.downstream_rq_tx_reset.inc();
        self.respond.reset(Reason::PROTOCOL_ERROR);
    }

    /// `expect: 100-continue` is answered here; the upstream does not see it.
    async fn answer_expectation(&mut self) {
        if self.manager.settings.proxies_100_continue {
            return;
        }
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
        if self.request.version == Version::Http10 && self.request.authority.is_none() {
            self.request.authority = settings.default_host_for_http_10.as_deref().map(Text::from);
        }
        // An empty one is a host like any other.
        if self.request.authority.is_none() {
            return Err(Box::new(LocalReply::new(StatusCode::BAD_REQUEST, "missing_host_header")));
        }
        // Only an absolute-form target gives an HTTP/1 request a scheme.
        let is_absolute = self.request.version != Version::Http2 && self.request.scheme.is_some();
        let is_refused = is_absolute && !settings.allow_absolute_url;
        if is_refused || (!is_connect && !self.request.path.starts_with('/')) {
            let counts = &self.manager.stats.counts;
            counts.downstream_rq_non_relative_path.inc();
            return Err(Box::new(LocalReply::new(StatusCode::NOT_FOUND, "absolute_path_rejected")));
        }
        if !is_connect {
            self.normalise_path()?;
        }
        let own_address = self.manager.worker.own_address;
        let prepared =
            request_head::prepare(&mut self.request, &settings, &self.record.connection, own_address);
        let (remote, traits) = prepared
            .map_err(|status| Box::new(LocalReply::new(status, "rejecting_because_detection_failed")))?;
        self.record.remote = remote;
        self.traits = traits;
        Ok(())
    }

    fn normalise_path(&mut self) -> Result<(), Box<LocalReply>> {
        let verdict = path::normalise(&self.request.path, &self.manager.settings);
        self.take_path(verdict)
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

    /// Finds the virtual host and the route; filters run without one too.
    pub(crate) fn find_route(&mut self) {
        self.record.found = self
            .manager
            .routes(&self.generation)
            .and_then(|table| Some(TakenRoute::new(table, table.find(&*self)?)));
    }

    /// Does what the route says.
    async fn decide(&mut self) -> Result<(), Box<LocalReply>> {
        let counts = &self.manager.stats.counts;
        counts.rq_total.inc();
        let Some(taken) = self.record.found.clone() else {
            counts.no_route.inc();
            let reply = LocalReply::new(StatusCode::NOT_FOUND, "route_not_found");
            return Err(Box::new(reply.flags(ResponseFlags::NO_ROUTE_FOUND)));
        };
        let found = taken.found();
        match &found.route.action {
            RouteAction::Forward(forward) => router::forward(self, found, forward).await.map_err(Box::new),
            RouteAction::Redirect(redirect) => {
                // Envoy makes redirects as direct responses.
                self.manager.stats.counts.rq_direct_response.inc();
                let formatted = self.formatted_path(&redirect.path);
                let location = redirect.location(&*self, found.route, &formatted);
                Err(Box::new(self.direct(redirect.status, Bytes::new(), Some(location))))
            }
            RouteAction::Respond { status, body } => {
                self.manager.stats.counts.rq_direct_response.inc();
                let location = meltemi_compile::direct_response_location(*status, &*self, found.route);
                Err(Box::new(self.direct(*status, body.clone(), location)))
            }
        }
    }

    /// The path of a redirect that is a format, evaluated.
    fn formatted_path(&self, path: &RedirectPath) -> String {
        let RedirectPath::Format(format) = path else { return String::new() };
        let view = self.record.view(Some(&self.request), None, None);
        String::from_utf8_lossy(&edits::text(format, &view, Missing::Empty)).into_owned()
    }

    /// A redirect or direct response.
    fn direct(&mut self, status: StatusCode, body: Bytes, location: Option<String>) -> LocalReply {
        let mut reply = LocalReply::new(status, "direct_response").body(body);
        if let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
            reply = reply.header(header::LOCATION, location);
        }
        reply
    }

    /// Sends an answer of ours.
    async fn answer(&mut self, reply: LocalReply) {
        if reply.status == StatusCode::BAD_REQUEST && !self.manager.settings.outlives_bad_request {
            // What follows on the connection may be as wrong.
            self.respond.close_after();
        }
        self.record.flags.insert(reply.flags);
        self.record.details = Some(reply.details.clone());
        let taken = self.record.found.clone().filter(|taken| !taken.found().is_tls_redirect());
        let mut draft = reply.draft();
        // Envoy lets the route change every answer of its own too.
        if let Some(taken) = taken {
            let found = taken.found();
            self.edit_response(&mut draft.headers, found, self.weighted_entry(found));
        }
        let manager = self.manager.clone();
        if let Some(config) = &manager.settings.local_reply {
            draft.rewrite(config, &mut self.record, Some(&self.request));
        }
        let (head, body) = draft.finish(&self.request.method, self.traits.is_grpc);
        // Operators of the route's own headers do not see it yet.
        self.record.response_code = head.status.as_u16();
        // A client that went away is noticed and recorded by whoever sends; there is nobody left to tell.
        let end = body.is_empty();
        if self.send_head(head, end).await.is_ok() && !end {
            let _ = self.respond.data(body, true).await;
        }
    }
}
