//! gRPC programs without a proxy: they are sent what they ask for by name, and told what is not there.

use super::*;

/// What a gRPC server asks for, which is not served.
const SERVER: &str = "xds.istio.io/grpc/lds/inbound/0.0.0.0:50051";

async fn program(xds: SocketAddr, mode: Mode) -> Proxy {
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    };
    let facts = [("NAMESPACE", "default"), ("GENERATOR", "grpc")];
    let fields = facts.into_iter().map(|(key, value)| (key.to_owned(), text(value))).collect();
    let metadata = Some(prost_types::Struct { fields });
    let node = Node { id: NODE.to_owned(), metadata, ..Default::default() };
    let (commands, events) = client::run(Options::new(format!("http://{xds}"), node, mode));
    Proxy { commands, events }
}

async fn names_are_sent_or_said_to_be_missing(mode: Mode) {
    let directory = shop();
    let control_plane = Running::start(directory.path(), &[]).await;
    let mut program = program(control_plane.xds, mode).await;
    let names = ["reviews:9080", "reviews.default.svc.cluster.local:9080", SERVER];
    let names = names.into_iter().map(str::to_owned).collect();
    program.subscribe(type_url::LISTENER, Interest::Names(names)).await;
    let update = program.update().await;
    let mut sent: Vec<&str> = update.changed.iter().map(|resource| &*resource.name).collect();
    sent.sort_unstable();
    assert_eq!(sent, ["reviews.default.svc.cluster.local:9080", "reviews:9080"], "of all that there is");
    if mode == Mode::Delta {
        assert_eq!(update.removed, [SERVER]);
    }
    program.ack(&update).await;
    let route = "outbound|9080||reviews.default.svc.cluster.local".to_owned();
    program.subscribe(type_url::ROUTE, Interest::Names(BTreeSet::from([route]))).await;
    let first = program.routes().await;
    program.ack(&first).await;
    // An edit is followed.
    save(directory.path(), &virtual_service("2s"));
    let second = program.routes().await;
    assert_eq!((first.changed.len(), second.changed.len()), (1, 1));
    assert_ne!(first.changed[0].version, second.changed[0].version);
    control_plane.stop().await;
}

#[tokio::test]
async fn names_are_sent_or_said_to_be_missing_by_state_of_the_world() {
    names_are_sent_or_said_to_be_missing(Mode::Sotw).await;
}

#[tokio::test]
async fn names_are_sent_or_said_to_be_missing_by_delta() {
    names_are_sent_or_said_to_be_missing(Mode::Delta).await;
}
