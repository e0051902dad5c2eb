//! The task against a real ADS server on a loopback port, with a worker that only notes what it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meltemi_compile::program::Program;
use meltemi_envoy::config::core::v3::Node;
use meltemi_envoy::json::Codec;
use meltemi_envoy::{Any, type_url};
use meltemi_runtime::drain;
use meltemi_runtime::task::{self, Task};
use meltemi_xds::client::Options;
use meltemi_xds::server::{self, Answer, Client, Provider, Refusal, Rejection as Refused, Sent};
use meltemi_xds::{Config, Mode, Resource, ResourceSet};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::{Configurator, Setup, locked};
use crate::command_line::DrainStrategy;
use crate::config::{Dynamic, Store, Subscription};
use crate::departure::DrainPolicy;
use crate::lifecycle::{Lifecycle, State};
use crate::stats::Registry;
use crate::worker::Command;

/// No step of these tests takes longer than this unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Control {
    config: watch::Sender<Arc<Config>>,
    acked: mpsc::UnboundedSender<String>,
    rejected: mpsc::UnboundedSender<String>,
}

impl Provider for Control {
    fn connect(&self, _: &Client) -> Result<watch::Receiver<Arc<Config>>, Refusal> {
        Ok(self.config.subscribe())
    }
    fn sent(&self, _: &Client, _: &Sent) {}
    fn acked(&self, _: &Client, answer: &Answer) {
        let _ = self.acked.send(answer.type_url.clone());
    }
    fn rejected(&self, _: &Client, rejection: &Refused) {
        let _ = self.rejected.send(rejection.reason.clone());
    }
    fn disconnected(&self, _: &Client) {}
}

/// A control plane, a configurator and a worker.
struct World {
    control: Arc<Control>,
    programs: mpsc::UnboundedReceiver<(Arc<Program>, usize)>,
    acked: mpsc::UnboundedReceiver<String>,
    rejected: mpsc::UnboundedReceiver<String>,
    store: Arc<Mutex<Store>>,
    lifecycle: Arc<Lifecycle>,
    _drain: drain::Trigger,
    _tasks: [Task<()>; 3],
}

impl World {
    async fn start(mode: Mode, config: Config) -> World {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let uri = format!("http://{}", listener.local_addr().expect("address"));
        let ((acks, acked), (nacks, rejected)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let control =
            Arc::new(Control { config: watch::channel(Arc::new(config)).0, acked: acks, rejected: nacks });
        let (drain, signal) = drain::channel();
        let serving = server::serve(listener, server::Service::new(Arc::clone(&control), signal));
        let server = task::spawn("server", async move { serving.await.expect("serve") });
        let (commands, mut inbox) = mpsc::unbounded_channel();
        let (told, programs) = mpsc::unbounded_channel();
        let worker = task::spawn("worker", async move {
            while let Some(Command::Program { program, sockets, applied, .. }) = inbox.recv().await {
                let _ = told.send((program, sockets.len()));
                let _ = applied.send(());
            }
        });
        let (store, lifecycle) = (Arc::<Mutex<Store>>::default(), Arc::<Lifecycle>::default());
        let node = Node { id: "sidecar~1".into(), cluster: "c".into(), ..Node::default() };
        let forever = Some(Subscription { origin: meltemi_compile::Origin::Ads, wait: None });
        let ads = Some(Options::new(uri, node.clone(), mode).into());
        let dynamic = Dynamic { ads, node, clusters: forever.clone(), listeners: forever };
        let setup = Setup {
            store: Arc::clone(&store),
            workers: vec![commands],
            dynamic,
            lifecycle: Arc::clone(&lifecycle),
            registry: Registry::new(),
            hosts: Arc::default(),
            secrets: Arc::default(),
            drain: DrainPolicy { time: Duration::from_secs(1), strategy: DrainStrategy::Immediate },
        };
        let configurator = Configurator::new(setup).expect("nothing to bind");
        let tasks = [server, worker, task::spawn("config", configurator.run())];
        World { control, programs, acked, rejected, store, lifecycle, _drain: drain, _tasks: tasks }
    }

    fn serve(&self, config: Config) {
        self.control.config.send_replace(Arc::new(config));
    }

    /// The first program of which this is true; the number of sockets handed out up to it.
    async fn until(&mut self, is_met: impl Fn(&Program) -> bool) -> (Arc<Program>, usize) {
        let mut sockets = 0;
        loop {
            let next = tokio::time::timeout(PATIENCE, self.programs.recv()).await.expect("in time");
            let (program, more) = next.expect("the configurator lives");
            sockets += more;
            if is_met(&program) {
                return (program, sockets);
            }
        }
    }
}

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

fn listener() -> String {
    format!(
        "{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, filter_chains: \
         [{{filters: [{{name: h, typed_config: {{'@type': {HCM}, stat_prefix: p, rds: {{route_config_name: r, \
         config_source: {{ads: {{}}}}}}, http_filters: [{{name: router, typed_config: {{'@type': {ROUTER}}}}}]}}}}]}}]}}"
    )
}

fn routes(cluster: &str) -> String {
    format!(
        "{{name: r, virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: \
         {{cluster: {cluster}}}}}]}}]}}"
    )
}

fn endpoints(name: &str, port: u16) -> String {
    format!(
        "{{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: \
         {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}"
    )
}

fn eds_cluster(name: &str) -> String {
    format!("{{name: {name}, type: EDS, eds_cluster_config: {{eds_config: {{ads: {{}}}}}}}}")
}

/// Resources by type, from YAML.
struct Resources(BTreeMap<String, Vec<Resource>>, Codec);

impl Resources {
    fn new() -> Resources {
        Resources(BTreeMap::new(), Codec::new())
    }

    fn with<M: prost::Name + Default>(mut self, name: &str, yaml: &str) -> Resources {
        let message: M = self.1.parse(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        self.0.entry(M::type_url()).or_default().push(Resource::new(name, Any::pack(&message)));
        self
    }

    fn cluster(self, name: &str, yaml: &str) -> Resources {
        self.with::<meltemi_envoy::config::cluster::v3::Cluster>(name, yaml)
    }

    fn endpoints(self, name: &str, port: u16) -> Resources {
        self.with::<meltemi_envoy::config::endpoint::v3::ClusterLoadAssignment>(name, &endpoints(name, port))
    }

    fn listener(self) -> Resources {
        self.with::<meltemi_envoy::config::listener::v3::Listener>("l", &listener())
    }

    fn routes(self, cluster: &str) -> Resources {
        self.with::<meltemi_envoy::config::route::v3::RouteConfiguration>("r", &routes(cluster))
    }

    fn config(self, generation: &str) -> Config {
        let types = self.0.into_iter().map(|(type_url, resources)| {
            (type_url, Arc::new(resources.into_iter().collect::<ResourceSet>()))
        });
        Config { generation: generation.to_owned(), types: types.collect() }
    }
}

fn first() -> Config {
    let resources = Resources::new().cluster("a", &eds_cluster("a")).endpoints("a", 1).listener().routes("a");
    resources.config("1")
}

/// Whether nothing in the program points at what is not there.
fn is_whole(program: &Program) -> bool {
    program.clusters.keys().all(|name| program.endpoints.contains_key(name))
        && (program.listeners.is_empty() || program.routes.contains_key("r"))
}

async fn comes_up(mode: Mode) {
    let mut world = World::start(mode, first()).await;
    let (program, sockets) = world.until(|program| program.listeners.contains_key("l")).await;
    assert!(is_whole(&program));
    assert_eq!(sockets, 1);
    let mut answered = Vec::new();
    while !answered.contains(&type_url::ROUTE.to_owned()) {
        answered.push(
            tokio::time::timeout(PATIENCE, world.acked.recv()).await.expect("in time").expect("answer"),
        );
    }
    assert_eq!(answered.first().map(String::as_str), Some(type_url::CLUSTER));
    let live = async {
        while world.lifecycle.state() != State::Live {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, live).await.expect("live in time");
}

#[tokio::test]
async fn everything_comes_up_in_order_by_delta() {
    comes_up(Mode::Delta).await;
}

#[tokio::test]
async fn everything_comes_up_in_order_by_state_of_the_world() {
    comes_up(Mode::Sotw).await;
}

async fn changes(mode: Mode) {
    let mut world = World::start(mode, first()).await;
    let (before, _) = world.until(|program| program.listeners.contains_key("l")).await;
    let resources = Resources::new().cluster("b", &eds_cluster("b")).endpoints("b", 2).listener();
    world.serve(resources.routes("b").config("2"));
    let moved = |program: &Program| {
        assert!(is_whole(program));
        program.routes["r"].digest != before.routes["r"].digest
    };
    let (after, sockets) = world.until(moved).await;
    assert!(after.clusters.contains_key("b"), "the cluster is there before the route names it");
    assert!(Arc::ptr_eq(&before.listeners["l"], &after.listeners["l"]), "the listener did not change");
    assert_eq!(sockets, 0);
    world.until(|program| !program.clusters.contains_key("a")).await;
}

#[tokio::test]
async fn a_change_comes_before_what_refers_to_it_by_delta() {
    changes(Mode::Delta).await;
}

#[tokio::test]
async fn a_change_comes_before_what_refers_to_it_by_state_of_the_world() {
    changes(Mode::Sotw).await;
}

async fn refuses(mode: Mode) {
    let mut world = World::start(mode, first()).await;
    let (before, _) = world.until(|program| program.listeners.contains_key("l")).await;
    let bad =
        "{name: a, type: EDS, lb_policy: CLUSTER_PROVIDED, eds_cluster_config: {eds_config: {ads: {}}}}";
    let resources = Resources::new().cluster("a", bad).cluster("b", &eds_cluster("b"));
    world.serve(resources.endpoints("a", 1).endpoints("b", 2).listener().routes("a").config("2"));
    let reason =
        tokio::time::timeout(PATIENCE, world.rejected.recv()).await.expect("in time").expect("refusal");
    assert!(reason.contains("Error adding/updating cluster(s) a: lb_policy"), "{reason}");
    let (after, _) = world.until(|program| program.clusters.contains_key("b")).await;
    assert!(Arc::ptr_eq(&before.clusters["a"], &after.clusters["a"]), "the last good version stays");
    assert!(locked(&world.store).clusters()["a"].refused.is_some());
}

#[tokio::test]
async fn a_refused_cluster_is_told_and_the_last_good_one_stays_by_delta() {
    refuses(Mode::Delta).await;
}

#[tokio::test]
async fn a_refused_cluster_is_told_and_the_last_good_one_stays_by_state_of_the_world() {
    refuses(Mode::Sotw).await;
}
