//! The task that owns configuration: it receives, applies, and answers only when workers serve the result.
//!
//! Start-up follows Envoy: clusters first (until all are warm), then listeners, then the process is live.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meltemi_compile::Origin;
use meltemi_compile::Rejection;
use meltemi_compile::program::{Name, Program};
use meltemi_envoy::type_url;
use meltemi_xds::client::{Command as Xds, Event, Interest, Update};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::data_files::DataFiles;
use super::dns::{Answer, Resolvers};
use super::dynamic::{self, Dynamic, Subscription};
use super::files::{FileKey, FileUpdate, Files};
use super::secrets::SecretKey;
use super::sockets::Sockets;
use super::store::Store;
use super::streams::{StreamKey, Streams};
use crate::departure::DrainPolicy;
use crate::health::Health;
use crate::lifecycle::{Lifecycle, State};
use crate::stats::Registry;
use crate::tls::Secrets;
use crate::upstream::shared::HostStates;
use crate::worker::Command;

/// How long workers may take to take over a program before configuration goes on without them. A worker takes
/// microseconds; a longer wait means that it is stuck, which must not stop the others.
const MAX_APPLY_WAIT: Duration = Duration::from_secs(5);

/// What a [`Configurator`] is made with.
#[derive(Debug)]
pub struct Setup {
    /// Holding the bootstrap's resources. Shared with the admin interface, which only reads.
    pub store: Arc<Mutex<Store>>,
    /// The workers, in the order of their sockets.
    pub workers: Vec<mpsc::UnboundedSender<Command>>,
    /// Where configuration comes from besides the bootstrap.
    pub dynamic: Dynamic,
    /// How far start-up got.
    pub lifecycle: Arc<Lifecycle>,
    /// Statistics, to forget those of what is gone.
    pub registry: Arc<Registry>,
    /// Host states, to forget those of what is gone.
    pub hosts: Arc<HostStates>,
    /// Where contexts find their secrets.
    pub secrets: Arc<Secrets>,
    /// How clients leave listeners that go away.
    pub drain: DrainPolicy,
}

/// See the module.
#[derive(Debug)]
pub struct Configurator {
    store: Arc<Mutex<Store>>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    dynamic: Dynamic,
    streams: Streams,
    files: Files,
    data_files: DataFiles,
    lifecycle: Arc<Lifecycle>,
    registry: Arc<Registry>,
    hosts: Arc<HostStates>,
    health: Health,
    drain: DrainPolicy,
    sockets: Sockets,
    resolvers: Resolvers,
    answers: mpsc::Receiver<Answer>,
    addresses: Arc<Mutex<BTreeMap<Name, SocketAddr>>>,
    subscribed: BTreeMap<(StreamKey, &'static str), BTreeSet<String>>,
    phase: Phase,
    connected: BTreeSet<StreamKey>,
}

/// How far start-up got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for clusters, at most until then.
    Clusters(Option<Instant>),
    /// Waits for listeners, at most until then.
    Listeners(Option<Instant>),
    Live,
}

/// What woke the task.
enum Wake {
    Xds(StreamKey, Event),
    File(FileUpdate),
    Data(SecretKey),
    Dns(Answer),
    Health,
    Deadline,
}

impl Configurator {
    /// Binds the sockets of the static listeners and serves them.
    ///
    /// # Errors
    /// All listeners whose address cannot be bound.
    pub fn new(setup: Setup) -> Result<Configurator, Vec<Rejection>> {
        let Setup { store, workers, dynamic, lifecycle, registry, hosts, secrets, drain } = setup;
        let mut sockets = Sockets::new(workers.len());
        locked(&store).share(Arc::clone(&hosts));
        locked(&store).secrets.share(secrets);
        let listeners = locked(&store).latest_listeners();
        let refused: Vec<Rejection> =
            listeners.iter().filter_map(|listener| sockets.prepare(listener).err()).collect();
        if !refused.is_empty() {
            return Err(refused);
        }
        let phase = Phase::Clusters(deadline(dynamic.clusters.as_ref()));
        let mut streams = Streams::new();
        if let Some(server) = &dynamic.ads {
            streams.open(StreamKey::Ads, server.clone().connected(hosts.tls()));
        }
        let (resolvers, answers) = Resolvers::new();
        let addresses = Arc::new(Mutex::new(sockets.addresses()));
        Ok(Configurator {
            store,
            workers,
            dynamic,
            streams,
            files: Files::new(),
            data_files: DataFiles::new(),
            lifecycle,
            health: Health::new(Arc::clone(&hosts), Arc::clone(&registry)),
            registry,
            hosts,
            drain,
            sockets,
            resolvers,
            answers,
            addresses,
            subscribed: BTreeMap::new(),
            phase,
            connected: BTreeSet::new(),
        })
    }

    /// Where listeners listen, kept up to date.
    pub fn addresses(&self) -> Arc<Mutex<BTreeMap<Name, SocketAddr>>> {
        Arc::clone(&self.addresses)
    }

    /// Runs for as long as the process.
    pub async fn run(mut self) {
        self.subscribe_all(type_url::CLUSTER, self.dynamic.clusters.clone()).await;
        self.advance().await;
        loop {
            match self.wake().await {
                Wake::Xds(stream, event) => self.on_event(stream, event).await,
                Wake::File((key, Ok(update))) => {
                    tracing::debug!(file = ?key, "configuration read");
                    let origin = Origin::File(key.origin);
                    self.on_update(None, &origin, &update).await;
                }
                Wake::File((key, Err(problem))) => {
                    tracing::warn!(kind = key.kind, name = key.name, reason = %problem, "configuration file refused");
                    locked(&self.store).failed(&key, &problem);
                    self.received(key.kind);
                }
                Wake::Data(secret) => locked(&self.store).read_again(&secret),
                Wake::Dns((key, endpoints)) => locked(&self.store).resolve(key, endpoints),
                Wake::Health | Wake::Deadline => {}
            }
            self.advance().await;
        }
    }

    async fn wake(&mut self) -> Wake {
        let phase = match self.phase {
            Phase::Clusters(at) | Phase::Listeners(at) => at,
            Phase::Live => None,
        };
        // A deadline that has passed no longer wakes: what start-up still waits for then is warming.
        let now = Instant::now();
        let phase = phase.filter(|at| *at > now);
        let next = locked(&self.store).next_deadline(now).into_iter().chain(phase).min();
        let timer = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            (stream, event) = self.streams.next() => Wake::Xds(stream, event),
            update = self.files.next() => Wake::File(update),
            secret = self.data_files.next() => Wake::Data(secret),
            Some(answer) = self.answers.recv() => Wake::Dns(answer),
            () = self.hosts.changed() => Wake::Health,
            () = timer => Wake::Deadline,
        }
    }

    async fn on_event(&mut self, stream: StreamKey, event: Event) {
        match event {
            Event::Connected => {
                self.connected.insert(stream);
                tracing::info!("connected to the control plane");
            }
            Event::Disconnected { reason, retry_in } => {
                let first = self.connected.remove(&stream);
                if first {
                    tracing::warn!(%reason, ?retry_in, "lost the control plane; configuration stays as it is");
                } else {
                    tracing::debug!(%reason, ?retry_in, "no control plane yet");
                }
            }
            Event::Update(update) => {
                let origin = stream.origin();
                self.on_update(Some(&stream), &origin, &update).await;
            }
        }
    }

    /// Takes an update, and answers the stream that brought it.
    async fn on_update(&mut self, stream: Option<&StreamKey>, origin: &Origin, update: &Update) {
        let now = Instant::now();
        let rejections = {
            let mut store = locked(&self.store);
            let sockets = &mut self.sockets;
            let rejections = store.apply(update, origin, now, &mut |listener| sockets.prepare(listener));
            store.settle(now);
            sockets.retain(|name| store.listeners().contains_key(name));
            rejections
        };
        self.subscribe_names().await;
        self.push().await;
        let (type_url, nonce) = (update.type_url.clone(), update.nonce.clone());
        if rejections.is_empty() {
            tracing::debug!(
                type_url,
                version = update.version,
                changed = update.changed.len(),
                "configuration taken"
            );
            self.answer(stream, Xds::Ack { type_url, nonce }).await;
        } else {
            let reason = nack_reason(&update.type_url, &rejections);
            tracing::warn!(type_url, %reason, "configuration refused");
            self.answer(stream, Xds::Nack { type_url, nonce, reason }).await;
        }
        self.received(&update.type_url);
    }

    /// Brings everything that is ready into force.
    async fn advance(&mut self) {
        let targets = {
            let mut store = locked(&self.store);
            store.settle(Instant::now());
            self.data_files.follow(store.data_files());
            store.dns_targets()
        };
        self.resolvers.follow(targets);
        self.push().await;
        self.subscribe_names().await;
        self.advance_phase().await;
    }

    /// The first answer of a type ends the wait for it; the wait for what warms goes on.
    fn received(&mut self, type_url: &str) {
        match self.phase {
            Phase::Clusters(_) if type_url == type_url::CLUSTER => self.phase = Phase::Clusters(None),
            Phase::Listeners(_) if type_url == type_url::LISTENER => self.phase = Phase::Listeners(None),
            _ => {}
        }
    }

    async fn advance_phase(&mut self) {
        if let Phase::Clusters(until) = self.phase
            && self.is_over(type_url::CLUSTER, until)
            && locked(&self.store).cluster_counts().1 == 0
        {
            let wanted = self.dynamic.listeners.clone();
            self.phase = Phase::Listeners(deadline(wanted.as_ref()));
            self.subscribe_all(type_url::LISTENER, wanted).await;
            self.lifecycle.reached(State::Initializing);
        }
        if let Phase::Listeners(until) = self.phase
            && self.is_over(type_url::LISTENER, until)
            && locked(&self.store).listener_counts().1 == 0
        {
            self.phase = Phase::Live;
            self.lifecycle.reached(State::Live);
            tracing::info!("all dependencies initialized: live");
            if let Err(error) = meltemi_runtime::memory::release_startup_code() {
                tracing::debug!(%error, "the code of start-up stays mapped");
            }
        }
    }

    /// Whether start-up need not wait for the first answer of a type.
    fn is_over(&self, type_url: &str, until: Option<Instant>) -> bool {
        let wanted = match type_url {
            type_url::CLUSTER => &self.dynamic.clusters,
            _ => &self.dynamic.listeners,
        };
        wanted.is_none()
            || locked(&self.store).counts(type_url).is_answered()
            || until.is_some_and(|until| until <= Instant::now())
    }

    async fn subscribe_all(&mut self, kind: &'static str, wanted: Option<Subscription>) {
        let key = match wanted.map(|wanted| wanted.origin) {
            None => return,
            Some(Origin::File(origin)) => {
                return self.files.follow(kind, [FileKey { kind, name: None, origin }].into());
            }
            Some(Origin::Ads) => StreamKey::Ads,
            Some(Origin::Grpc(grpc)) => self.stream(StreamKey::Only(kind, grpc)),
        };
        locked(&self.store).asked_all(kind);
        let command = Xds::Subscribe { type_url: kind.to_owned(), interest: Interest::Wildcard };
        self.streams.send(&key, command).await;
    }

    /// Asks for what clusters and listeners refer to.
    async fn subscribe_names(&mut self) {
        for kind in [type_url::ENDPOINT, type_url::ROUTE, type_url::EXTENSION_CONFIG, type_url::SECRET] {
            let wanted = locked(&self.store).wanted(kind);
            self.subscribe(kind, wanted).await;
        }
    }

    async fn subscribe(&mut self, kind: &'static str, wanted: BTreeSet<(Name, Origin)>) {
        let mut files = BTreeSet::new();
        // What was asked of a stream and is not wanted any more is given up by asking for less.
        let asked = self.subscribed.keys().filter(|(_, of)| *of == kind);
        let mut by_stream: BTreeMap<StreamKey, BTreeSet<String>> =
            asked.map(|(key, _)| (key.clone(), BTreeSet::new())).collect();
        for (name, origin) in wanted {
            let name = name.to_string();
            let key = match origin {
                Origin::File(origin) => {
                    files.insert(FileKey { kind, name: Some(name), origin });
                    continue;
                }
                Origin::Ads => StreamKey::Ads,
                Origin::Grpc(grpc) => self.stream(StreamKey::Only(kind, grpc)),
            };
            by_stream.entry(key).or_default().insert(name);
        }
        self.files.follow(kind, files);
        for (key, names) in by_stream {
            let before = self.subscribed.get(&(key.clone(), kind));
            if before.map_or(names.is_empty(), |before| *before == names) {
                continue;
            }
            let is_new = |name: &&String| before.is_none_or(|before| !before.contains(*name));
            locked(&self.store).asked(kind, names.iter().filter(is_new).map(String::as_str));
            self.subscribed.insert((key.clone(), kind), names.clone());
            let interest = Interest::Names(names);
            self.streams.send(&key, Xds::Subscribe { type_url: kind.to_owned(), interest }).await;
        }
    }

    /// The stream of that key, opened if it is not yet.
    fn stream(&mut self, key: StreamKey) -> StreamKey {
        if let StreamKey::Only(kind, grpc) = &key
            && !self.streams.has(&key)
        {
            let store = locked(&self.store);
            let cluster = |name: &str| store.clusters().get(name)?.latest().map(|loaded| &*loaded.value);
            let server = dynamic::server(grpc, Some(kind), self.dynamic.node.clone(), cluster);
            drop(store);
            match server {
                Ok(server) => self.streams.open(key.clone(), server.connected(self.hosts.tls())),
                Err(reason) => tracing::warn!(%reason, "no stream to a server of configuration"),
            }
        }
        key
    }

    async fn answer(&mut self, stream: Option<&StreamKey>, command: Xds) {
        if let Some(stream) = stream {
            self.streams.send(stream, command).await;
        }
    }

    /// Hands the program to the workers if it changed, and waits until they serve it.
    async fn push(&mut self) {
        // New hosts of checked clusters are unhealthy before a worker sees them.
        let judged = locked(&self.store).judged();
        self.health.follow(judged);
        let Some(program) = locked(&self.store).take_program() else { return };
        let shares = self.sockets.hand_out(&program);
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = self.sockets.addresses();
        let program: Arc<Program> = Arc::new(program);
        let mut applied = Vec::with_capacity(self.workers.len());
        for (worker, sockets) in self.workers.iter().zip(shares) {
            let (done, wait) = oneshot::channel();
            let command =
                Command::Program { program: Arc::clone(&program), sockets, drain: self.drain, applied: done };
            if worker.send(command).is_ok() {
                applied.push(wait);
            }
        }
        let all = futures::future::join_all(applied);
        if tokio::time::timeout(MAX_APPLY_WAIT, all).await.is_err() {
            tracing::error!("a worker does not take over the new configuration");
        }
        self.registry.prune();
        self.hosts.forget_unused();
    }
}

fn deadline(wanted: Option<&Subscription>) -> Option<Instant> {
    Some(Instant::now() + wanted?.wait?)
}

fn locked(store: &Arc<Mutex<Store>>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In the words of Envoy, which tools look for.
fn nack_reason(type_url: &str, rejections: &[Rejection]) -> String {
    let what = match type_url {
        type_url::CLUSTER => "Error adding/updating cluster(s) ",
        type_url::LISTENER => "Error adding/updating listener(s) ",
        _ => "",
    };
    let all: Vec<String> = rejections.iter().map(Rejection::to_string).collect();
    format!("{what}{}", all.join("\n"))
}

#[cfg(test)]
mod tests;
