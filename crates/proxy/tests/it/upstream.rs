//! Hosts: balancing, retries, breakers, outliers, the life of pooled connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Connection, Upstream, Worker, cluster, dead_address, listener, ok, resources, until};

#[test]
fn round_robin_is_exact_on_a_worker() {
    let upstreams = [Upstream::saying("0"), Upstream::saying("1"), Upstream::saying("2")];
    let hosts: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &hosts, &[])],
    ));
    let mut counts = [0; 3];
    for _ in 0..3 {
        let mut client = Connection::open(worker.address("main"));
        (0..10).for_each(|_| counts[client.get("/").body.parse::<usize>().unwrap()] += 1);
    }
    assert_eq!(counts, [10; 3]);
}

#[test]
fn a_retry_hides_a_dead_host() {
    let upstream = Upstream::saying("alive");
    let route = "{match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: connect-failure, num_retries: 2, \
                 retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {\
                 '@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}], \
                 host_selection_retry_max_attempts: 5}}}";
    let worker = Worker::start(&resources(
        &[listener("main", &[route])],
        &[cluster("a", &[dead_address(), upstream.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    (0..10).for_each(|_| assert_eq!(client.get("/").body, "alive"));
}

#[test]
fn a_retry_sends_the_body_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let upstream = Upstream::start(move |mut connection| {
        while let Some(request) = connection.read_message() {
            assert_eq!(request.body, "replayed");
            let first = seen.fetch_add(1, Ordering::Relaxed) == 0;
            let failure = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned();
            connection.write(&if first { failure } else { ok("second") });
        }
    });
    let route = "{match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: 5xx}}}";
    let worker =
        Worker::start(&resources(&[listener("main", &[route])], &[cluster("a", &[upstream.address], &[])]));
    let mut client = Connection::open(worker.address("main"));
    client.write("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\nreplayed");
    assert_eq!(client.read_message().unwrap().body, "second");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[test]
fn pending_requests_wait_for_the_one_connection_that_is_allowed() {
    let upstream = Upstream::saying("x");
    let breakers = "circuit_breakers: {thresholds: [{max_connections: 1}]}";
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[upstream.address], &[breakers])],
    ));
    let address = worker.address("main");
    let clients: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Connection::open(address);
                (0..20).for_each(|_| assert_eq!(client.get("/").status(), 200));
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_full_breaker_answers_503_overloaded() {
    let upstream = Upstream::saying("x");
    let breakers = "circuit_breakers: {thresholds: [{max_requests: 0}]}";
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[upstream.address], &[breakers])],
    ));
    let answer = Connection::open(worker.address("main")).get("/");
    assert_eq!((answer.status(), answer.header("x-envoy-overloaded")), (503, Some("true")));
}

#[test]
fn a_host_that_fails_in_a_row_is_ejected() {
    let sick = Upstream::start(|mut connection| {
        while connection.read_message().is_some() {
            connection.write("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let well = Upstream::saying("well");
    let outlier = "outlier_detection: {consecutive_5xx: 3, base_ejection_time: 60s, enforcing_success_rate: 0,  max_ejection_percent: 50}";
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[sick.address, well.address], &[outlier])],
    ));
    let mut client = Connection::open(worker.address("main"));
    let failures = (0..40).filter(|_| client.get("/").status() == 500).count();
    assert_eq!(failures, 3);
}

#[test]
fn an_idle_connection_that_the_upstream_closed_is_not_used() {
    let upstream = Upstream::start(|mut connection| {
        connection.read_message();
        connection.write(&ok("once"));
    });
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[upstream.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    assert_eq!(client.get("/").body, "once");
    // Whether the close has come or not is for the retry of the test, as it would be for a client's.
    until("a new connection is used", || client_gets_once(&worker));
    assert!(upstream.connections() >= 2);
}

fn client_gets_once(worker: &Worker) -> bool {
    Connection::open(worker.address("main")).get("/").body == "once"
}

#[test]
fn a_mirror_gets_a_copy_with_the_body() {
    let upstream = Upstream::start(|mut connection| {
        while let Some(request) = connection.read_message() {
            connection.write(&ok(&request.body));
        }
    });
    let (sender, copies) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let mirror = Upstream::start(move |mut connection| {
        while let Some(request) = connection.read_message() {
            sender.lock().unwrap().send(request).unwrap();
            connection.write(&ok("unread"));
        }
    });
    let route = "{match: {prefix: /}, route: {cluster: a, request_mirror_policies: [{cluster: m}]}}";
    let worker = Worker::start(&resources(
        &[listener("main", &[route])],
        &[cluster("a", &[upstream.address], &[]), cluster("m", &[mirror.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    client.write("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 4\r\n\r\nbody");
    assert_eq!(client.read_message().unwrap().body, "body");
    let copy = copies.recv_timeout(crate::harness::DEADLINE).unwrap();
    assert_eq!((copy.header("host"), copy.body.as_str()), (Some("shop-shadow"), "body"));
}

#[test]
fn http2_upstreams_share_a_connection() {
    let worker_b = Worker::start(&resources(
        &[listener(
            "b",
            &["{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: two}}}"],
        )],
        &["  - {name: none, type: STATIC, connect_timeout: 1s}\n".into()],
    ));
    let http2 = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {\
                 '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
                 explicit_http_config: {http2_protocol_options: {}}}}";
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[worker_b.address("b")], &[http2])],
    ));
    let address = worker.address("main");
    let clients: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Connection::open(address);
                (0..50).for_each(|_| assert_eq!(client.get("/").body, "two"));
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}
