//! Attacks on the certificate authority over real connections: requests that are none, proofs that are stale or another
//! mesh's. What the caller gets is a refusal, and nothing that it came with is used up.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use hyper_util::rt::TokioIo;
use meltemi_envoy::istio::v1::auth::IstioCertificateRequest;
use meltemi_envoy::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use meltemi_identity::{
    Authority, Certificate, Claims, Credential, Csr, Issued, Key, KeyKind, Plugged, Serial, SpiffeId,
    certificates_from_pem,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use super::identity::{CART, World};
use super::*;

/// TLS to the control plane with this certificate, or without one.
#[derive(Clone)]
struct Dial {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Dial { address, config } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("istiod.istio-system.svc").map_err(io::Error::other)?;
            TlsConnector::from(config).connect(name, stream).await.map(TokioIo::new)
        })
    }
}

/// What a caller comes with.
#[derive(Default)]
struct Proofs {
    certificate: Option<(Issued, Key)>,
    credential: Option<Credential>,
}

fn settings(world: &World, certificate: Option<&(Issued, Key)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let text = std::fs::read(world.ca("root-cert.pem")).expect("the root");
    for root in certificates_from_pem(&text).expect("PEM") {
        roots.add(root).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match certificate {
        Some((issued, key)) => {
            builder.with_client_auth_cert(issued.chain.clone(), key.to_der()).expect("a certificate")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Asks for a certificate with this request, word for word; its id, or the refusal.
async fn ask(world: &World, proofs: &Proofs, csr: String) -> Result<SpiffeId, Status> {
    let address = world.running.secure.expect("an address");
    let config = Arc::new(settings(world, proofs.certificate.as_ref()));
    let endpoint = Endpoint::from_static("https://istiod.istio-system.svc").connect_timeout(PATIENCE);
    let channel = endpoint.connect_with_connector(Dial { address, config }).await;
    let channel = channel.map_err(|error| Status::unavailable(format!("{error:?}")))?;
    let mut request = Request::new(IstioCertificateRequest { csr, ..Default::default() });
    if let Some(credential) = &proofs.credential {
        let text = format!("Meltemi-Credential {}", credential.as_str());
        request.metadata_mut().insert("authorization", text.parse().expect("ASCII"));
    }
    request.set_timeout(PATIENCE);
    let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await?;
    let leaf = certificates_from_pem(answer.into_inner().cert_chain[0].as_bytes()).expect("PEM").remove(0);
    Ok(Certificate::from_der(&leaf).expect("a certificate").spiffe_id().expect("an id"))
}

fn csr(id: &str) -> String {
    let key = Key::generate(KeyKind::EcdsaP256).expect("a key");
    Csr::make(&key, &id.parse().expect("an id")).expect("a request")
}

/// What somebody gets who has the authority's own key, for a trust domain of his choice.
fn stolen(world: &World, id: &str, ttl: Duration) -> (Issued, Key) {
    let read = |name: &str| std::fs::read(world.ca(name)).expect("a file");
    let (certificate, key, root) = (read("ca-cert.pem"), read("ca-key.pem"), read("root-cert.pem"));
    let files = Plugged { ca_cert: &certificate, ca_key: &key, root_cert: &root, cert_chain: b"" };
    let id: SpiffeId = id.parse().expect("an id");
    let now = SystemTime::now();
    let authority = Authority::plugged(id.trust_domain().clone(), files, now).expect("an authority");
    let key = Key::generate(KeyKind::EcdsaP256).expect("a key");
    let csr = Csr::from_pem(Csr::make(&key, &id).expect("a request").as_bytes()).expect("readable");
    (authority.sign(&csr, &id, ttl, now, Serial::new([9; 16])).expect("signed"), key)
}

#[tokio::test]
async fn requests_that_are_none_are_refused_and_spend_no_credential() {
    let world = World::start(&[]).await;
    let proofs = Proofs { credential: Some(world.credential(CART)), ..Proofs::default() };
    let good = csr(CART);
    let middle = good.len() / 2;
    let mut flipped = good.clone().into_bytes();
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
    for bad in [
        String::new(),
        "garbage".to_owned(),
        good[..middle].to_owned(),
        String::from_utf8(flipped).expect("ASCII"),
        format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            "A".repeat(400)
        ),
        "x".repeat(20 << 10),
    ] {
        let refusal = ask(&world, &proofs, bad.clone()).await.expect_err("it is no request");
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal:?} for {:.40}", bad);
    }
    let refusal = ask(&world, &proofs, "x".repeat(1 << 20)).await.expect_err("it is too large");
    assert!(matches!(refusal.code(), Code::OutOfRange | Code::ResourceExhausted), "{refusal:?}");
    let id = ask(&world, &proofs, good).await.expect("the credential is still good");
    assert_eq!(id.as_str(), CART);
}

#[tokio::test]
async fn a_request_for_somebody_else_is_answered_with_the_callers_own_identity() {
    let world = World::start(&[]).await;
    let certificate = stolen(&world, CART, Duration::from_secs(60));
    let admin = "spiffe://cluster.local/ns/kube-system/sa/admin";
    for proofs in [
        Proofs { certificate: Some(certificate), ..Proofs::default() },
        Proofs { credential: Some(world.credential(CART)), ..Proofs::default() },
    ] {
        assert_eq!(ask(&world, &proofs, csr(admin)).await.expect("signed").as_str(), CART);
    }
}

#[tokio::test]
async fn an_expired_credential_is_refused() {
    let world = World::start(&[]).await;
    let expires = SystemTime::now() - Duration::from_secs(1);
    let claims = Claims { id: CART.parse().expect("an id"), expires, nonce: [5; 16] };
    let proofs = Proofs { credential: Some(world.key.mint(&claims)), ..Proofs::default() };
    let refusal = ask(&world, &proofs, csr(CART)).await.expect_err("it has expired");
    assert_eq!(refusal.code(), Code::Unauthenticated);
    assert!(refusal.message().contains("expired"), "{refusal:?}");
}

#[tokio::test]
async fn a_certificate_of_another_trust_domain_is_refused_though_our_root_has_signed_it() {
    let world = World::start(&[]).await;
    let certificate = stolen(&world, "spiffe://evil.example/ns/default/sa/cart", Duration::from_secs(60));
    // The credential would be good: who shows a wrong certificate is not asked for anything else.
    let proofs = Proofs { certificate: Some(certificate), credential: Some(world.credential(CART)) };
    let refusal = ask(&world, &proofs, csr(CART)).await.expect_err("another mesh's");
    assert_ne!(refusal.code(), Code::Internal, "{refusal:?}");
}

#[tokio::test]
async fn an_expired_certificate_opens_nothing_any_more() {
    let world = World::start(&[]).await;
    let proofs =
        Proofs { certificate: Some(stolen(&world, CART, Duration::from_secs(2))), ..Proofs::default() };
    let began = Instant::now();
    let mut signed = 0;
    while ask(&world, &proofs, csr(CART)).await.is_ok() {
        signed += 1;
        assert!(began.elapsed() < PATIENCE, "it is let in for ever");
    }
    assert!(signed > 0 || began.elapsed() > Duration::from_secs(1), "it was good at first");
}
