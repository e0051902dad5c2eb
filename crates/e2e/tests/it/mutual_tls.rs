//! Who is let in: callers with and without an identity, by mode and by what says it (mesh, namespace, workload, port),
//! on what translation sends. The secrets of the agent are in the bootstrap, so nobody has to serve them.

use std::path::Path;
use std::sync::Arc;

use meltemi_e2e::backend::{Backend, free_port};
use meltemi_e2e::differential::{Proxy, start};
use meltemi_e2e::peers;
use meltemi_envoy::json::Codec;
use meltemi_snapshot::{Inputs, Snapshot};
use meltemi_translate::{MeshIdentity, Options, ProxyShape, Resource, translate};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";

/// A root of one's own.
struct Root {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its key.
struct Identity {
    pem: String,
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Root {
    fn new() -> Root {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::OrganizationName, "a root");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a root");
        Root { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    fn sign(&self, id: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { pem: certificate.pem(), certificate: certificate.der().clone(), key }
    }
}

/// Takes the workload for what it says: the test is about what the workload takes.
#[derive(Debug)]
struct AnyServer(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Who calls.
enum Caller<'a> {
    Plaintext,
    Mutual(&'a Identity),
    /// TLS without a certificate.
    Anonymous,
}

impl Caller<'_> {
    /// Whether the workload answers.
    async fn is_let_in(&self, port: u16) -> bool {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the listener is there");
        let answer = match self.config() {
            None => answer(stream).await,
            Some(config) => {
                let name = ServerName::try_from("outbound_.80_._.reviews").expect("a name");
                match tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await {
                    Ok(stream) => answer(stream).await,
                    Err(_) => String::new(),
                }
            }
        };
        answer.starts_with("HTTP/1.1 200")
    }

    fn config(&self) -> Option<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
        let mut config = match self {
            Caller::Plaintext => return None,
            Caller::Anonymous => builder.with_no_client_auth(),
            Caller::Mutual(identity) => {
                let key = PrivateKeyDer::try_from(identity.key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![identity.certificate.clone()], key).expect("a pair")
            }
        };
        config.alpn_protocols = vec![b"istio-peer-exchange".to_vec(), b"istio".to_vec()];
        Some(config)
    }
}

/// What comes back for a request; as much of it as came.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let request = b"GET / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n";
    let mut received = Vec::new();
    // A connection that is cut says so at one place or the other.
    if stream.write_all(request).await.is_ok() {
        let _cut = stream.read_to_end(&mut received).await;
    }
    String::from_utf8_lossy(&received).into_owned()
}

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
        let (objects, broken) = meltemi_api::parse(&self.objects, &"mesh.yaml".into());
        assert!(broken.is_empty(), "{broken:#?}");
        let (snapshot, _) = Snapshot::build(&Inputs { objects: objects.into_iter().map(Arc::new).collect() });
        let codec = Codec::new();
        let node = "{id: sidecar~127.0.0.1~reviews-0.shop~shop.svc.cluster.local, metadata: {INTERCEPTION_MODE: NONE, MELTEMI_SDS: 'true', LABELS: {app: reviews}}}";
        let shape = ProxyShape::from_node(&codec.parse(node).expect("a node")).expect("a shape");
        let mesh = MeshIdentity { trust_domain: "cluster.local".to_owned(), aliases: Vec::new() };
        let options = Options { identity: Some(mesh), ..Options::default() };
        let resources = translate(&snapshot, &shape, &options);
        let inline = |text: &str| json!({ "inline_string": text });
        json!({
            "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
            "static_resources": {
                "listeners": bodies(&codec, &resources.listeners, |_| true),
                "clusters": bodies(&codec, &resources.clusters, |name| name.starts_with("inbound")),
                "secrets": [
                    { "name": "default", "tls_certificate": {
                        "certificate_chain": inline(&identity.pem),
                        "private_key": inline(&identity.key.serialize_pem()),
                    } },
                    { "name": "ROOTCA", "validation_context": { "trusted_ca": inline(&root.pem) } },
                ],
            },
        })
    }
}

fn bodies(codec: &Codec, resources: &[Arc<Resource>], wanted: impl Fn(&str) -> bool) -> Vec<Value> {
    let body = |resource: &Arc<Resource>| {
        let mut json = codec.any_to_json(&resource.body).expect("a known message");
        json.as_object_mut().expect("a message").remove("@type");
        with_static_secrets(&mut json);
        json
    };
    resources.iter().filter(|resource| wanted(&resource.name)).map(body).collect()
}

/// A secret without a source is one of the bootstrap.
fn with_static_secrets(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("sds_config");
            fields.values_mut().for_each(with_static_secrets);
        }
        Value::Array(items) => items.iter_mut().for_each(with_static_secrets),
        _ => {}
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
async fn who_is_let_in_by_envoy() {
    let Some(envoy) = peers::envoy() else { return peers::missing("no Envoy") };
    let scratch = tempfile::tempdir().expect("a folder");
    check(&Proxy::Envoy(envoy), scratch.path()).await;
}
