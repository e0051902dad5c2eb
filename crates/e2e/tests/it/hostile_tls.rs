//! Clients of a TLS listener that mean harm: what they get, what they cost, and that everybody else is still served.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meltemi_e2e::certificates::{CertificateSpec, Certificates};
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::process::{DEADLINE, until};
use meltemi_e2e::tls_client::AnyServer;
use meltemi_e2e::{client, peers};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Nothing here may take longer.
const PATIENCE: Duration = Duration::from_secs(8);
/// What the memory of the proxy may grow by under any of these attacks.
const GROWTH_MAX_KIB: usize = 24 << 10;
/// Clients that come at once and say next to nothing.
const SLOW_CLIENTS: usize = 300;
/// 80 bytes.
const TICKET_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// `transport_socket_connect_timeout` of the listener.
const HANDSHAKE: &str = "2s";
/// Minor weaknesses that testssl.sh may find, by its id, and why each is none. Everything else of severity MEDIUM or
/// above fails.
const ACCEPTED: &[(&str, &str)] = &[
    ("cert_trust", "the certificate is of a test's own authority"),
    ("cert_chain_of_trust", "the certificate is of a test's own authority"),
    ("cert_revocation", "a test's own authority has no revocation service"),
    ("cert_ocspURL", "a test's own authority has no revocation service"),
    ("cert_crlDistributionPoints", "a test's own authority has no revocation service"),
    ("cert_subjectAltName", "it is for shop.example, and the listener is called by its address"),
    ("DNS_CAArecord", "there is no DNS"),
    ("overall_grade", "a grade of what stands above: T for the untrusted certificate"),
    ("grade_cap_reason_1", "a grade of what stands above"),
];

/// A proxy whose listener ends TLS as a gateway's does.
struct Target {
    running: Running,
    resident_kib: usize,
    dir: TempDir,
}

fn bootstrap(dir: &std::path::Path) -> Value {
    let tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    let hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let route = json!({"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}});
    let manager = json!({"@type": hcm, "stat_prefix": "main",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": router}}]});
    let certificate = json!({"certificate_chain": {"filename": dir.join("server.pem")},
        "private_key": {"filename": dir.join("server.key")}});
    let keys = json!({"keys": [{"inline_string": TICKET_KEY}]});
    let any = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    let listener = |name: &str, more: Value, rules: Value| {
        let mut context = json!({"@type": tls, "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [certificate.clone()]}});
        context.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let common = context["common_tls_context"].as_object_mut().expect("an object");
        common.extend(rules.as_object().expect("an object").clone());
        let chain = json!({"transport_socket_connect_timeout": HANDSHAKE,
            "transport_socket": {"name": "tls", "typed_config": context},
            "filters": [{"name": "http", "typed_config": manager.clone()}]});
        json!({"name": name, "address": any.clone(), "filter_chains": [chain]})
    };
    let roots = json!({"validation_context": {"trusted_ca": {"filename": dir.join("root.pem")}}});
    let shared = json!({"session_ticket_keys": keys});
    let demanding = json!({"session_ticket_keys": keys, "require_client_certificate": true});
    let listeners = [
        listener("main", json!({}), json!({})),
        listener("open", shared.clone(), json!({})),
        listener("asks", shared, roots.clone()),
        listener("demands", demanding, roots),
    ];
    json!({"admin": {"address": any}, "static_resources": {"listeners": listeners}})
}

impl Target {
    async fn start() -> Target {
        let dir = tempfile::tempdir().expect("a folder");
        let root = CertificateSpec { ca: true, ..CertificateSpec::default() };
        let server = CertificateSpec {
            issuer: Some("root".to_owned()),
            dns: vec!["shop.example".to_owned()],
            usage: Some("server".to_owned()),
            // Long enough for testssl.sh not to warn.
            ends_h: Some(90 * 24),
            ..CertificateSpec::default()
        };
        let specs = [("root".to_owned(), root), ("server".to_owned(), server)];
        Certificates::make(&specs, dir.path()).expect("the folder is writable");
        let path = dir.path().join("bootstrap.json");
        std::fs::write(&path, bootstrap(dir.path()).to_string()).expect("the folder is writable");
        let proxy = Proxy::Meltemi(peers::meltemi());
        let running = start(&proxy, &path, dir.path()).await.expect("the proxy is up");
        let mut target = Target { running, resident_kib: 0, dir };
        target.assert_serving().await;
        target.resident_kib = target.resident_kib();
        target
    }

    fn address(&self) -> SocketAddr {
        self.running.listeners["main"]
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.expect("connected")
    }

    async fn assert_serving(&self) {
        let config = anybody(rustls::ALL_VERSIONS);
        assert_eq!(self.call("main", &config).await.expect("served"), HandshakeKind::Full);
    }

    /// A whole call; how the handshake was, if it was answered.
    async fn call(&self, listener: &str, config: &Arc<ClientConfig>) -> std::io::Result<HandshakeKind> {
        let stream = TcpStream::connect(self.running.listeners[listener]).await?;
        let name = "shop.example".try_into().expect("a name");
        let serving = async {
            let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
            Ok(stream.get_ref().1.handshake_kind().expect("it is over"))
        };
        timeout(PATIENCE, serving).await.expect("in time")
    }

    fn resident_kib(&self) -> usize {
        let path = format!("/proc/{}/status", self.running.process.pid());
        let status = std::fs::read_to_string(path).expect("the proxy runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn assert_small(&self, attack: &str) {
        let grown = self.resident_kib().saturating_sub(self.resident_kib);
        assert!(grown < GROWTH_MAX_KIB, "{attack}: {grown} KiB more");
    }

    async fn stat(&self, end: &str) -> u64 {
        let answer = client::get(self.running.admin, "admin", "/stats").await.expect("the admin answers");
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        let value = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            name.ends_with(end).then(|| value.parse().ok()).flatten()
        };
        text.lines().find_map(value).unwrap_or(0)
    }
}

/// A client without a certificate, which remembers sessions.
fn anybody(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer::new()))
        .with_no_client_auth();
    Arc::new(config)
}

/// Reads until the proxy closes; gives what came.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let reading = async { while stream.read_buf(&mut received).await.is_ok_and(|count| count > 0) {} };
    timeout(PATIENCE, reading).await.expect("the proxy closes");
    received
}

/// A record of a handshake.
fn record(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a record");
    [&[22, 3, 1][..], &length.to_be_bytes(), content].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_without_end_is_cut_off() {
    let target = Target::start().await;
    // A hello that says it has 16 MiB, in whole records and byte by byte.
    let begin = [1, 0xff, 0xff, 0xff, 3, 3];
    for (what, size) in [("records of 16 KiB", 16 << 10), ("records of one byte", 1)] {
        let mut stream = target.connect().await;
        let mut sent = 0_usize;
        let pressing = async {
            stream.write_all(&record(&begin)).await?;
            let piece = record(&vec![7; size]).repeat((16 << 10) / size);
            while sent < 64 << 20 {
                stream.write_all(&piece).await?;
                sent += piece.len();
            }
            std::io::Result::Ok(())
        };
        let pressed = timeout(PATIENCE, pressing).await.expect("neither taken nor refused");
        assert!(pressed.is_err(), "{what}: {sent} bytes were taken");
        target.assert_small(what);
    }
    // A record that says it is longer than records are.
    let mut stream = target.connect().await;
    let _sent = stream.write_all(&[22, 3, 1, 0xff, 0xff]).await;
    let _sent = stream.write_all(&vec![1; 0xffff]).await;
    let answer = until_closed(&mut stream).await;
    assert!(answer.is_empty() || answer[0] == 21, "an alert or nothing: {answer:?}");
    target.assert_serving().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_handshakes_run_out_of_time_and_cost_little() {
    let target = Target::start().await;
    let began = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..SLOW_CLIENTS {
        let mut stream = target.connect().await;
        stream.write_all(&[22, 3, 1]).await.expect("taken");
        slow.push(stream);
    }
    target.assert_small("slow clients");
    target.assert_serving().await;
    // One byte a little before each next look: what counts is the whole handshake, not each piece.
    for stream in &mut slow {
        let _sent = stream.write_all(&[2]).await;
    }
    for stream in &mut slow {
        assert_eq!(until_closed(stream).await, Vec::<u8>::new());
    }
    assert!(began.elapsed() < DEADLINE);
    target.assert_serving().await;
    target.assert_small("slow clients");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_does_not_replace_the_certificate_that_is_demanded() {
    let target = Target::start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        // All listeners have the same keys for tickets.
        for lenient in ["open", "asks"] {
            let config = anybody(&[version]);
            assert_eq!(target.call(lenient, &config).await.expect("served"), HandshakeKind::Full);
            assert_eq!(target.call(lenient, &config).await.expect("served"), HandshakeKind::Resumed);
            let evading = target.call("demands", &config).await;
            assert!(evading.is_err(), "{version:?} from {lenient}: {evading:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_renegotiates() {
    let target = Target::start().await;
    let before = target.stat("ssl.handshake").await;
    let mut openssl = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-legacy_renegotiation", "-connect", &target.address().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let mut input = openssl.stdin.take().expect("it is piped");
    let shaken = async || (target.stat("ssl.handshake").await > before).then_some(());
    until("the first handshake", DEADLINE, shaken).await.expect("it works");
    // A line that begins so asks for another handshake.
    input.write_all(b"R\n").expect("openssl reads");
    let ended = until("openssl ends", DEADLINE, async || openssl.try_wait().ok().flatten()).await;
    let status = ended.expect("the connection is over");
    drop(input);
    assert!(!status.success(), "{status}");
    assert_eq!(target.stat("ssl.handshake").await, before + 1);
    target.assert_serving().await;
}

/// Severities of testssl.sh that fail.
const SEVERE: [&str; 4] = ["MEDIUM", "HIGH", "CRITICAL", "FATAL"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn testssl_finds_nothing_weak() {
    let target = Target::start().await;
    let report = target.dir.path().join("report.json");
    // Everything but the simulation of clients and the list of every cipher, which say nothing of weakness and take long.
    let scan = Command::new("testssl")
        .args(["--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--nodns", "none"])
        .args(["--protocols", "--std", "--server-preference", "--fs", "--server-defaults", "--vulnerable"])
        .arg("--jsonfile")
        .arg(&report)
        .arg(target.address().to_string())
        .stdin(Stdio::null())
        .output();
    let Ok(scan) = scan else { return peers::missing("no testssl.sh") };
    let text = std::fs::read_to_string(&report)
        .unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&scan.stdout)));
    let findings: Vec<Value> = serde_json::from_str(&text).expect("a report");
    let severity = |finding: &Value| finding["severity"].as_str().unwrap_or_default().to_owned();
    assert!(findings.iter().any(|finding| finding["id"] == "TLS1_3" && severity(finding) == "OK"), "{text}");
    let is_accepted = |id: &str| ACCEPTED.iter().any(|(known, _)| id.starts_with(known));
    let weak: Vec<&Value> = findings
        .iter()
        .filter(|finding| SEVERE.contains(&severity(finding).as_str()))
        .filter(|finding| !is_accepted(finding["id"].as_str().unwrap_or_default()))
        .collect();
    assert!(weak.is_empty(), "{weak:#?}");
    target.assert_serving().await;
}
