//! Routing, answers of ours, timeouts, upgrades.

use crate::harness::{Connection, Upstream, Worker, cluster, dead_address, listener, ok, resources};

#[test]
fn requests_on_one_connection_share_an_upstream_connection() {
    let upstream = Upstream::saying("hello");
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[upstream.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    for _ in 0..20 {
        let answer = client.get("/");
        assert_eq!((answer.status(), answer.body.as_str()), (200, "hello"));
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn no_host_and_no_route_are_answered_as_envoy_does() {
    let worker = Worker::start(&resources(
        &[listener(
            "main",
            &[
                "{match: {prefix: /empty}, route: {cluster: empty}}",
                "{match: {prefix: /dead}, route: {cluster: dead}}",
            ],
        )],
        &[
            "  - {name: empty, type: STATIC, connect_timeout: 1s}\n".into(),
            cluster("dead", &[dead_address()], &[]),
        ],
    ));
    let mut client = Connection::open(worker.address("main"));
    let answer = client.get("/empty");
    assert_eq!((answer.status(), answer.body.as_str()), (503, "no healthy upstream"));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    let answer = client.get("/dead");
    assert_eq!(answer.status(), 503);
    assert_eq!(
        answer.body,
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
    );
    let answer = client.get("/other");
    assert_eq!((answer.status(), answer.body.as_str()), (404, ""));
}

#[test]
fn an_upstream_that_closes_before_its_answer_is_a_503() {
    let upstream = Upstream::start(|mut connection| drop(connection.read_message()));
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[upstream.address], &[])],
    ));
    let answer = Connection::open(worker.address("main")).get("/");
    assert_eq!(answer.status(), 503);
    assert!(answer.body.ends_with("reset reason: connection termination"), "{}", answer.body);
}

#[test]
fn a_response_that_is_cut_short_is_cut_short_for_the_client() {
    let upstream = Upstream::start(|mut connection| {
        connection.read_message();
        connection.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n0123456789");
    });
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[upstream.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    client.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    client.read_until("\r\n\r\n").unwrap();
    assert_eq!(client.read_exactly(10).as_deref(), Some("0123456789"));
    assert!(client.is_closed());
}

#[test]
fn a_client_that_goes_away_frees_the_upstream() {
    let (gone, wait) = std::sync::mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let upstream = Upstream::start(move |mut connection| {
        connection.read_message();
        gone.lock().unwrap().send(connection.is_closed()).unwrap();
    });
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[upstream.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    client.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    crate::harness::until("the request is under way", || upstream.connections() == 1);
    drop(client);
    assert!(wait.recv_timeout(crate::harness::DEADLINE).unwrap());
    worker.wait_until_idle();
}

#[test]
fn weights_are_kept_over_many_requests() {
    let (one, two) = (Upstream::saying("1"), Upstream::saying("2"));
    let route = "{match: {prefix: /}, route: {weighted_clusters: {clusters: \
                 [{name: a, weight: 90}, {name: b, weight: 10}]}}}";
    let worker = Worker::start(&resources(
        &[listener("main", &[route])],
        &[cluster("a", &[one.address], &[]), cluster("b", &[two.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    let second = (0..2000).filter(|_| client.get("/").body == "2").count();
    // 3 sigma of a binomial with n = 2000, p = 0.1: 200 +- 40.
    assert!((160..=240).contains(&second), "{second}");
}

#[test]
fn a_slow_upstream_is_a_504_after_the_routes_timeout() {
    let upstream = Upstream::start(|mut connection| {
        connection.read_message();
        // The proxy gives up and closes.
        assert!(connection.is_closed());
    });
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a, timeout: 0.05s}}"])],
        &[cluster("a", &[upstream.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    let answer = client.get("/");
    assert_eq!((answer.status(), answer.body.as_str()), (504, "upstream request timeout"));
}

#[test]
fn bodies_stream_both_ways() {
    let upstream = Upstream::start(|mut connection| {
        let request = connection.read_message().unwrap();
        assert_eq!(request.body, "hello world");
        connection.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        // The rest comes only when the client has seen the first part.
        connection.read_until("go").unwrap_or_default();
        connection.write("2\r\nde\r\n0\r\n\r\n");
    });
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[upstream.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    client.write("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.write("6\r\n world\r\n0\r\n\r\n");
    let head = client.read_until("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(client.read_until("abc\r\n").as_deref(), Some("3\r\nabc\r\n"));
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let upstream = Upstream::start(|mut connection| {
        let request = connection.read_message().unwrap();
        assert_eq!(request.header("upgrade"), Some("websocket"));
        connection
            .write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        connection.write("from upstream;");
        let got = connection.read_until(";").unwrap();
        connection.write(&format!("echo {got}"));
    });
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[upstream.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    client.write("GET /chat HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
    let head = client.read_until("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(client.read_until(";").as_deref(), Some("from upstream;"));
    client.write("from client;");
    assert_eq!(client.read_until("client;").as_deref(), Some("echo from client;"));
}

#[test]
fn an_answer_before_the_end_of_the_request_reaches_the_client() {
    let upstream = Upstream::start(|mut connection| {
        connection.read_until("\r\n\r\n").unwrap();
        connection.write("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 4\r\n\r\nfull");
        // Stays open until the proxy gives it up.
        while !connection.is_closed() {
            connection.read_exactly(1);
        }
    });
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[upstream.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    client.write("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nbegin");
    let answer = client.read_message().unwrap();
    assert_eq!((answer.status(), answer.body.as_str()), (413, "full"));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn expect_continue_is_answered_by_the_proxy() {
    let upstream = Upstream::start(|mut connection| {
        let request = connection.read_message().unwrap();
        assert_eq!(request.header("expect"), None);
        connection.write(&ok(&request.body));
    });
    let worker = Worker::start(&resources(
        &[listener("main", &["{match: {prefix: /}, route: {cluster: a}}"])],
        &[cluster("a", &[upstream.address], &[])],
    ));
    let mut client = Connection::open(worker.address("main"));
    client.write("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.read_until("\r\n\r\n").as_deref(), Some("HTTP/1.1 100 Continue\r\n\r\n"));
    client.write("hi");
    assert_eq!(client.read_message().unwrap().body, "hi");
}
