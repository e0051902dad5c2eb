//! Who is let in: callers with and without an identity, by mode and by what says it (mesh, namespace, workload, port),
//! on what translation sends. Certificates are in the bootstrap, so nobody has to serve them.

mod callers;
mod edge;
mod exchange;
mod pair;
pub(crate) mod standalone;
mod upgraded;

use std::path::Path;

use meltemi_e2e::backend::{Backend, free_port};
use meltemi_e2e::differential::{Proxy, start};
use meltemi_e2e::peers;
use serde_json::Value;

use self::callers::{Caller, Identity, Root};

const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";

/// The workload `reviews` with a port for HTTP and one for bytes, under PeerAuthentications.
struct Workload {
    http: u16,
    tcp: u16,
    objects: String,
}

impl Workload {
    fn new(backend: u16, policies: &str) -> Workload {
        let (http, tcp) = (free_port().expect("a port"), free_port().expect("a port"));
        let entry = |port: u16, protocol: &str| {
            format!(
                "{{port: {{number: {port}, name: {}, protocol: {protocol}}}, bind: 127.0.0.1, defaultEndpoint: '127.0.0.1:{backend}'}}",
                protocol.to_ascii_lowercase()
            )
        };
        let ingress = [entry(http, "HTTP"), entry(tcp, "TCP")].join(", ");
        let policies = policies.replace("HTTP_PORT", &http.to_string()).replace("TCP_PORT", &tcp.to_string());
        let objects = format!(
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: reviews, namespace: shop}}\nspec: \
             {{workloadSelector: {{labels: {{app: reviews}}}}, ingress: [{ingress}]}}\n{policies}"
        );
        Workload { http, tcp, objects }
    }

    /// What its proxy runs from.
    fn bootstrap(&self, identity: &Identity, root: &Root) -> Value {
        let node = "{id: sidecar~127.0.0.1~reviews-0.shop~shop.svc.cluster.local, metadata: {INTERCEPTION_MODE: NONE, MELTEMI_SDS: 'true', LABELS: {app: reviews}}}";
        standalone::bootstrap(&self.objects, node, standalone::of_agent(identity, root))
    }
}

fn policy(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}\n"
    )
}

/// The mode said at every level; what is wider says the opposite.
fn levels(mode: &str) -> [(&'static str, String); 4] {
    let other = if mode == "STRICT" { "DISABLE" } else { "STRICT" };
    let all = |mode: &str| format!("{{mtls: {{mode: {mode}}}}}");
    let selected = |mode: &str, ports: &str| {
        format!("{{selector: {{matchLabels: {{app: reviews}}}}, mtls: {{mode: {mode}}}{ports}}}")
    };
    let ports = format!(", portLevelMtls: {{HTTP_PORT: {{mode: {mode}}}, TCP_PORT: {{mode: {mode}}}}}");
    let namespace = policy("ns", "shop", &all(other));
    [
        ("mesh", policy("mesh", "istio-system", &all(mode))),
        ("namespace", policy("mesh", "istio-system", &all(other)) + &policy("ns", "shop", &all(mode))),
        ("workload", namespace.clone() + &policy("w", "shop", &selected(mode, ""))),
        ("port", namespace + &policy("w", "shop", &selected(other, &ports))),
    ]
}

async fn check(proxy: &Proxy, dir: &Path) {
    let backend = Backend::quiet("reviews").await.expect("a backend");
    let (root, foreign) = (Root::new(), Root::new());
    let own = root.sign(REVIEWS);
    let client = root.sign(CLIENT);
    let other_domain = root.sign("spiffe://elsewhere/ns/shop/sa/client");
    let forged = foreign.sign(CLIENT);
    for (mode, plaintext, mutual) in
        [("STRICT", false, true), ("PERMISSIVE", true, true), ("DISABLE", true, false)]
    {
        for (level, policies) in levels(mode) {
            let workload = Workload::new(backend.address.port(), &policies);
            let path = dir.join("bootstrap.json");
            std::fs::write(&path, workload.bootstrap(&own, &root).to_string())
                .expect("the folder is writable");
            let _stale = std::fs::remove_file(dir.join("admin-address"));
            let _running = start(proxy, &path, dir).await.expect("the proxy starts");
            for port in [workload.http, workload.tcp] {
                let what = format!(
                    "{proxy:?}: {mode} by {level}, {}",
                    if port == workload.http { "HTTP" } else { "TCP" }
                );
                assert_eq!(Caller::Plaintext.is_let_in(port).await, plaintext, "{what}: plaintext");
                assert_eq!(Caller::Mutual(&client).is_let_in(port).await, mutual, "{what}: mutual TLS");
                for (who, stranger) in [
                    ("another CA", Caller::Mutual(&forged)),
                    ("another trust domain", Caller::Mutual(&other_domain)),
                    ("no certificate", Caller::Anonymous),
                ] {
                    assert!(!stranger.is_let_in(port).await, "{what}: {who}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_let_in_by_us() {
    let scratch = tempfile::tempdir().expect("a folder");
    check(&Proxy::Meltemi(peers::meltemi()), scratch.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_let_in_by_envoy() {
    let Some(envoy) = peers::envoy() else { return peers::missing("no Envoy") };
    let scratch = tempfile::tempdir().expect("a folder");
    check(&Proxy::Envoy(envoy), scratch.path()).await;
}
