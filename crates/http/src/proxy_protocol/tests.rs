use proptest::prelude::*;

use super::*;

fn v1(line: &str) -> Parsed {
    parse(line.as_bytes())
}

fn addresses(parsed: Parsed) -> Option<(String, String)> {
    let Parsed::Header(header) = parsed else { panic!("{parsed:?}") };
    header.addresses.map(|(source, destination)| (source.to_string(), destination.to_string()))
}

#[test]
fn a_line_names_both_ends() {
    let both = addresses(v1("PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\nGET /"));
    assert_eq!(both, Some(("1.2.3.4:1111".into(), "5.6.7.8:2222".into())));
    let both = addresses(v1("PROXY TCP6 2001:db8::1 ::2 1 2\r\n"));
    assert_eq!(both, Some(("[2001:db8::1]:1".into(), "[::2]:2".into())));
    assert_eq!(addresses(v1("PROXY UNKNOWN\r\n")), None);
    assert_eq!(addresses(v1("PROXY UNKNOWN ffff::1 x\r\n")), None);
}

#[test]
fn a_line_that_is_not_exact_is_refused() {
    for line in [
        "PROXY TCP4 1.2.3 5.6.7.8 1111 2222\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 99999 2222\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2222\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY  TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222 3\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1111 2222\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\nGET / HTTP/1.1\r\n",
    ] {
        assert_eq!(v1(line), Parsed::Malformed(ProxyVersion::V1), "{line:?}");
    }
    let long = format!("PROXY TCP4 {}", "x".repeat(200));
    assert_eq!(v1(&long), Parsed::Malformed(ProxyVersion::V1));
}

#[test]
fn other_bytes_are_no_header_and_beginnings_are_partial() {
    assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Parsed::Absent);
    assert_eq!(parse(b"PRI * HTTP/2.0\r\n"), Parsed::Absent);
    assert_eq!(parse(b"\r\n\r\nX"), Parsed::Absent);
    assert_eq!(parse(b"\r\n"), Parsed::Partial(16));
    assert_eq!(parse(b"PROX"), Parsed::Partial(5));
}

#[test]
fn binary_headers_of_no_ip_family_or_with_broken_values_are_refused() {
    let header = |command: u8, family: u8, body: &[u8]| {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend_from_slice(&[command, family, 0, body.len() as u8]);
        bytes.extend_from_slice(body);
        parse(&bytes)
    };
    let malformed = || Parsed::Malformed(ProxyVersion::V2);
    assert_eq!(header(0x21, 0, &[]), malformed());
    assert_eq!(header(0x21, 0x31, &[0; 216]), malformed());
    assert_eq!(header(0x25, 0x11, &[0; 12]), malformed());
    assert_eq!(header(0x31, 0x11, &[0; 12]), malformed());
    assert_eq!(header(0x21, 0x11, &[0; 8]), malformed());
    assert_eq!(header(0x21, 0x11, &[1; 14]), malformed());
    assert_eq!(addresses(header(0x20, 0, &[9; 3])), None);
}

fn address() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let four = (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let six = (any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let ports = (any::<u16>(), any::<u16>());
    (prop_oneof![four, six], ports)
        .prop_map(|((a, b), (p, q))| (SocketAddr::new(a, p), SocketAddr::new(b, q)))
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
        let start: &[u8] = [&b""[..], b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x20"][kind as usize];
        let all = [start, &bytes].concat();
        if let Parsed::Header(header) = parse(&all) {
            prop_assert!(header.len <= all.len());
        }
    }

    #[test]
    fn what_is_encoded_is_parsed_and_every_beginning_is_partial(
        addresses in address(),
        tlvs in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..4),
        is_v2 in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        let tlvs: Vec<Tlv> = tlvs.into_iter().map(|(kind, value)| Tlv { kind, value: value.into() }).collect();
        match is_v2 {
            true => encode_v2(Some(addresses), &tlvs, &mut bytes),
            false => encode_v1(addresses.0, addresses.1, &mut bytes),
        }
        let version = if is_v2 { ProxyVersion::V2 } else { ProxyVersion::V1 };
        let tlvs = if is_v2 { tlvs } else { vec![] };
        let header = Header { version, addresses: Some(addresses), tlvs, len: bytes.len() };
        for cut in 0..bytes.len() {
            prop_assert!(matches!(parse(&bytes[..cut]), Parsed::Partial(_)), "{cut}");
        }
        bytes.extend_from_slice(b"tail");
        prop_assert_eq!(parse(&bytes), Parsed::Header(header));
    }
}
