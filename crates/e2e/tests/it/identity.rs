//! Identity with partners that nobody here wrote: a stock Envoy takes its certificate from our agent and shows it to
//! `openssl s_client` and curl, SPIFFE clients from PyPI and in Go read the Workload API, and certificates of seconds rotate
//! without a failed handshake.

mod control_plane;
mod drain;
mod go;
mod mixed;
mod proxy_config;

use std::fs::{OpenOptions, create_dir};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use meltemi_e2e::backend::free_port;
use meltemi_e2e::peers;
use meltemi_e2e::process::{DEADLINE, Process, until};
use meltemi_identity::{Claims, CredentialKey};
use serde_json::Value;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// A control plane with an authority.
struct Authority {
    secure: SocketAddr,
    key: CredentialKey,
    dir: tempfile::TempDir,
    _process: Process,
}

impl Authority {
    async fn start(ttl: &str) -> Authority {
        let dir = tempfile::tempdir().expect("a folder");
        let (mesh, key) = (dir.path().join("mesh"), dir.path().join("key"));
        create_dir(&mesh).expect("writable");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key).expect("new");
        file.write_all(&[9; 32]).expect("written");
        let port = || SocketAddr::from(([127, 0, 0, 1], free_port().expect("a port")));
        let (xds, admin, secure) = (port(), port(), port());
        let mut command = Command::new(peers::meltemi());
        command
            .arg("control-plane")
            .arg("--config")
            .arg(&mesh)
            .arg("--credential-key")
            .arg(&key)
            .arg("--ca-directory")
            .arg(dir.path().join("ca"))
            .args([format!("--xds-address={xds}"), format!("--admin-address={admin}")])
            .args([format!("--secure-address={secure}"), format!("--workload-cert-ttl={ttl}")]);
        let process = Process::spawn(&mut command, &dir.path().join("control.log")).expect("it starts");
        Authority { secure, key: CredentialKey::new(&[9; 32]), dir, _process: process }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What an agent is told; its sockets are in the folder `name`, its credential beside it.
    fn flags(&self, id: &str, name: &str) -> Vec<String> {
        let nonce = meltemi_identity::random().expect("randomness");
        let expires = SystemTime::now() + Duration::from_secs(60);
        let credential = self.key.mint(&Claims { id: id.parse().expect("an id"), expires, nonce });
        let file = self.path(&format!("{name}.credential"));
        std::fs::write(&file, credential.as_str()).expect("writable");
        vec![
            format!("--identity={id}"),
            format!("--ca-address={}", self.secure),
            format!("--ca-root-cert={}", self.path("ca/root-cert.pem").display()),
            format!("--agent-directory={}", self.path(name).display()),
            format!("--credential-file={}", file.display()),
        ]
    }

    fn run(&self, words: &[String], name: &str) -> Process {
        let mut command = Command::new(peers::meltemi());
        Process::spawn(command.args(words), &self.path(&format!("{name}.log"))).expect("it starts")
    }

    /// `meltemi agent` of [`ID`] with a credential, and a command beside it.
    fn agent(&self, beside: &[String]) -> Process {
        self.agent_of("agent", ID, beside)
    }

    /// The same of another workload, with its sockets in the folder `name`.
    fn agent_of(&self, name: &str, id: &str, beside: &[String]) -> Process {
        let mut words = vec!["agent".to_owned()];
        words.extend(self.flags(id, name));
        if !beside.is_empty() {
            words.push("--".to_owned());
            words.extend_from_slice(beside);
        }
        self.run(&words, name)
    }

    fn sds(&self) -> PathBuf {
        self.path("agent/sds.sock")
    }
}

/// A listener that ends TLS with the workload's certificate and wants one of the mesh from its clients.
fn envoy_bootstrap(listener: SocketAddr, sds: &Path) -> String {
    let source = "{resource_api_version: V3, api_config_source: {api_type: GRPC, transport_api_version: V3, \
         set_node_on_first_message_only: true, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}]}}";
    format!(
        r#"
node: {{id: sidecar~127.0.0.1~cart-0.shop~shop.svc.cluster.local, cluster: cart}}
static_resources:
  listeners:
  - address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_certificate_sds_secret_configs: [{{name: default, sds_config: {source}}}]
            validation_context_sds_secret_config: {{name: ROOTCA, sds_config: {source}}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: x
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: hello}}}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: sds-grpc
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: sds-grpc
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: {sds}}}}}}}}}]}}]
"#,
        ip = listener.ip(),
        port = listener.port(),
        sds = sds.display(),
    )
}

/// The certificate that a server shows to somebody who verifies it, as text; `None` while there is none.
fn shown_by(address: SocketAddr, roots: &Path) -> Option<String> {
    let client = Command::new("openssl")
        .args(["s_client", "-verify_return_error", "-connect", &address.to_string(), "-CAfile"])
        .arg(roots)
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs");
    let text = String::from_utf8_lossy(&client.stdout).into_owned();
    let begin = text.find("-----BEGIN CERTIFICATE-----")?;
    text.contains("Verify return code: 0 (ok)").then_some(())?;
    let mut x509 = Command::new("openssl")
        .args(["x509", "-noout", "-serial", "-ext", "subjectAltName"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let mut stdin = x509.stdin.take().expect("it is piped");
    let written = stdin.write_all(&text.as_bytes()[begin..]);
    drop(stdin);
    let output = x509.wait_with_output().ok()?;
    written.ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn envoy_takes_its_certificates_from_the_agent_and_their_rotation_fails_nothing() {
    let Some(envoy) = peers::envoy() else { return };
    let authority = Authority::start("6s").await;
    let listener = SocketAddr::from(([127, 0, 0, 1], free_port().expect("a port")));
    let bootstrap = authority.path("envoy.yaml");
    std::fs::write(&bootstrap, envoy_bootstrap(listener, &authority.sds())).expect("writable");
    let beside = [envoy.display().to_string(), "-c".into(), bootstrap.display().to_string()]
        .into_iter()
        .chain(["--disable-hot-restart", "--concurrency", "1", "--base-id", "77"].map(str::to_owned));
    let mut agent = authority.agent(&beside.collect::<Vec<_>>());
    let roots = authority.path("ca/root-cert.pem");
    let first = until("Envoy's certificate", DEADLINE, async || shown_by(listener, &roots)).await;
    let first = first.unwrap_or_else(|error| panic!("{error:#}: {}", agent.output()));
    assert!(first.contains(&format!("URI:{ID}")), "{first}");

    // Handshakes go on, one after the other, through two rotations.
    let mut serials = vec![first];
    let began = Instant::now();
    while serials.len() < 3 {
        assert!(began.elapsed() < DEADLINE, "no rotation: {}", agent.output());
        let shown =
            shown_by(listener, &roots).unwrap_or_else(|| panic!("a handshake failed: {}", agent.output()));
        if serials.last() != Some(&shown) {
            serials.push(shown);
        }
    }
    agent.signal(rustix::process::Signal::TERM);
    let status = agent.wait(DEADLINE).await.expect("the agent ends with Envoy");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_standard_spiffe_client_gets_the_identity_and_its_rotation() {
    let Some(packages) = peers::python_package("spiffe") else { return };
    let authority = Authority::start("4s").await;
    let agent = authority.agent(&[]);
    until("the socket", DEADLINE, async || authority.sds().exists().then_some(())).await.expect("a socket");
    let mut client = Command::new("python3");
    client
        .arg(peers::repository().join("crates/e2e/tests/peers/spiffe_identity.py"))
        .arg(authority.sds())
        .env("PYTHONPATH", packages.join("spiffe"));
    let mut client = Process::spawn(&mut client, &authority.path("client.log")).expect("python3 starts");
    let status = client.wait(2 * DEADLINE).await.expect("it ends");
    assert!(status.success(), "{}\n{}", client.output(), agent.output());
    let told: Value = serde_json::from_str(client.output().trim()).expect("JSON");
    for told in [&told[0], &told[1]] {
        assert_eq!(told["id"], ID);
        assert_eq!(told["uris"], serde_json::json!([ID]));
        assert_eq!(told["critical"], serde_json::json!([true, true]));
        assert_eq!((&told["signs"], &told["signs_certificates"]), (&Value::Bool(true), &Value::Bool(false)));
        assert_eq!((&told["server_and_client"], &told["roots"]), (&Value::Bool(true), &Value::from(1)));
    }
    assert_ne!(told[0]["serial"], told[1]["serial"]);
}
