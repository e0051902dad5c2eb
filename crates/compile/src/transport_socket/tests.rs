use std::collections::BTreeMap;

use prost_types::value::Kind;

use super::*;

fn fields(pairs: &[(&str, &str)]) -> Struct {
    let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    Struct { fields: pairs.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect() }
}

fn metadata(pairs: &[(&str, &str)]) -> Option<Arc<Metadata>> {
    let filter_metadata = BTreeMap::from([(MATCH_NAMESPACE.to_owned(), fields(pairs))]);
    Some(Arc::new(Metadata { filter_metadata, ..Metadata::default() }))
}

fn proxy(added: &[(u8, &'static [u8])]) -> TransportSocket {
    TransportSocket::ProxyProtocol(ProxyProtocolSocket {
        is_v2: true,
        pass_through: PassThrough::All,
        added: tlvs(added),
        inner: Box::default(),
    })
}

fn tlvs(pairs: &[(u8, &'static [u8])]) -> Vec<AddedTlv> {
    pairs.iter().map(|(kind, value)| AddedTlv { kind: *kind, value: Bytes::from_static(value) }).collect()
}

fn sockets(matches: &[(&str, &[(&str, &str)])]) -> TransportSockets {
    let socket_match = |(name, criteria): &(&str, &[(&str, &str)])| TransportSocketMatch {
        name: (*name).into(),
        criteria: fields(criteria).fields.into_iter().collect(),
        socket: Arc::new(proxy(&[(1, b"config"), (2, b"config")])),
    };
    TransportSockets { default: Arc::default(), matches: matches.iter().map(socket_match).collect() }
}

#[test]
fn the_endpoint_comes_before_its_locality_and_the_first_match_wins() {
    let sockets = sockets(&[("red", &[("colour", "red")]), ("any-tls", &[("tls", "yes")])]);
    let name = |endpoint: &[(&str, &str)], locality: &[(&str, &str)]| {
        let host =
            Host { metadata: metadata(endpoint), locality_metadata: metadata(locality), ..Host::default() };
        sockets.of(&host).0.to_owned()
    };
    assert_eq!(name(&[("tls", "yes"), ("colour", "red")], &[]), "red");
    assert_eq!(name(&[("tls", "yes"), ("more", "x")], &[("colour", "red")]), "any-tls");
    assert_eq!(name(&[("tls", "no")], &[("colour", "red")]), "red");
    assert_eq!(name(&[], &[("colour", "blue")]), "default");
}

#[test]
fn without_criteria_everything_matches() {
    assert_eq!(sockets(&[("all", &[])]).of(&Host::default()).0, "all");
}

#[test]
fn a_check_has_criteria_of_its_own_but_the_locality_of_its_host() {
    let sockets = sockets(&[("red", &[("colour", "red")]), ("blue", &[("colour", "blue")])]);
    let host = Host {
        metadata: metadata(&[("colour", "red")]),
        locality_metadata: metadata(&[("colour", "blue")]),
        ..Host::default()
    };
    assert_eq!(sockets.of_check(&fields(&[("colour", "red")]), &Host::default()).0, "red");
    assert_eq!(sockets.of_check(&fields(&[("colour", "green")]), &host).0, "blue");
}

#[test]
fn a_host_overrides_added_tlvs() {
    let sockets =
        TransportSockets { default: Arc::new(proxy(&[(1, b"config"), (2, b"config")])), matches: Vec::new() };
    let entry = |kind: u32, value: &'static [u8]| TlvEntry {
        r#type: kind,
        value: Bytes::from_static(value),
        format_string: None,
    };
    let own = PerHostConfig { added_tlvs: vec![entry(2, b"host"), entry(2, b"again"), entry(3, b"host")] };
    let typed = BTreeMap::from([(PROXY_PROTOCOL_NAMESPACE.to_owned(), Any::pack(&own))]);
    let metadata = Metadata { typed_filter_metadata: typed, ..Metadata::default() };
    let host = Host { metadata: Some(Arc::new(metadata)), ..Host::default() };
    let (_, socket) = sockets.of(&host);
    assert_eq!(*socket, proxy(&[(2, b"host"), (2, b"again"), (3, b"host"), (1, b"config")]));
}
