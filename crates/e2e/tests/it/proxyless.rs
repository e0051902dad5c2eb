//! A gRPC program without a proxy: grpcio asks our control plane for its configuration over mutual TLS, with a
//! certificate of our authority, and speaks mutual TLS with the sidecars of what it calls.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use meltemi_e2e::backend::free_port;
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::peers;
use meltemi_e2e::process::{DEADLINE, Process, until};
use serde_json::{Value, json};

use crate::mutual_tls::standalone;

const SCRIPT: &str = "crates/e2e/tests/peers/grpc_xds.py";
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";

/// A control plane, two versions of a service behind sidecars that demand mutual TLS, and a program's bootstrap.
struct World {
    dir: tempfile::TempDir,
    packages: PathBuf,
    port: u16,
    /// Kept for their ends.
    _processes: Vec<Process>,
    _sidecars: Vec<Running>,
}

impl World {
    /// `None` without grpcio.
    async fn start() -> Option<World> {
        let packages = peers::python_package("grpc")?;
        let dir = tempfile::tempdir().expect("a folder");
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port().expect("a port")));
        let (port, secure) = (free_port().expect("a port"), address());
        std::fs::create_dir(dir.path().join("mesh")).expect("writable");
        let (mut workloads, mut processes) = (Vec::new(), Vec::new());
        for version in ["v1", "v2"] {
            let (process, port) = workload(&packages, version, dir.path()).await;
            processes.push(process);
            workloads.push(port);
        }
        let mesh = mesh(port, &workloads);
        std::fs::write(dir.path().join("mesh/mesh.yaml"), &mesh).expect("writable");
        let mut world = World { dir, packages, port, _processes: processes, _sidecars: Vec::new() };
        world.route("v1");
        let (xds, admin) = (address(), address());
        let mut control = Command::new(peers::meltemi());
        let path = |name: &str| world.dir.path().join(name).display().to_string();
        control.args(["control-plane", "--config", &path("mesh"), "--ca-directory", &path("ca")]);
        control.args(["--secure-address", &secure.to_string(), "--xds-address", &xds.to_string()]);
        control.args(["--admin-address", &admin.to_string()]);
        let control = Process::spawn(&mut control, &world.dir.path().join("control.log")).expect("it starts");
        world._processes.push(control);
        let root = world.dir.path().join("ca/root-cert.pem");
        until("the authority", DEADLINE, async || root.exists().then_some(())).await.expect("a root");
        world.issue("client", CLIENT).await;
        for (version, host) in [("v1", "127.0.0.1"), ("v2", "127.0.0.2")] {
            let id = format!("spiffe://cluster.local/ns/shop/sa/echo-{version}");
            world.issue(version, &id).await;
            let sidecar = world.sidecar(version, host, &mesh).await;
            world._sidecars.push(sidecar);
        }
        std::fs::write(world.path("xds.json"), world.bootstrap(secure).to_string()).expect("writable");
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Leads all calls to one version.
    fn route(&self, version: &str) {
        let weight = |of: &str| if of == version { 100 } else { 0 };
        let text = format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: echo, namespace: shop}}, spec: {{hosts: [echo], http: [{{route: [{{destination: {{host: echo, subset: v1}}, weight: {}}}, {{destination: {{host: echo, subset: v2}}, weight: {}}}]}}]}}}}\n",
            weight("v1"),
            weight("v2")
        );
        let new = self.path("mesh/.route.new");
        std::fs::write(&new, text).expect("writable");
        std::fs::rename(new, self.path("mesh/route.yaml")).expect("writable");
    }

    /// A certificate by hand, in a folder of its own.
    async fn issue(&self, name: &str, id: &str) {
        let out = self.path(name);
        std::fs::create_dir(&out).expect("writable");
        let mut command = Command::new(peers::meltemi());
        command.args(["cert", "issue", "--identity", id, "--ca-directory"]).arg(self.path("ca"));
        let mut issued =
            Process::spawn(command.arg("--out").arg(&out), &self.path("issue.log")).expect("it starts");
        assert!(issued.wait(DEADLINE).await.expect("it ends").success(), "{}", issued.output());
    }

    async fn sidecar(&self, version: &str, host: &str, mesh: &str) -> Running {
        let node = format!(
            "{{id: sidecar~{host}~echo-{version}.shop~shop.svc.cluster.local, metadata: {{INTERCEPTION_MODE: NONE, MELTEMI_SDS: 'true', INSTANCE_IPS: {host}, LABELS: {{app: echo, version: {version}}}}}}}"
        );
        let file = |name: &str| json!({ "filename": self.path(version).join(name) });
        let secrets = vec![
            json!({ "name": "default", "tls_certificate": {
                "certificate_chain": file("cert-chain.pem"),
                "private_key": file("key.pem"),
            } }),
            json!({ "name": "ROOTCA", "validation_context": { "trusted_ca": file("root-cert.pem") } }),
        ];
        let dir = self.path(&format!("sidecar-{version}"));
        std::fs::create_dir(&dir).expect("writable");
        let path = dir.join("bootstrap.json");
        std::fs::write(&path, standalone::bootstrap(mesh, &node, secrets).to_string()).expect("writable");
        start(&Proxy::Meltemi(peers::meltemi()), &path, &dir).await.expect("the proxy starts")
    }

    /// As Istio's agent writes it, but that the control plane is asked directly.
    fn bootstrap(&self, control_plane: SocketAddr) -> Value {
        let file = |name: &str| self.path("client").join(name);
        let files = json!({
            "certificate_file": file("cert-chain.pem"),
            "private_key_file": file("key.pem"),
            "ca_certificate_file": file("root-cert.pem"),
            "refresh_interval": "900s",
        });
        json!({
            "xds_servers": [{
                "server_uri": control_plane.to_string(),
                "channel_creds": [{ "type": "tls", "config": files }],
                "server_features": ["xds_v3"],
            }],
            "node": {
                "id": "sidecar~127.0.0.9~client-0.shop~shop.svc.cluster.local",
                "metadata": { "GENERATOR": "grpc", "NAMESPACE": "shop", "SERVICE_ACCOUNT": "client" },
            },
            "certificate_providers": { "default": { "plugin_name": "file_watcher", "config": files } },
        })
    }

    fn client(&self, action: &str, credentials: &str, log: &str) -> Process {
        let target = format!("xds:///echo.shop.svc.cluster.local:{}", self.port);
        let mut command = Command::new("python3");
        command.arg(peers::repository().join(SCRIPT)).args([action, &target, credentials]);
        command.env("PYTHONPATH", &self.packages).env("GRPC_XDS_BOOTSTRAP", self.path("xds.json"));
        Process::spawn(&mut command, &self.path(log)).expect("python3 starts")
    }

    async fn call(&self, credentials: &str) -> String {
        let mut client = self.client("call", credentials, &format!("{credentials}.log"));
        client.wait(Duration::from_secs(60)).await.expect("the client ends");
        client.output()
    }
}

/// A program behind a sidecar that answers with its version, and its port.
async fn workload(packages: &Path, version: &str, dir: &Path) -> (Process, u16) {
    let mut command = Command::new("python3");
    command.arg(peers::repository().join(SCRIPT)).args(["server", version]).env("PYTHONPATH", packages);
    let server = Process::spawn(&mut command, &dir.join(format!("{version}.log"))).expect("python3 starts");
    let port = until("the server's port", DEADLINE, async || server.output().trim().parse().ok()).await;
    (server, port.expect("the server prints its port"))
}

/// The service on `port`, with a sidecar and a workload for each version.
fn mesh(port: u16, workloads: &[u16]) -> String {
    let mut text = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: echo, namespace: shop}}, spec: {{selector: {{app: echo}}, ports: [{{name: grpc, port: {port}}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: echo, namespace: shop}}, spec: {{host: echo, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}}}
---
{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: default, namespace: shop}}, spec: {{mtls: {{mode: STRICT}}}}}}
"
    );
    for ((version, host), workload) in [("v1", "127.0.0.1"), ("v2", "127.0.0.2")].into_iter().zip(workloads) {
        text += &format!(
            "---
{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: echo-{version}, namespace: shop}}, spec: {{address: {host}, serviceAccount: echo-{version}, labels: {{app: echo, version: {version}}}}}}}
---
{{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {{name: echo-{version}, namespace: shop}}, spec: {{workloadSelector: {{labels: {{app: echo, version: {version}}}}}, ingress: [{{port: {{number: {port}, name: grpc, protocol: GRPC}}, defaultEndpoint: '127.0.0.1:{workload}'}}]}}}}
"
        );
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_grpcio_without_a_proxy_speaks_mutual_tls() {
    let Some(world) = World::start().await else { return };
    assert_eq!(world.call("xds").await.trim(), "OK v1");
    // The same configuration, and nothing to show: the sidecar lets nobody in.
    let refused = world.call("insecure").await;
    assert!(refused.starts_with("UNAVAILABLE "), "{refused}");

    let watching = world.client("watch", "xds", "watch.log");
    let says = async |last: &str| {
        until(last, DEADLINE, async || {
            let output = watching.output();
            (output.lines().last() == Some(last)).then_some(output)
        })
        .await
    };
    says("OK v1").await.unwrap_or_else(|e| panic!("{e}: {}", watching.output()));
    world.route("v2");
    let said = says("OK v2").await.unwrap_or_else(|e| panic!("{e}: {}", watching.output()));
    assert_eq!(said.trim(), "OK v1\nOK v2", "no call failed on the way");
}
