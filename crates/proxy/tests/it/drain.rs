//! The way down: clients are asked to go, and what is under way finishes.

use std::sync::mpsc;

use meltemi_proxy::departure::Asking;
use meltemi_proxy::worker::Command;

use crate::harness::{Connection, Upstream, Worker, cluster, listener, ok, resources};

#[test]
fn draining_closes_connections_after_their_request_and_still_accepts() {
    let upstream = Upstream::saying("x");
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[upstream.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    assert_eq!(client.get("/").header("connection"), None);
    worker.send(Command::Drain { inbound_only: false, asking: Asking::Always });
    let mut late = Connection::open(worker.address("main"));
    assert_eq!(late.get("/").header("connection"), Some("close"));
    assert_eq!(client.get("/").header("connection"), Some("close"));
    assert!(client.is_closed() && late.is_closed());
}

#[test]
fn a_request_under_way_outlives_its_listener() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let (arrived, arrival) = mpsc::channel();
    let upstream = Upstream::start(move |mut connection| {
        connection.read_message();
        arrived.send(()).unwrap();
        wait.lock().unwrap().recv().unwrap();
        connection.write(&ok("late"));
    });
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[upstream.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    client.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    arrival.recv().unwrap();
    worker.send(Command::Drain { inbound_only: false, asking: Asking::Always });
    worker.send(Command::StopListeners { inbound_only: false });
    go.send(()).unwrap();
    assert_eq!(client.read_message().unwrap().body, "late");
    assert!(client.is_closed());
    worker.wait_until_idle();
}

#[test]
fn the_end_of_a_worker_is_noticed() {
    let mut worker = Worker::start(&resources(&[], &[]));
    worker.send(Command::Stop);
    worker.wait_until_ended();
}
