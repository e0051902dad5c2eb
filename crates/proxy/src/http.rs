//! The HTTP connection manager: from a connection to answered requests.
//!
//! Owns what happens to a request before it is routed and to a response after it was decided, and the record of
//! both. Leaves out the codecs (`meltemi-http`), matching (`meltemi-compile`) and forwarding (`router`).
//! Source: Envoy's `HttpConnectionManager` filter.

mod local_reply;
pub(crate) mod names;
mod path;
mod request_head;
mod response_head;
mod stream;

use std::rc::Rc;
use std::sync::Arc;

use http::header;
use meltemi_compile::program::{CodecType, HttpConnectionManager, RouteSource};
use meltemi_compile::route::RouteTable;
use meltemi_http::server::{Codec, End, ServerOptions, Service};
use meltemi_http::{DrainSignal, Exchange, H2Options, Headers, Io, ProtocolError, Version};

pub(crate) use self::local_reply::LocalReply;
pub(crate) use self::request_head::RequestTraits;
pub(crate) use self::stream::{Levels, Stream};

use crate::access_log::Logger;
use crate::generation::Generation;
use crate::istio_stats::IstioReporter;
use crate::random;
use crate::router::request_body::RequestBody;
use crate::record::{ConnectionInfo, RequestRecord, ResponseFlags};
use crate::stats::HttpStats;
use crate::worker::Shared;

/// A connection manager of one filter chain, as one worker runs it. Made when the listener is.
#[derive(Debug)]
pub(crate) struct Manager {
    pub(crate) settings: Arc<HttpConnectionManager>,
    pub(crate) worker: Rc<Shared>,
    pub(crate) stats: Arc<HttpStats>,
    /// How much of a body may be kept for a retry (`per_connection_buffer_limit_bytes`).
    pub(crate) buffer_limit: usize,
    options: Rc<ServerOptions>,
    loggers: Vec<Logger>,
    istio: Option<Rc<IstioReporter>>,
}

impl Manager {
    pub(crate) fn new(settings: &Arc<HttpConnectionManager>, worker: &Rc<Shared>, buffer_limit: u32) -> Manager {
        Manager {
            settings: settings.clone(),
            worker: worker.clone(),
            stats: worker.stats.http(&settings.stat_prefix),
            buffer_limit: buffer_limit as usize,
            options: Rc::new(server_options(settings)),
            loggers: settings.access_log.iter().map(|log| worker.logs.logger(log)).collect(),
            istio: settings.istio_stats.map(|reporter| worker.istio(reporter)),
        }
    }

    /// Serves a connection to its end.
    pub(crate) async fn serve(self: Rc<Manager>, io: Io, connection: Rc<ConnectionInfo>, drain: DrainSignal) {
        let counts = &self.stats.counts;
        counts.downstream_cx_total.inc();
        counts.downstream_cx_active.inc();
        let options = self.options.clone();
        let service = Rc::new(Connection { manager: self.clone(), connection });
        let end = meltemi_http::server::serve(io, options, service, drain).await;
        self.count_end(end);
    }

    fn count_end(&self, end: End) {
        let counts = &self.stats.counts;
        counts.downstream_cx_active.dec();
        counts.downstream_cx_destroy.inc();
        match end {
            End::ClosedByPeer | End::Io(_) => counts.downstream_cx_destroy_remote.inc(),
            End::Idle => counts.downstream_cx_idle_timeout.inc(),
            End::ClosedByUs => counts.downstream_cx_destroy_local.inc(),
            End::Protocol(_) => counts.downstream_cx_protocol_error.inc(),
        }
    }

    /// The route table for a request, if it is there.
    pub(crate) fn routes<'g>(&'g self, generation: &'g Generation) -> Option<&'g Arc<RouteTable>> {
        match &self.settings.routes {
            RouteSource::Inline(table) => Some(table),
            RouteSource::Rds(name) => generation.program.routes.get(name),
        }
    }

    /// Whether someone reads request and response heads after they were sent.
    pub(crate) fn reads_heads(&self) -> bool {
        !self.loggers.is_empty() || self.istio.is_some()
    }

    /// Logs and counts a finished request.
    pub(crate) fn record(&self, view: &crate::record::RecordView<'_>) {
        let record = view.record;
        self.stats.codes.record(record.response_code);
        if let Some(end) = record.end {
            self.stats.counts.downstream_rq_time.record_millis(end.duration_since(record.start));
        }
        if let Some(istio) = &self.istio {
            istio.request(view);
        }
        self.loggers.iter().for_each(|logger| logger.log(view));
    }
}

/// A client's connection.
struct Connection {
    manager: Rc<Manager>,
    connection: Rc<ConnectionInfo>,
}

impl Service for Connection {
    async fn call(&self, exchange: Exchange<'_>) {
        let Exchange { request, body, respond } = exchange;
        let body = RequestBody::new(body, self.manager.buffer_limit);
        let mut stream = Stream::begin(&self.manager, &self.connection, request, &body, respond);
        stream.serve().await;
        stream.record();
    }

    fn protocol_error(&self, error: ProtocolError) -> Headers {
        let manager = &self.manager;
        manager.stats.counts.downstream_cx_protocol_error.inc();
        let mut record = RequestRecord::new(self.connection.clone(), random::next(), Some(Version::Http11));
        record.response_code = error.status.as_u16();
        record.flags = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
        record.details = Some(error.detail.into());
        // The codec answers with the reason phrase as its body.
        record.bytes_sent = error.status.canonical_reason().map_or(0, |reason| reason.len() as u64);
        record.end = Some(std::time::Instant::now());
        manager.record(&record.view(None, None, None));
        let mut headers = Headers::new();
        response_head::finish(&mut headers, &manager.settings, None, false);
        headers.remove(&header::VIA);
        headers
    }
}

fn server_options(settings: &HttpConnectionManager) -> ServerOptions {
    ServerOptions {
        codec: match settings.codec {
            CodecType::Auto => Codec::Auto,
            CodecType::Http1 => Codec::Http1,
            CodecType::Http2 => Codec::Http2,
        },
        max_head_bytes: settings.max_request_headers_bytes as usize,
        max_headers: settings.max_headers_count as usize,
        accept_http_10: settings.accept_http_10,
        idle_timeout: settings.idle_timeout,
        headers_timeout: settings.request_headers_timeout,
        max_requests: settings.max_requests_per_connection,
        max_connection_duration: settings.max_connection_duration,
        delayed_close_timeout: settings.delayed_close_timeout,
        h2: H2Options {
            max_concurrent_streams: settings.http2.max_concurrent_streams,
            initial_stream_window_bytes: settings.http2.initial_stream_window_bytes,
            initial_connection_window_bytes: settings.http2.initial_connection_window_bytes,
            max_header_list_bytes: settings.max_request_headers_bytes,
            allow_connect: settings.http2.allow_connect,
            ..H2Options::default()
        },
    }
}
