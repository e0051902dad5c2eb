//! What a server may get wrong, and forms that only foreign servers use.

use meltemi_envoy::service::discovery::v3::Resource as Wrapped;

use super::*;

fn cluster(name: &str) -> Any {
    Any {
        type_url: type_url::CLUSTER.to_owned(),
        value: Named { name: name.to_owned() }.encode_to_vec().into(),
    }
}

fn response(resources: Vec<Any>) -> Response {
    Response::Sotw(DiscoveryResponse {
        version_info: "v".into(),
        nonce: "n".into(),
        type_url: type_url::CLUSTER.into(),
        resources,
        ..Default::default()
    })
}

fn subscribed() -> Session {
    let mut session = Session::new(Mode::Sotw, Node::default());
    assert_eq!(session.subscribe(type_url::CLUSTER, Interest::Wildcard), None, "not connected yet");
    assert_eq!(session.connected().len(), 1);
    session
}

fn refused(received: Result<Received, ProtocolError>) -> (DiscoveryRequest, String) {
    match received.expect("within the protocol") {
        Received::Refused(Request::Sotw(request), reason) => (request, reason),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_resource_of_another_type_is_refused_at_once() {
    let mut session = subscribed();
    let stray = Any { type_url: type_url::LISTENER.to_owned(), ..cluster("a") };
    let (request, reason) = refused(session.on_response(response(vec![cluster("a"), stray])));
    assert!(reason.contains(type_url::LISTENER), "{reason}");
    assert_eq!(request.response_nonce, "n");
    assert_eq!(request.version_info, "", "nothing was accepted");
    assert_eq!(request.error_detail.expect("an error").message, reason);
    assert_eq!(session.known(type_url::CLUSTER).count(), 0);
}

#[test]
fn a_resource_without_readable_name_is_refused_at_once() {
    let mut session = subscribed();
    let broken =
        Any { type_url: type_url::CLUSTER.to_owned(), value: bytes::Bytes::from_static(b"\x0a\xff") };
    refused(session.on_response(response(vec![broken])));
}

#[test]
fn a_wrapped_resource_is_unwrapped() {
    let mut session = subscribed();
    let wrapped = Wrapped { name: "a".into(), resource: Some(cluster("a")), ..Default::default() };
    match session.on_response(response(vec![Any::pack(&wrapped)])) {
        Ok(Received::Update(update)) => {
            assert_eq!(update.changed.len(), 1);
            assert_eq!((&*update.changed[0].name, &update.changed[0].body), ("a", &cluster("a")));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_not_asked_for_breaks_the_protocol() {
    let mut session = Session::new(Mode::Sotw, Node::default());
    session.connected();
    assert!(session.on_response(response(Vec::new())).is_err());
    let delta =
        Response::Delta(DeltaDiscoveryResponse { type_url: type_url::CLUSTER.into(), ..Default::default() });
    assert!(subscribed().on_response(delta).is_err());
}

#[test]
fn the_node_is_sent_once_per_stream() {
    let node = Node { id: "me".into(), ..Default::default() };
    let mut session = Session::new(Mode::Delta, node.clone());
    session.subscribe(type_url::CLUSTER, Interest::Wildcard);
    session.subscribe(type_url::LISTENER, Interest::Wildcard);
    for _ in 0..2 {
        let nodes: Vec<_> = session.connected().iter().map(|request| request.node().cloned()).collect();
        assert_eq!(nodes, [Some(node.clone()), None]);
        session.disconnected();
    }
}
