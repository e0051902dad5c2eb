//! A sidecar whose connections the kernel redirects, by what our control plane sends: out to a service and in to the
//! workload, on our proxy and on a stock Envoy. The workload calls itself, so one call takes both ways.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use meltemi_e2e::backend::free_port;
use meltemi_e2e::client;
use meltemi_e2e::differential::{Proxy, start};
use meltemi_e2e::peers;
use meltemi_e2e::process::{DEADLINE, Process, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Addresses of services and of the workload; what the proxy sends the workload is not redirected again.
const NETWORK: &str = "
ip link set lo up
ip addr add 10.9.8.1/24 dev lo
ip addr add 10.9.7.2/32 dev lo
nft 'table ip redirected { chain output { type nat hook output priority -100;
     ip saddr 127.0.0.6 accept;
     ip daddr 10.9.7.2 tcp dport 1024-9999 redirect to :15006;
     ip daddr 10.9.8.0/24 ip protocol tcp redirect to :15001; }; }'
";

const MESH: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'outboundTrafficPolicy: {mode: REGISTRY_ONLY}'}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.9.8.1
  selector: {app: cart}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 9000}, {name: any, port: 9001, targetPort: 8080}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: cart-0, namespace: shop}
spec: {address: 10.9.7.2, labels: {app: cart}}
";

/// Answers every connection with the address that it came from; of requests as HTTP.
async fn workload(address: &str, is_http: bool) {
    let listener = TcpListener::bind(address).await.expect("a namespace of its own");
    tokio::spawn(async move {
        while let Ok((mut stream, caller)) = listener.accept().await {
            let from = caller.ip().to_string();
            let text = match is_http {
                true => format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{from}",
                    from.len()
                ),
                false => from,
            };
            // The caller may be gone: a proxy asks nobody before it closes.
            let mut head = [0; 4096];
            if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                let _gone = stream.write_all(text.as_bytes()).await;
            }
        }
    });
}

fn control_plane(dir: &Path) -> (Process, SocketAddr) {
    let mesh = dir.join("mesh");
    std::fs::create_dir(&mesh).expect("writable");
    std::fs::write(mesh.join("mesh.yaml"), MESH).expect("writable");
    let address = || SocketAddr::from(([127, 0, 0, 1], free_port().expect("a port")));
    let (xds, admin) = (address(), address());
    let mut command = Command::new(peers::meltemi());
    command.args(["control-plane", "--config", &mesh.display().to_string()]);
    command.args([format!("--xds-address={xds}"), format!("--admin-address={admin}")]);
    (Process::spawn(&mut command, &dir.join("control.log")).expect("it starts"), xds)
}

fn bootstrap(xds: SocketAddr) -> Value {
    let options = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let ads = json!({ "ads": {}, "resource_api_version": "V3" });
    json!({
        "node": {
            "id": "sidecar~10.9.7.2~cart-0.shop~shop.svc.cluster.local",
            "cluster": "cart",
            "metadata": { "NAMESPACE": "shop", "INSTANCE_IPS": "10.9.7.2", "LABELS": { "app": "cart" } },
        },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": { "api_type": "GRPC", "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }] },
        },
        "static_resources": { "clusters": [{
            "name": "xds-grpc", "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": { "cluster_name": "xds-grpc", "endpoints": [{ "lb_endpoints": [{ "endpoint": {
                "address": { "socket_address": { "address": xds.ip().to_string(), "port_value": xds.port() } } } }] }] },
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options, "explicit_http_config": { "http2_protocol_options": {} } } },
        }] },
    })
}

#[test]
fn a_sidecar_takes_what_is_redirected_out_and_in() {
    super::in_a_network(NETWORK, "redirected::mesh::inside");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a_sidecar_takes_what_is_redirected_out_and_in runs it in a namespace"]
async fn inside() {
    for (address, is_http) in [("10.9.7.2:8080", true), ("10.9.7.2:9000", false), ("10.9.7.2:9999", false)] {
        workload(address, is_http).await;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let (_control, xds) = control_plane(dir.path());
    calls(&Proxy::Meltemi(peers::meltemi()), xds, dir.path()).await;
    match peers::envoy() {
        Some(envoy) => calls(&Proxy::Envoy(envoy), xds, dir.path()).await,
        None => peers::missing("no Envoy to compare with"),
    }
}

/// The workload sees the proxy's own address, as everything has come in through it.
const PROXY: &str = "127.0.0.6";

async fn calls(proxy: &Proxy, xds: SocketAddr, dir: &Path) {
    let path = dir.join("bootstrap.json");
    std::fs::write(&path, bootstrap(xds).to_string()).expect("written");
    let _stale = std::fs::remove_file(dir.join("admin-address"));
    let mut running = start(proxy, &path, dir).await.expect("the proxy is up");
    let port = |port| SocketAddr::from(([10, 9, 8, 1], port));
    let try_get = async |address: SocketAddr, host: &str| {
        let answer = client::get(address, host, "/").await.ok()?;
        Some((answer.status().as_u16(), String::from_utf8_lossy(answer.body()).into_owned()))
    };
    let get = async |address: SocketAddr, host: &str| try_get(address, host).await.expect("an answer");
    let found = (200, PROXY.to_owned());
    // Being ready does not wait for listeners and endpoints.
    let served = async || (try_get(port(80), "cart.shop").await.as_ref() == Some(&found)).then_some(());
    let is_served = until("the service", DEADLINE, served).await;
    assert!(is_served.is_ok(), "{proxy:?}: {}", running.process.output());
    for host in ["cart", "cart.shop.svc.cluster.local:80", "10.9.8.1"] {
        assert_eq!(get(port(80), host).await, found, "{proxy:?} {host}");
    }
    assert_eq!(get(port(9001), "whatever").await, found, "{proxy:?}: HTTP is found out");
    assert_eq!(said(port(9000)).await, PROXY, "{proxy:?}: bytes");
    let undeclared = SocketAddr::from(([10, 9, 7, 2], 9999));
    assert_eq!(said(undeclared).await, PROXY, "{proxy:?}: a port that nobody declares");
    let stranger = |port| SocketAddr::from(([10, 9, 8, 77], port));
    assert_eq!(get(stranger(80), "elsewhere.example.com").await.0, 502, "{proxy:?}");
    assert_eq!(said(stranger(9500)).await, "", "{proxy:?}: nobody knows the address");
    for own in [15001, 15006] {
        assert_eq!(said(SocketAddr::from(([127, 0, 0, 1], own))).await, "", "{proxy:?}: no loop");
    }
    running.process.signal(rustix::process::Signal::KILL);
    running.process.wait(Duration::from_secs(5)).await.expect("it is gone, and its ports are free");
}

/// Everything that comes over a connection after a word of the client, without which a port that is looked into waits.
async fn said(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let _reset = stream.write_all(b"hello\r\n").await;
    let mut text = String::new();
    // A reset ends a connection too.
    let read = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut text)).await;
    let _reset = read.expect("the connection ends");
    text
}
