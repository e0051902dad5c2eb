//! SNI and ALPN out of the first bytes of a TLS connection.
//!
//! Reads only what the choice of a filter chain and of settings needs (RFC 8446, 4.1.2; RFC 6066, 3; RFC 7301), also of a
//! hello that is split over several records (RFC 8446, 5.1).

use std::borrow::Cow;

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientHello {
    /// Not TLS.
    None,
    /// TLS, but no hello that makes sense.
    Malformed,
    /// Longer than what is read.
    TooLarge,
    /// The beginning of one.
    Partial,
    /// One, with what it asks for.
    Whole {
        /// Lower case.
        server_name: Option<Box<str>>,
        /// ALPN, in order.
        protocols: Vec<Box<str>>,
        /// TLS 1.3 is among the versions.
        offers_tls13: bool,
        /// It asks for an OCSP response.
        asks_for_status: bool,
    },
}

/// Type, version and length of a record.
const RECORD_HEADER_BYTES: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
/// RFC 6066, 8.
const EXTENSION_STATUS: u16 = 5;
const STATUS_OCSP: u8 = 1;
const EXTENSION_ALPN: u16 = 16;
const EXTENSION_VERSIONS: u16 = 43;
const TLS13: u16 = 0x0304;

/// Looks at the first bytes of a connection. Fewer than a record header decide nothing, as in Envoy.
pub(crate) fn parse(bytes: &[u8], max_bytes: usize) -> ClientHello {
    let message = match message(bytes, max_bytes) {
        Ok(message) => message,
        Err(other) => return other,
    };
    let mut found = Found::default();
    if read_hello(Reader(&message), &mut found).is_none() {
        return ClientHello::Malformed;
    }
    let Found { server_name, protocols, offers_tls13, asks_for_status } = found;
    ClientHello::Whole { server_name, protocols, offers_tls13, asks_for_status }
}

/// The first message, put together of the records that hold it; or what the bytes are instead.
fn message(bytes: &[u8], max_bytes: usize) -> Result<Cow<'_, [u8]>, ClientHello> {
    let mut rest = Reader(bytes);
    let mut message: Cow<'_, [u8]> = Cow::default();
    loop {
        let header = rest.take(RECORD_HEADER_BYTES).ok_or(ClientHello::Partial)?;
        if header[0] != HANDSHAKE || header[1] != 3 {
            return Err(if message.is_empty() { ClientHello::None } else { ClientHello::Malformed });
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if bytes.len() - rest.0.len() + length > max_bytes {
            return Err(ClientHello::TooLarge);
        }
        let record = rest.take(length).ok_or(ClientHello::Partial)?;
        match message.is_empty() {
            true => message = Cow::Borrowed(record),
            false => message.to_mut().extend_from_slice(record),
        }
        match *message {
            [CLIENT_HELLO, a, b, c, ref body @ ..]
                if body.len() >= u32::from_be_bytes([0, a, b, c]) as usize =>
            {
                return Ok(message);
            }
            [CLIENT_HELLO, ..] if length > 0 => {}
            _ => return Err(ClientHello::Malformed),
        }
    }
}

#[derive(Default)]
struct Found {
    server_name: Option<Box<str>>,
    protocols: Vec<Box<str>>,
    offers_tls13: bool,
    asks_for_status: bool,
}

fn read_hello(mut hello: Reader<'_>, found: &mut Found) -> Option<()> {
    // Type, length, version, random.
    hello.take(1 + 3 + 2 + 32)?;
    let session = hello.u8()?;
    hello.take(usize::from(session))?;
    let suites = hello.u16()?;
    hello.take(usize::from(suites))?;
    let compressions = hello.u8()?;
    hello.take(usize::from(compressions))?;
    // A hello without extensions ends here.
    let Some(length) = hello.u16() else { return Some(()) };
    let mut extensions = Reader(hello.take(usize::from(length))?);
    while let Some(kind) = extensions.u16() {
        let length = extensions.u16()?;
        let body = Reader(extensions.take(usize::from(length))?);
        match kind {
            EXTENSION_SERVER_NAME => found.server_name = server_name(body),
            EXTENSION_VERSIONS => found.offers_tls13 = has_tls13(body),
            EXTENSION_STATUS => found.asks_for_status = body.0.first() == Some(&STATUS_OCSP),
            EXTENSION_ALPN => found.protocols = protocols(body).unwrap_or_default(),
            _ => {}
        }
    }
    Some(())
}

fn server_name(mut body: Reader<'_>) -> Option<Box<str>> {
    // Length of the list, then type 0 (host name) and the name.
    body.u16()?;
    if body.u8()? != 0 {
        return None;
    }
    let length = body.u16()?;
    let name = std::str::from_utf8(body.take(usize::from(length))?).ok()?;
    Some(name.to_ascii_lowercase().into())
}

/// Source: RFC 8446, 4.2.1.
fn has_tls13(mut body: Reader<'_>) -> bool {
    let _length = body.u8();
    std::iter::from_fn(|| body.u16()).any(|version| version == TLS13)
}

fn protocols(mut body: Reader<'_>) -> Option<Vec<Box<str>>> {
    body.u16()?;
    let mut all = Vec::new();
    while let Some(length) = body.u8() {
        all.push(std::str::from_utf8(body.take(usize::from(length))?).ok()?.into());
    }
    Some(all)
}

/// Reads from the front; `None` past the end.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Vec<u8> {
        let name = b"Shop.Example";
        let mut sni = vec![0, name.len() as u8 + 3, 0, 0, name.len() as u8];
        sni.extend_from_slice(name);
        let alpn = [0, 12, 2, b'h', b'2', 8, b'h', b't', b't', b'p', b'/', b'1', b'.', b'1'];
        let mut extensions = vec![0, 0, 0, sni.len() as u8];
        extensions.extend_from_slice(&sni);
        extensions.extend_from_slice(&[0, 16, 0, alpn.len() as u8]);
        extensions.extend_from_slice(&alpn);
        let mut body = vec![3, 3];
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&[0, 0, 2, 0x13, 0x01, 1, 0, 0, extensions.len() as u8]);
        body.extend_from_slice(&extensions);
        let mut record = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
        record.extend_from_slice(&body);
        record
    }

    const MAX: usize = 16 << 10;

    #[test]
    fn a_hello_tells_name_and_protocols() {
        let whole = ClientHello::Whole {
            server_name: Some("shop.example".into()),
            protocols: vec!["h2".into(), "http/1.1".into()],
            offers_tls13: false,
            asks_for_status: false,
        };
        assert_eq!(parse(&hello(), MAX), whole);
    }

    #[test]
    fn a_part_of_a_hello_asks_for_more_and_other_bytes_are_not_tls() {
        let hello = hello();
        for cut in 0..hello.len() {
            assert_eq!(parse(&hello[..cut], MAX), ClientHello::Partial, "{cut}");
        }
        assert_eq!(parse(b"GET / HTTP/1.1\r\n", MAX), ClientHello::None);
        assert_eq!(parse(b"GET", MAX), ClientHello::Partial);
    }

    #[test]
    fn a_hello_in_pieces_is_put_together() {
        let whole = hello();
        for size in [1, 3, 4, 5, 50] {
            let pieces = whole[RECORD_HEADER_BYTES..].chunks(size);
            let split: Vec<u8> =
                pieces.flat_map(|piece| [&[22, 3, 1, 0, piece.len() as u8], piece].concat()).collect();
            assert_eq!(parse(&split, MAX), parse(&whole, MAX), "{size}");
            assert_eq!(parse(&split[..split.len() - 1], MAX), ClientHello::Partial, "{size}");
            assert_eq!(parse(&split, split.len() - 1), ClientHello::TooLarge, "{size}");
        }
        let empty = [&[22, 3, 1, 0, 0], &whole[..]].concat();
        assert_eq!(parse(&empty, MAX), ClientHello::Malformed);
        let cut = [&[22, 3, 1, 0, 1, 1], &b"GET / HTTP/1.1"[..]].concat();
        assert_eq!(parse(&cut, MAX), ClientHello::Malformed);
    }

    #[test]
    fn broken_and_long_hellos_are_told_apart() {
        let mut broken = hello();
        broken[43..].fill(0xff);
        assert_eq!(parse(&broken, MAX), ClientHello::Malformed);
        assert_eq!(parse(&hello(), 64), ClientHello::TooLarge);
    }

    /// The hello of a client that exists: of rustls, as this binary speaks it.
    fn real_hello() -> Vec<u8> {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let mut config = builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = "shop.example".try_into().expect("name");
        let mut client = rustls::ClientConnection::new(config.into(), name).expect("client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("a vector takes it");
        bytes
    }

    #[test]
    fn a_real_hello_is_read_whole() {
        let ClientHello::Whole { server_name, protocols, offers_tls13, asks_for_status } =
            parse(&real_hello(), MAX)
        else {
            panic!("not read");
        };
        assert_eq!(server_name.as_deref(), Some("shop.example"));
        assert_eq!(protocols, ["h2".into(), "http/1.1".into()]);
        assert!(offers_tls13 && asks_for_status);
    }

    proptest::proptest! {
        #[test]
        fn damaged_hellos_are_parsed_without_a_panic(
            damage in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0_u8..), 1..8),
            cut in proptest::option::of(proptest::prelude::any::<proptest::sample::Index>()),
            is_real: bool,
        ) {
            let mut bytes = if is_real { real_hello() } else { hello() };
            for (index, byte) in damage {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
                // A record that says how long it now is: the hello itself is cut.
                if let Some(length) = bytes.len().checked_sub(RECORD_HEADER_BYTES) {
                    bytes[3..RECORD_HEADER_BYTES].copy_from_slice(&(length as u16).to_be_bytes());
                }
            }
            parse(&bytes, MAX);
        }

        #[test]
        fn any_bytes_are_parsed_without_a_panic(mut bytes in proptest::collection::vec(0_u8.., 0..300), is_hello: bool) {
            if is_hello {
                let length = bytes.len() as u16;
                let mut record = vec![22, 3, 1];
                record.extend_from_slice(&length.to_be_bytes());
                record.append(&mut bytes);
                bytes = record;
            }
            parse(&bytes, MAX);
        }
    }
}
