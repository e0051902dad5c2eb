//! The task that owns configuration: it receives, applies, and answers only when workers serve the result.
//!
//! Start-up follows Envoy: clusters first (until all are warm), then listeners, then the process is live.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meltemi_compile::Rejection;
use meltemi_compile::program::{Name, Program};
use meltemi_envoy::type_url;
use meltemi_xds::client::{Command as Xds, Event, Interest, Update};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::ads::{Ads, Wanted};
use super::dns::{Answer, Resolvers};
use super::sockets::Sockets;
use super::store::Store;
use crate::health::Health;
use crate::lifecycle::{Lifecycle, State};
use crate::stats::Registry;
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
    /// The control plane, if there is one.
    pub ads: Option<Ads>,
    /// How far start-up got.
    pub lifecycle: Arc<Lifecycle>,
    /// Statistics, to forget those of what is gone.
    pub registry: Arc<Registry>,
    /// Host states, to forget those of what is gone.
    pub hosts: Arc<HostStates>,
    /// `--drain-time-s`.
    pub drain_time: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Configurator {
    store: Arc<Mutex<Store>>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    ads: Option<Ads>,
    lifecycle: Arc<Lifecycle>,
    registry: Arc<Registry>,
    hosts: Arc<HostStates>,
    health: Health,
    drain_time: Duration,
    sockets: Sockets,
    resolvers: Resolvers,
    answers: mpsc::Receiver<Answer>,
    addresses: Arc<Mutex<BTreeMap<Name, SocketAddr>>>,
    subscribed: BTreeMap<&'static str, BTreeSet<String>>,
    phase: Phase,
    connected: bool,
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
    Xds(Event),
    XdsEnded,
    Dns(Answer),
    Deadline,
}

impl Configurator {
    /// Binds the sockets of the static listeners and serves them.
    ///
    /// # Errors
    /// All listeners whose address cannot be bound.
    pub fn new(setup: Setup) -> Result<Configurator, Vec<Rejection>> {
        let Setup { store, workers, ads, lifecycle, registry, hosts, drain_time } = setup;
        let mut sockets = Sockets::new(workers.len());
        let listeners = locked(&store).latest_listeners();
        let refused: Vec<Rejection> =
            listeners.iter().filter_map(|listener| sockets.prepare(listener).err()).collect();
        if !refused.is_empty() {
            return Err(refused);
        }
        let wanted = |which: fn(&Ads) -> Wanted| ads.as_ref().and_then(which);
        let phase = Phase::Clusters(deadline(wanted(|ads| ads.clusters)));
        let (resolvers, answers) = Resolvers::new();
        let addresses = Arc::new(Mutex::new(sockets.addresses()));
        Ok(Configurator {
            store,
            workers,
            ads,
            lifecycle,
            registry,
            health: Health::new(Arc::clone(&hosts)),
            hosts,
            drain_time,
            sockets,
            resolvers,
            answers,
            addresses,
            subscribed: BTreeMap::new(),
            phase,
            connected: false,
        })
    }

    /// Where listeners listen, kept up to date.
    pub fn addresses(&self) -> Arc<Mutex<BTreeMap<Name, SocketAddr>>> {
        Arc::clone(&self.addresses)
    }

    /// Runs for as long as the process.
    pub async fn run(mut self) {
        if self.ads.as_ref().is_some_and(|ads| ads.clusters.is_some()) {
            self.subscribe_all(type_url::CLUSTER).await;
        }
        self.advance().await;
        loop {
            match self.wake().await {
                Wake::Xds(event) => self.on_event(event).await,
                Wake::XdsEnded => {
                    tracing::error!("the ADS client ended; configuration stays as it is");
                    self.ads = None;
                }
                Wake::Dns((key, endpoints)) => locked(&self.store).resolve(key, endpoints),
                Wake::Deadline => {}
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
        let phase = phase.filter(|at| *at > Instant::now());
        let next = locked(&self.store).next_deadline().into_iter().chain(phase).min();
        let event = async {
            match &mut self.ads {
                Some(ads) => ads.events.recv().await.map_or(Wake::XdsEnded, Wake::Xds),
                None => pending().await,
            }
        };
        let timer = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            wake = event => wake,
            Some(answer) = self.answers.recv() => Wake::Dns(answer),
            () = timer => Wake::Deadline,
        }
    }

    async fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected => {
                self.connected = true;
                tracing::info!("connected to the control plane");
            }
            Event::Disconnected { reason, retry_in } => {
                let first = std::mem::replace(&mut self.connected, false);
                if first {
                    tracing::warn!(%reason, ?retry_in, "lost the control plane; configuration stays as it is");
                } else {
                    tracing::debug!(%reason, ?retry_in, "no control plane yet");
                }
            }
            Event::Update(update) => self.on_update(&update).await,
        }
    }

    async fn on_update(&mut self, update: &Update) {
        let now = Instant::now();
        let rejections = {
            let mut store = locked(&self.store);
            let sockets = &mut self.sockets;
            let rejections = store.apply(update, now, &mut |listener| sockets.prepare(listener));
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
            self.send(Xds::Ack { type_url, nonce }).await;
        } else {
            let reason = nack_reason(&update.type_url, &rejections);
            tracing::warn!(type_url, %reason, "configuration refused");
            self.send(Xds::Nack { type_url, nonce, reason }).await;
        }
        self.received(&update.type_url);
    }

    /// Brings everything that is ready into force.
    async fn advance(&mut self) {
        let targets = {
            let mut store = locked(&self.store);
            store.settle(Instant::now());
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
            let wanted = self.ads.as_ref().and_then(|ads| ads.listeners);
            if wanted.is_some() {
                self.subscribe_all(type_url::LISTENER).await;
            }
            self.phase = Phase::Listeners(deadline(wanted));
            self.lifecycle.reached(State::Initializing);
        }
        if let Phase::Listeners(until) = self.phase
            && self.is_over(type_url::LISTENER, until)
            && locked(&self.store).listener_counts().1 == 0
        {
            self.phase = Phase::Live;
            self.lifecycle.reached(State::Live);
            tracing::info!("all dependencies initialized: live");
        }
    }

    /// Whether start-up need not wait for the first answer of a type.
    fn is_over(&self, type_url: &str, until: Option<Instant>) -> bool {
        let wanted = self.ads.as_ref().and_then(|ads| match type_url {
            type_url::CLUSTER => ads.clusters,
            _ => ads.listeners,
        });
        wanted.is_none()
            || locked(&self.store).counts(type_url).attempts > 0
            || until.is_some_and(|until| until <= Instant::now())
    }

    async fn subscribe_all(&mut self, type_url: &'static str) {
        self.send(Xds::Subscribe { type_url: type_url.to_owned(), interest: Interest::Wildcard }).await;
    }

    /// Asks for the endpoints and routes that clusters and listeners name.
    async fn subscribe_names(&mut self) {
        let (services, routes) = {
            let store = locked(&self.store);
            (store.service_names(), store.route_names())
        };
        self.subscribe(type_url::ENDPOINT, services).await;
        self.subscribe(type_url::ROUTE, routes).await;
    }

    async fn subscribe(&mut self, type_url: &'static str, names: BTreeSet<String>) {
        let before = self.subscribed.get(type_url);
        if before.map_or(names.is_empty(), |before| *before == names) {
            return;
        }
        self.subscribed.insert(type_url, names.clone());
        self.send(Xds::Subscribe { type_url: type_url.to_owned(), interest: Interest::Names(names) }).await;
    }

    /// The client ending is seen by [`Configurator::wake`].
    async fn send(&mut self, command: Xds) {
        if let Some(ads) = &self.ads {
            let _ = ads.commands.send(command).await;
        }
    }

    /// Hands the program to the workers if it changed, and waits until they serve it.
    async fn push(&mut self) {
        let Some(program) = locked(&self.store).take_program() else { return };
        let clusters = program.clusters.values();
        self.health.follow(clusters.map(|cluster| (cluster, program.endpoints.get(&cluster.name))));
        let shares = self.sockets.hand_out(&program);
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = self.sockets.addresses();
        let program: Arc<Program> = Arc::new(program);
        let mut applied = Vec::with_capacity(self.workers.len());
        for (worker, sockets) in self.workers.iter().zip(shares) {
            let (done, wait) = oneshot::channel();
            let command = Command::Program {
                program: Arc::clone(&program),
                sockets,
                drain_time: self.drain_time,
                applied: done,
            };
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

fn deadline(wanted: Wanted) -> Option<Instant> {
    Some(Instant::now() + wanted??)
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
