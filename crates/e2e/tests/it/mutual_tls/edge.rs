//! A gateway whose servers differ by server name, on one port.

use std::path::Path;

use meltemi_e2e::backend::{Backend, free_port};
use meltemi_e2e::differential::{Proxy, start};
use meltemi_e2e::peers;

use super::callers::{Caller, Identity, Root};
use super::standalone;

/// A Secret as its author writes it.
fn secret(name: &str, identity: &Identity, ca: &Root) -> String {
    let block = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: edge}}\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}  ca.crt: |\n{}",
        block(&identity.pem),
        block(&identity.key.serialize_pem()),
        block(&ca.pem)
    )
}

fn mesh(https: u16, http: u16, backend: &Backend, secrets: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: edge}}
spec:
  selector: {{istio: edge}}
  servers:
  - {{port: {{number: {https}, name: simple, protocol: HTTPS}}, hosts: [simple.example.com], tls: {{mode: SIMPLE, credentialName: web}}}}
  - {{port: {{number: {https}, name: other, protocol: HTTPS}}, hosts: [\"*.example.org\"], tls: {{mode: SIMPLE, credentialName: other}}}}
  - {{port: {{number: {https}, name: mutual, protocol: HTTPS}}, hosts: [mutual.example.com], tls: {{mode: MUTUAL, credentialName: web, subjectAltNames: [\"https://client.example.com\"]}}}}
  - {{port: {{number: {https}, name: optional, protocol: HTTPS}}, hosts: [optional.example.com], tls: {{mode: OPTIONAL_MUTUAL, credentialName: web}}}}
  - {{port: {{number: {http}, name: http, protocol: HTTP}}, hosts: [simple.example.com], tls: {{httpsRedirect: true}}}}
---
{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: web, namespace: edge}}, spec: {{hosts: [\"*.example.com\", \"*.example.org\"], gateways: [edge], http: [{{route: [{{destination: {{host: web.example.net}}}}]}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: web, namespace: edge}}, spec: {{hosts: [web.example.net], resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP}}], endpoints: [{{address: 127.0.0.1, ports: {{http: {}}}}}]}}}}
{secrets}",
        backend.address.port()
    )
}

async fn check(proxy: &Proxy, dir: &Path) {
    let backend = Backend::quiet("web").await.expect("a backend");
    let (https, http) = (free_port().expect("a port"), free_port().expect("a port"));
    let (root, foreign) = (Root::new(), Root::new());
    let (web, other) = (root.sign("https://simple.example.com"), root.sign("https://a.example.org"));
    let secrets = secret("web", &web, &root) + &secret("other", &other, &root);
    let node = "{id: router~127.0.0.1~edge-0.edge~edge.svc.cluster.local, metadata: {MELTEMI_GATEWAY_BIND: 127.0.0.1, LABELS: {istio: edge}}}";
    let bootstrap = standalone::bootstrap(&mesh(https, http, &backend, &secrets), node, Vec::new());
    let path = dir.join("bootstrap.json");
    std::fs::write(&path, bootstrap.to_string()).expect("the folder is writable");
    let _running = start(proxy, &path, dir).await.expect("the proxy starts");

    let client = root.sign("https://client.example.com");
    let nobody = root.sign("https://nobody.example.com");
    let forged = foreign.sign("https://client.example.com");
    let call = async |caller: Caller<'_>, name: &str| caller.call(https, name, name).await;
    assert_eq!(call(Caller::Anonymous, "simple.example.com").await, Ok(Some(web.certificate.clone())));
    assert_eq!(call(Caller::Anonymous, "a.example.org").await, Ok(Some(other.certificate.clone())));
    assert_eq!(call(Caller::Mutual(&client), "mutual.example.com").await, Ok(Some(web.certificate.clone())));
    assert_eq!(call(Caller::Anonymous, "optional.example.com").await, Ok(Some(web.certificate.clone())));
    assert_eq!(
        call(Caller::Mutual(&nobody), "optional.example.com").await,
        Ok(Some(web.certificate.clone()))
    );
    for (caller, name) in [
        (Caller::Anonymous, "mutual.example.com"),
        (Caller::Mutual(&nobody), "mutual.example.com"),
        (Caller::Mutual(&forged), "mutual.example.com"),
        (Caller::Mutual(&forged), "optional.example.com"),
        (Caller::Anonymous, "unknown.example.com"),
        (Caller::Plaintext, "simple.example.com"),
    ] {
        assert!(call(caller, name).await.is_err(), "{proxy:?}: {name}");
    }
    let redirect = Caller::Plaintext.call(http, "", "simple.example.com").await.expect_err("no 200");
    assert!(redirect.starts_with("HTTP/1.1 301"), "{redirect}");
    assert!(redirect.contains("location: https://simple.example.com/"), "{redirect}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_by_name_on_ours() {
    let scratch = tempfile::tempdir().expect("a folder");
    check(&Proxy::Meltemi(peers::meltemi()), scratch.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_by_name_on_envoy() {
    let Some(envoy) = peers::envoy() else { return peers::missing("no Envoy") };
    let scratch = tempfile::tempdir().expect("a folder");
    check(&Proxy::Envoy(envoy), scratch.path()).await;
}
