//! What happens to a connection to a host between connecting and the first byte of the protocol that it is for.
//!
//! Owns the transport sockets of `meltemi_compile::program::TransportSocket` on real streams, and what they take over
//! from the client's side. Leaves out dialling (`pool::dial`) and handshakes (`crate::tls`). Source: Envoy's
//! `UpstreamProxyProtocolSocket`, `TransportSocketOptions` and the router's use of `auto_sni`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use meltemi_compile::program::{AutoSni, ProxyProtocolSocket, TransportSocket};
use meltemi_http::proxy_protocol::{Tlv, encode_v1, encode_v2};
use meltemi_http::{Io, RequestHead};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::peer::{ExchangedPeer, exchange};
use crate::record::{ConnectionInfo, ProxyOptions, RequestRecord};
use crate::stream::split_port;
use crate::tls::{ClientContext, Contexts, Expected, Failure, TlsFacts};

/// Objects of filter state that change a handshake.
const SERVER_NAME: &str = "envoy.network.upstream_server_name";
const SUBJECT_ALT_NAMES: &str = "envoy.network.upstream_subject_alt_names";
const APPLICATION_PROTOCOLS: &str = "envoy.network.application_protocols";

/// The transport socket of a host, ready for use.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    pub(crate) socket: Arc<TransportSocket>,
    /// Of the socket.
    tls: Option<Arc<ClientContext>>,
    /// The host's.
    hostname: Box<str>,
    /// Where TLS agrees upon this protocol, connections begin with these bytes.
    exchange: Option<(Box<str>, Bytes)>,
}

/// The client's side of a connection that is to be made; empty for what the proxy does by itself.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct TransportOptions<'a> {
    /// The request or connection of the client.
    pub(crate) record: Option<&'a RequestRecord>,
    /// The request.
    pub(crate) request: Option<&'a RequestHead>,
}

/// What a connection was made for: one with another purpose must not be used in its place.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Purpose {
    /// Whom the header of the PROXY protocol names.
    proxied: Option<Rc<ProxyOptions>>,
    /// What TLS is asked for.
    expected: Expected,
}

/// A connection that is ready for its protocol.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) io: Io,
    /// Our address.
    pub(crate) local: Option<SocketAddr>,
    /// What the handshake told.
    pub(crate) tls: Option<Rc<TlsFacts>>,
    /// Who is at the other end, where that is told.
    pub(crate) exchange: Option<Rc<ExchangedPeer>>,
    /// Bytes that were sent already.
    pub(crate) sent: u64,
}

/// Why a connection did not become ready.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The connection itself.
    Io(io::Error),
    /// The handshake.
    Tls(Failure),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> ConnectError {
        ConnectError::Io(error)
    }
}

/// For whoever only tells that it failed.
impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> io::Error {
        match error {
            ConnectError::Io(error) => error,
            ConnectError::Tls(failure) => io::Error::other(failure.reason().unwrap_or_default()),
        }
    }
}

impl Transport {
    /// The socket of a host of this name.
    pub(crate) fn new(socket: Arc<TransportSocket>, contexts: &Contexts, hostname: &str) -> Transport {
        let tls = socket.tls().map(|tls| contexts.client(tls));
        Transport { socket, tls, hostname: hostname.into(), exchange: None }
    }

    /// The same, telling who we are where TLS agrees upon a protocol.
    pub(crate) fn exchanging(self, protocol: Option<&str>, contexts: &Contexts) -> Transport {
        let exchange = protocol.map(|protocol| (protocol.into(), contexts.own_frame()));
        Transport { exchange, ..self }
    }

    /// What the socket takes over from the client's side.
    pub(crate) fn purpose(&self, auto_sni: Option<&AutoSni>, options: TransportOptions<'_>) -> Purpose {
        let connection = options.record.map(|record| &*record.connection);
        let is_proxied = matches!(*self.socket, TransportSocket::ProxyProtocol(_));
        Purpose {
            proxied: connection.filter(|_| is_proxied).map(proxied),
            expected: self.tls.as_ref().map(|_| expected(auto_sni, options)).unwrap_or_default(),
        }
    }

    /// Makes a connection ready; `protocols` are offered where nobody says otherwise.
    pub(crate) async fn establish(
        &self,
        mut stream: TcpStream,
        purpose: &Purpose,
        protocols: &'static [&'static str],
    ) -> Result<Established, ConnectError> {
        let local = stream.local_addr().ok();
        let mut sent = 0;
        let mut socket = &*self.socket;
        while let TransportSocket::ProxyProtocol(proxy) = socket {
            let header = proxy_header(proxy, purpose, &stream)?;
            stream.write_all(&header).await?;
            sent += header.len() as u64;
            socket = &proxy.inner;
        }
        let Some(context) = &self.tls else {
            return Ok(Established { io: Io::Tcp(stream), local, tls: None, exchange: None, sent });
        };
        let expected = Expected { default_alpn: protocols, ..purpose.expected.clone() };
        // On the heap: connecting without TLS would carry room for it.
        let handshake = Box::pin(context.connect(stream, &expected, &self.hostname));
        let (stream, facts) = handshake.await.map_err(ConnectError::Tls)?;
        let mut io = Io::Tls(Box::new(stream));
        let mut exchanged = None;
        if let Some((protocol, frame)) = &self.exchange {
            (io, exchanged) = exchange(io, protocol, frame).await?;
            sent += if exchanged.is_some() { frame.len() as u64 } else { 0 };
        }
        Ok(Established { io, local, tls: Some(Rc::new(facts)), exchange: exchanged, sent })
    }
}

/// Whoever connected, as the PROXY protocol told it or as the socket shows it.
fn proxied(connection: &ConnectionInfo) -> Rc<ProxyOptions> {
    match &connection.proxy {
        Some(told) => told.clone(),
        None => Rc::new(ProxyOptions {
            source: connection.remote,
            destination: connection.local,
            tlvs: Vec::new(),
        }),
    }
}

/// What filters left for the handshake, and what follows from the request.
fn expected(auto_sni: Option<&AutoSni>, options: TransportOptions<'_>) -> Expected {
    let left = |key| options.record.and_then(|record| record.filter_state(key)).map(|object| &*object.text);
    let list = |key| -> Box<[Box<str>]> {
        left(key).into_iter().flat_map(|text| text.split(',')).map(Box::from).collect()
    };
    let mut expected = Expected {
        server_name: left(SERVER_NAME).map(Box::from),
        names: list(SUBJECT_ALT_NAMES),
        alpn: list(APPLICATION_PROTOCOLS),
        default_alpn: &[],
    };
    if let (Some(auto), Some(request)) = (auto_sni, options.request) {
        let host = requested_host(auto, request);
        let is_name = host.parse::<IpAddr>().is_err();
        if auto.sets_name && is_name && expected.server_name.is_none() {
            expected.server_name = Some(host.into());
        }
        if auto.validates && expected.names.is_empty() {
            expected.names = [host.into()].into();
        }
    }
    expected
}

/// The host of a request, or of the header that takes its place.
fn requested_host<'r>(auto: &AutoSni, request: &'r RequestHead) -> &'r str {
    let header = auto.header.as_ref().and_then(|name| request.headers.get_str(name));
    let authority = request.authority.as_deref().unwrap_or_default();
    let (host, _) = split_port(header.filter(|value| !value.is_empty()).unwrap_or(authority));
    host.trim_start_matches('[').trim_end_matches(']')
}

fn proxy_header(socket: &ProxyProtocolSocket, purpose: &Purpose, stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    match (&purpose.proxied, socket.is_v2) {
        (Some(client), true) => {
            encode_v2(Some((client.source, client.destination)), &tlvs(socket, client), &mut header);
        }
        (Some(client), false) => encode_v1(client.source, client.destination, &mut header),
        (None, is_v2) => own_header(is_v2, stream.local_addr()?, stream.peer_addr()?, &mut header),
    }
    Ok(header)
}

/// The header of a connection that the proxy makes for itself: version 1 names its two ends, version 2 says so
/// (`LOCAL`).
pub(crate) fn own_header(is_v2: bool, local: SocketAddr, remote: SocketAddr, header: &mut Vec<u8>) {
    match is_v2 {
        true => encode_v2(None, &[], header),
        false => encode_v1(local, remote, header),
    }
}

/// What is added comes first, and stands in for what of these types came from the client.
fn tlvs(socket: &ProxyProtocolSocket, client: &ProxyOptions) -> Vec<Tlv> {
    let added = socket.added.iter().map(|tlv| Tlv { kind: tlv.kind, value: (*tlv.value).into() });
    let is_passed = |tlv: &&Tlv| {
        socket.pass_through.includes(tlv.kind) && socket.added.iter().all(|added| added.kind != tlv.kind)
    };
    added.chain(client.tlvs.iter().filter(is_passed).cloned()).collect()
}
