//! Both ends of test traffic against each other on loopback.

use std::net::SocketAddr;

use clap::Parser;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::load::LoadArgs;

#[derive(Parser)]
#[command(version, propagate_version = true)]
enum CommandLine {
    Echo(EchoArgs),
    Load(LoadArgs),
}

fn echo_args(line: &str) -> EchoArgs {
    match CommandLine::parse_from(["test", "echo"].into_iter().chain(line.split_whitespace())) {
        CommandLine::Echo(args) => args,
        CommandLine::Load(_) => unreachable!(),
    }
}

fn load_args(line: &str) -> LoadArgs {
    match CommandLine::parse_from(["test", "load"].into_iter().chain(line.split_whitespace())) {
        CommandLine::Load(args) => args,
        CommandLine::Echo(_) => unreachable!(),
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// Starts an echo without proxy settings; it ends with the test.
async fn start(line: &str) -> (SocketAddr, Drain) {
    let args = echo_args(line);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let caller = Caller::direct(&args.calls, args.call_timeout).unwrap();
    let echo = Rc::new(Echo::new(identity(&args), faults(&args), caller));
    let (drain, signal) = drain();
    task::spawn_local("echo under test", async move {
        accept(&listener, &echo, &signal, &Rc::default()).await;
    })
    .detach();
    (address, drain)
}

/// One request on a connection of its own.
async fn request(address: SocketAddr, head: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\nhost: shop\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}

#[test]
fn the_command_lines_are_consistent() {
    use clap::CommandFactory;
    CommandLine::command().debug_assert();
    let args = echo_args(
        "--service shop --version v2 --routes /a,/b --call http://x/ --call http://y/ --fail-every 3",
    );
    assert_eq!((args.service.as_str(), args.service_version.as_str()), ("shop", "v2"));
    assert_eq!((args.routes.len(), args.calls.len(), args.fail_every), (2, 2, Some(3)));
}

#[test]
fn an_answer_says_who_and_what_and_names_everyone_who_took_part() {
    run(async {
        let (product, _product) = start("--service product-info --version v1").await;
        let (front, _front) =
            start(&format!("--service frontend --version v2 --call http://{product}/v1/product-info")).await;
        let wire = "GET /v1/x?a=b HTTP/1.1\r\nend-user: jason\r\nx-request-id: 7\r\nauthorization: secret\r\nx-other: 1";
        let (status, head, body) = request(front, wire).await;
        assert_eq!(status, 200);
        assert!(head.contains("x-echo-versions: frontend@v2,product-info@v1"), "{head}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["service"], "frontend");
        assert_eq!(answer["path"], "/v1/x?a=b");
        assert_eq!(answer["host"], "shop");
        assert_eq!(answer["headers"]["authorization"], "(hidden)");
        let called = &answer["calls"][0];
        assert_eq!(called["status"], 200);
        assert_eq!(called["answer"]["path"], "/v1/product-info");
        assert_eq!(called["answer"]["headers"]["end-user"], "jason");
        assert_eq!(called["answer"]["headers"]["x-request-id"], "7");
        assert_eq!(called["answer"]["headers"].get("x-other"), None);
    });
}

#[test]
fn trouble_comes_when_asked_for_and_callers_pass_it_on() {
    run(async {
        let (flaky, _drain) = start("--service flaky --fail-every 2 --routes /,/a").await;
        let statuses = [
            request(flaky, "GET /a HTTP/1.1").await.0,
            request(flaky, "GET /a HTTP/1.1").await.0,
            request(flaky, "GET /a?status=404 HTTP/1.1").await.0,
            request(flaky, "GET /unknown HTTP/1.1").await.0,
            request(flaky, "GET /a?status=soon HTTP/1.1").await.0,
        ];
        assert_eq!(statuses, [200, 503, 404, 404, 400]);
        let (caller, _drain) = start(&format!("--call http://{flaky}/")).await;
        assert_eq!(request(caller, "GET / HTTP/1.1").await.0, 503);
        assert_eq!(request(caller, "GET / HTTP/1.1").await.0, 200);
        let (alone, _drain) = start("--call http://127.0.0.1:1/").await;
        let (status, _, body) = request(alone, "GET / HTTP/1.1").await;
        assert_eq!(status, 502);
        assert!(body.contains("connecting to 127.0.0.1:1"), "{body}");
        let (_, head, body) = request(flaky, "GET /?size=70000 HTTP/1.1").await;
        assert!(head.contains("content-length: 70000") && body.len() == 70_000);
    });
}

#[test]
fn health_can_be_broken_and_healed() {
    run(async {
        let (echo, _drain) = start("--fail-every 1").await;
        assert_eq!(request(echo, "GET /healthz HTTP/1.1").await.0, 200);
        assert_eq!(request(echo, "POST /healthz?fail=true HTTP/1.1").await.0, 200);
        assert_eq!(request(echo, "GET /healthz HTTP/1.1").await.0, 503);
        assert_eq!(request(echo, "POST /healthz?fail=false HTTP/1.1").await.0, 200);
        assert_eq!(request(echo, "GET /healthz HTTP/1.1").await.0, 200);
        assert_eq!(request(echo, "POST /healthz HTTP/1.1").await.0, 400);
    });
}

#[test]
fn load_keeps_its_rate_and_counts_versions_on_both_protocols() {
    run(async {
        let (echo, _drain) = start("--service shop --version v3").await;
        for protocol in ["", "--http2"] {
            let line = format!("http://{echo}/ --rate 400 --duration 500ms --connections 4 {protocol}");
            let report = crate::load::run(&load_args(&line)).await.unwrap();
            assert_eq!((report.failed, report.server_errors), (0, 0), "{report:?}");
            assert_eq!(report.answered + report.unsent, 200, "{report:?}");
            assert_eq!(report.versions["shop@v3"], report.answered);
            assert!(report.connections <= 4);
        }
    });
}

#[test]
fn load_counts_from_the_intended_time_and_tells_what_failed() {
    run(async {
        let (echo, _drain) = start("--delay 50ms --fail-every 2").await;
        // One connection answers 20 requests a second; 100 are asked for: the wait for the connection is latency.
        let line = format!("http://{echo}/ --rate 100 --duration 400ms --connections 1");
        let report = crate::load::run(&load_args(&line)).await.unwrap();
        assert!(report.saturated && report.unsent > 0, "{report:?}");
        assert!(report.latency_ms.max > 200.0, "{report:?}");
        assert_eq!(report.server_errors, report.answered / 2);
        let line = "http://127.0.0.1:1/ --rate 50 --duration 100ms";
        let report = crate::load::run(&load_args(line)).await.unwrap();
        assert_eq!((report.answered, report.failed), (0, report.failures["connect"]));
    });
}

#[test]
fn a_drain_under_load_fails_nothing() {
    run(async {
        let (echo, drain) = start("--delay 2ms").await;
        let line = format!("http://{echo}/ --rate 500 --duration 400ms --connections 8");
        let drained = async {
            tokio::task::yield_now().await;
            drain.advance(DrainStage::Draining);
        };
        let args = load_args(&line);
        let (report, ()) = tokio::join!(crate::load::run(&args), drained);
        let report = report.unwrap();
        assert_eq!((report.failed, report.resent), (0, 0), "{report:?}");
        assert!(report.connections > 8);
    });
}
