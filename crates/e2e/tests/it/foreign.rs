//! Clients and servers that nobody here wrote, through our proxy and through Envoy: grpcio, websockets, curl, h2load.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use meltemi_e2e::backend::{Backend, dead_port};
use meltemi_e2e::bootstrap::{self, cluster};
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::peers;
use meltemi_e2e::process::{DEADLINE, Process, until};
use serde_json::{Value, json};

/// The proxies that must give the same results.
fn proxies() -> Vec<Proxy> {
    let mut proxies = vec![Proxy::Meltemi(peers::meltemi())];
    proxies.extend(peers::envoy().map(Proxy::Envoy));
    proxies
}

/// As [`cluster`], spoken to by HTTP/2.
fn http2_cluster(name: &str, port: u16) -> String {
    let options = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
         {\"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
         explicit_http_config: {http2_protocol_options: {}}}}}";
    let plain = cluster(name, "ROUND_ROBIN", &[port]);
    let body = plain.trim_end().strip_suffix('}').expect("a flow mapping");
    format!("{body}, {options}\n")
}

async fn started(proxy: &Proxy, text: &str, dir: &Path) -> Running {
    let bootstrap = dir.join("bootstrap.yaml");
    std::fs::write(&bootstrap, text).expect("the folder is writable");
    let _stale = std::fs::remove_file(dir.join("admin-address"));
    start(proxy, &bootstrap, dir).await.expect("the proxy starts")
}

/// A Python script of `tests/peers` as `server`, and its port; `None` when its package is not installed.
async fn server(script: &str, package: &str, dir: &Path) -> Option<(Process, u16)> {
    let packages = peers::python_package(package)?;
    let mut command = python(script, &packages);
    let server = Process::spawn(command.arg("server"), &dir.join("server.log")).expect("python3 starts");
    let port = until("the server's port", DEADLINE, async || server.output().trim().parse().ok()).await;
    Some((server, port.expect("the server prints its port")))
}

fn python(script: &str, packages: &Path) -> Command {
    let path = peers::repository().join("crates/e2e/tests/peers").join(script);
    let mut command = Command::new("python3");
    command.arg(path).env("PYTHONPATH", packages);
    command
}

/// Runs the script as `client` of `address`, and gives what it printed.
async fn client(script: &str, package: &str, address: SocketAddr, dir: &Path) -> Value {
    let packages = peers::python_package(package).expect("its server runs");
    let mut command = python(script, &packages);
    command.args(["client", &address.to_string()]);
    let mut client = Process::spawn(&mut command, &dir.join("client.log")).expect("python3 starts");
    let status = client.wait(Duration::from_secs(60)).await.expect("the client ends");
    assert!(status.success(), "{}", client.output());
    serde_json::from_str(&client.output()).expect("the client prints JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_grpcio_calls_of_every_kind() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some((_server, port)) = server("grpc_calls.py", "grpc", dir.path()).await else { return };
    let clusters = http2_cluster("echo", port) + &http2_cluster("dead", dead_port().expect("a port"));
    let routes = "{match: {prefix: /e2e.Echo, grpc: {}}, route: {cluster: echo}}, \
         {match: {prefix: /dead.Service}, route: {cluster: dead}}";
    let text = bootstrap::routes(routes, "", &clusters);
    let mut results = Vec::new();
    for proxy in proxies() {
        let running = started(&proxy, &text, dir.path()).await;
        results.push(client("grpc_calls.py", "grpc", running.listeners["main"], dir.path()).await);
    }
    let ours = &results[0];
    assert_eq!(ours["unary"]["message"], "hello");
    assert_eq!(ours["unary"]["trailing"], json!([["x-bin-bin", "00ff"], ["x-trailing", "2"]]));
    assert_eq!((&ours["large unary"], &ours["server stream"]), (&json!(2 << 20), &json!("199")));
    assert_eq!((&ours["client stream"], &ours["both stream"]), (&json!("4950"), &json!(true)));
    assert_eq!(ours["status"]["details"], "no such thing: ü%");
    assert_eq!((&ours["deadline"], &ours["cancel"]), (&json!("DEADLINE_EXCEEDED"), &json!("CANCELLED")));
    assert_eq!(ours["deadline reaches the server"], "yes");
    assert_eq!(ours["cancel reaches the server"], "yes");
    assert_eq!(ours["no route"]["code"], "UNIMPLEMENTED");
    assert_eq!(ours["no upstream"]["code"], "UNAVAILABLE");
    if let Some(envoy) = results.get(1) {
        assert_eq!(ours, envoy, "ours is left, Envoy's is right");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_websockets_talk_through() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some((_server, port)) = server("websocket_calls.py", "websockets", dir.path()).await else { return };
    let routes = "{match: {prefix: /chat}, route: {cluster: chat}}, \
         {match: {prefix: /}, route: {cluster: chat, upgrade_configs: [{upgrade_type: websocket, enabled: false}]}}";
    let manager = "          upgrade_configs: [{upgrade_type: websocket}]";
    let text = bootstrap::routes(routes, manager, &cluster("chat", "ROUND_ROBIN", &[port]));
    for proxy in proxies() {
        let running = started(&proxy, &text, dir.path()).await;
        let result = client("websocket_calls.py", "websockets", running.listeners["main"], dir.path()).await;
        let expected = json!({
            "subprotocol": "chat",
            "text": "hello",
            "binary comes back whole": true,
            "ping": "answered",
            "close": [4001, "as you wish"],
            "refused upgrade": 403,
        });
        assert_eq!(result, expected, "{proxy:?}");
    }
}

/// Runs curl; gives its exit code, and status, version and sizes as it saw them.
fn curl(address: SocketAddr, arguments: &[&str]) -> Option<(i32, String)> {
    let mut command = Command::new("curl");
    command.args([
        "-s",
        "--max-time",
        "20",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{http_version} %{size_download}",
    ]);
    let output = command.args(arguments).arg(format!("http://{address}/")).output();
    let Ok(output) = output else {
        peers::missing("curl is not installed (package curl)");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some((output.status.code().unwrap_or(-1), text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_curl_uploads_and_downloads_in_both_versions() {
    let dir = tempfile::tempdir().expect("a folder");
    let backend = Backend::start("a").await.expect("a port");
    let upload = dir.path().join("upload");
    std::fs::write(&upload, vec![b'u'; 3 << 20]).expect("the folder is writable");
    let upload = format!("@{}", upload.display());
    let text = bootstrap::routes(
        "{match: {prefix: /}, route: {cluster: a}}",
        "",
        &cluster("a", "ROUND_ROBIN", &[backend.address.port()]),
    );
    for proxy in proxies() {
        let running = started(&proxy, &text, dir.path()).await;
        let address = running.listeners["main"];
        for (version, flag) in [("1.1", "--http1.1"), ("2", "--http2-prior-knowledge")] {
            let calls: [(&[&str], String); 5] = [
                (&[], format!("200 {version} 9")),
                (&["-H", "x-size: 2000000"], format!("200 {version} 2000000")),
                (&["-I"], format!("200 {version} 0")),
                (&["--data-binary", &upload, "-H", "expect: 100-continue"], format!("200 {version} 10")),
                (
                    &["--data-binary", &upload, "-H", "transfer-encoding: chunked"],
                    format!("200 {version} 10"),
                ),
            ];
            for (arguments, expected) in calls {
                let arguments = [&[flag], arguments].concat();
                let Some(result) = curl(address, &arguments) else { return };
                assert_eq!(result, (0, expected), "{proxy:?} {arguments:?}");
            }
        }
        let uploads = backend.take().into_iter().filter(|request| request.method == "POST");
        assert!(uploads.map(|request| request.body).all(|body| body == "<3145728 bytes>"), "{proxy:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_h2load_gets_every_answer() {
    let dir = tempfile::tempdir().expect("a folder");
    let backend = Backend::start("a").await.expect("a port");
    let text = bootstrap::routes(
        "{match: {prefix: /}, route: {cluster: a}}",
        "",
        &http2_cluster("a", backend.address.port()),
    );
    let running = started(&Proxy::Meltemi(peers::meltemi()), &text, dir.path()).await;
    let url = format!("http://{}/", running.listeners["main"]);
    for arguments in [&["--h1", "-c", "20"][..], &["-c", "5", "-m", "50"]] {
        let mut command = Command::new("h2load");
        command.args(["-n", "3000"]).args(arguments).arg(&url);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
        let Ok(output) = output else {
            return peers::missing("h2load is not installed (package nghttp2-client)");
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("status codes: 3000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{arguments:?}: {text}");
    }
}
