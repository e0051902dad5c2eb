//! Listener filters at work: where a connection wanted to go, who is behind a proxy, what the client speaks.
//!
//! They look at the first bytes without taking them, but for the PROXY protocol, whose header is taken. Source: Envoy's
//! `original_dst`, `proxy_protocol`, `tls_inspector` and `http_inspector`.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use meltemi_compile::program::{ListenerFilter, ListenerFilterKind, ProxyProtocol, TlsInspector};
use meltemi_http::proxy_protocol::{self, Header, Parsed, ProxyVersion, Tlv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::client_hello::{self, ClientHello};
use super::request_line::{self, FirstLine};
use crate::record::ProxyOptions;
use crate::stats::{HttpInspectorCounts, ProxyProtocolCounts, TlsInspectorCounts, WorkerStats};

/// Bytes of a request line that are read.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Bytes that are looked at first.
const FIRST_LOOK_BYTES: usize = 2 << 10;

/// What was found out.
#[derive(Debug, Clone, Default)]
pub(super) struct Sniffed {
    /// Where the connection went before it was redirected here, or where its client connected to a proxy before us.
    pub(super) original_destination: Option<SocketAddr>,
    /// The client behind the proxy before us.
    pub(super) remote: Option<SocketAddr>,
    /// SNI.
    pub(super) server_name: Option<Box<str>>,
    /// `tls` or `raw_buffer`; empty until somebody looked.
    pub(super) transport_protocol: &'static str,
    /// ALPN, or the HTTP version.
    pub(super) application_protocols: Vec<Box<str>>,
    /// What the PROXY protocol said, for upstream connections.
    pub(super) proxy: Option<Rc<ProxyOptions>>,
    /// What its values become: namespace, key, value.
    pub(super) metadata: Vec<(Box<str>, Box<str>, String)>,
}

/// Why a connection is closed before it got a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejected {
    /// The client closed.
    RemoteClose,
    /// A filter did not like what came.
    FilterError,
    /// The connection broke.
    Broken,
}

/// The listener filters of a listener, with their counters.
#[derive(Debug)]
pub(super) struct Filters(Vec<(usize, Filter)>);

#[derive(Debug)]
enum Filter {
    OriginalDst,
    Tls(TlsInspector, Arc<TlsInspectorCounts>),
    Http(Arc<HttpInspectorCounts>),
    Proxy(Arc<ProxyProtocol>, Arc<ProxyProtocolCounts>),
}

impl Filters {
    pub(super) fn new(filters: &[ListenerFilter], stats: &WorkerStats) -> Filters {
        let filter = |filter: &ListenerFilter| match &filter.kind {
            ListenerFilterKind::OriginalDst => Filter::OriginalDst,
            ListenerFilterKind::TlsInspector(settings) => Filter::Tls(*settings, stats.tls_inspector()),
            ListenerFilterKind::HttpInspector => Filter::Http(stats.http_inspector()),
            ListenerFilterKind::ProxyProtocol(settings) => {
                Filter::Proxy(settings.clone(), stats.proxy_protocol(&settings.stat_prefix))
            }
        };
        Filters(filters.iter().map(filter).enumerate().collect())
    }

    /// Runs those that are not disabled for the connection. What was found stays in `sniffed` when it is cancelled.
    pub(super) async fn run(
        &self,
        stream: &TcpStream,
        settings: &[ListenerFilter],
        local: SocketAddr,
        is_transparent: bool,
        sniffed: &mut Sniffed,
    ) -> Result<(), Rejected> {
        for (index, filter) in &self.0 {
            let port = sniffed.original_destination.unwrap_or(local).port();
            if settings[*index].disabled.as_ref().is_some_and(|disabled| disabled.holds(port)) {
                continue;
            }
            match filter {
                Filter::OriginalDst => {
                    let transparent = is_transparent.then_some(local);
                    sniffed.original_destination =
                        original_destination(stream, local).or(transparent).or(sniffed.original_destination);
                }
                Filter::Tls(settings, counts) => inspect_tls(stream, settings, counts, sniffed).await?,
                Filter::Http(counts) if sniffed.transport_protocol != "tls" => {
                    inspect_http(stream, counts, sniffed).await?;
                }
                Filter::Http(_) => {}
                Filter::Proxy(settings, counts) => {
                    take_proxy_header(stream, settings, counts, sniffed).await?;
                }
            }
        }
        Ok(())
    }
}

/// What some first bytes tell.
enum Look<T> {
    /// More bytes are needed.
    More,
    /// All that can be known.
    Done(T),
}

/// Shows `look` the first bytes again and again as they come, up to `max_bytes`.
async fn peek<T>(
    stream: &TcpStream,
    max_bytes: usize,
    mut look: impl FnMut(&[u8]) -> Look<T>,
) -> Result<T, Rejected> {
    let mut buffer = vec![0; FIRST_LOOK_BYTES.min(max_bytes)];
    loop {
        let ready = stream.ready(Interest::READABLE).await.map_err(|_| Rejected::Broken)?;
        let looked = stream.try_io(Interest::READABLE, || {
            loop {
                let count = peek_now(stream, &mut buffer)?;
                match look(&buffer[..count]) {
                    Look::Done(found) => return Ok(found),
                    Look::More if count == buffer.len() && count < max_bytes => {
                        buffer.resize((count * 2).min(max_bytes), 0);
                    }
                    // Says that nothing more is there now: the next bytes make the socket ready again.
                    Look::More => return Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        });
        match looked {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Rejected::Broken),
        }
        if ready.is_read_closed() {
            return Err(Rejected::RemoteClose);
        }
    }
}

fn peek_now(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let (count, _) = rustix::net::recv(stream, buffer, rustix::net::RecvFlags::PEEK)?;
    Ok(count)
}

async fn inspect_tls(
    stream: &TcpStream,
    settings: &TlsInspector,
    counts: &TlsInspectorCounts,
    sniffed: &mut Sniffed,
) -> Result<(), Rejected> {
    let max_bytes = usize::try_from(settings.max_client_hello_bytes).unwrap_or(usize::MAX);
    let looked = peek(stream, max_bytes, |bytes| match client_hello::parse(bytes, max_bytes) {
        ClientHello::Partial => Look::More,
        hello => {
            counts.bytes_processed.record(bytes.len() as u64);
            Look::Done(hello)
        }
    });
    match looked.await? {
        ClientHello::Whole { server_name, protocols, .. } => {
            let count = |is_there: bool, found: &crate::stats::Counter, missing: &crate::stats::Counter| {
                if is_there { found.inc() } else { missing.inc() }
            };
            counts.tls_found.inc();
            count(server_name.is_some(), &counts.sni_found, &counts.sni_not_found);
            count(!protocols.is_empty(), &counts.alpn_found, &counts.alpn_not_found);
            sniffed.transport_protocol = "tls";
            sniffed.server_name = server_name;
            sniffed.application_protocols = protocols;
            Ok(())
        }
        ClientHello::TooLarge => {
            counts.client_hello_too_large.inc();
            Err(Rejected::FilterError)
        }
        // What is not TLS at all is an error of its parser, too.
        ClientHello::Malformed | ClientHello::None if settings.closes_on_errors => {
            counts.tls_not_found.inc();
            Err(Rejected::FilterError)
        }
        ClientHello::Malformed | ClientHello::None | ClientHello::Partial => {
            counts.tls_not_found.inc();
            sniffed.transport_protocol = "raw_buffer";
            Ok(())
        }
    }
}

async fn inspect_http(
    stream: &TcpStream,
    counts: &HttpInspectorCounts,
    sniffed: &mut Sniffed,
) -> Result<(), Rejected> {
    let looked = peek(stream, MAX_LINE_BYTES, |bytes| match request_line::parse(bytes) {
        FirstLine::Partial => Look::More,
        line => Look::Done(line),
    });
    let (counter, protocol) = match looked.await? {
        FirstLine::Http10 => (&counts.http10_found, Some("http/1.0")),
        FirstLine::Http11 => (&counts.http11_found, Some("http/1.1")),
        FirstLine::Http2 => (&counts.http2_found, Some("h2c")),
        FirstLine::Other | FirstLine::Partial => (&counts.http_not_found, None),
    };
    counter.inc();
    if let Some(protocol) = protocol {
        sniffed.application_protocols = vec![protocol.into()];
    }
    Ok(())
}

async fn take_proxy_header(
    stream: &TcpStream,
    settings: &ProxyProtocol,
    counts: &ProxyProtocolCounts,
    sniffed: &mut Sniffed,
) -> Result<(), Rejected> {
    let looked = peek(stream, proxy_protocol::MAX_BYTES, |bytes| match proxy_protocol::parse(bytes) {
        Parsed::Partial(_) => Look::More,
        parsed => Look::Done(parsed),
    });
    let header = match looked.await? {
        Parsed::Header(header) => header,
        Parsed::Malformed(version) => {
            let (_, _, errors) = counts.of(version);
            errors.inc();
            return Err(Rejected::FilterError);
        }
        Parsed::Absent | Parsed::Partial(_) => {
            if settings.allows_absent {
                counts.not_found_allowed.inc();
                return Ok(());
            }
            counts.not_found_disallowed.inc();
            return Err(Rejected::FilterError);
        }
    };
    let (found, refused, _) = counts.of(header.version);
    found.inc();
    let is_refused = match header.version {
        ProxyVersion::V1 => settings.refuses_v1,
        ProxyVersion::V2 => settings.refuses_v2,
    };
    if is_refused {
        refused.inc();
        return Err(Rejected::FilterError);
    }
    take(stream, header.len)?;
    apply(header, settings, sniffed);
    Ok(())
}

/// Takes bytes that were seen.
fn take(stream: &TcpStream, count: usize) -> Result<(), Rejected> {
    let mut left = vec![0; count];
    let mut at = 0;
    while at < count {
        match rustix::net::recv(stream, &mut left[at..], rustix::net::RecvFlags::empty()) {
            Ok((1.., read)) => at += read,
            _ => return Err(Rejected::Broken),
        }
    }
    Ok(())
}

fn apply(header: Header, settings: &ProxyProtocol, sniffed: &mut Sniffed) {
    let Some((source, destination)) = header.addresses else { return };
    sniffed.remote = Some(source);
    sniffed.original_destination = Some(destination);
    for rule in &settings.rules {
        for tlv in header.tlvs.iter().filter(|tlv| tlv.kind == rule.kind) {
            let value = if rule.is_base64 { base64(&tlv.value) } else { sanitized(&tlv.value) };
            sniffed.metadata.push((rule.namespace.clone(), rule.key.clone(), value));
        }
    }
    let passed = |tlv: &Tlv| settings.pass_through.includes(tlv.kind);
    let tlvs = header.tlvs.into_iter().filter(passed).collect();
    sniffed.proxy = Some(Rc::new(ProxyOptions { source, destination, tlvs }));
}

/// Every byte that is no UTF-8 becomes `!`, as in Envoy.
fn sanitized(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '!'));
    }
    text
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            text.push(match digit <= chunk.len() {
                true => char::from(DIGITS[(group >> (18 - 6 * digit) & 63) as usize]),
                false => '=',
            });
        }
    }
    text
}

/// `SO_ORIGINAL_DST`, which knows connections that the kernel redirected.
fn original_destination(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let original = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    original.ok()?.as_socket()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_text() {
        assert_eq!(sanitized(b"host.x"), "host.x");
        assert_eq!(sanitized(b"\xff\xfe!\xc3\xa9"), "!!!é");
        let encoded: Vec<String> = [&b""[..], b"f", b"fo", b"foo", b"foob"].map(base64).into();
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }
}
