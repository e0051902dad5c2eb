//! The PROXY protocol, versions 1 and 2: who a proxy's client is, in front of the first bytes of a connection.
//!
//! Owns the pure codec; listeners parse, upstream connections encode. As strict as Envoy: one blank between the words of
//! version 1, no port above 65535, no address family but IP.
//! Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The longest header of version 1, with its line end.
const MAX_V1_BYTES: usize = 107;

/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// The longest header: the length of version 2 is a `u16`.
pub const MAX_BYTES: usize = V2_FIXED_BYTES + u16::MAX as usize;

/// Which of the two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A header.
    Header(Header),
    /// The beginning of one; it is at least so many bytes long.
    Partial(usize),
    /// Something else.
    Absent,
    /// A header that is not valid.
    Malformed(ProxyVersion),
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// How it came.
    pub version: ProxyVersion,
    /// Source and destination; `None` when the sender speaks for itself (`UNKNOWN`, `LOCAL`).
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// What follows the addresses in version 2.
    pub tlvs: Vec<Tlv>,
    /// Bytes of the header.
    pub len: usize,
}

/// A type, a length and a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tlv {
    /// The type, such as `0x02` for the host name that the client asked for.
    pub kind: u8,
    /// The value.
    pub value: Box<[u8]>,
}

/// Reads the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Parsed {
    let starts = |with: &[u8]| bytes.starts_with(with) || with.starts_with(bytes);
    if starts(SIGNATURE) {
        parse_v2(bytes)
    } else if starts(b"PROXY ") {
        parse_v1(bytes)
    } else {
        Parsed::Absent
    }
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    let head = &bytes[..bytes.len().min(MAX_V1_BYTES)];
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        return match head.len() < MAX_V1_BYTES {
            true => Parsed::Partial(head.len() + 1),
            false => Parsed::Malformed(ProxyVersion::V1),
        };
    };
    let addresses = match std::str::from_utf8(&head[..end]) {
        Ok(line) => addresses_v1(line),
        Err(_) => None,
    };
    match addresses {
        Some(addresses) => {
            Parsed::Header(Header { version: ProxyVersion::V1, addresses, tlvs: Vec::new(), len: end + 2 })
        }
        None => Parsed::Malformed(ProxyVersion::V1),
    }
}

/// Outer `None`: not valid.
fn addresses_v1(line: &str) -> Option<Option<(SocketAddr, SocketAddr)>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let ip: fn(&str) -> Option<IpAddr> = match family {
        "TCP4" => |text| Ipv4Addr::from_str(text).ok().map(IpAddr::V4),
        "TCP6" => |text| Ipv6Addr::from_str(text).ok().map(IpAddr::V6),
        _ => return None,
    };
    let (source, destination) = (ip(words.next()?)?, ip(words.next()?)?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    let is_end = words.next().is_none();
    is_end.then_some(Some((
        SocketAddr::new(source, source_port),
        SocketAddr::new(destination, destination_port),
    )))
}

fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn parse_v2(bytes: &[u8]) -> Parsed {
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED_BYTES) else {
        return Parsed::Partial(V2_FIXED_BYTES);
    };
    let malformed = Parsed::Malformed(ProxyVersion::V2);
    let is_local = match fixed[12] {
        0x20 => true,
        0x21 => false,
        _ => return malformed,
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let Some(body) = rest.get(..length) else { return Parsed::Partial(V2_FIXED_BYTES + length) };
    let (addresses, tlvs) = match is_local {
        true => (None, Some(Vec::new())),
        false => match addresses_v2(fixed[13], body) {
            Some((addresses, tlvs)) => (Some(addresses), parse_tlvs(tlvs)),
            None => return malformed,
        },
    };
    match tlvs {
        Some(tlvs) => Parsed::Header(Header {
            version: ProxyVersion::V2,
            addresses,
            tlvs,
            len: V2_FIXED_BYTES + length,
        }),
        None => malformed,
    }
}

/// The addresses of an IP family (stream or datagram), and what follows them.
fn addresses_v2(family: u8, body: &[u8]) -> Option<((SocketAddr, SocketAddr), &[u8])> {
    let port = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    match family {
        0x11 | 0x12 => {
            let (raw, rest) = body.split_first_chunk::<12>()?;
            let ip = |at: usize| Ipv4Addr::new(raw[at], raw[at + 1], raw[at + 2], raw[at + 3]).into();
            let source = SocketAddr::new(ip(0), port(&raw[8..]));
            Some(((source, SocketAddr::new(ip(4), port(&raw[10..]))), rest))
        }
        0x21 | 0x22 => {
            let (raw, rest) = body.split_first_chunk::<36>()?;
            let ip = |at: usize| -> Option<IpAddr> {
                raw[at..].first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into())
            };
            let source = SocketAddr::new(ip(0)?, port(&raw[32..]));
            Some(((source, SocketAddr::new(ip(16)?, port(&raw[34..]))), rest))
        }
        _ => None,
    }
}

fn parse_tlvs(mut bytes: &[u8]) -> Option<Vec<Tlv>> {
    let mut tlvs = Vec::new();
    while !bytes.is_empty() {
        let (&[kind, high, low], rest) = bytes.split_first_chunk::<3>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        tlvs.push(Tlv { kind, value: value.into() });
        bytes = rest;
    }
    Some(tlvs)
}

/// Appends a header of version 1; `UNKNOWN` when the families differ.
pub fn encode_v1(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let line = match (source, destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) | (SocketAddr::V6(_), SocketAddr::V6(_)) => format!(
            "PROXY TCP{} {} {} {} {}\r\n",
            if source.is_ipv4() { 4 } else { 6 },
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        ),
        _ => "PROXY UNKNOWN\r\n".to_owned(),
    };
    out.extend_from_slice(line.as_bytes());
}

/// Appends a header of version 2: `LOCAL` without addresses, or with those of differing families. TLVs that do not fit
/// into the length are left out.
pub fn encode_v2(addresses: Option<(SocketAddr, SocketAddr)>, tlvs: &[Tlv], out: &mut Vec<u8>) {
    let mut body = Vec::new();
    let family = match addresses {
        Some((SocketAddr::V4(source), SocketAddr::V4(destination))) => {
            body.extend_from_slice(&source.ip().octets());
            body.extend_from_slice(&destination.ip().octets());
            0x11
        }
        Some((SocketAddr::V6(source), SocketAddr::V6(destination))) => {
            body.extend_from_slice(&source.ip().octets());
            body.extend_from_slice(&destination.ip().octets());
            0x21
        }
        _ => 0,
    };
    if let (true, Some((source, destination))) = (family != 0, addresses) {
        body.extend_from_slice(&source.port().to_be_bytes());
        body.extend_from_slice(&destination.port().to_be_bytes());
    }
    for tlv in tlvs {
        let Ok(length) = u16::try_from(tlv.value.len()) else { continue };
        if body.len() + 3 + tlv.value.len() <= usize::from(u16::MAX) {
            body.push(tlv.kind);
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(&tlv.value);
        }
    }
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[if family == 0 { 0x20 } else { 0x21 }, family]);
    let length = u16::try_from(body.len()).expect("invariant: what does not fit is left out");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&body);
}

#[cfg(test)]
mod tests;
