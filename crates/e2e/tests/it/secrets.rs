//! Secrets by SDS from a server that nobody here wrote, over every kind of stream, in our proxy and in Envoy.

mod clusters;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use meltemi_e2e::client;
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::peers;
use meltemi_e2e::process::{DEADLINE, until};
use meltemi_e2e::tls_client::AnyServer;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::xds_server::{Server, TYPE, WAYS, Way, typed};

const TLS: &str = "envoy.extensions.transport_sockets.tls.v3";

/// An open connection, and the certificate that the proxy showed on it.
struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    shown: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> anyhow::Result<Connection> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer::new()))
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect("shop.example".try_into()?, stream).await?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).context("a certificate")?;
        let shown = leaf.to_vec();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, shown })
    }

    /// The body of an answer.
    async fn call(&mut self) -> anyhow::Result<String> {
        let request = Request::get("/").header("host", "shop.example").body(Empty::new())?;
        let answer = self.sender.send_request(request).await?.into_body().collect().await?;
        Ok(String::from_utf8_lossy(&answer.to_bytes()).into_owned())
    }
}

/// A certificate as PEM with its key, and as DER.
struct Pair {
    chain: String,
    key: String,
    der: Vec<u8>,
}

impl Pair {
    fn new(name: &str) -> Pair {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
        Pair { chain: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().to_vec() }
    }

    fn secret(&self, name: &str, key: &Pair) -> Value {
        let certificate = json!({"certificate_chain": {"inline_string": self.chain}, "private_key": {"inline_string": key.key}});
        typed(&format!("{TLS}.Secret"), json!({"name": name, "tls_certificate": certificate}))
    }
}

fn listener(name: &str, secret: &str, source: &Value) -> Value {
    let route = json!({"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": name}}});
    let router = json!({"name": "router", "typed_config": {"@type": format!("{TYPE}envoy.extensions.filters.http.router.v3.Router")}});
    let manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({"stat_prefix": name, "http_filters": [router],
            "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]}}),
    );
    let mut source = source.clone();
    source["initial_fetch_timeout"] = "0.3s".into();
    let context = json!({"common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": secret, "sds_config": source}]}});
    let socket =
        json!({"name": "tls", "typed_config": typed(&format!("{TLS}.DownstreamTlsContext"), context)});
    json!({"name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"transport_socket": socket, "filters": [{"name": "http", "typed_config": manager}]}]})
}

/// A bootstrap whose listeners get their certificates by SDS; nothing else is dynamic.
fn bootstrap(server: &Server, way: Way) -> Value {
    let mut bootstrap = server.bootstrap(way);
    let source = way.source();
    bootstrap["static_resources"]["listeners"] =
        json!([listener("main", "cert", &source), listener("late", "later", &source)]);
    for field in ["lds_config", "cds_config"] {
        bootstrap["dynamic_resources"].as_object_mut().expect("an object").remove(field);
    }
    bootstrap
}

/// The numbers that both must agree on. How often a server repeats itself depends on which names are asked for together.
const STATS: &[&str] = &[
    "sds.cert.update_rejected",
    "sds.cert.key_rotation_failed",
    "sds.cert.version_text",
    "sds.cert.init_fetch_timeout",
    "sds.later.update_success",
    "sds.later.init_fetch_timeout",
];

async fn stats(running: &Running, wanted: &[&str]) -> Vec<String> {
    let answer = client::get(running.admin, "admin", "/stats").await.expect("the admin answers");
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    let is_wanted = |line: &&str| line.split_once(": ").is_some_and(|(name, _)| wanted.contains(&name));
    let mut kept: Vec<String> = text.lines().filter(is_wanted).map(str::to_owned).collect();
    kept.sort_unstable();
    kept
}

async fn shows(address: SocketAddr, pair: &Pair) -> Connection {
    let open =
        async || Connection::open(address).await.ok().filter(|connection| connection.shown == pair.der);
    until("the certificate", DEADLINE, open).await.expect("the proxy shows it")
}

/// A certificate that is rotated, one that cannot be used, and one that comes late; gives the numbers at the end.
async fn life(proxy: &Proxy, way: Way) -> Option<Vec<String>> {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await?;
    let (old, new, late) = (Pair::new("old.example"), Pair::new("new.example"), Pair::new("late.example"));
    server.serve("secrets", "1", &[old.secret("cert", &old)]);
    let path = dir.path().join("bootstrap.json");
    std::fs::write(&path, bootstrap(&server, way).to_string()).expect("the folder is writable");
    let running = start(proxy, &path, dir.path()).await.expect("the proxy starts");
    let address = running.listeners["main"];

    let mut before = shows(address, &old).await;
    assert_eq!(before.call().await.expect("an answer"), "main");
    assert!(Connection::open(running.listeners["late"]).await.is_err(), "there is no certificate yet");
    server.serve("secrets", "2", &[new.secret("cert", &new)]);
    shows(address, &new).await;
    assert_eq!(before.call().await.expect("the old connection goes on"), "main");

    server.serve("secrets", "3", &[old.secret("cert", &new)]);
    let reason = server.refused(&format!("{TLS}.Secret")).await;
    assert!(reason.contains("private_key") || reason.contains("KEY_VALUES_MISMATCH"), "{reason}");
    shows(address, &new).await;
    server.serve("secrets", "4", &[old.secret("cert", &old), late.secret("later", &late)]);
    shows(address, &old).await;
    shows(running.listeners["late"], &late).await;
    assert_redacted(&running, &["cert", "later"]).await;
    Some(stats(&running, STATS).await)
}

/// The interface tells certificates and no key.
async fn assert_redacted(running: &Running, names: &[&str]) {
    let answer = client::get(running.admin, "admin", "/config_dump").await.expect("the admin answers");
    let dump: Value = serde_json::from_slice(answer.body()).expect("JSON");
    let secrets = dump["configs"].as_array().expect("a list").last().expect("secrets are last").clone();
    let active = secrets["dynamic_active_secrets"].as_array().expect("a list");
    let mut found: Vec<&str> = active.iter().filter_map(|secret| secret["name"].as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, names);
    for secret in active {
        let Some(certificate) = secret["secret"].get("tls_certificate") else { continue };
        assert_eq!(certificate["private_key"]["inline_string"], "[redacted]");
        assert!(
            certificate["certificate_chain"]["inline_string"]
                .as_str()
                .is_some_and(|pem| pem.contains("BEGIN"))
        );
    }
    assert!(!String::from_utf8_lossy(answer.body()).contains("PRIVATE KEY"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_come_by_every_kind_of_stream_and_are_rotated() {
    for way in WAYS {
        let Some(ours) = life(&Proxy::Meltemi(peers::meltemi()), way).await else { return };
        let Some(envoy) = peers::envoy() else { return };
        let envoy = life(&Proxy::Envoy(envoy), way).await.expect("the server runs");
        assert_eq!(ours.len(), STATS.len(), "{ours:?}");
        assert_eq!(ours, envoy, "{way:?}");
    }
}
