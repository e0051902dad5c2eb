//! The connection manager of a filter chain, as a worker has it: settings, handles, and where requests are recorded.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use meltemi_compile::program::{CodecType, HttpConnectionManager, RouteSource};
use meltemi_http::Version;
use meltemi_http::client::H1Options;
use meltemi_http::server::{Codec, ServerOptions};

use crate::access_log::Logger;
use crate::codec;
use crate::departure::Departure;
use crate::filter::CachedHealth;
use crate::generation::Generation;
use crate::istio_stats::IstioReporter;
use crate::record::{RecordView, Routes};
use crate::shared::Shared;
use crate::stats::HttpStats;

/// A connection manager of one filter chain, as one worker runs it. Made when the listener is.
#[derive(Debug)]
pub(crate) struct Manager {
    pub(crate) settings: Arc<HttpConnectionManager>,
    pub(crate) worker: Rc<Shared>,
    pub(crate) stats: Arc<HttpStats>,
    /// How much of a body may be kept for a retry (`per_connection_buffer_limit_bytes`).
    pub(crate) buffer_limit: usize,
    pub(crate) options: Rc<ServerOptions>,
    /// `route_config`.
    inline_routes: Option<Routes>,
    /// What health checks were answered lately.
    pub(crate) cached_health: CachedHealth,
    /// Faults under way under this `stat_prefix`, on all workers.
    pub(crate) active_faults: Arc<AtomicU32>,
    /// Whether clients shall go elsewhere.
    pub(crate) departure: Rc<Departure>,
    loggers: Vec<Logger>,
    istio: Option<Rc<IstioReporter>>,
}

impl Manager {
    pub(crate) fn new(
        settings: &Arc<HttpConnectionManager>,
        worker: &Rc<Shared>,
        departure: &Rc<Departure>,
        buffer_limit: u32,
    ) -> Manager {
        let stats = worker.stats.http(&settings.stat_prefix);
        stats.filters.make(&settings.filters);
        Manager {
            settings: settings.clone(),
            worker: worker.clone(),
            stats,
            cached_health: CachedHealth::default(),
            active_faults: worker.states.active_faults(&settings.stat_prefix),
            departure: departure.clone(),
            buffer_limit: buffer_limit as usize,
            options: Rc::new(server_options(settings)),
            inline_routes: match &settings.routes {
                RouteSource::Inline(table) => Some(Rc::new(table.clone())),
                RouteSource::Rds(_) => None,
            },
            loggers: settings.access_log.iter().map(|log| worker.logs.logger(log)).collect(),
            istio: settings.istio_stats.map(|reporter| worker.istio(reporter)),
        }
    }

    /// The route table for a request, if it is there.
    pub(crate) fn routes<'g>(&'g self, generation: &'g Generation) -> Option<&'g Routes> {
        match &self.settings.routes {
            RouteSource::Inline(_) => self.inline_routes.as_ref(),
            RouteSource::Rds(name) => generation.routes(name),
        }
    }

    /// How much of a request body may be kept for another try: on HTTP/2 as much as the stream's window, as in Envoy.
    pub(crate) fn replay_limit(&self, version: Version) -> usize {
        match version {
            Version::Http2 => self.settings.http2.initial_stream_window_bytes as usize,
            Version::Http10 | Version::Http11 => self.buffer_limit,
        }
    }

    /// Whether someone reads request and response heads after they were sent.
    pub(crate) fn reads_heads(&self) -> bool {
        !self.loggers.is_empty() || self.istio.is_some()
    }

    /// Logs and counts a finished request.
    pub(crate) fn record(&self, view: &RecordView<'_>) {
        self.stats.codes.record(view.record.response_code);
        self.log(view);
    }

    /// Logs a request that ended without an answer of its own.
    pub(crate) fn log(&self, view: &RecordView<'_>) {
        let record = view.record;
        if let Some(end) = record.end {
            self.stats.counts.downstream_rq_time.record_millis(end.duration_since(record.start));
        }
        if let Some(istio) = &self.istio {
            istio.request(view);
        }
        self.loggers.iter().for_each(|logger| logger.log(view));
    }
}

fn server_options(settings: &HttpConnectionManager) -> ServerOptions {
    ServerOptions {
        codec: match settings.codec {
            CodecType::Auto => Codec::Auto,
            CodecType::Http1 => Codec::Http1,
            CodecType::Http2 => Codec::Http2,
        },
        h1: H1Options {
            underscores: codec::underscores(settings.underscores),
            ..codec::h1_options(
                &settings.http1,
                settings.max_request_headers_bytes,
                settings.max_headers_count,
            )
        },
        accept_http_10: settings.accept_http_10,
        idle_timeout: settings.idle_timeout,
        headers_timeout: settings.request_headers_timeout,
        stream_idle_timeout: settings.stream_idle_timeout,
        max_requests: settings.max_requests_per_connection,
        max_connection_duration: settings.max_connection_duration,
        delayed_close_timeout: settings.delayed_close_timeout,
        h2: codec::h2_options(&settings.http2, settings.max_request_headers_bytes),
    }
}
