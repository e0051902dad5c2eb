//! A control plane, backends, and two sidecars of the same caller: ours and, where there is one, a stock Envoy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::Request;
use meltemi_e2e::backend::{Backend, Received, free_port};
use meltemi_e2e::client;
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::peers;
use meltemi_e2e::process::{DEADLINE, Process, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];

/// Everything that runs; it ends with it.
pub(super) struct World {
    dir: tempfile::TempDir,
    backends: Vec<Backend>,
    sidecars: Vec<Sidecar>,
    /// How often the routes were replaced; every answer tells it, so that a test knows what is in force.
    step: AtomicU32,
    _control: Process,
    _proxies: Vec<Running>,
    talkers: Vec<tokio::task::JoinHandle<()>>,
}

/// A sidecar of the caller.
#[derive(Debug)]
pub(super) struct Sidecar {
    name: &'static str,
    http: SocketAddr,
    tcp: SocketAddr,
}

/// What a caller sees.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) status: u16,
    /// Who answered; empty for a proxy.
    pub(super) backend: String,
    pub(super) body: String,
}

impl World {
    pub(super) async fn start() -> World {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("mesh")).expect("writable");
        let mut backends = Vec::new();
        for name in VERSIONS.iter().chain(&["external"]) {
            backends.push(Backend::start(name).await.expect("a port"));
        }
        let (one, talker_one) = talker("one").await;
        let (two, talker_two) = talker("two").await;
        let mut proxies = vec![("ours", Proxy::Meltemi(peers::meltemi()))];
        match peers::envoy() {
            Some(envoy) => proxies.push(("envoy", Proxy::Envoy(envoy))),
            None => peers::missing("no Envoy"),
        }
        let local = || SocketAddr::from(([127, 0, 0, 1], free_port().expect("a port")));
        let sidecars: Vec<Sidecar> =
            proxies.iter().map(|(name, _)| Sidecar { name, http: local(), tcp: local() }).collect();
        let mesh = mesh(&backends, (one.port(), two.port()), &sidecars);
        std::fs::write(dir.path().join("mesh/mesh.yaml"), mesh).expect("writable");
        let (xds, admin) = (local(), local());
        let mut command = Command::new(peers::meltemi());
        command.arg("control-plane").arg("--config").arg(dir.path().join("mesh"));
        command.args([format!("--xds-address={xds}"), format!("--admin-address={admin}")]);
        let control = Process::spawn(&mut command, &dir.path().join("control.log")).expect("it starts");
        let ready = async || client::get(admin, "admin", "/ready").await.ok().filter(|a| a.status() == 200);
        until("the control plane", DEADLINE, ready).await.expect("it is ready");
        let mut running = Vec::new();
        for (sidecar, (_, proxy)) in sidecars.iter().zip(&proxies) {
            running.push(sidecar.run(proxy, xds, dir.path()).await);
        }
        World {
            dir,
            backends,
            sidecars,
            step: AtomicU32::new(0),
            _control: control,
            _proxies: running,
            talkers: vec![talker_one, talker_two],
        }
    }

    pub(super) fn sidecars(&self) -> &[Sidecar] {
        &self.sidecars
    }

    /// Replaces the HTTP routes of `reviews`, each the inside of a flow mapping, and waits until every sidecar has them.
    pub(super) async fn route(&self, routes: &[String]) {
        let step = (self.step.fetch_add(1, Ordering::Relaxed) + 1).to_string();
        let told = format!("headers: {{response: {{set: {{x-step: '{step}'}}}}}}");
        let probe =
            format!("{{match: [{{uri: {{exact: /probe}}}}], {told}, directResponse: {{status: 200}}}}");
        let routes: Vec<String> = routes.iter().map(|route| format!("{{{route}}}")).collect();
        let text = format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: reviews}}, spec: {{hosts: [reviews], http: [{probe}, {}]}}}}\n",
            routes.join(", ")
        );
        let (new, path) = (self.path(".route.new"), self.path("route.yaml"));
        std::fs::write(&new, text).expect("writable");
        std::fs::rename(new, path).expect("writable");
        for sidecar in &self.sidecars {
            let in_force = async || {
                let answer = client::get(sidecar.http, "reviews:9080", "/probe").await.ok()?;
                (answer.headers().get("x-step")?.to_str().ok()? == step).then_some(())
            };
            until("the routes are in force", DEADLINE, in_force).await.expect("in time");
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("mesh").join(name)
    }

    pub(super) async fn reviews(&self, sidecar: &Sidecar, headers: &[(&str, &str)]) -> Answered {
        self.call(sidecar, "reviews:9080", headers).await
    }

    pub(super) async fn call(&self, sidecar: &Sidecar, host: &str, headers: &[(&str, &str)]) -> Answered {
        let mut request = Request::get("/").header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Bytes::new()).expect("a request");
        let answer = client::http1(sidecar.http, request).await.expect("an answer");
        let backend = answer.headers().get("x-backend").map(|name| name.to_str().expect("text").to_owned());
        Answered {
            status: answer.status().as_u16(),
            backend: backend.unwrap_or_default(),
            body: String::from_utf8_lossy(answer.body()).into_owned(),
        }
    }

    /// The request with this header, when the backend has got it.
    pub(super) async fn received(&self, backend: &str, header: (&str, &str)) -> Received {
        let backend = self.backends.iter().find(|b| b.name == backend).expect("a backend");
        let wanted = (header.0.to_owned(), header.1.to_owned());
        let found = async || backend.take().into_iter().find(|request| request.headers.contains(&wanted));
        until("the copy", DEADLINE, found).await.expect("it comes")
    }

    /// What the other end of a connection says first.
    pub(super) async fn tcp(&self, sidecar: &Sidecar) -> String {
        let mut stream = TcpStream::connect(sidecar.tcp).await.expect("it listens");
        let mut said = String::new();
        stream.read_to_string(&mut said).await.expect("it speaks and ends");
        said
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.talkers.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// A server that says its name and ends the connection.
async fn talker(name: &'static str) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _gone = stream.write_all(name.as_bytes()).await;
        }
    });
    (address, task)
}

impl Sidecar {
    async fn run(&self, proxy: &Proxy, xds: SocketAddr, dir: &Path) -> Running {
        let dir = dir.join(self.name);
        std::fs::create_dir(&dir).expect("writable");
        let path = dir.join("bootstrap.json");
        std::fs::write(&path, self.bootstrap(xds).to_string()).expect("writable");
        start(proxy, &path, &dir).await.expect("the proxy starts")
    }

    fn bootstrap(&self, xds: SocketAddr) -> Value {
        let ads = json!({"ads": {}, "resource_api_version": "V3"});
        let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": xds.port()}});
        json!({
            "node": {
                "id": format!("sidecar~127.0.0.1~page-{}.default~default.svc.cluster.local", self.name),
                "cluster": "page.default",
                "metadata": {
                    "NAMESPACE": "default",
                    "INSTANCE_IPS": "127.0.0.1",
                    "INTERCEPTION_MODE": "NONE",
                    "HTTP_PROXY_PORT": self.http.port().to_string(),
                    "LABELS": {"app": "page", "sidecar": self.name},
                },
            },
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "dynamic_resources": {
                "ads_config": {"api_type": "GRPC", "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
                "lds_config": ads,
                "cds_config": ads,
            },
            "static_resources": {"clusters": [{
                "name": "xds", "type": "STATIC", "connect_timeout": "1s",
                "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}}}},
            }]},
        })
    }
}

/// The mesh without the routes of `reviews`.
fn mesh(backends: &[Backend], (one, two): (u16, u16), sidecars: &[Sidecar]) -> String {
    let mut documents = vec![
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: '{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}'}}".to_owned(),
        "{apiVersion: v1, kind: Service, metadata: {name: reviews}, spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}}".to_owned(),
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: reviews}, spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, {name: v3, labels: {version: v3}}]}}".to_owned(),
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: talk}, spec: {host: talk, subsets: [{name: one, labels: {version: one}}, {name: two, labels: {version: two}}]}}".to_owned(),
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: talk}, spec: {hosts: [talk], tcp: [{route: [{destination: {host: talk, subset: one}, weight: 80}, {destination: {host: talk, subset: two}, weight: 20}]}]}}".to_owned(),
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: books}, spec: {hosts: [books.example], http: [{timeout: 100ms, route: [{destination: {host: books.example}}]}]}}".to_owned(),
    ];
    for backend in backends {
        let (name, port) = (&backend.name, backend.address.port());
        documents.push(match name.as_str() {
            "external" => format!(
                "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: books}}, spec: {{hosts: [books.example], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: STATIC, location: MESH_EXTERNAL, endpoints: [{{address: 127.0.0.1, ports: {{http: {port}}}}}]}}}}"
            ),
            version => workload("reviews", version, &format!("http: {port}")),
        });
    }
    let ports: Vec<u16> = sidecars.iter().map(|sidecar| sidecar.tcp.port()).collect();
    let listed = |entry: fn(u16) -> String| ports.iter().map(|p| entry(*p)).collect::<Vec<_>>().join(", ");
    documents.push(format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: talk}}, spec: {{selector: {{app: talk}}, ports: [{}]}}}}",
        listed(|port| format!("{{name: tcp-{port}, port: {port}}}"))
    ));
    for (version, target) in [("one", one), ("two", two)] {
        let mapped: Vec<String> = ports.iter().map(|port| format!("tcp-{port}: {target}")).collect();
        documents.push(workload("talk", version, &mapped.join(", ")));
    }
    documents.extend(sidecars.iter().map(|sidecar| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {{name: {name}}}, spec: {{workloadSelector: {{labels: {{sidecar: {name}}}}}, egress: [{{port: {{number: {port}, name: tcp-{port}, protocol: TCP}}, bind: 127.0.0.1, hosts: [./talk.default.svc.cluster.local]}}, {{hosts: ['*/*']}}]}}}}",
            name = sidecar.name,
            port = sidecar.tcp.port()
        )
    }));
    documents.join("\n---\n")
}

fn workload(app: &str, version: &str, ports: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: {app}-{version}}}, spec: {{address: 127.0.0.1, labels: {{app: {app}, version: {version}}}, ports: {{{ports}}}}}}}"
    )
}
