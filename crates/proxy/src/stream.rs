//! One request and its response while they are under way, and the record of both.
//!
//! Every way out passes through [`Stream::record`], once. What happens to a request before it is forwarded is `http`'s,
//! forwarding is `router`'s; both work on a [`Stream`].

pub(crate) mod edits;
mod local_reply;
mod manager;
pub(crate) mod names;
mod peers;
mod request_body;
pub(crate) mod response_head;

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use http::header::HeaderName;
use meltemi_compile::matcher::{ClientTls, RequestView};
use meltemi_compile::program::PeerTold;
use meltemi_compile::route::{Found, WeightedCluster};
use meltemi_http::{Headers, RequestHead, Responder, ResponseHead, SendError, Version};

pub(crate) use self::local_reply::LocalReply;
pub(crate) use self::manager::Manager;
pub(crate) use self::request_body::{Buffering, RequestBody};

use self::edits::Levels;
use crate::filter::FilterRun;
use crate::generation::Generation;
use crate::peer::Told;
use crate::random;
use crate::record::{ConnectionInfo, RequestRecord};
use crate::router::Redirects;

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
    /// The redirects that were followed on its behalf.
    pub(crate) redirects: Option<Box<Redirects>>,
    /// The filters that it passes.
    pub(crate) filters: FilterRun,
    /// What the client said of itself.
    told: Told,
    /// Whether those behind the cluster of the request are told who we are; they tell it the client in return.
    pub(crate) peer_told: PeerTold,
    /// The head was refused before anyone looked at it; it is not logged.
    pub(crate) is_unread: bool,
}

impl<'s, 'c> Stream<'s, 'c> {
    pub(crate) fn begin(
        manager: &Rc<Manager>,
        connection: &Rc<ConnectionInfo>,
        request: RequestHead,
        body: &'s RequestBody<'c>,
        respond: Responder<'c>,
    ) -> Stream<'s, 'c> {
        let counts = &manager.stats.counts;
        count_begin(manager, request.version);
        counts.downstream_rq_active.inc();
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
            redirects: None,
            filters: FilterRun::default(),
            told: Told::default(),
            peer_told: PeerTold::Always,
            is_unread: false,
        }
    }

    /// Response header changes of the levels of a route.
    pub(crate) fn edit_response(
        &self,
        headers: &mut Headers,
        found: Found<'_>,
        entry: Option<&WeightedCluster>,
    ) {
        edits::response(headers, &Levels { found, entry }, &self.record, &self.request);
    }

    /// Finishes a response head and queues it.
    pub(crate) async fn send_head(&mut self, mut head: ResponseHead, end: bool) -> Result<(), SendError> {
        self.finish_head(&mut head, false);
        self.respond.head(head, end).await
    }

    /// What every response head gets, whether it comes from upstream or from us.
    pub(crate) fn finish_head(&mut self, head: &mut ResponseHead, is_upgrade: bool) {
        self.encode_filters(head);
        self.tell_client(&mut head.headers);
        let request_id = self.request.headers.get(&names::X_REQUEST_ID).filter(|_| self.tells_request_id());
        response_head::finish(&mut head.headers, &self.manager.settings, request_id, is_upgrade);
        // HTTP/1 has no way to stop a request that is still coming in.
        let is_complete = self.body.is_complete() && self.traits.upgrade.is_none();
        if !is_upgrade && self.manager.departure.asks(&self.manager.worker.lifecycle) {
            let counts = &self.manager.stats.counts;
            counts.downstream_cx_drain_close.add(self.respond.ask_to_go().into());
        }
        if !is_upgrade && !is_complete {
            self.respond.close_after();
        }
        if self.manager.reads_heads() {
            self.response = Some(head.headers.clone());
        }
    }

    /// Whether the client learns the request's id: always, or when it may ask for a trace and does.
    fn tells_request_id(&self) -> bool {
        self.manager.settings.forwarding.always_set_request_id_in_response
            || (self.traits.is_internal && self.request.headers.contains(&names::X_ENVOY_FORCE_TRACE))
    }

    /// Begins the request that a redirect led to, if there is one: the one that led to it is over, and logged.
    pub(crate) fn begin_redirected(&mut self) -> bool {
        let pending = self.redirects.as_mut().map(|redirects| std::mem::take(&mut redirects.is_pending));
        if pending != Some(true) {
            return false;
        }
        self.log(false);
        let downstream_peer = self.record.downstream_peer.take();
        if let Some(redirects) = &mut self.redirects {
            redirects.replayed_bytes += self.body.kept_data_bytes();
        }
        count_begin(&self.manager, self.request.version);
        let connection = self.record.connection.clone();
        let mut record = RequestRecord::new(connection, random::next(), Some(self.request.version));
        record.request_end = Some(record.start);
        record.downstream_peer = downstream_peer;
        self.record = record;
        self.response = None;
        self.trailers = None;
        self.random = random::next();
        self.filters = FilterRun::default();
        true
    }

    /// Logs and counts the request. The last thing done with it.
    pub(crate) fn record(mut self) {
        self.log(true);
    }

    /// Only what the client got counts by its status.
    fn log(&mut self, is_answered: bool) {
        let replayed = self.redirects.as_ref().map_or(0, |redirects| redirects.replayed_bytes);
        self.record.bytes_received = self.body.received_bytes() + replayed;
        self.record.bytes_sent = self.respond.sent_bytes();
        self.record.end = Some(Instant::now());
        self.filters.finish(&mut self.record.state);
        let request = Some(&self.request).filter(|_| !self.is_unread);
        let view = self.record.view(request, self.response.as_ref(), self.trailers.as_ref());
        match is_answered {
            true => self.manager.record(&view),
            false => self.manager.log(&view),
        }
    }
}

fn count_begin(manager: &Manager, version: Version) {
    let counts = &manager.stats.counts;
    counts.downstream_rq_total.inc();
    match version {
        Version::Http2 => counts.downstream_rq_http2_total.inc(),
        Version::Http10 | Version::Http11 => counts.downstream_rq_http1_total.inc(),
    }
}

/// What a request said of itself before its head was changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestTraits {
    /// `content-type: application/grpc…`.
    pub(crate) is_grpc: bool,
    /// The protocol of an `upgrade`, lower case; `connect` for CONNECT.
    pub(crate) upgrade: Option<Box<str>>,
    /// Some `x-envoy-*` field asks something of the router.
    pub(crate) asks_router: bool,
    /// It comes from one of `internal_address_config`: its `x-envoy-*` fields count.
    pub(crate) is_internal: bool,
}

impl RequestTraits {
    /// A WebSocket handshake.
    pub(crate) fn is_websocket(&self) -> bool {
        self.upgrade.as_deref() == Some("websocket")
    }
}

/// A stream that is dropped unrecorded was cut off with its connection at the end of the drain time.
impl Drop for Stream<'_, '_> {
    fn drop(&mut self) {
        self.manager.stats.counts.downstream_rq_active.dec();
    }
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

    fn any_header_value(&self, name: &HeaderName, test: &dyn Fn(&[u8]) -> bool) -> Option<bool> {
        let mut values = self.request.headers.iter().filter(|(key, _)| key == name).peekable();
        values.peek()?;
        Some(values.any(|(_, value)| test(value.as_bytes())))
    }

    fn source_ip(&self) -> Option<IpAddr> {
        Some(self.record.remote.ip())
    }

    fn tls(&self) -> Option<ClientTls> {
        let tls = self.record.connection.tls.as_deref()?;
        Some(ClientTls { presented: !tls.peer_chain.is_empty(), validated: tls.is_validated })
    }

    fn random(&self) -> u64 {
        self.random
    }

    fn dynamic_metadata(&self, namespace: &str, path: &[Box<str>]) -> Option<&prost_types::Value> {
        self.record.metadata().metadata(namespace, path)
    }

    fn hashable_filter_state(&self, key: &str) -> Option<Cow<'_, str>> {
        let object = self.record.filter_state(key).filter(|object| object.is_hashable)?;
        Some(Cow::Borrowed(&*object.text))
    }

    fn filter_state(&self, key: &str) -> Option<Cow<'_, str>> {
        self.record.filter_state(key).map(|object| Cow::Borrowed(&*object.text))
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

/// Splits `host:port`; an IPv6 literal needs its brackets.
pub(crate) fn split_port(authority: &str) -> (&str, Option<u16>) {
    let Some((host, port)) = authority.rsplit_once(':') else { return (authority, None) };
    if host.contains(':') && !host.ends_with(']') {
        return (authority, None);
    }
    match port.parse() {
        Ok(port) => (host, Some(port)),
        Err(_) => (authority, None),
    }
}
