//! HTTP/2 clients that mean harm, through our proxy and through Envoy: how each attack ends, and what it costs.

use std::process::Command;
use std::time::Duration;

use meltemi_e2e::backend::Backend;
use meltemi_e2e::bootstrap;
use meltemi_e2e::differential::{Proxy, start};
use meltemi_e2e::peers;
use meltemi_e2e::process::Process;
use serde_json::Value;

/// All attacks of one proxy.
const PATIENCE: Duration = Duration::from_secs(120);
/// What our memory may grow by under any of these attacks; some ask for 400 MiB, which Envoy holds.
const GROWTH_MAX_KIB: u64 = 32 << 10;

/// An attack that ends differently: its name, how ours ends, how Envoy's does, and why ours may.
type Difference = (&'static str, &'static str, &'static str, &'static str);

const ANOTHER_CODE: &str = "the connection ends alike; `h2` names all of these PROTOCOL_ERROR in its GOAWAY";

const DIFFERENCES: &[Difference] = &[
    ("short RST_STREAM", "connection: PROTOCOL_ERROR", "connection: FRAME_SIZE_ERROR", ANOTHER_CODE),
    ("long PING", "connection: PROTOCOL_ERROR", "connection: FRAME_SIZE_ERROR", ANOTHER_CODE),
    ("odd SETTINGS", "connection: PROTOCOL_ERROR", "connection: FRAME_SIZE_ERROR", ANOTHER_CODE),
    ("DATA after END_STREAM", "connection: PROTOCOL_ERROR", "connection: STREAM_CLOSED", ANOTHER_CODE),
    ("HPACK index out of range", "connection: PROTOCOL_ERROR", "connection: COMPRESSION_ERROR", ANOTHER_CODE),
    (
        "HPACK table above the offer",
        "connection: PROTOCOL_ERROR",
        "connection: COMPRESSION_ERROR",
        ANOTHER_CODE,
    ),
    (
        "HPACK bomb",
        "connection: ENHANCE_YOUR_CALM",
        "stream: INTERNAL_ERROR",
        "a block far above the limit is not decoded to its end, after which the connection cannot go on",
    ),
    (
        "window overflow of a stream",
        "stream: FLOW_CONTROL_ERROR",
        "connection: closed",
        "RFC 9113, 6.9.1 wants the stream's end; Envoy ends the connection",
    ),
    (
        "DATA after the answer",
        "stream: STREAM_CLOSED",
        "open",
        "RFC 9113, 5.1: a closed stream is answered with STREAM_CLOSED; Envoy passes over the frame",
    ),
    (
        "falling stream numbers",
        "connection: PROTOCOL_ERROR",
        "open",
        "RFC 9113, 5.1.1 wants the connection's end; Envoy passes over the request",
    ),
    (
        "a stream that depends on itself",
        "stream: PROTOCOL_ERROR",
        "open",
        "RFC 7540, 5.3.1 wants the stream's end; Envoy passes over priorities",
    ),
    (
        "PING before SETTINGS",
        "open",
        "connection: PROTOCOL_ERROR",
        "`h2` takes the preface and then frames in any order; nothing is held for it",
    ),
    (
        "PING flood",
        "open",
        "connection: closed",
        "Envoy counts the answers to what it read at once; ours reads on when they have left",
    ),
];

/// A proxy before one backend, attacked by the script; what it printed, and what the backend received.
async fn attacked(proxy: &Proxy, attack: &str) -> (Value, Backend) {
    let packages = peers::python_package("hyperframe").expect("asked before");
    let dir = tempfile::tempdir().expect("a folder");
    let backend = Backend::start("a").await.expect("a port");
    let clusters = bootstrap::cluster("a", "ROUND_ROBIN", &[backend.address.port()]);
    let path = dir.path().join("bootstrap.yaml");
    std::fs::write(&path, bootstrap::one_route("{cluster: a}", &clusters)).expect("written");
    let mut running = start(proxy, &path, dir.path()).await.expect("the proxy is up");
    let script = peers::repository().join("crates/e2e/tests/peers/hostile_h2.py");
    let mut command = Command::new("python3");
    command.arg(script).env("PYTHONPATH", packages);
    command.args([attack, &running.listeners["main"].to_string(), &running.process.pid().to_string()]);
    let mut client = Process::spawn(&mut command, &dir.path().join("client.log")).expect("python3 starts");
    let status = client.wait(PATIENCE).await.expect("the client ends");
    assert!(status.success(), "{proxy:?}: {}", client.output());
    assert!(!running.process.has_ended(), "{proxy:?}: {}", running.process.output());
    (serde_json::from_str(&client.output()).expect("the client prints JSON"), backend)
}

/// Whether the outcomes are of one class. Envoy often closes without a GOAWAY, which names no code to compare.
fn is_same(ours: &str, envoy: &str) -> bool {
    ours == envoy || envoy == "connection: closed" && ours.starts_with("connection: ")
}

/// The attacks whose end is neither the same nor listed.
fn unexplained(ours: &Value, envoy: &Value) -> Vec<String> {
    let outcome = |all: &Value, name: &str| all[name]["outcome"].as_str().unwrap_or("missing").to_owned();
    let names = ours.as_object().expect("by name").keys();
    let pairs = names.map(|name| (name, outcome(ours, name), outcome(envoy, name)));
    let listed = |name: &str| DIFFERENCES.iter().find(|difference| difference.0 == name);
    let is_unexplained = |(name, ours, envoy): &(&String, String, String)| match listed(name) {
        Some((_, our, their, _)) => our != ours || their != envoy,
        None => !is_same(ours, envoy),
    };
    pairs.filter(is_unexplained).map(|(name, ours, envoy)| format!("{name}: {ours} / {envoy}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_http2_clients_harm_nobody_else() {
    if peers::python_package("hyperframe").is_none() {
        return;
    }
    let meltemi = Proxy::Meltemi(peers::meltemi());
    let envoy = peers::envoy().map(Proxy::Envoy);
    let of_envoy = async {
        match &envoy {
            Some(envoy) => Some(attacked(envoy, "attack").await.0),
            None => None,
        }
    };
    let ((ours, _backend), theirs) = tokio::join!(attacked(&meltemi, "attack"), of_envoy);
    for (name, result) in ours.as_object().expect("by name") {
        assert_eq!(result["others"], serde_json::json!(["200", "200"]), "{name}: others are not served");
        let grown = result["grown"].as_u64().expect("a number");
        assert!(grown < GROWTH_MAX_KIB, "{name}: {grown} KiB more");
    }
    if let Some(theirs) = theirs {
        let differences = unexplained(&ours, &theirs);
        assert!(differences.is_empty(), "ours / Envoy's: {differences:#?}");
    }
}

/// Every budget against floods of small frames must let this pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_100_000_tiny_frames_is_no_attack() {
    if peers::python_package("h2").is_none() {
        return;
    }
    let proxies = [Some(Proxy::Meltemi(peers::meltemi())), peers::envoy().map(Proxy::Envoy)];
    for proxy in proxies.into_iter().flatten() {
        let (status, backend) = attacked(&proxy, "tiny").await;
        assert_eq!(status, "200", "{proxy:?}");
        assert_eq!(backend.take()[0].body, "<100000 bytes>", "{proxy:?}");
    }
}
