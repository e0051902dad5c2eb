//! Server and client shells over a real socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meltemi_envoy::config::core::v3::Node;
use meltemi_runtime::{drain, task};
use meltemi_xds::client::{self, Command, Interest, Options, Update};
use meltemi_xds::server::{self, Answer, Client, Provider, Refusal, Rejection, Sent};
use meltemi_xds::{Config, Mode};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::world::{Contents, config, long_type};

const PATIENCE: Duration = Duration::from_secs(20);

struct Recorder {
    configs: watch::Sender<Arc<Config>>,
    heard: mpsc::UnboundedSender<String>,
    connected: Mutex<BTreeMap<u64, String>>,
}

impl Recorder {
    fn say(&self, text: String) {
        let _ = self.heard.send(text);
    }
}

impl Provider for Recorder {
    fn connect(&self, client: &Client) -> Result<watch::Receiver<Arc<Config>>, Refusal> {
        if client.node.id == "stranger" {
            return Err(Refusal::Invalid("no such proxy".into()));
        }
        self.connected.lock().expect("lock").insert(client.id, client.node.id.clone());
        Ok(self.configs.subscribe())
    }

    fn sent(&self, _: &Client, _: &Sent) {}

    fn acked(&self, client: &Client, answer: &Answer) {
        self.say(format!("{} acked {}", client.node.id, answer.generation));
    }

    fn rejected(&self, client: &Client, rejection: &Rejection) {
        self.say(format!("{} refused {}: {}", client.node.id, rejection.answer.generation, rejection.reason));
    }

    fn disconnected(&self, client: &Client) {
        self.connected.lock().expect("lock").remove(&client.id);
        self.say(format!("{} gone", client.node.id));
    }
}

struct Peer {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<client::Event>,
}

impl Peer {
    fn new(address: SocketAddr, id: &str, mode: Mode) -> Peer {
        Peer::of_type(address, id, mode, None)
    }

    /// On the stream of one type, or on the aggregated one.
    fn of_type(address: SocketAddr, id: &str, mode: Mode, only: Option<&'static str>) -> Peer {
        let node = Node { id: id.to_owned(), ..Default::default() };
        let options = Options { only, ..Options::new(format!("http://{address}"), node, mode) };
        let (commands, events) = client::run(options);
        Peer { commands, events }
    }

    async fn tell(&self, command: Command) {
        self.commands.send(command).await.expect("client runs");
    }

    async fn event(&mut self) -> client::Event {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("in time");
        event.expect("client runs")
    }

    async fn update(&mut self) -> Update {
        loop {
            if let client::Event::Update(update) = self.event().await {
                return update;
            }
        }
    }

    async fn ack(&self, update: &Update) {
        let (type_url, nonce) = (update.type_url.clone(), update.nonce.clone());
        self.tell(Command::Ack { type_url, nonce }).await;
    }
}

fn clusters(generation: &str, body: &str) -> Arc<Config> {
    config(generation, &[("cds", Contents::from([("a".to_owned(), body.to_owned())]))])
}

struct Server {
    address: SocketAddr,
    recorder: Arc<Recorder>,
    trigger: drain::Trigger,
    task: task::Task<Result<(), server::Error>>,
    heard: mpsc::UnboundedReceiver<String>,
}

impl Server {
    async fn start(address: SocketAddr, config: Arc<Config>) -> Server {
        let listener = TcpListener::bind(address).await.expect("bind");
        let (heard_sender, heard) = mpsc::unbounded_channel();
        let recorder = Arc::new(Recorder {
            configs: watch::Sender::new(config),
            heard: heard_sender,
            connected: Mutex::default(),
        });
        let (trigger, signal) = drain::channel();
        let address = listener.local_addr().expect("address");
        let task = task::spawn(
            "server",
            server::serve(listener, server::Service::new(Arc::clone(&recorder), signal)),
        );
        Server { address, recorder, trigger, task, heard }
    }

    async fn hears(&mut self, expected: &str) {
        let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await.expect("in time");
        assert_eq!(heard.as_deref(), Some(expected));
    }

    async fn stop(self) {
        self.trigger.fire();
        self.task.await.expect("no panic").expect("served");
    }
}

async fn a_life(mode: Mode) {
    let mut server = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), clusters("g1", "1")).await;
    let mut peer = Peer::new(server.address, "p", mode);
    let type_url = long_type("cds").to_owned();
    peer.tell(Command::Subscribe { type_url: type_url.clone(), interest: Interest::Wildcard }).await;
    assert_eq!(peer.event().await, client::Event::Connected);
    let first = peer.update().await;
    assert_eq!((first.control_plane.as_str(), first.changed.len()), ("g1", 1));
    peer.ack(&first).await;
    server.hears("p acked g1").await;

    server.recorder.configs.send_replace(clusters("g2", "bad"));
    let nonce = peer.update().await.nonce;
    peer.tell(Command::Nack { type_url, nonce, reason: "a is bad".into() }).await;
    server.hears("p refused g2: a is bad").await;

    let address = server.address;
    server.stop().await;
    assert!(matches!(peer.event().await, client::Event::Disconnected { .. }));
    let mut server = Server::start(address, clusters("g3", "3")).await;
    let again = peer.update().await;
    assert_eq!(again.control_plane, "g3");
    peer.ack(&again).await;
    server.hears("p acked g3").await;
    drop(peer);
    server.hears("p gone").await;
    assert!(server.recorder.connected.lock().expect("lock").is_empty());
    server.stop().await;
}

#[tokio::test]
async fn state_of_the_world_over_a_socket() {
    a_life(Mode::Sotw).await;
}

#[tokio::test]
async fn delta_over_a_socket() {
    a_life(Mode::Delta).await;
}

#[tokio::test]
async fn a_refused_client_hears_why_and_a_stalled_one_delays_nobody() {
    let mut server = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), clusters("g1", "1")).await;
    let subscribe =
        || Command::Subscribe { type_url: long_type("cds").to_owned(), interest: Interest::Wildcard };
    let mut stranger = Peer::new(server.address, "stranger", Mode::Delta);
    stranger.tell(subscribe()).await;
    let reason = loop {
        if let client::Event::Disconnected { reason, .. } = stranger.event().await {
            break reason;
        }
    };
    assert!(reason.contains("no such proxy"), "{reason}");

    // It never answers nor reads its events.
    let stalled = Peer::new(server.address, "stalled", Mode::Sotw);
    stalled.tell(subscribe()).await;
    let mut quick = Peer::new(server.address, "quick", Mode::Sotw);
    quick.tell(subscribe()).await;
    for generation in ["g1", "g2", "g3"] {
        if generation != "g1" {
            server.recorder.configs.send_replace(clusters(generation, generation));
        }
        let update = quick.update().await;
        assert_eq!(update.control_plane, generation);
        quick.ack(&update).await;
        server.hears(&format!("quick acked {generation}")).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn every_type_has_a_stream_of_its_own_in_both_variants() {
    let types = ["cds", "eds", "lds", "rds"];
    let contents = |short| (short, Contents::from([("a".to_owned(), format!("{short} body"))]));
    let served = config("g1", &types.map(contents));
    let mut server = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), served).await;
    for mode in [Mode::Sotw, Mode::Delta] {
        for short in types {
            let mut peer = Peer::of_type(server.address, short, mode, Some(long_type(short)));
            let interest = Interest::Names(["a".to_owned()].into());
            peer.tell(Command::Subscribe { type_url: long_type(short).to_owned(), interest }).await;
            let update = peer.update().await;
            assert_eq!((update.type_url.as_str(), update.changed.len()), (long_type(short), 1), "{mode}");
            peer.ack(&update).await;
            server.hears(&format!("{short} acked g1")).await;
            drop(peer);
            server.hears(&format!("{short} gone")).await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stream_of_one_type_carries_no_other() {
    let server = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), clusters("g1", "1")).await;
    let mut peer = Peer::of_type(server.address, "p", Mode::Delta, Some(long_type("rds")));
    let interest = Interest::Wildcard;
    peer.tell(Command::Subscribe { type_url: long_type("cds").to_owned(), interest }).await;
    let reason = loop {
        if let client::Event::Disconnected { reason, .. } = peer.event().await {
            break reason;
        }
    };
    assert!(reason.contains("this stream carries"), "{reason}");
    server.stop().await;
}
