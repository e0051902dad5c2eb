//! Configuration changes while requests are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::{Connection, Upstream, Worker, cluster, listener, resources, until};

const ROUTE: &str = "{match: {prefix: /}, route: {cluster: a}}";

#[test]
fn endpoint_swaps_under_load_drop_nothing() {
    let (one, two) = (Upstream::saying("1"), Upstream::saying("2"));
    let first = resources(&[listener("main", &[ROUTE])], &[cluster("a", &[one.address], &[])]);
    let second = resources(&[listener("main", &[ROUTE])], &[cluster("a", &[two.address], &[])]);
    let mut worker = Worker::start(&first);
    let address = worker.address("main");
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut client = Connection::open(address);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/").status(), 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 1..=20 {
        worker.serve(if round % 2 == 0 { &first } else { &second });
        until("requests go on", || answered.load(Ordering::Relaxed) >= round * 50);
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn a_changed_listener_serves_new_connections_and_drains_old_ones() {
    let upstream = Upstream::saying("old");
    let respond = "{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: new}}}";
    let clusters = [cluster("a", &[upstream.address], &[])];
    let mut worker = Worker::start(&resources(&[listener("main", &[ROUTE])], &clusters));
    let mut old = Connection::open(worker.address("main"));
    assert_eq!(old.get("/").body, "old");
    worker.serve(&resources(&[listener("main", &[respond])], &clusters));
    assert_eq!(Connection::open(worker.address("main")).get("/").body, "new");
    let last = old.get("/");
    assert_eq!((last.body.as_str(), last.header("connection")), ("old", Some("close")));
    assert!(old.is_closed());
}

#[test]
fn a_listener_that_did_not_change_keeps_its_connections() {
    let upstream = Upstream::saying("x");
    let mut worker =
        Worker::start(&resources(&[listener("main", &[ROUTE])], &[cluster("a", &[upstream.address], &[])]));
    let mut client = Connection::open(worker.address("main"));
    client.get("/");
    let more = "{match: {prefix: /}, direct_response: {status: 204}}";
    worker.serve(&resources(
        &[listener("main", &[ROUTE]), listener("other", &[more])],
        &[cluster("a", &[upstream.address], &[])],
    ));
    assert_eq!(client.get("/").header("connection"), None);
    assert_eq!(upstream.connections(), 1);
    assert_eq!(Connection::open(worker.address("other")).get("/").status(), 204);
}
