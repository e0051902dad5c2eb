//! What happens to a connection to a host between connecting and the first byte of the protocol that it is for.
//!
//! Owns the transport sockets of `meltemi_compile::program::TransportSocket` on real streams, and what they take over
//! from the client's side. Leaves out dialling (`pool::dial`). Source: Envoy's `UpstreamProxyProtocolSocket` and
//! `TransportSocketOptions`.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use meltemi_compile::program::{ProxyProtocolSocket, TransportSocket};
use meltemi_http::Io;
use meltemi_http::proxy_protocol::{Tlv, encode_v1, encode_v2};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::record::{ConnectionInfo, ProxyOptions};

/// The client's side of a connection that is to be made; empty for what the proxy does by itself.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct TransportOptions<'a> {
    /// The client's connection.
    pub(crate) connection: Option<&'a ConnectionInfo>,
}

/// What a connection was made for: one with another purpose must not be used in its place.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Purpose {
    /// Whom the header of the PROXY protocol names.
    proxied: Option<Rc<ProxyOptions>>,
}

impl Purpose {
    /// What a socket takes over.
    pub(crate) fn new(socket: &TransportSocket, options: TransportOptions<'_>) -> Purpose {
        match socket {
            TransportSocket::RawBuffer => Purpose::default(),
            TransportSocket::ProxyProtocol(socket) => {
                let mut purpose = Purpose::new(&socket.inner, options);
                purpose.proxied = options.connection.map(proxied);
                purpose
            }
        }
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

/// A connection that is ready for its protocol.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) io: Io,
    /// Our address.
    pub(crate) local: Option<SocketAddr>,
    /// Bytes that were sent already.
    pub(crate) sent: u64,
}

/// Makes a connection ready.
pub(crate) async fn establish(
    mut stream: TcpStream,
    socket: &TransportSocket,
    purpose: &Purpose,
) -> io::Result<Established> {
    let local = stream.local_addr().ok();
    let mut sent = 0;
    let mut socket = socket;
    while let TransportSocket::ProxyProtocol(proxy) = socket {
        let header = proxy_header(proxy, purpose, &stream)?;
        stream.write_all(&header).await?;
        sent += header.len() as u64;
        socket = &proxy.inner;
    }
    Ok(Established { io: Io::Tcp(stream), local, sent })
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
