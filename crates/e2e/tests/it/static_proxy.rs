//! `meltemi proxy` on a static bootstrap: splits, balance, drain.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use meltemi_e2e::backend::{Backend, free_port};
use meltemi_e2e::bootstrap;
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::mesh::Load;
use meltemi_e2e::peers;
use meltemi_e2e::process::Process;
use rustix::process::Signal;

/// A proxy with one listener, `main`, whose only route has this action.
async fn proxy(action: &str, clusters: &str, dir: &std::path::Path) -> Running {
    let bootstrap = dir.join("bootstrap.yaml");
    std::fs::write(&bootstrap, bootstrap::one_route(action, clusters)).expect("written");
    start(&Proxy::Meltemi(peers::meltemi()), &bootstrap, dir).await.expect("the proxy is up")
}

fn cluster(name: &str, policy: &str, backends: &[&Backend]) -> String {
    let ports: Vec<u16> = backends.iter().map(|backend| backend.address.port()).collect();
    bootstrap::cluster(name, policy, &ports)
}

/// So many requests over one connection, counted by backend.
async fn counts(running: &Running, requests: usize) -> BTreeMap<String, usize> {
    let stream = tokio::net::TcpStream::connect(running.listeners["main"]).await.expect("connected");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("handshake");
    tokio::spawn(connection);
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let request = Request::get("/").header("host", "x").body(Full::new(Bytes::new())).expect("a request");
        sender.ready().await.expect("the connection stays");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let backend = response.headers()["x-backend"].to_str().expect("text").to_owned();
        response.into_body().collect().await.expect("a body");
        *counts.entry(backend).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_split_90_to_10_within_3_sigma() {
    let dir = tempfile::tempdir().expect("a folder");
    let (a, b) = (Backend::start("a").await.expect("up"), Backend::start("b").await.expect("up"));
    let clusters = cluster("a", "ROUND_ROBIN", &[&a]) + &cluster("b", "ROUND_ROBIN", &[&b]);
    let action = "{weighted_clusters: {clusters: [{name: a, weight: 90}, {name: b, weight: 10}]}}";
    let running = proxy(action, &clusters, dir.path()).await;
    // 10,000 × 0.1 ± 3 × √(10,000 × 0.1 × 0.9). A fair split misses it once in 370 runs, so it gets a second chance; an
    // unfair one misses twice.
    let mut seen = Vec::new();
    for _ in 0..2 {
        let counts = counts(&running, 10_000).await;
        if (910..=1090).contains(&counts["b"]) {
            return;
        }
        seen.push(counts);
    }
    panic!("outside 3 sigma twice: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_robin_over_three_is_exact_on_one_worker() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut backends = Vec::new();
    for name in ["a", "b", "c"] {
        backends.push(Backend::start(name).await.expect("up"));
    }
    let all: Vec<&Backend> = backends.iter().collect();
    let running = proxy("{cluster: three}", &cluster("three", "ROUND_ROBIN", &all), dir.path()).await;
    let counts = counts(&running, 300).await;
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [100, 100, 100]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_fails_no_request() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = Backend::start("a").await.expect("up");
    let mut running = proxy("{cluster: a}", &cluster("a", "ROUND_ROBIN", &[&a]), dir.path()).await;
    let url = format!("http://{}/", running.listeners["main"]);
    let load =
        Load::start(&url, 100, Duration::from_secs(3), &["--header", "x-delay-ms: 20"]).expect("load runs");
    let mut seen = 0;
    let loaded = meltemi_e2e::process::until("the load has begun", Duration::from_secs(10), async || {
        seen += a.take().len();
        (seen > 20).then_some(())
    });
    loaded.await.expect("load arrives");
    running.process.signal(Signal::TERM);
    let report = load.report().await.expect("a report");
    assert_eq!(report.failed(), 0, "{report:?}");
    let status = running.process.wait(Duration::from_secs(15)).await.expect("it ends by itself");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_with_what_is_not_supported_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let bootstrap = dir.path().join("bootstrap.yaml");
    let text = r#"
static_resources:
  clusters:
  - name: ring
    type: STATIC
    lb_policy: CLUSTER_PROVIDED
    load_assignment: {cluster_name: ring}
"#;
    std::fs::write(&bootstrap, text).expect("written");
    let output = std::process::Command::new(peers::meltemi()).arg("proxy").arg("-c").arg(&bootstrap).output();
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("ring") && said.contains("lb_policy"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_without_an_admin_interface_serves() {
    let dir = tempfile::tempdir().expect("a folder");
    let backend = Backend::start("a").await.expect("up");
    let port = free_port().expect("a port");
    let text = bootstrap::one_route("{cluster: a}", &cluster("a", "ROUND_ROBIN", &[&backend]));
    let text = text.replace("port_value: 0", &format!("port_value: {port}"));
    let without: String =
        text.lines().filter(|line| !line.starts_with("admin:")).map(|l| format!("{l}\n")).collect();
    assert_ne!(text, without);
    let path = dir.path().join("bootstrap.yaml");
    std::fs::write(&path, without).expect("written");
    let mut command = std::process::Command::new(peers::meltemi());
    command.arg("proxy").arg("-c").arg(&path);
    let mut process = Process::spawn(&mut command, &dir.path().join("output")).expect("started");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(!process.has_ended() && tokio::time::Instant::now() < deadline, "{}", process.output());
        tokio::task::yield_now().await;
    }
    let load =
        Load::start(&format!("http://127.0.0.1:{port}/"), 100, Duration::from_secs(1), &[]).expect("load");
    assert_eq!(load.report().await.expect("a report").failed(), 0, "{}", process.output());
    assert!(!process.has_ended(), "{}", process.output());
}
