//! Certificates over real sockets: agents ask the control plane, proxies come with what they got, and those who are not
//! who they say they are do not.

use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command as Process;
use std::time::SystemTime;

use meltemi_agent::{Agent, AgentSpec, ControlPlane as Authority, Proof, SDS_SOCKET, Svid, XDS_SOCKET};
use meltemi_envoy::config::core::v3::data_source::Specifier;
use meltemi_envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use meltemi_identity::{Claims, Credential, CredentialKey, KeyKind, SpiffeId, certificates_from_pem};

use super::*;

pub(crate) const CART: &str = "spiffe://cluster.local/ns/default/sa/cart";

/// A control plane with a certificate authority, and what is shared with who starts workloads.
pub(crate) struct World {
    pub(crate) running: Running,
    scratch: TempDir,
    pub(super) key: CredentialKey,
}

impl World {
    pub(super) async fn start(flags: &[&str]) -> World {
        World::start_with(SERVICE, flags).await
    }

    pub(crate) async fn start_with(objects: &str, flags: &[&str]) -> World {
        let scratch = tempfile::tempdir().expect("it is set up");
        let mesh = scratch.path().join("mesh");
        std::fs::create_dir(&mesh).expect("it is set up");
        std::fs::write(mesh.join("a.yaml"), objects).expect("it is set up");
        let secret = [42; 32];
        let key = scratch.path().join("credential-key");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&key)
            .expect("it is set up");
        file.write_all(&secret).expect("it is set up");
        let running = World::run(scratch.path(), "127.0.0.1:0", flags).await;
        World { running, scratch, key: CredentialKey::new(&secret) }
    }

    /// A control plane on what was set up before.
    async fn run(scratch: &Path, secure: &str, flags: &[&str]) -> Running {
        let (ca, key) = (scratch.join("ca"), scratch.join("credential-key"));
        let fixed = [
            "--ca-directory",
            ca.to_str().expect("it is set up"),
            "--credential-key",
            key.to_str().expect("it is set up"),
        ];
        let ports = ["--secure-address", secure];
        let flags: Vec<&str> = fixed.iter().chain(&ports).chain(flags).copied().collect();
        Running::start(&scratch.join("mesh"), &flags).await
    }

    pub(super) fn ca(&self, file: &str) -> PathBuf {
        self.scratch.path().join("ca").join(file)
    }

    pub(super) fn credential(&self, id: &str) -> Credential {
        let expires = SystemTime::now() + Duration::from_secs(60);
        let nonce = meltemi_identity::random().expect("it is set up");
        self.key.mint(&Claims { id: id.parse().expect("it is set up"), expires, nonce })
    }

    fn spec(&self, name: &str, id: &str, credential: Option<Credential>) -> AgentSpec {
        self.spec_with(name, id, credential.map(Proof::Once))
    }

    fn spec_with(&self, name: &str, id: &str, proof: Option<Proof>) -> AgentSpec {
        AgentSpec {
            id: id.parse().expect("it is set up"),
            control_plane: Authority {
                address: self.running.secure.expect("a certificate authority"),
                host: "istiod.istio-system.svc".to_owned(),
                root_cert: self.ca("root-cert.pem"),
            },
            directory: self.scratch.path().join(name),
            proof,
            key_kind: KeyKind::EcdsaP256,
            ttl: Duration::ZERO,
        }
    }

    /// Writes the mesh anew.
    pub(crate) fn save(&self, objects: &str) {
        std::fs::write(self.scratch.path().join("mesh/a.yaml"), objects).expect("it is set up");
    }

    pub(crate) fn agent(&self, name: &str, id: &str) -> Agent {
        Agent::start(self.spec(name, id, Some(self.credential(id)))).expect("it is set up")
    }

    fn socket(&self, name: &str, socket: &str) -> String {
        format!("unix:{}", self.scratch.path().join(name).join(socket).display())
    }
}

/// The next certificate of an agent that is not `known`.
pub(crate) async fn certificate(agent: &Agent, known: Option<&Svid>) -> Arc<Svid> {
    let mut current = agent.current();
    let next = current.wait_for(|svid| {
        svid.as_ref().is_some_and(|svid| known.is_none_or(|known| known.not_after != svid.not_after))
    });
    let next = tokio::time::timeout(PATIENCE, next).await.expect("in time").expect("the agent runs");
    next.clone().expect("it is set up")
}

async fn hopeless(agent: &mut Agent) -> String {
    tokio::time::timeout(PATIENCE, agent.hopeless()).await.expect("the agent gives up")
}

/// A client of the agent's socket that wants these secrets.
async fn secrets(world: &World, name: &str, names: &[&str]) -> Proxy {
    let options = Options::new(world.socket(name, SDS_SOCKET), Node::default(), Mode::Delta);
    let (commands, events) = client::run(options);
    let proxy = Proxy { commands, events };
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    proxy.subscribe(type_url::SECRET, Interest::Names(names)).await;
    proxy
}

/// Certificates or roots of each secret in an update, as PEM.
fn texts(update: &Update) -> Vec<(String, String)> {
    let text = |secret: &Secret| {
        let source = match secret.r#type.as_ref().expect("a type") {
            secret::Type::TlsCertificate(certificate) => certificate.certificate_chain.clone(),
            secret::Type::ValidationContext(context) => context.trusted_ca.clone(),
            other => panic!("{other:?}"),
        };
        match source.and_then(|source| source.specifier).expect("a source") {
            Specifier::InlineBytes(bytes) => String::from_utf8(bytes.to_vec()).expect("it is set up"),
            other => panic!("{other:?}"),
        }
    };
    let secrets =
        update.changed.iter().map(|resource| resource.body.unpack::<Secret>().expect("it is set up"));
    secrets.map(|secret| (secret.name.clone(), text(&secret))).collect()
}

#[tokio::test]
async fn a_workload_gets_its_certificate_and_its_proxy_gets_both() {
    let world = World::start(&[]).await;
    let agent = world.agent("cart", CART);
    let svid = certificate(&agent, None).await;
    assert_eq!(svid.id.as_str(), CART);
    let mut sds = secrets(&world, "cart", &["default", "ROOTCA"]).await;
    let found = texts(&sds.update().await);
    let [(roots_name, roots), (name, chain)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((roots_name.as_str(), name.as_str()), ("ROOTCA", "default"));
    assert_eq!(*roots, std::fs::read_to_string(world.ca("root-cert.pem")).expect("it is set up"));

    // A program that nobody here wrote accepts the chain, as both a server's and a client's.
    let path = world.scratch.path().join("chain.pem");
    std::fs::write(&path, chain).expect("it is set up");
    for purpose in ["sslserver", "sslclient"] {
        let verify = Process::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
            .args([&world.ca("root-cert.pem"), &path])
            .output()
            .expect("openssl runs");
        assert!(verify.status.success(), "{purpose}: {}", String::from_utf8_lossy(&verify.stderr));
    }
    let shown = Process::new("openssl")
        .args(["x509", "-noout", "-text", "-in"])
        .arg(&path)
        .output()
        .expect("it is set up");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let lines: Vec<&str> = shown.lines().map(str::trim).collect();
    for pair in [
        ["X509v3 Subject Alternative Name: critical", &format!("URI:{CART}")],
        ["X509v3 Key Usage: critical", "Digital Signature, Key Encipherment"],
        ["X509v3 Extended Key Usage:", "TLS Web Server Authentication, TLS Web Client Authentication"],
        ["X509v3 Basic Constraints: critical", "CA:FALSE"],
    ] {
        assert!(lines.windows(2).any(|two| two == pair), "{pair:?} in\n{shown}");
    }
    world.running.stop().await;
}

#[tokio::test]
async fn the_identity_is_the_callers_whatever_the_request_says() {
    let world = World::start(&[]).await;
    let admin = "spiffe://cluster.local/ns/kube-system/sa/admin";
    let agent = Agent::start(world.spec("cart", admin, Some(world.credential(CART)))).expect("it is set up");
    assert_eq!(certificate(&agent, None).await.id.as_str(), CART);
}

#[tokio::test]
async fn a_credential_works_once() {
    let world = World::start(&[]).await;
    let credential = world.credential(CART);
    let agent = Agent::start(world.spec("one", CART, Some(credential.clone()))).expect("it is set up");
    certificate(&agent, None).await;
    let mut thief = Agent::start(world.spec("two", CART, Some(credential))).expect("it is set up");
    let reason = hopeless(&mut thief).await;
    assert!(reason.contains("used before"), "{reason}");
}

#[tokio::test]
async fn strangers_get_nothing() {
    let world = World::start(&[]).await;
    let forged = CredentialKey::new(&[1; 32]).mint(&Claims {
        id: CART.parse().expect("it is set up"),
        expires: SystemTime::now() + Duration::from_secs(60),
        nonce: [0; 16],
    });
    let foreign = world.credential("spiffe://evil.example/ns/default/sa/cart");
    for (credential, why) in [
        (None, "one-time credential: none was sent"),
        (Some(Credential::from_text("x")), "has another form"),
        (Some(forged), "not signed by this mesh"),
        (Some(foreign), "the trust domain evil.example is not ours"),
    ] {
        let mut agent = Agent::start(world.spec("stranger", CART, credential)).expect("it is set up");
        let reason = hopeless(&mut agent).await;
        assert!(reason.contains(why), "{why}: {reason}");
    }
}

#[tokio::test]
async fn a_proxy_gets_the_configuration_of_its_own_node_and_of_no_other() {
    let world = World::start(&[]).await;
    let agent = world.agent("cart", CART);
    certificate(&agent, None).await;
    let uri = world.socket("cart", XDS_SOCKET);
    for mode in [Mode::Sotw, Mode::Delta] {
        let mut own = Proxy::connect(uri.clone(), NODE, mode).await;
        assert_eq!(own.update().await.type_url, type_url::CLUSTER);
        let somebody_else = NODE.replace("default", "bank");
        let mut other = Proxy::connect(uri.clone(), &somebody_else, mode).await;
        let reason = loop {
            match tokio::time::timeout(PATIENCE, other.events.recv()).await.expect("in time").expect("runs") {
                Event::Disconnected { reason, .. } => break reason,
                Event::Connected => {}
                Event::Update(update) => panic!("somebody else's configuration: {}", update.type_url),
            }
        };
        assert!(reason.contains("PermissionDenied") && reason.contains("bank"), "{reason}");
    }
}

#[tokio::test]
async fn certificates_are_renewed_and_pushed() {
    let world = World::start(&["--workload-cert-ttl", "3s"]).await;
    let agent = world.agent("cart", CART);
    let first = certificate(&agent, None).await;
    let mut sds = secrets(&world, "cart", &["default"]).await;
    let update = sds.update().await;
    sds.ack(&update).await;
    let mut chains = vec![texts(&update).remove(0).1];
    let second = certificate(&agent, Some(&first)).await;
    assert!(second.not_after > first.not_after);
    for _ in 0..2 {
        let update = sds.update().await;
        sds.ack(&update).await;
        let chain = texts(&update).remove(0).1;
        assert!(!chains.contains(&chain), "another certificate each time");
        chains.push(chain);
    }
}

#[tokio::test]
async fn a_workload_outlives_the_absence_of_its_authority_and_a_used_credential_stays_used() {
    let flags = ["--workload-cert-ttl", "10s"];
    let world = World::start(&flags).await;
    let credential = world.credential(CART);
    let agent = Agent::start(world.spec("cart", CART, Some(credential.clone()))).expect("it is set up");
    let first = certificate(&agent, None).await;
    let mut sds = secrets(&world, "cart", &["default"]).await;
    let update = sds.update().await;
    sds.ack(&update).await;
    let World { running, scratch, key } = world;
    let address = running.secure.expect("an address").to_string();
    running.stop().await;

    let running = World::run(scratch.path(), &address, &flags).await;
    let world = World { running, scratch, key };
    let mut thief = Agent::start(world.spec("thief", CART, Some(credential))).expect("it is set up");
    let reason = hopeless(&mut thief).await;
    assert!(reason.contains("used before"), "{reason}");
    let second = certificate(&agent, Some(&first)).await;
    assert_eq!(second.id, first.id);
    assert_ne!(texts(&sds.update().await), texts(&update));
}

#[tokio::test]
async fn a_storm_of_workloads_ends_within_seconds() {
    const WORKLOADS: usize = 256;
    let world = World::start(&[]).await;
    let began = Instant::now();
    let id = |n: usize| format!("spiffe://cluster.local/ns/default/sa/w{n}");
    let agents: Vec<Agent> = (0..WORKLOADS).map(|n| world.agent(&format!("w{n}"), &id(n))).collect();
    for (n, agent) in agents.iter().enumerate() {
        assert_eq!(certificate(agent, None).await.id, id(n).parse::<SpiffeId>().expect("it is set up"));
    }
    let took = began.elapsed();
    println!("{WORKLOADS} certificates in {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}, without optimization and on a busy machine");
}

#[tokio::test]
async fn while_the_root_changes_both_are_trusted() {
    let world = World::start(&["--workload-cert-ttl", "4s"]).await;
    let agent = world.agent("cart", CART);
    let first = certificate(&agent, None).await;
    let mut sds = secrets(&world, "cart", &["ROOTCA"]).await;
    let update = sds.update().await;
    sds.ack(&update).await;
    let old = texts(&update).remove(0).1;
    assert_eq!(certificates_from_pem(old.as_bytes()).expect("it is set up").len(), 1);

    let serial = meltemi_identity::Serial::new(meltemi_identity::random().expect("it is set up"));
    let (new, key) = meltemi_identity::Authority::make_root(
        &"cluster.local".parse().expect("it is set up"),
        KeyKind::EcdsaP384,
        SystemTime::now(),
        serial,
    )
    .expect("it is set up");
    std::fs::write(world.ca("root-cert.pem"), format!("{old}{new}")).expect("it is set up");
    let update = sds.update().await;
    sds.ack(&update).await;
    assert_eq!(texts(&update).remove(0).1, format!("{old}{new}"), "first everybody trusts both");

    std::fs::write(world.ca("ca-key.pem"), key.to_pem().as_bytes()).expect("it is set up");
    std::fs::write(world.ca("ca-cert.pem"), &new).expect("it is set up");
    let mut known = certificate(&agent, Some(&first)).await;
    let new_root = world.ca("new-root.pem");
    std::fs::write(&new_root, &new).expect("it is set up");
    let is_new = |svid: &Svid| {
        let path = world.scratch.path().join("rotated.pem");
        std::fs::write(&path, svid.chain_pem()).expect("it is set up");
        let verify = Process::new("openssl").args(["verify", "-CAfile"]).args([&new_root, &path]).output();
        verify.expect("openssl runs").status.success()
    };
    // Then the new one signs; the agent renews by itself, over a connection that the old one still proves.
    while !is_new(&known) {
        known = certificate(&agent, Some(&known)).await;
    }
}

#[tokio::test]
async fn plaintext_is_for_this_machine() {
    let scratch = tempfile::tempdir().expect("it is set up");
    let command = ControlPlaneArgs::augment_args(clap::Command::new("control-plane"));
    let config = scratch.path().to_str().expect("it is set up");
    let words =
        ["control-plane", "--config", config, "--xds-address", "0.0.0.0:0", "--admin-address", "127.0.0.1:0"];
    let matches = command.try_get_matches_from(words).expect("it is set up");
    let args = ControlPlaneArgs::from_arg_matches(&matches).expect("it is set up");
    let error = ControlPlane::bind(&args, io::sink()).await.err().expect("refused").to_string();
    assert!(error.contains("--allow-plaintext"), "{error}");
}

const GATEWAY: &str = "
{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: edge}, spec: {selector: {}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: web}}]}}
---
{apiVersion: v1, kind: Secret, metadata: {name: web}, stringData: {tls.crt: a certificate, tls.key: a key}}
";

/// What a gateway is told of the Secret `web`: its certificate, or that there is none for it.
async fn credential(uri: String) -> Option<String> {
    let mut gateway =
        Proxy::connect(uri, "router~127.0.0.9~edge-0.default~default.svc.cluster.local", Mode::Delta).await;
    let names = BTreeSet::from(["kubernetes://web".to_owned()]);
    gateway.subscribe(type_url::SECRET, Interest::Names(names)).await;
    loop {
        let update = gateway.update().await;
        gateway.ack(&update).await;
        if update.type_url != type_url::SECRET {
            continue;
        }
        if let [(name, text)] = texts(&update).as_slice() {
            assert_eq!(name, "kubernetes://web");
            return Some(text.clone());
        }
        if update.removed.iter().any(|name| name == "kubernetes://web") {
            return None;
        }
    }
}

#[tokio::test]
async fn a_gateway_reads_the_secrets_of_its_namespace_when_it_has_proved_to_be_of_it() {
    let world = World::start_with(&format!("{SERVICE}---{GATEWAY}"), &[]).await;
    let agent = world.agent("edge", "spiffe://cluster.local/ns/default/sa/edge");
    certificate(&agent, None).await;
    let proved = credential(world.socket("edge", XDS_SOCKET)).await;
    assert_eq!(proved.as_deref(), Some("a certificate"));
    assert_eq!(credential(format!("http://{}", world.running.xds)).await, None, "plaintext proves nothing");
}

/// Tokens of an OpenID provider that is known by its keys; what a token must say is tested beside the code.
#[tokio::test]
async fn a_workload_with_a_token_gets_the_certificate_of_the_tokens_subject() {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp, jwk::Jwk};
    let key = meltemi_identity::Key::generate(KeyKind::EcdsaP256).expect("it is set up").to_der();
    let key = EncodingKey::from_ec_der(key.secret_der());
    let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("it is set up");
    let rule = serde_json::json!({
        "issuer": "https://issuer.example",
        "audiences": ["istio-ca"],
        "jwks": serde_json::json!({"keys": [jwk]}).to_string(),
    });
    let world = World::start(&["--jwt-rule", &rule.to_string()]).await;
    let token = |account: &str, audience: &str| {
        let claims = serde_json::json!({
            "iss": "https://issuer.example",
            "aud": audience,
            "sub": format!("system:serviceaccount:default:{account}"),
            "exp": get_current_timestamp() + 60,
        });
        encode(&Header::new(Algorithm::ES256), &claims, &key).expect("it is set up")
    };
    let file = world.scratch.path().join("token");
    std::fs::write(&file, token("cart", "somebody-else")).expect("it is set up");
    // The identity that the agent would like is another's; the token decides.
    let wanted = "spiffe://cluster.local/ns/default/sa/admin";
    let proof = Proof::TokenFile(file.clone());
    let agent = Agent::start(world.spec_with("cart", wanted, Some(proof))).expect("it is set up");
    // A refused token is no reason to give up: it is replaced, and read again.
    std::fs::write(&file, token("cart", "istio-ca")).expect("it is set up");
    assert_eq!(certificate(&agent, None).await.id.as_str(), CART);
}
