//! Limits and misuse.

use meltemi_envoy::service::discovery::v3::{DeltaDiscoveryRequest, ResourceLocator};

use super::*;

fn on(stream: &mut Stream, request: DeltaDiscoveryRequest) -> Option<String> {
    stream.on(Event::Request(Request::Delta(request))).into_iter().find_map(|action| match action {
        Action::Close(reason) => Some(reason),
        _ => None,
    })
}

fn asking(type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: type_url.to_owned(), ..Default::default() }
}

fn stream() -> Stream {
    Stream::new(Mode::Delta, Arc::default())
}

#[test]
fn what_cannot_be_served_ends_the_stream() {
    assert!(on(&mut stream(), asking("")).expect("closed").contains("type_url"));
    let by_locator = DeltaDiscoveryRequest {
        resource_locators_subscribe: vec![ResourceLocator::default()],
        ..asking(type_url::ROUTE)
    };
    assert!(on(&mut stream(), by_locator).expect("closed").contains("xdstp"));
}

#[test]
fn types_and_names_are_bounded() {
    let mut many_types = stream();
    for index in 0..limits::MAX_TYPES_PER_STREAM {
        assert_eq!(on(&mut many_types, asking(&format!("type-{index}"))), None);
    }
    assert!(on(&mut many_types, asking("one more")).is_some());
    assert_eq!(on(&mut many_types, asking("type-0")), None::<String>, "a known type stays");

    let names = |range: std::ops::Range<usize>| DeltaDiscoveryRequest {
        resource_names_subscribe: range.map(|index| index.to_string()).collect(),
        ..asking(type_url::ENDPOINT)
    };
    let mut many_names = stream();
    assert_eq!(on(&mut many_names, names(0..limits::MAX_NAMES_PER_TYPE)), None);
    assert!(on(&mut many_names, names(limits::MAX_NAMES_PER_TYPE..limits::MAX_NAMES_PER_TYPE + 1)).is_some());
}

#[test]
fn a_long_refusal_is_cut() {
    let mut stream = stream();
    on(&mut stream, asking(type_url::CLUSTER));
    let refusal = DeltaDiscoveryRequest {
        response_nonce: "1".into(),
        error_detail: Some(crate::message::refusal(&"é".repeat(limits::MAX_REASON_BYTES))),
        ..asking(type_url::CLUSTER)
    };
    let actions = stream.on(Event::Request(Request::Delta(refusal)));
    let Some(Action::Rejected(rejection)) = actions.first() else { panic!("{actions:?}") };
    assert!(rejection.reason.len() <= limits::MAX_REASON_BYTES && rejection.reason.starts_with('é'));
}
