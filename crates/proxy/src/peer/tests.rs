//! What is told and what is understood, damaged or not.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::{HeaderName, HeaderValue};
use meltemi_envoy::Any;
use meltemi_envoy::config::core::v3::{Locality, Node};
use meltemi_http::Headers;
use proptest::prelude::*;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use super::cache::MAX_PEERS;
use super::*;

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn structure<const N: usize>(fields: [(&str, Value); N]) -> Struct {
    Struct { fields: fields.map(|(key, value)| (key.to_owned(), value)).into() }
}

fn node() -> Node {
    let labels =
        structure([("app", text("reviews")), ("version", text("v2")), ("pod-template-hash", text("1"))]);
    let metadata = structure([
        ("NAME", text("reviews-v2-abc")),
        ("NAMESPACE", text("shop")),
        ("WORKLOAD_NAME", text("reviews-v2")),
        ("OWNER", text("kubernetes://apis/apps/v1/namespaces/shop/deployments/reviews-v2")),
        ("CLUSTER_ID", text("Kubernetes")),
        ("SECRET_OF_OURS", text("not to be told")),
        ("LABELS", Value { kind: Some(Kind::StructValue(labels)) }),
    ]);
    Node {
        id: "sidecar~10.0.0.1~reviews-v2-abc.shop~shop.svc.cluster.local".to_owned(),
        metadata: Some(metadata),
        locality: Some(Locality { region: "r1".to_owned(), zone: "z1".to_owned(), ..Locality::default() }),
        ..Node::default()
    }
}

/// What others make of [`node`].
fn reviews() -> Workload {
    Workload {
        workload: Some("reviews-v2".into()),
        namespace: Some("shop".into()),
        app: Some("reviews".into()),
        version: Some("v2".into()),
        canonical_service: Some("reviews".into()),
        canonical_revision: Some("v2".into()),
        cluster: Some("Kubernetes".into()),
    }
}

/// What is told is what Istio's proxies tell, in the order of keys.
const TOLD: [&str; 8] =
    ["AVAILABILITY_ZONE", "CLUSTER_ID", "LABELS", "NAME", "NAMESPACE", "OWNER", "REGION", "WORKLOAD_NAME"];

#[test]
fn what_we_tell_is_understood() {
    let facts = NodeFacts::new(&node());
    let header = facts.metadata().unwrap();
    let told = Struct::decode(&*STANDARD.decode(header).unwrap()).unwrap();
    assert_eq!(told.fields.keys().collect::<Vec<_>>(), TOLD);
    assert_eq!(metadata::of_header(header.as_bytes()), Some(reviews()));
    assert_eq!(header, NodeFacts::new(&node()).metadata().unwrap(), "the same every time");
    assert_eq!(metadata::of_frame(&facts.frame()[8..]), Some(reviews()));
}

/// Bytes as Envoy's filter writes them: `Struct` in an `Any`, no other keys than these.
#[test]
fn what_istio_tells_is_understood() {
    let labels = structure([
        ("service.istio.io/canonical-name", text("ratings")),
        ("service.istio.io/canonical-revision", text("v3")),
        ("app", text("other")),
        ("app.kubernetes.io/name", text("ratings-app")),
    ]);
    let told = structure([
        ("WORKLOAD_NAME", text("ratings-v3")),
        ("NAMESPACE", text("default")),
        ("LABELS", Value { kind: Some(Kind::StructValue(labels)) }),
    ]);
    let expected = Workload {
        workload: Some("ratings-v3".into()),
        namespace: Some("default".into()),
        app: Some("ratings-app".into()),
        canonical_service: Some("ratings".into()),
        canonical_revision: Some("v3".into()),
        ..Workload::default()
    };
    for header in [STANDARD.encode(told.encode_to_vec()), STANDARD_NO_PAD.encode(told.encode_to_vec())] {
        assert_eq!(metadata::of_header(header.as_bytes()), Some(expected.clone()));
    }
    let frame = structure([("x-envoy-peer-metadata", Value { kind: Some(Kind::StructValue(told)) })]);
    let any = Any {
        type_url: "type.googleapis.com/google.protobuf.Struct".to_owned(),
        value: frame.encode_to_vec().into(),
    };
    assert_eq!(metadata::of_frame(&any.encode_to_vec()), Some(expected));
}

#[test]
fn what_cannot_be_understood_says_nothing() {
    let deep = (0..200)
        .fold(text("x"), |inner, _| Value { kind: Some(Kind::StructValue(structure([("a", inner)]))) });
    let deep = STANDARD.encode(structure([("LABELS", deep)]).encode_to_vec());
    let large = STANDARD.encode(structure([("NAME", text(&"x".repeat(20_000)))]).encode_to_vec());
    for header in ["", "%%%", "AAAA", "\u{1}", &deep, &large] {
        let workload = metadata::of_header(header.as_bytes());
        assert!(workload.is_none_or(|workload| workload.workload.is_none()), "{header}");
    }
    let long = structure([("WORKLOAD_NAME", text(&"w".repeat(257))), ("NAMESPACE", text(&"n".repeat(256)))]);
    let workload = metadata::of_header(metadata::to_header(&long).as_bytes()).unwrap();
    assert_eq!((workload.workload, workload.namespace), (None, Some("n".repeat(256).into())));
    let other = Any { type_url: "type.googleapis.com/google.protobuf.Value".to_owned(), value: "".into() };
    assert_eq!(metadata::of_frame(&other.encode_to_vec()), None);
}

fn headers(metadata: &str) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in [
        ("x-envoy-peer-metadata-id", "someone"),
        ("x-envoy-peer-metadata", metadata),
        ("x-envoy-peer-metadata", "again"),
        ("kept", "1"),
    ] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn a_message_is_read_once_and_keeps_nothing_of_it() {
    let peers = Peers::default();
    let facts = NodeFacts::new(&node());
    let value = facts.metadata().unwrap().to_str().unwrap();
    let (mut first, mut second) = (headers(value), headers(value));
    let (peer, told) = peers.take(&mut first);
    assert_eq!(told, Told { id: true, metadata: true });
    assert_eq!(first.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["kept"]);
    let again = peers.take(&mut second).0.unwrap();
    let peer = peer.unwrap();
    assert!(std::rc::Rc::ptr_eq(&peer.0, &again.0), "the second time nothing is decoded");
    assert_eq!(peer.value(), &reviews());
    assert_eq!(peers.take(&mut headers("%%%")).0, None);
    assert_eq!(peers.take(&mut Headers::new()), (None, Told::default()));
}

#[test]
fn whoever_invents_peers_is_bounded() {
    let peers = Peers::default();
    for index in 0..MAX_PEERS * 3 {
        let told = structure([("WORKLOAD_NAME", text(&format!("w{index}")))]);
        let peer = peers.of_header(metadata::to_header(&told).as_bytes()).unwrap();
        assert_eq!(peer.value().workload.as_deref(), Some(&*format!("w{index}")));
        assert!(peers.len() <= MAX_PEERS);
    }
    assert!(peers.len() > MAX_PEERS / 2);
}

/// A forgotten peer is the same in a key as when it was known.
#[test]
fn equal_peers_are_one_key() {
    let (one, other) = (Interned::new(reviews()), Interned::new(reviews()));
    let keys: std::collections::HashSet<_> = [one.clone(), other.clone(), one].into_iter().collect();
    assert_eq!(keys.len(), 1);
    assert_ne!(other, Interned::new(Workload::default()));
}

#[test]
fn connections_of_one_pair_share_their_principals() {
    let pair = |peer: &str| {
        Interned::of_connection(Principals {
            peer: Some(peer.into()),
            local: Some("spiffe://d/ns/n/sa/us".into()),
        })
    };
    let first = pair("spiffe://d/ns/n/sa/them");
    for number in 0..MAX_PRINCIPALS * 2 {
        let again = pair("spiffe://d/ns/n/sa/them");
        assert_eq!(again, first);
        if number < MAX_PRINCIPALS / 2 {
            assert!(std::rc::Rc::ptr_eq(&again.0, &first.0));
        }
        pair(&format!("spiffe://d/ns/n/sa/{number}"));
    }
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), place in any::<prop::sample::Index>(), value: u8) {
        let _nothing = (metadata::of_header(&bytes), metadata::of_frame(&bytes));
        let facts = NodeFacts::new(&node());
        bytes = facts.frame()[8..].to_vec();
        let at = place.index(bytes.len());
        bytes[at] = value;
        let _workload = metadata::of_frame(&bytes);
        let mut header = facts.metadata().unwrap().as_bytes().to_vec();
        let at = place.index(header.len());
        header[at] = value;
        let _workload = metadata::of_header(&header);
    }
}
