//! Clusters whose certificates and roots come by SDS, towards a listener that gets the same ones.

use std::net::SocketAddr;
use std::path::Path;

use http_body_util::BodyExt;
use meltemi_e2e::backend::free_port;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

use super::*;

const OLD: &str = "spiffe://mesh/ns/shop/sa/old";
const NEW: &str = "spiffe://mesh/ns/shop/sa/new";
const LATE: &str = "spiffe://mesh/ns/shop/sa/late";

/// The numbers that both must agree on, while there is no `later`.
const STATS: &[&str] = &[
    "cluster.late.client_ssl_socket_factory.upstream_context_secrets_not_ready",
    "cluster.late.upstream_cx_connect_fail",
    "cluster.late.upstream_rq_503",
    "sds.later.init_fetch_timeout",
    "sds.later.update_success",
];

struct Root {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Root {
    fn new(name: &str) -> Root {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a root");
        Root { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    fn sign(&self, id: &str) -> Pair {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
        let key = KeyPair::generate().expect("a key");
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { chain: made.pem(), key: key.serialize_pem(), der: made.der().to_vec() }
    }

    fn secret(&self) -> Value {
        let context = json!({"trusted_ca": {"inline_string": self.pem}});
        typed(&format!("{TLS}.Secret"), json!({"name": "ROOTCA", "validation_context": context}))
    }
}

/// What both contexts have in common.
fn common(certificate: &str, source: &Value) -> Value {
    let mut source = source.clone();
    source["initial_fetch_timeout"] = "0.3s".into();
    json!({"tls_certificate_sds_secret_configs": [{"name": certificate, "sds_config": source}],
        "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": source}})
}

fn cluster(name: &str, certificate: &str, port: u16, source: &Value) -> Value {
    let context = typed(
        &format!("{TLS}.UpstreamTlsContext"),
        json!({"common_tls_context": common(certificate, source)}),
    );
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let cluster = json!({"name": name, "type": "STATIC", "connect_timeout": "2s",
        "transport_socket": {"name": "tls", "typed_config": context},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}});
    typed("envoy.config.cluster.v3.Cluster", cluster)
}

fn manager(routes: &Value, log: Option<&Path>) -> Value {
    let router = json!({"name": "router", "typed_config": {"@type": format!("{TYPE}envoy.extensions.filters.http.router.v3.Router")}});
    let log = log.map(|path| {
        let format = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n";
        let config = json!({"path": path, "log_format": {"text_format_source": {"inline_string": format}}});
        json!({"name": "log", "typed_config": typed("envoy.extensions.access_loggers.file.v3.FileAccessLog", config)})
    });
    let manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({"stat_prefix": "s", "http_filters": [router], "access_log": Vec::from_iter(log),
            "route_config": {"name": "r", "validate_clusters": false,
                "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]}}),
    );
    json!({"name": "http", "typed_config": manager})
}

/// `front` calls clusters, `back` is their host and tells who called it, and as whom it answered.
fn bootstrap(server: &Server, way: Way, port: u16, dir: &Path) -> Value {
    let mut bootstrap = server.bootstrap(way);
    let why = json!([{"header": {"key": "x-why", "value": "%UPSTREAM_TRANSPORT_FAILURE_REASON%"}}]);
    let routes = ["mutual", "kept", "late"]
        .map(|name| json!({"match": {"path": format!("/{name}")}, "route": {"cluster": name}, "response_headers_to_add": why}));
    let front = json!({"name": "front", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [manager(&json!(routes), Some(&dir.join("log")))]}]});
    let told = [("x-caller", "%DOWNSTREAM_PEER_URI_SAN%"), ("x-called", "%DOWNSTREAM_LOCAL_URI_SAN%")];
    let told = told.map(|(key, value)| json!({"header": {"key": key, "value": value}}));
    let answer = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200}, "response_headers_to_add": told}]);
    let context =
        json!({"common_tls_context": common("default", &way.source()), "require_client_certificate": true});
    let socket =
        json!({"name": "tls", "typed_config": typed(&format!("{TLS}.DownstreamTlsContext"), context)});
    let back = json!({"name": "back", "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"transport_socket": socket, "filters": [manager(&answer, None)]}]});
    bootstrap["static_resources"]["listeners"] = json!([front, back]);
    bootstrap["dynamic_resources"].as_object_mut().expect("an object").remove("lds_config");
    bootstrap
}

/// An open connection to `front`, which keeps what it calls open, too.
struct Front(SendRequest<Empty<Bytes>>);

impl Front {
    async fn open(address: SocketAddr) -> Front {
        let stream = TcpStream::connect(address).await.expect("the listener is there");
        let io = hyper_util::rt::TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("it speaks HTTP");
        tokio::spawn(connection);
        Front(sender)
    }

    /// Who called whom, or the status and why it failed.
    async fn call(&mut self, path: &str) -> Result<(String, String), String> {
        let request = Request::get(path).header("host", "h").body(Empty::new()).expect("a request");
        self.0.ready().await.expect("the connection stays open");
        let (head, body) = self.0.send_request(request).await.expect("an answer").into_parts();
        body.collect().await.expect("a whole answer");
        let told = |name: &str| {
            head.headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned()).unwrap_or_default()
        };
        match head.status.as_u16() {
            200 => Ok((told("x-caller"), told("x-called"))),
            status => Err(format!("{status} {}", told("x-why"))),
        }
    }

    /// Calls until it is so.
    async fn becomes(&mut self, path: &str, wanted: impl Fn(&Result<(String, String), String>) -> bool) {
        let mut last = None;
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while tokio::time::Instant::now() < deadline {
            let answer = self.call(path).await;
            if wanted(&answer) {
                return;
            }
            last = Some(answer);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{path}: {last:?}");
    }
}

fn between(caller: &str, called: &str) -> Result<(String, String), String> {
    Ok((caller.to_owned(), called.to_owned()))
}

/// The lines of the calls that were not made to wait for something.
async fn logged(dir: &Path, count: usize) -> Vec<String> {
    let read = async || {
        let text = std::fs::read_to_string(dir.join("log")).ok()?;
        let lines: Vec<String> =
            text.lines().filter(|line| !line.contains("poll")).map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    };
    until("the log", DEADLINE, read).await.expect("the calls are logged")
}

/// The names of the certificates that the interface tells of: those of every context once.
async fn certificates(running: &Running) -> Vec<String> {
    let answer = client::get(running.admin, "admin", "/certs").await.expect("the admin answers");
    let told: Value = serde_json::from_slice(answer.body()).expect("JSON");
    let contexts = told["certificates"].as_array().expect("a list");
    let chains = contexts.iter().flat_map(|context| context["cert_chain"].as_array()).flatten();
    let mut names: Vec<String> = chains.map(|shown| shown["subject_alt_names"].to_string()).collect();
    names.sort_unstable();
    names
}

/// An identity and roots that are rotated, one after the other, and an identity that comes late. Gives what both proxies
/// must say alike.
async fn life(proxy: &Proxy, way: Way) -> Option<Vec<String>> {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await?;
    let (first, second) = (Root::new("first"), Root::new("second"));
    let (old, new, late) = (first.sign(OLD), second.sign(NEW), second.sign(LATE));
    let (port, source) = (free_port().expect("a port"), way.source());
    let mut mutual = cluster("mutual", "default", port, &source);
    mutual["max_requests_per_connection"] = 1.into();
    let kept = cluster("kept", "default", port, &source);
    server.serve("clusters", "1", &[mutual, kept, cluster("late", "later", port, &source)]);
    server.serve("secrets", "1", &[old.secret("default", &old), first.secret()]);
    let path = dir.path().join("bootstrap.json");
    std::fs::write(&path, bootstrap(&server, way, port, dir.path()).to_string())
        .expect("the folder is writable");
    let running = start(proxy, &path, dir.path()).await.expect("the proxy starts");
    let mut front = Front::open(running.listeners["front"]).await;

    front.becomes("/mutual?poll", |answer| *answer == between(OLD, OLD)).await;
    assert_eq!(front.call("/kept").await, between(OLD, OLD));
    let answer = front.call("/late").await;
    let is_told = answer.as_ref().is_err_and(|text| text.ends_with("Secret_is_not_supplied_by_SDS"));
    assert!(is_told, "{proxy:?}: {answer:?}");
    let mut told = stats(&running, STATS).await;

    server.serve("secrets", "2", &[old.secret("default", &old), second.secret()]);
    let is_refused = |answer: &Result<_, String>| {
        answer.as_ref().is_err_and(|text| text.contains("CERTIFICATE_VERIFY_FAILED"))
    };
    front.becomes("/mutual?poll", is_refused).await;
    assert!(is_refused(&front.call("/mutual").await), "no session is resumed that other roots allowed");
    assert_eq!(front.call("/kept").await, between(OLD, OLD), "connections that are there go on");

    let secrets = [new.secret("default", &new), second.secret(), late.secret("later", &late)];
    server.serve("secrets", "3", &secrets);
    front.becomes("/mutual?poll", |answer| *answer == between(NEW, NEW)).await;
    front.becomes("/late?poll", |answer| *answer == between(LATE, NEW)).await;
    assert_eq!(front.call("/kept").await, between(OLD, OLD));
    told.extend(logged(dir.path(), 5).await);
    assert_redacted(&running, &["ROOTCA", "default", "later"]).await;
    told.extend(certificates(&running).await);
    Some(told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_come_to_clusters_and_are_rotated() {
    for way in WAYS {
        let Some(ours) = life(&Proxy::Meltemi(peers::meltemi()), way).await else { return };
        let Some(envoy) = peers::envoy() else { return };
        let envoy = life(&Proxy::Envoy(envoy), way).await.expect("the server runs");
        assert_eq!(ours, envoy, "{way:?}");
    }
}
