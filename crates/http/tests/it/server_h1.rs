//! HTTP/1 requests byte by byte, and what the server answers.

use std::rc::Rc;
use std::time::Duration;

use meltemi_http::DrainStage;
use meltemi_http::server::{End, ServerOptions};
use tokio::io::AsyncWriteExt;

use crate::service::{Answers, Server, run};

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[test]
fn a_connection_carries_one_request_after_the_other() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        for _ in 0..3 {
            server.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            server.expect(HELLO).await;
        }
        server.client.shutdown().await.unwrap();
        assert_eq!(server.expect_end("").await, End::ClosedByPeer);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
        server.send(&format!("{post}GET / HTTP/1.1\r\nHost: a\r\n\r\n{post}")).await;
        let echoed = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        server.expect(&format!("{echoed}{HELLO}{echoed}")).await;
    });
}

#[test]
fn a_chunked_body_arrives_with_its_trailers() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        server
            .send("POST /trailers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r")
            .await;
        server.send("\n2;x=y\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n").await;
        server
            .expect(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nx-sum: 5\r\n\r\n",
            )
            .await;
        server.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.expect(HELLO).await;
    });
}

#[test]
fn head_has_the_length_but_no_body() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        server.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.expect("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await;
        server.expect(HELLO).await;
    });
}

#[test]
fn informational_responses_leave_before_the_final_one() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        server.send("GET /hints HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.expect("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await;
        server.expect("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
        server
            .send("POST /continue HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
            .await;
        server.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
        server.send("x").await;
        server.expect("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n").await;
    });
}

#[test]
fn a_broken_request_is_answered_and_reported_and_ends_the_connection() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        server
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        let answers = server.answers.clone();
        let end = server
            .expect_end(concat!(
                "HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\ncontent-type: text/plain\r\n",
                "server: test\r\nconnection: close\r\n\r\nBad Request"
            ))
            .await;
        let error = answers.errors.borrow()[0];
        assert_eq!(error.detail, "http1.content_length_and_chunked_not_allowed");
        assert_eq!(end, End::Protocol(error));
        assert!(answers.seen.borrow().is_empty());
    });
}

#[test]
fn http_10_is_refused_unless_accepted() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        server.send("GET / HTTP/1.0\r\n\r\n").await;
        server
            .expect_end(concat!(
                "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 16\r\ncontent-type: text/plain\r\n",
                "server: test\r\nconnection: close\r\n\r\nUpgrade Required"
            ))
            .await;
        let accepting = ServerOptions { accept_http_10: true, ..ServerOptions::default() };
        let mut server = Server::start(accepting.clone());
        server.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        server.expect("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\nhello").await;
        server.send("POST /echo HTTP/1.0\r\nContent-Length: 2\r\n\r\nab").await;
        let end = server.expect_end("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab").await;
        assert_eq!(end, End::ClosedByUs);
    });
}

#[test]
fn the_client_decides_and_max_requests_decides_about_keep_alive() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        server.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let closing = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
        assert_eq!(server.expect_end(closing).await, End::ClosedByUs);
        let mut server = Server::start(ServerOptions { max_requests: Some(2), ..ServerOptions::default() });
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        server.send(&get.repeat(3)).await;
        server.expect(HELLO).await;
        assert_eq!(server.expect_end(closing).await, End::ClosedByUs);
    });
}

#[test]
fn draining_says_close_and_closing_ends_idle_connections() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        server.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.expect(HELLO).await;
        server.drain.advance(DrainStage::Draining);
        server.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let closing = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
        assert_eq!(server.expect_end(closing).await, End::ClosedByUs);
        let mut server = Server::start(ServerOptions::default());
        server.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.expect(HELLO).await;
        server.drain.advance(DrainStage::Closing);
        assert_eq!(server.expect_end("").await, End::ClosedByUs);
    });
}

#[test]
fn time_limits_end_idle_connections_quietly_and_slow_heads_with_408() {
    run(async {
        let options = ServerOptions {
            idle_timeout: Some(Duration::from_secs(60)),
            headers_timeout: Some(Duration::from_secs(5)),
            ..ServerOptions::default()
        };
        let server = Server::start(options.clone());
        assert_eq!(server.expect_end("").await, End::Idle);
        let mut server = Server::start(options);
        server.send("GET / HTTP/1.1\r\n").await;
        server
            .expect_end(concat!(
                "HTTP/1.1 408 Request Timeout\r\ncontent-length: 22\r\ncontent-type: text/plain\r\n",
                "server: test\r\nconnection: close\r\n\r\nrequest header timeout"
            ))
            .await;
    });
}

#[test]
fn a_head_that_trickles_in_is_given_up_without_any_setting() {
    run(async {
        let options = ServerOptions { idle_timeout: None, ..ServerOptions::default() };
        let mut server = Server::start(options);
        let started = tokio::time::Instant::now();
        for piece in ["GET / HTTP/1.1\r\n", "Host: a\r\n", "X: "] {
            server.send(piece).await;
            tokio::task::yield_now().await;
            tokio::time::advance(Duration::from_secs(90)).await;
        }
        let end = server
            .expect_end(concat!(
                "HTTP/1.1 408 Request Timeout\r\ncontent-length: 14\r\ncontent-type: text/plain\r\n",
                "server: test\r\nconnection: close\r\n\r\nstream timeout"
            ))
            .await;
        assert!(matches!(end, End::Protocol(error) if error.detail == "stream_idle_timeout"), "{end:?}");
        // The later pieces bought no time.
        assert!(started.elapsed() < Duration::from_secs(310), "{:?}", started.elapsed());
    });
}

#[test]
fn a_response_that_overtakes_its_request_ends_the_connection() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        server.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nab").await;
        let end = server
            .expect_end("HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await;
        assert_eq!(end, End::ClosedByUs);
    });
}

#[test]
fn an_unfinished_response_is_cut_so_that_the_client_notices() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        server.send("GET /broken HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let end =
            server.expect_end("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n").await;
        assert_eq!(end, End::ClosedByUs);
        let mut server = Server::start(ServerOptions::default());
        server.send("GET /reset HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(server.expect_end("").await, End::ClosedByUs);
    });
}

#[test]
fn a_service_learns_that_its_client_is_gone() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        server.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answers = server.answers.clone();
        drop(server.client);
        server.end.await.unwrap();
        assert_eq!(*answers.gone.borrow(), 1);
    });
}

#[test]
fn an_accepted_upgrade_and_connect_become_tunnels() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        server
            .send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly")
            .await;
        server
            .expect("HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\nearly")
            .await;
        server.send("GET / HTTP/1.1\r\n\r\n").await;
        server.expect("GET / HTTP/1.1\r\n\r\n").await;
        server.client.shutdown().await.unwrap();
        assert_eq!(server.expect_end("").await, End::ClosedByUs);
        let mut server = Server::start(ServerOptions::default());
        server.send("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nraw").await;
        server.expect("HTTP/1.1 200 OK\r\n\r\nraw").await;
    });
}

#[test]
fn a_large_response_passes_a_small_pipe() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        server.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.expect("HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n").await;
        server.expect(&"x".repeat(1 << 20)).await;
        server.expect(HELLO).await;
    });
}

#[test]
fn an_idle_connection_is_small() {
    run(async {
        let (_client, server) = tokio::io::duplex(1);
        let (_drain, signal) = meltemi_http::drain();
        let io = meltemi_http::Io::Memory(server);
        let connection = meltemi_http::server::serve(io, Rc::default(), Rc::new(Answers::default()), signal);
        let size = std::mem::size_of_val(&connection);
        assert!(size <= 2048, "{size} bytes");
    });
}
