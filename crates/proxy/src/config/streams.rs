//! The xDS streams that are open: ADS, and one for each other server and type.

use std::collections::BTreeMap;

use meltemi_compile::{GrpcOrigin, Origin};
use meltemi_runtime::task;
use meltemi_xds::client::{self, Command, Event, Options};
use tokio::sync::mpsc;

/// Events that wait for the task that owns configuration; each stream waits with its own beyond them.
const EVENT_QUEUE: usize = 16;

/// Which stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StreamKey {
    /// The one of the bootstrap.
    Ads,
    /// For one type from one server.
    Only(&'static str, GrpcOrigin),
}

impl StreamKey {
    /// Where what it brings comes from.
    pub(super) fn origin(&self) -> Origin {
        match self {
            StreamKey::Ads => Origin::Ads,
            StreamKey::Only(_, grpc) => Origin::Grpc(grpc.clone()),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Streams {
    running: BTreeMap<StreamKey, mpsc::Sender<Command>>,
    sender: mpsc::Sender<(StreamKey, Event)>,
    events: mpsc::Receiver<(StreamKey, Event)>,
}

impl Streams {
    pub(super) fn new() -> Streams {
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        Streams { running: BTreeMap::new(), sender, events }
    }

    /// Whether a stream was opened.
    pub(super) fn has(&self, key: &StreamKey) -> bool {
        self.running.contains_key(key)
    }

    /// Opens a stream on the current runtime.
    pub(super) fn open(&mut self, key: StreamKey, options: Options) {
        let (commands, mut events) = client::run(options);
        let sender = self.sender.clone();
        let tag = key.clone();
        let forward = async move {
            while let Some(event) = events.recv().await {
                if sender.send((tag.clone(), event)).await.is_err() {
                    return;
                }
            }
            tracing::error!(stream = ?tag, "an xDS client ended; its configuration stays as it is");
        };
        task::spawn("xds events", forward).detach();
        self.running.insert(key, commands);
    }

    /// Tells a stream something; one that is gone has said so.
    pub(super) async fn send(&self, key: &StreamKey, command: Command) {
        if let Some(commands) = self.running.get(key) {
            let _ = commands.send(command).await;
        }
    }

    /// The next event of any stream. Cancel safe.
    pub(super) async fn next(&mut self) -> (StreamKey, Event) {
        self.events.recv().await.expect("invariant: a sender is kept")
    }
}
