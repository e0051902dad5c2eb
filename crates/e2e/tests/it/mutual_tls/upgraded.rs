//! `h2UpgradePolicy`: HTTP/1 calls between two sidecars travel over one HTTP/2 connection inside mutual TLS, and the
//! workload sees HTTP/1.1, whichever of the two sidecars is ours and which is a stock Envoy. WebSockets do not, as in Istio:
//! its inbound listeners take no extended CONNECT, so a service that has them says DO_NOT_UPGRADE.

use std::net::SocketAddr;
use std::path::Path;

use meltemi_e2e::backend::{Backend, free_port};
use meltemi_e2e::client;
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::peers;
use meltemi_e2e::process::DEADLINE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::callers::{Identity, Root};
use super::{CLIENT, REVIEWS, standalone};

const HOST: &str = "reviews.shop.svc.cluster.local";

/// Requests at once: they need several connections of HTTP/1.
const CALLS: usize = 10;

/// MeshConfig with this policy.
fn mesh_config(policy: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio, namespace: istio-system}}, data: {{mesh: 'h2UpgradePolicy: {policy}'}}}}\n"
    )
}

/// A DestinationRule with this policy.
fn rule(policy: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: reviews, namespace: shop}}, spec: {{host: reviews, trafficPolicy: {{connectionPool: {{http: {{h2UpgradePolicy: {policy}}}}}}}}}}}\n"
    )
}

/// Two sidecars with a workload behind the second one.
struct Sidecars {
    /// Where the first one takes HTTP.
    outbound: SocketAddr,
    client: Running,
    _server: Running,
}

impl Sidecars {
    async fn start(pair: &[Proxy; 2], objects: &str, workload: SocketAddr, dir: &Path) -> Sidecars {
        let root = Root::new();
        let (inbound, outbound) = (free_port().expect("a port"), free_port().expect("a port"));
        let mesh = format!(
            "{objects}
---
{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: default, namespace: shop}}, spec: {{mtls: {{mode: STRICT}}}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: reviews, namespace: shop}}, spec: {{selector: {{app: reviews}}, ports: [{{name: http, port: 80, targetPort: {inbound}}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: reviews-0, namespace: shop}}, spec: {{address: 127.0.0.1, serviceAccount: reviews, labels: {{app: reviews}}}}}}
---
{{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {{name: reviews, namespace: shop}}, spec: {{workloadSelector: {{labels: {{app: reviews}}}}, ingress: [{{port: {{number: {inbound}, name: http, protocol: HTTP}}, defaultEndpoint: '{workload}'}}]}}}}
"
        );
        let [caller, called] = pair;
        let server = sidecar(called, &mesh, ("reviews", ""), (&root.sign(REVIEWS), &root), dir).await;
        let port = outbound.to_string();
        let client = sidecar(caller, &mesh, ("client", &port), (&root.sign(CLIENT), &root), dir).await;
        Sidecars { outbound: ([127, 0, 0, 1], outbound).into(), client, _server: server }
    }

    /// Connections of the first sidecar to the service, in HTTP/1 and in HTTP/2.
    async fn connections(&self) -> (u64, u64) {
        let of = |version: &str| format!("cluster.outbound|80||{HOST}.upstream_cx_{version}_total");
        (counter(&self.client, &of("http1")).await, counter(&self.client, &of("http2")).await)
    }
}

async fn sidecar(
    proxy: &Proxy,
    mesh: &str,
    (name, proxy_port): (&str, &str),
    (identity, root): (&Identity, &Root),
    dir: &Path,
) -> Running {
    let node = format!(
        "{{id: sidecar~127.0.0.1~{name}-0.shop~shop.svc.cluster.local, metadata: {{INTERCEPTION_MODE: NONE, MELTEMI_SDS: 'true', HTTP_PROXY_PORT: '{proxy_port}', LABELS: {{app: {name}}}}}}}"
    );
    let bootstrap = standalone::bootstrap(mesh, &node, standalone::of_agent(identity, root));
    let dir = tempfile::tempdir_in(dir).expect("a folder").keep();
    let path = dir.join("bootstrap.json");
    std::fs::write(&path, bootstrap.to_string()).expect("the folder is writable");
    start(proxy, &path, &dir).await.expect("the proxy starts")
}

/// A counter of a proxy; what was never counted is 0.
async fn counter(proxy: &Running, name: &str) -> u64 {
    let answer = client::get(proxy.admin, "admin", "/stats").await.expect("statistics");
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok());
    value.unwrap_or_default()
}

/// Ours and Envoy on either side; without Envoy ours on both.
fn pairs() -> Vec<[Proxy; 2]> {
    let ours = || Proxy::Meltemi(peers::meltemi());
    let mut pairs = vec![[ours(), ours()]];
    if let Some(envoy) = peers::envoy() {
        let envoy = || Proxy::Envoy(envoy.clone());
        pairs.extend([[ours(), envoy()], [envoy(), ours()], [envoy(), envoy()]]);
    }
    pairs
}

/// Makes calls at once; every one is answered, and the workload sees HTTP/1.1.
async fn call(sidecars: &Sidecars, backend: &Backend, what: &str) {
    let one = || client::get(sidecars.outbound, HOST, "/");
    let answers = futures::future::join_all((0..CALLS).map(|_| one())).await;
    for answer in answers {
        assert_eq!(answer.expect("an answer").status(), 200, "{what}");
    }
    let seen = backend.take();
    assert_eq!(seen.len(), CALLS, "{what}");
    assert!(seen.iter().all(|request| request.version == "HTTP/1.1"), "{what}: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_travels_as_http2_between_sidecars() {
    let dir = tempfile::tempdir().expect("a folder");
    let backend = Backend::start("reviews").await.expect("a backend");
    for pair in pairs() {
        for (objects, is_upgraded) in [
            (mesh_config("UPGRADE"), true),
            (mesh_config("DO_NOT_UPGRADE") + &rule("UPGRADE"), true),
            (mesh_config("UPGRADE") + &rule("DO_NOT_UPGRADE"), false),
            (mesh_config("DO_NOT_UPGRADE") + &rule("DEFAULT"), false),
        ] {
            let what = format!("{pair:?}: {objects}");
            let sidecars = Sidecars::start(&pair, &objects, backend.address, dir.path()).await;
            // The first call makes the connection that the others share.
            assert_eq!(client::get(sidecars.outbound, HOST, "/").await.expect("an answer").status(), 200);
            backend.take();
            call(&sidecars, &backend, &what).await;
            let (http1, http2) = sidecars.connections().await;
            assert_eq!(http2, u64::from(is_upgraded), "{what}");
            assert_eq!(http1 == 0, is_upgraded, "{what}: {http1} connections of HTTP/1");
            let handshakes =
                counter(&sidecars.client, &format!("cluster.outbound|80||{HOST}.ssl.handshake")).await;
            assert_eq!(handshakes, http1 + http2, "{what}: all of them are TLS");
        }
    }
}

/// A workload that switches to another protocol and then sends back what it gets.
async fn echo_after_upgrade() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _head = head(&mut stream).await;
                let answer =
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
                let (mut read, mut write) = stream.split();
                // The other side may go at any time.
                if write.write_all(answer.as_bytes()).await.is_ok() {
                    let _ends = tokio::io::copy(&mut read, &mut write).await;
                }
            });
        }
    });
    address
}

/// Everything up to the empty line.
async fn head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => text.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Asks for a WebSocket; the status, and whether bytes come back afterwards.
async fn websocket(address: SocketAddr) -> (String, bool) {
    let mut stream = TcpStream::connect(address).await.expect("the sidecar listens");
    let request = format!(
        "GET /chat HTTP/1.1\r\nhost: {HOST}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("written");
    let answer = tokio::time::timeout(DEADLINE, head(&mut stream)).await.expect("an answer in time");
    let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
    if status != "101" {
        return (status, false);
    }
    stream.write_all(b"ping").await.expect("written");
    let mut back = [0; 4];
    let echoed = tokio::time::timeout(DEADLINE, stream.read_exact(&mut back)).await;
    (status, echoed.is_ok_and(|read| read.is_ok()) && &back == b"ping")
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_need_a_service_that_is_not_upgraded() {
    let dir = tempfile::tempdir().expect("a folder");
    let workload = echo_after_upgrade().await;
    let mut refusals = Vec::new();
    for pair in pairs() {
        let kept = mesh_config("UPGRADE") + &rule("DO_NOT_UPGRADE");
        let sidecars = Sidecars::start(&pair, &kept, workload, dir.path()).await;
        assert_eq!(websocket(sidecars.outbound).await, ("101".to_owned(), true), "{pair:?}");
        let sidecars = Sidecars::start(&pair, &mesh_config("UPGRADE"), workload, dir.path()).await;
        refusals.push((websocket(sidecars.outbound).await.0, pair));
    }
    // Our server resets the stream with PROTOCOL_ERROR, which Envoy tells as 502.
    let is_refused = |status: &str| matches!(status, "502" | "503");
    assert!(refusals.iter().all(|(status, _)| is_refused(status)), "{refusals:?}");
}
