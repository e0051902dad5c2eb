//! A mesh of both kinds: a stock Envoy under `meltemi agent` and our proxy speak mutual TLS, in both directions, while their
//! certificates rotate.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use meltemi_e2e::backend::{Backend, free_port};
use meltemi_e2e::process::{DEADLINE, Process, until};
use meltemi_e2e::{client, peers};
use serde_json::{Value, json};

use super::Authority;

const HOST: &str = "reviews.shop.svc.cluster.local";

/// One side of a call: its name, its service account too.
struct Side<'a> {
    name: &'a str,
    /// The port for outgoing HTTP, if it has one.
    outbound: Option<u16>,
}

impl Side<'_> {
    fn id(&self) -> String {
        format!("spiffe://cluster.local/ns/shop/sa/{}", self.name)
    }

    /// What a proxy of either kind runs from: all else comes from the control plane, through the agent.
    fn bootstrap(&self, sockets: &Path) -> Value {
        let cluster = |name: &str, socket: &str| {
            let pipe = json!({"pipe": {"path": sockets.join(socket)}});
            json!({
                "name": name, "type": "STATIC", "connect_timeout": "1s",
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": pipe}}]}]},
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }},
            })
        };
        let mut metadata = json!({
            "NAMESPACE": "shop", "INTERCEPTION_MODE": "NONE", "MELTEMI_SDS": "true", "INSTANCE_IPS": "127.0.0.1",
            "SERVICE_ACCOUNT": self.name, "LABELS": {"app": self.name},
        });
        if let Some(port) = self.outbound {
            metadata["HTTP_PROXY_PORT"] = json!(port.to_string());
        }
        let ads = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
        json!({
            "node": {
                "id": format!("sidecar~127.0.0.1~{}-0.shop~shop.svc.cluster.local", self.name),
                "cluster": self.name, "metadata": metadata,
            },
            "dynamic_resources": {
                "lds_config": ads, "cds_config": ads,
                "ads_config": {
                    "api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
            },
            "static_resources": {"clusters": [cluster("xds-grpc", "xds.sock"), cluster("sds-grpc", "sds.sock")]},
        })
    }

    /// `envoy`: that binary under an agent; else our proxy, which has one of its own.
    fn start(&self, authority: &Authority, envoy: Option<&Path>) -> Process {
        let flags = authority.flags(&self.id(), self.name);
        let bootstrap = authority.path(&format!("{}.json", self.name));
        let text = self.bootstrap(&authority.path(self.name)).to_string();
        std::fs::write(&bootstrap, text).expect("writable");
        let config = ["-c".to_owned(), bootstrap.display().to_string(), "--disable-hot-restart".to_owned()];
        let config = config.into_iter().chain(["--concurrency".to_owned(), "1".to_owned()]);
        let words: Vec<String> = match envoy {
            Some(envoy) => {
                let beside = ["--".to_owned(), envoy.display().to_string()];
                ["agent".to_owned()].into_iter().chain(flags).chain(beside).chain(config).collect()
            }
            None => ["proxy".to_owned()].into_iter().chain(flags).chain(config).collect(),
        };
        authority.run(&words, self.name)
    }
}

/// The called and its policy, as the caller's mesh sees them.
fn mesh(inbound: u16, backend: SocketAddr) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: reviews, namespace: shop}}, spec: {{selector: {{app: reviews}}, ports: [{{name: http, port: 80, targetPort: {inbound}}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: reviews-0, namespace: shop}}, spec: {{address: 127.0.0.1, serviceAccount: reviews, labels: {{app: reviews}}}}}}
---
{{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {{name: reviews, namespace: shop}}, spec: {{workloadSelector: {{labels: {{app: reviews}}}}, ingress: [{{port: {{number: {inbound}, name: http, protocol: HTTP}}, defaultEndpoint: '{backend}'}}]}}}}
---
{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: all, namespace: shop}}, spec: {{mtls: {{mode: STRICT}}}}}}
"
    )
}

/// Calls go on through two rotations of both sides; `server` and `client` are Envoys, or our own.
async fn check(server: Option<&Path>, client: Option<&Path>) {
    let authority = Authority::start("6s").await;
    let backend = Backend::start("reviews").await.expect("a backend");
    let (inbound, outbound) = (free_port().expect("a port"), free_port().expect("a port"));
    std::fs::write(authority.path("mesh/mesh.yaml"), mesh(inbound, backend.address)).expect("writable");
    let server = Side { name: "reviews", outbound: None }.start(&authority, server);
    let client = Side { name: "client", outbound: Some(outbound) }.start(&authority, client);
    let call = async || client::get(([127, 0, 0, 1], outbound).into(), HOST, "/").await;
    let output = || format!("client:\n{}\nserver:\n{}", client.output(), server.output());
    let first = until("the first answer", DEADLINE, async || {
        call().await.is_ok_and(|answer| answer.status() == 200).then_some(())
    });
    first.await.unwrap_or_else(|e| panic!("{e}\n{}", output()));
    let rotated = |side: &Process| side.output().matches("certificate received").count() >= 3;
    let rotations = until("two rotations", Duration::from_secs(30), async || {
        let answer = call().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{answer:?}\n{}", output());
        (rotated(&client) && rotated(&server)).then_some(())
    });
    rotations.await.unwrap_or_else(|e| panic!("{e}\n{}", output()));
    let received = backend.take().pop().expect("a request");
    let mut headers = received.headers.into_iter();
    let (_, shown) =
        headers.find(|(name, _)| name == "x-forwarded-client-cert").expect("the caller is known");
    for part in
        ["By=spiffe://cluster.local/ns/shop/sa/reviews;", "URI=spiffe://cluster.local/ns/shop/sa/client"]
    {
        assert!(shown.contains(part), "{shown}");
    }
    let plaintext = client::get(([127, 0, 0, 1], inbound).into(), HOST, "/").await;
    assert!(plaintext.is_err(), "STRICT lets nobody in without a certificate: {plaintext:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_calls_our_sidecar() {
    let Some(envoy) = peers::envoy() else { return };
    check(None, Some(&envoy)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_sidecar_calls_envoy() {
    let Some(envoy) = peers::envoy() else { return };
    check(Some(&envoy), None).await;
}
