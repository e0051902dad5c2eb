//! The same server over TLS: verified, with a certificate of ours that comes by a file, and servers that mean harm.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meltemi_e2e::certificates::{CertificateSpec, Certificates};
use tokio::net::TcpListener;

use super::*;

const TLS: &str = "envoy.extensions.transport_sockets.tls.v3";
const WAY: Way = Way { aggregated: true, delta: false, unix: false };

fn certificates(dir: &Path) -> Certificates {
    let of = |issuer: &str, dns: &str| CertificateSpec {
        issuer: Some(issuer.to_owned()),
        dns: vec![dns.to_owned()],
        ..CertificateSpec::default()
    };
    let root = || CertificateSpec { ca: true, ..CertificateSpec::default() };
    let specs = [
        ("root".to_owned(), root()),
        ("other".to_owned(), root()),
        ("server".to_owned(), of("root", "xds.example")),
        ("client".to_owned(), of("root", "proxy.example")),
        ("stranger".to_owned(), of("other", "proxy.example")),
    ];
    let made = Certificates::make(&specs, dir).expect("the folder is writable");
    std::fs::copy(dir.join("root.pem"), dir.join("clients.pem")).expect("the folder is writable");
    made
}

/// Puts a certificate into the file that the bootstrap names, as Kubernetes would.
fn show(dir: &Path, certificates: &Certificates, name: &str) {
    let (chain, key) = certificates.pem(name).expect("it was made");
    let certificate =
        json!({"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}});
    let secret = typed(&format!("{TLS}.Secret"), json!({"name": "own", "tls_certificate": certificate}));
    let next = dir.join("own.next");
    std::fs::write(&next, json!({"resources": [secret]}).to_string()).expect("the folder is writable");
    std::fs::rename(&next, dir.join("own.json")).expect("the file is replaced");
}

/// The bootstrap of the server, over TLS to this port and with these roots and this name.
fn bootstrap(server: &Server, dir: &Path, roots: &str, name: &str) -> Value {
    let mut bootstrap = server.bootstrap(WAY);
    let own = json!({"name": "own", "sds_config": {"path_config_source": {"path": dir.join("own.json")}}});
    let rules = json!({"trusted_ca": {"filename": dir.join(roots)},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": name}}]});
    let common = json!({"tls_certificate_sds_secret_configs": [own], "validation_context": rules});
    let context = json!({"sni": "xds.example", "common_tls_context": common});
    bootstrap["static_resources"]["clusters"][0]["transport_socket"] =
        json!({"name": "tls", "typed_config": typed(&format!("{TLS}.UpstreamTlsContext"), context)});
    for field in ["lds_config", "cds_config"] {
        // Who gets no answer starts all the same.
        bootstrap["dynamic_resources"][field]["initial_fetch_timeout"] = "0.5s".into();
    }
    bootstrap
}

async fn run(proxy: &Proxy, dir: &Path, bootstrap: &Value) -> Running {
    let path = dir.join("bootstrap.json");
    std::fs::write(&path, bootstrap.to_string()).expect("the folder is writable");
    let _stale = std::fs::remove_file(dir.join("admin-address"));
    start(proxy, &path, dir).await.expect("the proxy starts")
}

async fn listens(running: &Running) {
    let listens = until("the listener", DEADLINE, async || {
        let answer = client::get(running.admin, "admin", "/listeners").await.ok()?;
        String::from_utf8_lossy(answer.body()).contains("main::").then_some(())
    });
    listens.await.expect("resources come");
}

/// A number of `/stats`.
async fn stat(running: &Running, name: &str) -> u64 {
    let answer = client::get(running.admin, "admin", "/stats").await.expect("the admin answers");
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

/// `None` when the server's package is not installed.
async fn check(proxy: &Proxy) -> Option<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let certificates = certificates(dir);
    let server = Server::start(dir).await?;
    serve_all(&server, WAY, 9);

    // Neither a server of another authority nor one of another name is told anything.
    show(dir, &certificates, "client");
    for (roots, name) in [("other.pem", "xds.example"), ("root.pem", "other.example")] {
        let running = run(proxy, dir, &bootstrap(&server, dir, roots, name)).await;
        let failed = async || (stat(&running, "cluster.xds.ssl.handshake").await == 0).then_some(());
        until("no handshake", DEADLINE, failed).await.expect("nothing");
        assert!(running.listeners.is_empty(), "{proxy:?}: {name} by {roots}");
        assert_eq!(server.requests(), Vec::<Value>::new(), "{proxy:?}: {name} by {roots}");
    }

    // A certificate that the server does not believe, until it is replaced.
    show(dir, &certificates, "stranger");
    let running = run(proxy, dir, &bootstrap(&server, dir, "root.pem", "xds.example")).await;
    assert!(running.listeners.is_empty(), "{proxy:?}");
    assert_eq!(server.requests(), Vec::<Value>::new(), "{proxy:?}");
    show(dir, &certificates, "client");
    listens(&running).await;
    assert_eq!(server.requests()[0]["node"], "proxy", "{proxy:?}");
    Some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_come_over_tls_from_whom_the_rules_name_and_nobody_else() {
    if check(&Proxy::Meltemi(peers::meltemi())).await.is_none() {
        return;
    }
    let Some(envoy) = peers::envoy() else { return };
    check(&Proxy::Envoy(envoy)).await.expect("the server runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_in_the_handshake_holds_nothing_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let certificates = certificates(dir);
    show(dir, &certificates, "client");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address: SocketAddr = listener.local_addr().expect("bound");
    let came = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&came);
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            silent.push(stream);
        }
    });
    let Some(server) = Server::start(dir).await else { return };
    let mut bootstrap = bootstrap(&server, dir, "root.pem", "xds.example");
    let endpoint = &mut bootstrap["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0];
    endpoint["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] =
        address.port().into();
    // It starts without an answer, and comes back for one.
    let running = run(&Proxy::Meltemi(peers::meltemi()), dir, &bootstrap).await;
    let again = async || (came.load(Ordering::Relaxed) > 2).then_some(());
    until("further attempts", DEADLINE, again).await.expect("the handshake is given up");
    assert_eq!(stat(&running, "server.live").await, 1);
}
