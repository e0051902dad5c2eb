//! The control plane over its sockets: files in, xDS and admin pages out. The proxy is an xDS client that takes
//! everything, or refuses when told to.

mod attacks;
mod identity;
mod mesh_config;
mod pages;
mod proxyless;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, FromArgMatches};
use meltemi_control::{ControlPlane, ControlPlaneArgs};
use meltemi_envoy::config::core::v3::Node;
use meltemi_envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use meltemi_envoy::type_url;
use meltemi_runtime::task::{self, Task};
use meltemi_xds::Mode;
use meltemi_xds::client::{self, Command, Event, Interest, Options, Update};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

/// Longest wait for anything, far beyond what is expected on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const NODE: &str = "sidecar~127.0.0.9~client-0.default~default.svc.cluster.local";

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
";

fn virtual_service(timeout: &str) -> String {
    format!(
        "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: default}}
spec:
  hosts: [reviews]
  http:
  - timeout: {timeout}
    route:
    - destination: {{host: reviews, port: {{number: 9080}}}}
"
    )
}

/// What the control plane prints, line by line or not.
struct Output(mpsc::UnboundedSender<String>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Running {
    xds: SocketAddr,
    admin: SocketAddr,
    secure: Option<SocketAddr>,
    printed: mpsc::UnboundedReceiver<String>,
    stop: oneshot::Sender<()>,
    task: Task<anyhow::Result<()>>,
}

impl Running {
    async fn start(directory: &Path, flags: &[&str]) -> Running {
        let directory = directory.to_str().expect("UTF-8").to_owned();
        let fixed = ["control-plane", "--config", &directory];
        let ports = ["--xds-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0"];
        let words = fixed.into_iter().chain(ports).chain(flags.iter().copied());
        let command = ControlPlaneArgs::augment_args(clap::Command::new("control-plane"));
        let matches = command.try_get_matches_from(words).expect("arguments");
        let args = ControlPlaneArgs::from_arg_matches(&matches).expect("arguments");
        let (sender, printed) = mpsc::unbounded_channel();
        let control_plane = ControlPlane::bind(&args, Output(sender)).await.expect("bind");
        let xds = control_plane.xds_address().expect("address");
        let admin = control_plane.admin_address().expect("address");
        let secure = control_plane.secure_address().expect("address");
        let (stop, stopped) = oneshot::channel::<()>();
        let task = task::spawn("control plane", control_plane.serve(async move { drop(stopped.await) }));
        Running { xds, admin, secure, printed, stop, task }
    }

    /// The next printed text that contains `needle`.
    async fn prints(&mut self, needle: &str) -> String {
        let found = async {
            loop {
                let text = self.printed.recv().await.expect("the control plane runs");
                if text.contains(needle) {
                    return text;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("never printed: {needle}"))
    }

    /// Status line and body of an admin page.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).await.expect("connect");
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a response");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, body.to_owned())
    }

    async fn stop(self) {
        self.stop.send(()).expect("runs");
        self.task.await.expect("no panic").expect("ends well");
    }
}

struct Proxy {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Event>,
}

impl Proxy {
    /// A sidecar that asks for everything.
    async fn start(xds: SocketAddr, id: &str, mode: Mode) -> Proxy {
        Proxy::connect(format!("http://{xds}"), id, mode).await
    }

    async fn connect(uri: String, id: &str, mode: Mode) -> Proxy {
        let text = |text: &str| prost_types::Value {
            kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
        };
        let facts = [("NAMESPACE", "default"), ("INTERCEPTION_MODE", "NONE"), ("HTTP_PROXY_PORT", "15002")];
        let fields = facts.into_iter().map(|(key, value)| (key.to_owned(), text(value))).collect();
        let node =
            Node { id: id.to_owned(), metadata: Some(prost_types::Struct { fields }), ..Default::default() };
        let (commands, events) = client::run(Options::new(uri, node, mode));
        let proxy = Proxy { commands, events };
        proxy.subscribe(type_url::CLUSTER, Interest::Wildcard).await;
        proxy.subscribe(type_url::LISTENER, Interest::Wildcard).await;
        let routes = BTreeSet::from(["http_proxy".to_owned()]);
        proxy.subscribe(type_url::ROUTE, Interest::Names(routes)).await;
        proxy
    }

    async fn subscribe(&self, type_url: &str, interest: Interest) {
        let type_url = type_url.to_owned();
        self.commands.send(Command::Subscribe { type_url, interest }).await.expect("client runs");
    }

    async fn update(&mut self) -> Update {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("in time");
            if let Event::Update(update) = event.expect("client runs") {
                return update;
            }
        }
    }

    async fn ack(&self, update: &Update) {
        let (type_url, nonce) = (update.type_url.clone(), update.nonce.clone());
        self.commands.send(Command::Ack { type_url, nonce }).await.expect("client runs");
    }

    async fn nack(&self, update: &Update, reason: &str) {
        let (type_url, nonce) = (update.type_url.clone(), update.nonce.clone());
        let command = Command::Nack { type_url, nonce, reason: reason.to_owned() };
        self.commands.send(command).await.expect("client runs");
    }

    /// Takes updates until one of routes comes, which is left unanswered.
    async fn routes(&mut self) -> Update {
        loop {
            let update = self.update().await;
            if update.type_url == type_url::ROUTE {
                return update;
            }
            self.ack(&update).await;
        }
    }
}

/// The virtual host of `reviews` and its place.
fn reviews(update: &Update) -> (usize, VirtualHost) {
    let body = &update.changed.first().expect("a route configuration").body;
    let routes: RouteConfiguration = body.unpack().expect("a route configuration");
    let mut hosts = routes.virtual_hosts.into_iter().enumerate();
    hosts.find(|(_, host)| host.domains.iter().any(|domain| domain == "reviews")).expect("a virtual host")
}

/// Where a proxy would say that the route to `reviews` is.
fn route_path(update: &Update) -> String {
    format!("virtual_hosts[{}].routes[0].route", reviews(update).0)
}

/// The timeout of the route to `reviews`, in seconds.
fn timeout(update: &Update) -> i64 {
    let route = &reviews(update).1.routes[0];
    match &route.action {
        Some(meltemi_envoy::config::route::v3::route::Action::Route(action)) => {
            action.timeout.as_ref().expect("a timeout").seconds
        }
        other => panic!("not a route: {other:?}"),
    }
}

fn shop() -> TempDir {
    let directory = TempDir::new().expect("temporary directory");
    std::fs::write(directory.path().join("service.yaml"), SERVICE).expect("write");
    save(directory.path(), &virtual_service("1s"));
    directory
}

fn save(directory: &Path, virtual_service: &str) {
    std::fs::write(directory.join("virtual-service.yaml"), virtual_service).expect("write");
}

async fn an_edit_is_in_force(mode: Mode) {
    let directory = shop();
    let mut control_plane = Running::start(directory.path(), &[]).await;
    let mut proxy = Proxy::start(control_plane.xds, NODE, mode).await;
    let first = proxy.routes().await;
    assert_eq!(timeout(&first), 1);
    assert_eq!(first.control_plane, "meltemi/1");
    proxy.ack(&first).await;

    let edited = Instant::now();
    save(directory.path(), &virtual_service("2s"));
    let second = proxy.routes().await;
    assert!(edited.elapsed() < Duration::from_secs(5), "took {:?}", edited.elapsed());
    assert_eq!(timeout(&second), 2);
    assert_ne!(second.control_plane, "meltemi/1");
    proxy.ack(&second).await;

    // A broken edit is told, and changes nothing; mending it is the next update.
    save(directory.path(), &virtual_service("soon"));
    let told = control_plane.prints("virtual-service.yaml").await;
    assert!(told.contains("timeout"), "{told}");
    let (_, findings) = control_plane.get("/debug/diagnostics").await;
    assert!(findings.contains("MEL") && findings.contains("virtual-service.yaml"), "{findings}");
    save(directory.path(), &virtual_service("3s"));
    assert_eq!(timeout(&proxy.routes().await), 3);
    control_plane.prints("resolved: ").await;
    control_plane.stop().await;
}

#[tokio::test]
async fn an_edit_is_in_force_by_state_of_the_world() {
    an_edit_is_in_force(Mode::Sotw).await;
}

#[tokio::test]
async fn an_edit_is_in_force_by_delta() {
    an_edit_is_in_force(Mode::Delta).await;
}

#[tokio::test]
async fn a_refusal_is_told_and_delays_nobody() {
    let directory = shop();
    let mut control_plane = Running::start(directory.path(), &[]).await;
    let mut refusing = Proxy::start(control_plane.xds, NODE, Mode::Delta).await;
    let first = refusing.routes().await;
    refusing.nack(&first, &format!("http_proxy: {}: cannot do that", route_path(&first))).await;
    let told = control_plane.prints("refused").await;
    assert!(told.contains(NODE) && told.contains("RDS") && told.contains("cannot do that"), "{told}");
    let origin = told.lines().nth(1).expect("where it comes from");
    assert!(origin.contains("VirtualService default/reviews spec.http[0]"), "{told}");
    assert!(origin.contains("virtual-service.yaml:"), "{told}");

    let mut taking = Proxy::start(control_plane.xds, &NODE.replace("client", "other"), Mode::Delta).await;
    let update = taking.routes().await;
    taking.ack(&update).await;
    save(directory.path(), &virtual_service("2s"));
    assert_eq!(timeout(&taking.routes().await), 2);

    let (_, page) = control_plane.get("/debug/syncz").await;
    let proxies: Vec<serde_json::Value> = serde_json::from_str(&page).expect("JSON");
    assert_eq!(proxies.len(), 2);
    assert_eq!(proxies[0]["proxy"], "client-0.default");
    assert_eq!(proxies[1]["listener_sent"], proxies[1]["listener_acked"]);
    let (_, metrics) = control_plane.get("/metrics").await;
    assert!(metrics.contains("pilot_total_xds_rejects{type=\"rds\"} 1"), "{metrics}");
    assert!(metrics.contains("pilot_xds{type=\"delta\"} 2"), "{metrics}");

    let again = refusing.routes().await;
    refusing.ack(&again).await;
    control_plane.prints("takes RDS again").await;
    control_plane.stop().await;
}

#[tokio::test]
async fn the_admin_pages_show_what_is_in_force() {
    let directory = shop();
    let control_plane = Running::start(directory.path(), &["--access-log-file", "/dev/stdout"]).await;
    let mut proxy = Proxy::start(control_plane.xds, NODE, Mode::Sotw).await;
    proxy.routes().await;
    assert_eq!(control_plane.get("/ready").await.0, 200);
    let (status, objects) = control_plane.get("/debug/configz").await;
    assert_eq!(status, 200);
    assert!(objects.contains("VirtualService") && objects.contains("reviews"), "{objects}");
    let (_, endpoints) = control_plane.get("/debug/endpointz").await;
    assert!(endpoints.contains("reviews.default.svc.cluster.local:http"), "{endpoints}");
    let (status, dump) = control_plane.get("/debug/config_dump?proxyID=client-0.default").await;
    assert_eq!(status, 200, "{dump}");
    assert!(dump.contains("type.googleapis.com/envoy.admin.v3.RoutesConfigDump"), "{dump}");
    assert!(dump.contains("outbound|9080||reviews.default.svc.cluster.local"), "{dump}");
    assert_eq!(control_plane.get("/debug/config_dump?proxyID=nobody").await.0, 404);
    assert_eq!(control_plane.get("/debug/config_dump").await.0, 400);
    let (_, list) = control_plane.get("/debug").await;
    assert!(list.contains("/debug/syncz"), "{list}");
    control_plane.stop().await;
}

#[tokio::test]
async fn strict_refuses_the_whole_generation() {
    let directory = shop();
    let mut control_plane = Running::start(directory.path(), &["--strict"]).await;
    let mut proxy = Proxy::start(control_plane.xds, NODE, Mode::Delta).await;
    let first = proxy.routes().await;
    proxy.ack(&first).await;
    let broken = directory.path().join("broken.yaml");
    std::fs::write(&broken, virtual_service("soon").replace("name: reviews", "name: broken")).expect("write");
    control_plane.prints("--strict").await;

    // A good edit of another object waits until the error is gone, and comes with its end.
    save(directory.path(), &virtual_service("2s"));
    std::fs::write(directory.path().join("second.yaml"), "kind: {").expect("write");
    control_plane.prints("second.yaml").await;
    let (_, metrics) = control_plane.get("/metrics").await;
    assert!(metrics.contains("\nmeltemi_generation 1\n"), "{metrics}");
    std::fs::remove_file(directory.path().join("second.yaml")).expect("remove");
    std::fs::remove_file(broken).expect("remove");
    let second = proxy.routes().await;
    assert_eq!((timeout(&second), second.control_plane.as_str()), (2, "meltemi/2"));
    control_plane.stop().await;
}

#[tokio::test]
async fn nothing_is_served_before_the_mesh_is_loaded_and_a_node_must_be_understood() {
    let directory = shop();
    std::fs::write(directory.path().join("broken.yaml"), "kind: {").expect("write");
    let mut control_plane = Running::start(directory.path(), &["--strict"]).await;
    control_plane.prints("--strict").await;
    assert_eq!(control_plane.get("/ready").await.0, 503);
    let mut proxy = Proxy::start(control_plane.xds, "no such form", Mode::Delta).await;
    std::fs::remove_file(directory.path().join("broken.yaml")).expect("remove");
    let reason = loop {
        let event = tokio::time::timeout(PATIENCE, proxy.events.recv()).await.expect("in time");
        if let Some(Event::Disconnected { reason, .. }) = event {
            break reason;
        }
    };
    assert!(reason.contains("node.id"), "{reason}");
    assert_eq!(control_plane.get("/ready").await.0, 200);
    control_plane.stop().await;
}
