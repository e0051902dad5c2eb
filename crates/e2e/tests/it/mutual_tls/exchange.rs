//! Proxies that tell each other who they are: metrics that name both sides of a call, and nobody else who hears of it.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::Request;
use meltemi_e2e::backend::{Backend, Received, free_port};
use meltemi_e2e::client;
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::peers;
use meltemi_e2e::process::{DEADLINE, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::callers::{Caller, Identity, Root};
use super::{CLIENT, REVIEWS, policy, standalone};

const HOST: &str = "reviews.shop.svc.cluster.local";

/// What a client says to the workload on the port for bytes, once it was greeted; the workload speaks first.
const GREETING: &[u8] = b"welcome";
const SAID: &[u8] = b"ping";

const BOTH: [&str; 12] = [
    "source_workload=\"client\"",
    "source_workload_namespace=\"shop\"",
    "source_principal=\"spiffe://cluster.local/ns/shop/sa/client\"",
    "source_app=\"client\"",
    "source_version=\"v1\"",
    "source_cluster=\"Kubernetes\"",
    "destination_workload=\"reviews\"",
    "destination_principal=\"spiffe://cluster.local/ns/shop/sa/reviews\"",
    "destination_app=\"reviews\"",
    "destination_version=\"v1\"",
    "destination_canonical_service=\"reviews\"",
    "destination_cluster=\"Kubernetes\"",
];

/// Ports of the client's sidecar and of the workload's.
struct Ports {
    http: u16,
    tcp: u16,
    inbound_http: u16,
    inbound_tcp: u16,
}

impl Ports {
    fn new() -> Ports {
        let port = || free_port().expect("a port");
        Ports { http: port(), tcp: port(), inbound_http: port(), inbound_tcp: port() }
    }
}

/// The workload `reviews` with a port for HTTP and one for bytes, and `client`, which calls both.
fn mesh(ports: &Ports, backend: SocketAddr, bytes: SocketAddr) -> String {
    let Ports { tcp, inbound_http, inbound_tcp, .. } = ports;
    let strict = policy("default", "shop", "{mtls: {mode: STRICT}}");
    format!(
        "{strict}---
{{apiVersion: v1, kind: Service, metadata: {{name: reviews, namespace: shop}}, spec: {{selector: {{app: reviews}}, ports: [{{name: http, port: 80, targetPort: {inbound_http}}}, {{name: tcp, port: 9000, targetPort: {inbound_tcp}}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: reviews-0, namespace: shop}}, spec: {{address: 127.0.0.1, serviceAccount: reviews, labels: {{app: reviews}}}}}}
---
{{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {{name: reviews, namespace: shop}}, spec: {{workloadSelector: {{labels: {{app: reviews}}}}, ingress: [{{port: {{number: {inbound_http}, name: http, protocol: HTTP}}, defaultEndpoint: '{backend}'}}, {{port: {{number: {inbound_tcp}, name: tcp, protocol: TCP}}, defaultEndpoint: '{bytes}'}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {{name: client, namespace: shop}}, spec: {{workloadSelector: {{labels: {{app: client}}}}, egress: [{{port: {{number: {tcp}, name: tcp, protocol: TCP}}, hosts: [shop/{HOST}]}}, {{hosts: ['*/*']}}]}}}}
"
    )
}

/// A node with what Istio's agent says of its workload; `exchanges` if its proxy can tell.
fn node(id: &str, name: &str, extra: &str, exchanges: bool) -> String {
    let exchange = if exchanges { "{name: istio.metadata_exchange}, {name: istio.stats}" } else { "" };
    format!(
        "{{id: {id}, metadata: {{MELTEMI_SDS: 'true', WORKLOAD_NAME: {name}, NAMESPACE: shop, CLUSTER_ID: Kubernetes, LABELS: {{app: {name}, version: v1}}, {extra}}}, extensions: [{exchange}]}}"
    )
}

fn sidecar(name: &str, http_proxy: &str, exchanges: bool) -> String {
    let id = format!("sidecar~127.0.0.1~{name}-0.shop~shop.svc.cluster.local");
    let extra = format!("INTERCEPTION_MODE: NONE, HTTP_PROXY_PORT: '{http_proxy}'");
    node(&id, name, &extra, exchanges)
}

async fn run(proxy: &Proxy, bootstrap: &serde_json::Value, dir: &Path) -> Running {
    let dir = tempfile::tempdir_in(dir).expect("a folder").keep();
    let path = dir.join("bootstrap.json");
    std::fs::write(&path, bootstrap.to_string()).expect("the folder is writable");
    start(proxy, &path, &dir).await.expect("the proxy starts")
}

/// Both sidecars.
struct Pair {
    server: Running,
    client: Running,
    ports: Ports,
}

impl Pair {
    /// `caller` is the proxy of the client.
    async fn start(caller: &Proxy, backend: SocketAddr, bytes: SocketAddr, dir: &Path) -> Pair {
        let root = Root::new();
        Pair::of(caller, &root, (backend, bytes), dir).await
    }

    async fn of(caller: &Proxy, root: &Root, backends: (SocketAddr, SocketAddr), dir: &Path) -> Pair {
        let ports = Ports::new();
        let objects = mesh(&ports, backends.0, backends.1);
        let of = |node: &str, identity: &Identity| {
            standalone::bootstrap(&objects, node, standalone::of_agent(identity, root))
        };
        let ours = Proxy::Meltemi(peers::meltemi());
        let server = run(&ours, &of(&sidecar("reviews", "", true), &root.sign(REVIEWS)), dir).await;
        let exchanges = matches!(caller, Proxy::Meltemi(_));
        let client = sidecar("client", &ports.http.to_string(), exchanges);
        let client = run(caller, &of(&client, &root.sign(CLIENT)), dir).await;
        Pair { server, client, ports }
    }

    /// Calls the workload by HTTP, with headers of the client's own.
    async fn get(&self, headers: &[(&str, &str)]) -> client::Answer {
        let mut request = Request::get("/").header("host", HOST);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Bytes::new()).expect("a request");
        client::http1(([127, 0, 0, 1], self.ports.http).into(), request).await.expect("an answer")
    }

    /// A connection to the port for bytes, greeted.
    async fn connect(&self) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.tcp)).await.expect("connected");
        assert_eq!(exactly(&mut stream, GREETING.len()).await, GREETING);
        stream
    }
}

async fn exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let read = tokio::time::timeout(DEADLINE, stream.read_exact(&mut bytes)).await;
    read.expect("in time").expect("as much as that");
    bytes
}

/// A workload that greets, and sends back what comes.
async fn greeting_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                if write.write_all(GREETING).await.is_ok() {
                    let _gone = tokio::io::copy(&mut read, &mut write).await;
                }
            });
        }
    });
    address
}

/// Waits for a series of a metric with all of these labels; gives its value.
async fn series(running: &Running, metric: &str, labels: &[&str]) -> u64 {
    let mut page = String::new();
    let found = until("the series is there", DEADLINE, async || {
        let answer = client::get(running.admin, "admin", "/stats/prometheus").await.ok()?;
        page = String::from_utf8_lossy(answer.body()).into_owned();
        let line = page.lines().find(|line| {
            line.starts_with(&format!("{metric}{{")) && labels.iter().all(|label| line.contains(label))
        })?;
        line.rsplit(' ').next()?.parse().ok()
    });
    let found = found.await;
    let own = || page.lines().filter(|line| line.starts_with(metric)).collect::<Vec<_>>().join("\n");
    found.unwrap_or_else(|error| panic!("{error}: {metric} {labels:?}\n{}", own()))
}

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&BOTH[..], more].concat()
}

fn metadata(received: &Received) -> Vec<&(String, String)> {
    received.headers.iter().filter(|(name, _)| name.starts_with("x-envoy-peer-metadata")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_a_request_are_named() {
    let scratch = tempfile::tempdir().expect("a folder");
    let backend = Backend::start("reviews").await.expect("a backend");
    let ours = Proxy::Meltemi(peers::meltemi());
    let pair = Pair::start(&ours, backend.address, greeting_echo().await, scratch.path()).await;
    // What a workload says of itself is not believed: its sidecar speaks for it.
    let forged = [("x-envoy-peer-metadata", "AAAA"), ("x-envoy-peer-metadata-id", "someone")];
    for headers in [&[][..], &forged] {
        let answer = pair.get(headers).await;
        assert_eq!(answer.status(), 200);
        assert!(answer.headers().keys().all(|name| !name.as_str().contains("peer-metadata")), "{answer:?}");
        let received = backend.take().pop().expect("a request");
        assert_eq!(metadata(&received), Vec::<&(String, String)>::new());
    }
    let of_server = with(&["reporter=\"destination\"", "connection_security_policy=\"mutual_tls\""]);
    assert_eq!(series(&pair.server, "istio_requests_total", &of_server).await, 2);
    let of_client = with(&["reporter=\"source\"", "connection_security_policy=\"unknown\""]);
    assert_eq!(series(&pair.client, "istio_requests_total", &of_client).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_a_connection_are_named() {
    let scratch = tempfile::tempdir().expect("a folder");
    let backend = Backend::quiet("reviews").await.expect("a backend");
    let ours = Proxy::Meltemi(peers::meltemi());
    let pair = Pair::start(&ours, backend.address, greeting_echo().await, scratch.path()).await;
    let mut stream = pair.connect().await;
    stream.write_all(SAID).await.expect("sent");
    assert_eq!(exactly(&mut stream, SAID.len()).await, SAID);
    let of_server = with(&["reporter=\"destination\"", "connection_security_policy=\"mutual_tls\""]);
    let of_client = with(&["reporter=\"source\"", "connection_security_policy=\"unknown\""]);
    let sides = [(&pair.server, of_server), (&pair.client, of_client)];
    for (running, labels) in &sides {
        assert_eq!(series(running, "istio_tcp_connections_opened_total", labels).await, 1);
    }
    drop(stream);
    for (running, labels) in &sides {
        let closed = until("the connection is over", DEADLINE, async || {
            (series(running, "istio_tcp_connections_closed_total", labels).await == 1).then_some(())
        });
        closed.await.expect("closed");
        // Frames are no bytes of the connection.
        assert_eq!(series(running, "istio_tcp_received_bytes_total", labels).await, SAID.len() as u64);
        let sent = (GREETING.len() + SAID.len()) as u64;
        assert_eq!(series(running, "istio_tcp_sent_bytes_total", labels).await, sent);
    }
}

/// A client whose proxy never heard of the exchange is served, and known by what its certificate proves.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_does_not_tell_is_served() {
    let Some(envoy) = peers::envoy() else { return peers::missing("no Envoy") };
    let scratch = tempfile::tempdir().expect("a folder");
    let backend = Backend::start("reviews").await.expect("a backend");
    let pair =
        Pair::start(&Proxy::Envoy(envoy), backend.address, greeting_echo().await, scratch.path()).await;
    let answer = pair.get(&[]).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().keys().all(|name| !name.as_str().contains("peer-metadata")), "{answer:?}");
    let mut stream = pair.connect().await;
    stream.write_all(SAID).await.expect("sent");
    assert_eq!(exactly(&mut stream, SAID.len()).await, SAID);
    let labels = [
        "source_workload=\"unknown\"",
        "source_workload_namespace=\"shop\"",
        "source_principal=\"spiffe://cluster.local/ns/shop/sa/client\"",
        "destination_workload=\"reviews\"",
        "connection_security_policy=\"mutual_tls\"",
    ];
    assert_eq!(series(&pair.server, "istio_requests_total", &labels).await, 1);
    assert_eq!(series(&pair.server, "istio_tcp_connections_opened_total", &labels).await, 1);
}

/// Whoever agrees to the exchange and then sends no frame is heard all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_frame_is_heard() {
    let scratch = tempfile::tempdir().expect("a folder");
    let backend = Backend::start("reviews").await.expect("a backend");
    let root = Root::new();
    let ours = Proxy::Meltemi(peers::meltemi());
    let pair = Pair::of(&ours, &root, (backend.address, backend.address), scratch.path()).await;
    let caller = root.sign(CLIENT);
    let answer =
        Caller::Mutual(&caller).call(pair.ports.inbound_tcp, "outbound_.9000_._.reviews", HOST).await;
    let told = answer.expect_err("a frame comes first");
    assert!(told.starts_with("=#\u{4}g") && told.contains("HTTP/1.1 200"), "{told}");
    assert_eq!(backend.take().len(), 1);
    let labels =
        ["source_workload=\"unknown\"", "source_principal=\"spiffe://cluster.local/ns/shop/sa/client\""];
    assert_eq!(series(&pair.server, "istio_tcp_connections_opened_total", &labels).await, 1);
}

/// A gateway speaks for itself, whatever clients from outside say.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_believes_nobody_from_outside() {
    let scratch = tempfile::tempdir().expect("a folder");
    let backend = Backend::start("reviews").await.expect("a backend");
    let port = free_port().expect("a port");
    let objects = format!(
        "
{{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {{name: edge, namespace: shop}}, spec: {{selector: {{app: edge}}, servers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: web, namespace: shop}}, spec: {{hosts: [web.example.net], gateways: [edge], http: [{{route: [{{destination: {{host: web.example.net}}}}]}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: web, namespace: shop}}, spec: {{hosts: [web.example.net], resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP}}], endpoints: [{{address: 127.0.0.1, ports: {{http: {}}}}}]}}}}
",
        backend.address.port()
    );
    let id = "router~127.0.0.1~edge-0.shop~shop.svc.cluster.local";
    let node = node(id, "edge", "MELTEMI_GATEWAY_BIND: 127.0.0.1", true);
    let bootstrap = standalone::bootstrap(&objects, &node, Vec::new());
    let gateway = run(&Proxy::Meltemi(peers::meltemi()), &bootstrap, scratch.path()).await;
    let request = Request::get("/")
        .header("host", "web.example.net")
        .header("x-envoy-peer-metadata", "Zm9yZ2Vk")
        .header("x-envoy-peer-metadata-id", "forged")
        .body(Bytes::new())
        .expect("a request");
    let answer = client::http1(([127, 0, 0, 1], port).into(), request).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let received = backend.take().pop().expect("a request");
    let told = metadata(&received);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|(_, value)| !value.contains("forged") && value != "Zm9yZ2Vk"), "{told:?}");
    assert!(told.iter().any(|(_, value)| value == id), "{told:?}");
    // The endpoint is called by its ServiceEntry and its place there, as Istio does; nothing of the client is believed.
    let labels = ["reporter=\"source\"", "source_workload=\"edge\"", "destination_workload=\"web-0\""];
    assert_eq!(series(&gateway, "istio_requests_total", &labels).await, 1);
}
