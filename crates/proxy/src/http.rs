//! The HTTP connection manager: from a connection to answered requests.
//!
//! Owns what happens to a request before it is routed and to a response after it was decided, and the record of
//! both. Leaves out the codecs (`meltemi-http`), matching (`meltemi-compile`) and forwarding (`router`).
//! Source: Envoy's `HttpConnectionManager` filter.

mod client_address;
mod client_certificate;
mod request;
mod request_head;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, header};
use meltemi_http::server::{End, Service};
use meltemi_http::{ByteCounts, DrainSignal, Exchange, Io, ProtocolError, ResponseHead, Version};

use crate::random;
use crate::record::{ConnectionInfo, RequestRecord, ResponseFlags};
use crate::stream::{LocalReply, Manager, RequestBody, Stream, response_head};

/// Serves a connection to its end; what is known of it then is for the log of its listener, if `is_logged`.
pub(crate) async fn serve(
    manager: Rc<Manager>,
    io: Io,
    connection: Rc<ConnectionInfo>,
    drain: DrainSignal,
    is_logged: bool,
) -> Option<Box<RequestRecord>> {
    let _open = Open::new(&manager);
    let options = manager.options.clone();
    let service = Rc::new(Connection { manager: manager.clone(), connection, version: Cell::new(None) });
    let bytes = match is_logged {
        true => Arc::new(ByteCounts::part_of(&manager.stats.bytes)),
        false => manager.stats.bytes.clone(),
    };
    let io = io.counted(bytes.clone());
    let end = meltemi_http::server::serve(io, options, service.clone(), drain).await;
    let counts = &manager.stats.counts;
    match end {
        End::ClosedByPeer | End::Io(_) => counts.downstream_cx_destroy_remote.inc(),
        End::Idle => counts.downstream_cx_idle_timeout.inc(),
        End::ClosedByUs => counts.downstream_cx_destroy_local.inc(),
        End::TooOld => {
            counts.downstream_cx_max_duration_reached.inc();
            counts.downstream_cx_destroy_local.inc();
        }
        // Counted when it was answered.
        End::Protocol(_) => {}
    }
    is_logged.then(|| Box::new(service.record(end, &bytes)))
}

/// An open connection, as it is counted; until dropped.
struct Open(Rc<Manager>);

impl Open {
    fn new(manager: &Rc<Manager>) -> Open {
        manager.stats.counts.downstream_cx_total.inc();
        manager.stats.counts.downstream_cx_active.inc();
        Open(manager.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.stats.counts.downstream_cx_active.dec();
        self.0.stats.counts.downstream_cx_destroy.inc();
    }
}

/// A client's connection.
struct Connection {
    manager: Rc<Manager>,
    connection: Rc<ConnectionInfo>,
    /// Known from the first request on.
    version: Cell<Option<Version>>,
}

impl Connection {
    /// Counts the connection by the version of its first request.
    fn count(&self, version: Version) {
        if self.version.get().is_some() {
            return;
        }
        self.version.set(Some(version));
        let counts = &self.manager.stats.counts;
        let (total, active) = match version {
            Version::Http2 => (&counts.downstream_cx_http2_total, &counts.downstream_cx_http2_active),
            Version::Http10 | Version::Http11 => {
                (&counts.downstream_cx_http1_total, &counts.downstream_cx_http1_active)
            }
        };
        total.inc();
        active.inc();
    }

    /// The connection at its end.
    fn record(&self, end: End, bytes: &ByteCounts) -> RequestRecord {
        let mut record = RequestRecord::new(self.connection.clone(), random::next(), self.version.get());
        record.state = self.connection.state.clone();
        record.bytes_received = bytes.received();
        record.bytes_sent = bytes.sent();
        if matches!(end, End::Protocol(_)) {
            record.flags = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
        }
        record
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let counts = &self.manager.stats.counts;
        match self.version.get() {
            Some(Version::Http2) => counts.downstream_cx_http2_active.dec(),
            Some(Version::Http10 | Version::Http11) => counts.downstream_cx_http1_active.dec(),
            None => {}
        }
    }
}

impl Service for Connection {
    async fn call(&self, exchange: Exchange<'_>) {
        let Exchange { request, body, respond } = exchange;
        self.count(request.version);
        let body = RequestBody::new(body, self.manager.replay_limit(request.version));
        let mut stream = Stream::begin(&self.manager, &self.connection, request, &body, respond);
        stream.serve().await;
        stream.record();
    }

    fn connection_error(&self, detail: &'static str) {
        let manager = &self.manager;
        manager.stats.counts.downstream_cx_protocol_error.inc();
        let mut record = RequestRecord::new(self.connection.clone(), random::next(), Some(Version::Http2));
        record.flags = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
        record.details = Some(detail.into());
        record.end = Some(std::time::Instant::now());
        manager.record(&record.view(None, None, None));
    }

    fn protocol_error(&self, error: ProtocolError) -> (ResponseHead, Bytes) {
        let manager = &self.manager;
        manager.stats.counts.downstream_cx_protocol_error.inc();
        let mut record = RequestRecord::new(self.connection.clone(), random::next(), Some(Version::Http11));
        record.response_code = error.status.as_u16();
        record.details = Some(error.detail.into());
        let mut draft = LocalReply::new(error.status, error.detail).body(error.body()).draft();
        if let Some(config) = &manager.settings.local_reply {
            draft.rewrite(config, &mut record, None);
        }
        // As in Envoy, the flag is not there yet when the answer is made.
        record.flags = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
        let (mut head, body) = draft.finish(&Method::GET, false);
        response_head::finish(&mut head.headers, &manager.settings, None, false);
        head.headers.remove(&header::VIA);
        record.bytes_sent = body.len() as u64;
        record.end = Some(std::time::Instant::now());
        manager.record(&record.view(None, Some(&head.headers), None));
        (head, body)
    }
}
