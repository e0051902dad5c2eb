//! What is known of a request, for logs, metrics and header edits with operators.
//!
//! Owns: [`RequestRecord`] (one per request, filled while it proceeds), [`ConnectionInfo`], [`ResponseFlags`].
//! Leaves out: rendering (`access_log`), counting (`stats`). Source: Envoy's `StreamInfo`,
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage>.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use meltemi_compile::log_filter::LogType;
use meltemi_compile::program::Name;
use meltemi_compile::route::{Found, RoutePlace, RouteTable};
use meltemi_http::proxy_protocol::Tlv;
use meltemi_http::{Headers, RequestHead, Version};

use crate::peer::{ExchangedPeer, Peer};
use crate::stats::{ClusterStats, HostStats};
use crate::tls::TlsFacts;

mod flags;
mod state;

pub use flags::ResponseFlags;
pub use state::{FilterObject, Sharing, State};

/// A header of the PROXY protocol, as far as it is passed on (`envoy.network.proxy_protocol_options`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProxyOptions {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
    /// The values that `pass_through_tlvs` names.
    pub tlvs: Vec<Tlv>,
}

/// What stays the same for all requests of a downstream connection.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Unique in the process, as `%CONNECTION_ID%`.
    pub id: u64,
    /// The address that the client wanted to reach, restored when a listener filter could.
    pub local: SocketAddr,
    /// The address of the socket (`%DOWNSTREAM_DIRECT_LOCAL_ADDRESS%`).
    pub direct_local: SocketAddr,
    /// The client as the PROXY protocol tells it, else the peer of the socket.
    pub remote: SocketAddr,
    /// The peer of the socket (`%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%`).
    pub direct_remote: SocketAddr,
    /// `local` when a listener filter restored it, for `ORIGINAL_DST` clusters.
    pub original_destination: Option<SocketAddr>,
    /// What the PROXY protocol said of the client, for upstream connections that speak it too.
    pub proxy: Option<Rc<ProxyOptions>>,
    /// The server name that the TLS inspector saw.
    pub server_name: Option<Box<str>>,
    /// Name of the listener.
    pub listener: Name,
    /// What the TLS handshake told; `None` is plaintext.
    pub(crate) tls: Option<Rc<TlsFacts>>,
    /// The client, where connections begin with that.
    pub(crate) exchange: Option<Rc<ExchangedPeer>>,
    /// Why there was no TLS (`%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`).
    pub transport_failure: Option<Box<str>>,
    /// What listener and network filters left.
    pub state: State,
}

impl ConnectionInfo {
    /// A connection of which nothing is known but its socket.
    pub fn new(id: u64, local: SocketAddr, remote: SocketAddr, listener: Name) -> ConnectionInfo {
        ConnectionInfo {
            id,
            local,
            direct_local: local,
            remote,
            direct_remote: remote,
            original_destination: None,
            proxy: None,
            server_name: None,
            listener,
            tls: None,
            exchange: None,
            transport_failure: None,
            state: State::default(),
        }
    }
}

/// Everything that a log line, a metric or an operator in a header value can ask of a request, or of a TCP
/// connection, apart from its headers (see [`RecordView`]).
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// When the head was read; all durations count from here.
    pub start: Instant,
    /// The same moment by the wall clock.
    pub start_time: SystemTime,
    /// The downstream connection.
    pub connection: Rc<ConnectionInfo>,
    /// The client after `x-forwarded-for` was taken into account (`%DOWNSTREAM_REMOTE_ADDRESS%`).
    pub remote: SocketAddr,
    /// Unique in the process, as `%STREAM_ID%`.
    pub stream_id: u64,
    /// Version that the client speaks; `None` for TCP.
    pub protocol: Option<Version>,
    /// Status sent to the client, 0 while there is none.
    pub response_code: u16,
    /// What went wrong.
    pub flags: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`, such as `via_upstream`.
    pub details: Option<Cow<'static, str>>,
    /// `%CONNECTION_TERMINATION_DETAILS%`.
    pub termination_details: Option<Cow<'static, str>>,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// When the last byte of the request came from the client.
    pub request_end: Option<Instant>,
    /// When the first byte of the response came from the upstream.
    pub response_start: Option<Instant>,
    /// When the last byte of the response went to the client; set by the one who records.
    pub end: Option<Instant>,
    /// The route that the request took.
    pub found: Option<TakenRoute>,
    /// The cluster that was chosen.
    pub cluster: Option<Arc<ClusterStats>>,
    /// The host of the last attempt.
    pub host: Option<Arc<HostStats>>,
    /// Our address on the upstream connection.
    pub upstream_local: Option<SocketAddr>,
    /// What the handshake of the upstream connection told.
    pub(crate) upstream_tls: Option<Rc<TlsFacts>>,
    /// The host, where connections begin with that.
    pub(crate) upstream_exchange: Option<Rc<ExchangedPeer>>,
    /// Who the request says that its sender is.
    pub(crate) downstream_peer: Option<Peer>,
    /// Who the response says that its sender is.
    pub(crate) upstream_peer: Option<Peer>,
    /// Version spoken upstream.
    pub upstream_protocol: Option<Version>,
    /// Attempts so far, 0 before the first.
    pub attempts: u32,
    /// Why the upstream connection failed (`%UPSTREAM_TRANSPORT_FAILURE_REASON%`).
    pub upstream_failure: Option<Box<str>>,
    /// What HTTP filters left.
    pub state: State,
    /// The health check filter says that it is one; logs may leave it out.
    pub is_health_check: bool,
}

/// A route table as a worker holds it; the inner count is shared by all workers, the outer is the worker's own.
pub type Routes = Rc<Arc<RouteTable>>;

/// The route that a request took, for as long as someone asks.
#[derive(Debug, Clone)]
pub struct TakenRoute {
    table: Routes,
    place: RoutePlace,
}

impl TakenRoute {
    /// What was found in this table.
    pub fn new(table: &Routes, found: Found<'_>) -> TakenRoute {
        TakenRoute { table: table.clone(), place: found.place }
    }

    /// The route, with its table and virtual host.
    pub fn found(&self) -> Found<'_> {
        self.table.at(self.place).expect("invariant: the place is of this table")
    }
}

impl RequestRecord {
    /// The record of a request that starts now.
    pub fn new(connection: Rc<ConnectionInfo>, stream_id: u64, protocol: Option<Version>) -> RequestRecord {
        RequestRecord {
            start: Instant::now(),
            start_time: SystemTime::now(),
            remote: connection.remote,
            connection,
            stream_id,
            protocol,
            response_code: 0,
            flags: ResponseFlags::NONE,
            details: None,
            termination_details: None,
            bytes_received: 0,
            bytes_sent: 0,
            request_end: None,
            response_start: None,
            end: None,
            found: None,
            cluster: None,
            host: None,
            upstream_local: None,
            upstream_tls: None,
            upstream_exchange: None,
            downstream_peer: None,
            upstream_peer: None,
            upstream_protocol: None,
            attempts: 0,
            upstream_failure: None,
            state: State::default(),
            is_health_check: false,
        }
    }

    /// Dynamic metadata: the request's; of a TCP connection, the connection's.
    pub fn metadata(&self) -> &State {
        if self.protocol.is_some() { &self.state } else { &self.connection.state }
    }

    /// An object of filter state, of the request or else of its connection.
    pub fn filter_state(&self, key: &str) -> Option<&FilterObject> {
        self.state.object(key).or_else(|| self.connection.state.object(key))
    }

    /// The record with the headers that are there.
    pub fn view<'a>(
        &'a self,
        request: Option<&'a RequestHead>,
        response: Option<&'a Headers>,
        trailers: Option<&'a Headers>,
    ) -> RecordView<'a> {
        let log_type = match self.protocol {
            Some(_) => LogType::DownstreamEnd,
            None => LogType::TcpConnectionEnd,
        };
        RecordView { record: self, log_type, request, response, trailers, local_body: &[] }
    }

    /// The record of a connection at a moment of its life.
    pub fn connection_view(&self, log_type: LogType) -> RecordView<'_> {
        RecordView { log_type, ..self.view(None, None, None) }
    }
}

/// A record and the headers of the moment: what operators are evaluated on.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// The facts.
    pub record: &'a RequestRecord,
    /// When a line is written of them.
    pub log_type: LogType,
    /// The request as it went upstream (Envoy logs the changed headers); `None` for TCP.
    pub request: Option<&'a RequestHead>,
    /// Response headers as they went to the client.
    pub response: Option<&'a Headers>,
    /// Response trailers.
    pub trailers: Option<&'a Headers>,
    /// The body of an answer of ours that is being made.
    pub local_body: &'a [u8],
}
