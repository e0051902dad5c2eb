//! Two sidecars, one of the caller and one of the called, each with what translation sends it.

use std::path::Path;

use meltemi_e2e::backend::{Backend, free_port};
use meltemi_e2e::client;
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::peers;

use super::callers::{Identity, Root};
use super::{CLIENT, REVIEWS, standalone};

const HOST: &str = "reviews.shop.svc.cluster.local";

/// A mesh of a client and a server with sidecars.
struct Pair<'a> {
    proxy: &'a Proxy,
    dir: &'a Path,
    root: &'a Root,
    backend: &'a Backend,
}

impl Pair<'_> {
    /// What the client gets, and the `x-forwarded-client-cert` that the server sees. `shown` is the server's certificate.
    async fn call(&self, shown: &Identity, objects: &str) -> (u16, Option<String>) {
        let (inbound, outbound) = (free_port().expect("a port"), free_port().expect("a port"));
        let mesh = format!(
            "{objects}
---
{{apiVersion: v1, kind: Service, metadata: {{name: reviews, namespace: shop}}, spec: {{selector: {{app: reviews}}, ports: [{{name: http, port: 80, targetPort: {inbound}}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: reviews-0, namespace: shop}}, spec: {{address: 127.0.0.1, serviceAccount: reviews, labels: {{app: reviews}}}}}}
---
{{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {{name: reviews, namespace: shop}}, spec: {{workloadSelector: {{labels: {{app: reviews}}}}, ingress: [{{port: {{number: {inbound}, name: http, protocol: HTTP}}, defaultEndpoint: '{}'}}]}}}}
",
            self.backend.address
        );
        let node = |name: &str, proxy_port: &str| {
            format!(
                "{{id: sidecar~127.0.0.1~{name}-0.shop~shop.svc.cluster.local, metadata: {{INTERCEPTION_MODE: NONE, MELTEMI_SDS: 'true', HTTP_PROXY_PORT: '{proxy_port}', LABELS: {{app: {name}}}}}}}"
            )
        };
        let _server = self.start(&mesh, &node("reviews", ""), shown).await;
        let client = self.root.sign(CLIENT);
        let _client = self.start(&mesh, &node("client", &outbound.to_string()), &client).await;
        let answer = client::get(([127, 0, 0, 1], outbound).into(), HOST, "/").await.expect("an answer");
        let received = self.backend.take().pop();
        let header =
            received.and_then(|r| r.headers.into_iter().find(|(name, _)| name == "x-forwarded-client-cert"));
        (answer.status().as_u16(), header.map(|(_, value)| value))
    }

    async fn start(&self, mesh: &str, node: &str, identity: &Identity) -> Running {
        let bootstrap = standalone::bootstrap(mesh, node, standalone::of_agent(identity, self.root));
        let dir = tempfile::tempdir_in(self.dir).expect("a folder").keep();
        let path = dir.join("bootstrap.json");
        std::fs::write(&path, bootstrap.to_string()).expect("the folder is writable");
        start(self.proxy, &path, &dir).await.expect("the proxy starts")
    }
}

fn policy(mode: &str) -> String {
    super::policy("default", "shop", &format!("{{mtls: {{mode: {mode}}}}}"))
}

fn rule(mode: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: reviews, namespace: shop}}, spec: {{host: reviews, trafficPolicy: {{tls: {{mode: {mode}}}}}}}}}\n"
    )
}

async fn check(proxy: &Proxy, dir: &Path) {
    let backend = Backend::start("reviews").await.expect("a backend");
    let (root, foreign) = (Root::new(), Root::new());
    let pair = Pair { proxy, dir, root: &root, backend: &backend };
    let own = root.sign(REVIEWS);
    for objects in [policy("STRICT"), policy("PERMISSIVE"), policy("STRICT") + &rule("ISTIO_MUTUAL")] {
        let (status, header) = pair.call(&own, &objects).await;
        assert_eq!(status, 200, "{proxy:?}: {objects}");
        let header = header.expect("the caller is known");
        assert!(header.contains(&format!("By={REVIEWS};")), "{header}");
        assert!(header.contains(&format!("URI={CLIENT}")), "{header}");
    }
    for objects in [policy("DISABLE"), policy("PERMISSIVE") + &rule("DISABLE")] {
        assert_eq!(pair.call(&own, &objects).await, (200, None), "{proxy:?}: {objects}");
    }
    let (status, _) = pair.call(&own, &(policy("STRICT") + &rule("DISABLE"))).await;
    assert_eq!(status, 503, "{proxy:?}: plaintext to STRICT");
    for (who, shown) in [
        ("another service account", root.sign("spiffe://cluster.local/ns/shop/sa/other")),
        ("another trust domain", root.sign("spiffe://elsewhere/ns/shop/sa/reviews")),
        ("another CA", foreign.sign(REVIEWS)),
    ] {
        assert_eq!(pair.call(&shown, &policy("STRICT")).await.0, 503, "{proxy:?}: the server is of {who}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_know_each_other_on_envoy() {
    let Some(envoy) = peers::envoy() else { return peers::missing("no Envoy") };
    let scratch = tempfile::tempdir().expect("a folder");
    check(&Proxy::Envoy(envoy), scratch.path()).await;
}
