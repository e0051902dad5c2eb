//! A generation becomes pushes: one translation per proxy shape, shared by all proxies of that shape, and
//! what each proxy was sent and has taken.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use meltemi_envoy::type_url;
use meltemi_translate::{Options, Origin, Origins, ProxyShape};
use meltemi_xds::server::{Answer, Client, Provider, Refusal, Rejection, Sent};
use meltemi_xds::{Config, Mode};
use tokio::sync::watch;

use crate::admission;
use crate::limits::{MAX_BLAMED, REMEMBERED_GENERATIONS};
use crate::mesh::{Findings, Generation};
use crate::metrics::Metrics;
use crate::reports::{Report, Reports};
use crate::translations::Translations;

/// What a proxy has of one type.
#[derive(Debug, Clone, Default)]
pub(crate) struct TypeStatus {
    /// Version last sent.
    pub(crate) sent: String,
    /// Generation last sent.
    pub(crate) generation: String,
    /// Version last taken.
    pub(crate) acked: String,
    /// Why the last version sent was refused.
    pub(crate) error: Option<String>,
}

impl TypeStatus {
    fn is_settled(&self) -> bool {
        self.error.is_some() || self.sent == self.acked
    }
}

/// A connected proxy.
#[derive(Debug, Clone)]
pub(crate) struct ProxyStatus {
    pub(crate) client: Client,
    pub(crate) shape: Arc<ProxyShape>,
    pub(crate) since: Instant,
    /// By type URL.
    pub(crate) types: BTreeMap<String, TypeStatus>,
}

impl ProxyStatus {
    /// `name.namespace`, as istioctl names proxies; the whole node id if it has another form.
    pub(crate) fn name(&self) -> &str {
        self.client.node.id.split('~').nth(2).unwrap_or(&self.client.node.id)
    }

    pub(crate) fn mode(&self) -> Mode {
        self.client.mode
    }
}

/// The proxies of one shape.
struct Class {
    configs: watch::Sender<Arc<Config>>,
    origins: Arc<Origins>,
    clients: usize,
}

#[derive(Default)]
struct State {
    generation: Option<Arc<Generation>>,
    findings: Arc<Findings>,
    classes: BTreeMap<Arc<ProxyShape>, Class>,
    proxies: BTreeMap<u64, ProxyStatus>,
    /// When the latest generations began.
    began: VecDeque<(String, Instant)>,
}

/// Everything about the connected proxies.
pub(crate) struct Proxies {
    /// Locked while a generation is translated for all shapes, or a new shape for the first time. Always before `state`.
    translations: Mutex<Translations>,
    state: Mutex<State>,
    is_loaded: watch::Sender<bool>,
    reports: Reports,
    metrics: Arc<Metrics>,
}

impl Proxies {
    pub(crate) fn new(options: Options, reports: Reports, metrics: Arc<Metrics>) -> Proxies {
        Proxies {
            translations: Mutex::new(Translations::new(options)),
            state: Mutex::default(),
            is_loaded: watch::Sender::new(false),
            reports,
            metrics,
        }
    }

    /// Completes when there is a generation. Cancel safe.
    pub(crate) fn loaded(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut is_loaded = self.is_loaded.subscribe();
        async move {
            // An error means that the owner is gone, and then nobody waits.
            let _ = is_loaded.wait_for(|loaded| *loaded).await;
        }
    }

    /// Puts a generation in force: translates it for every shape that has proxies and lets their streams go.
    /// Shapes without proxies are forgotten.
    pub(crate) fn publish(&self, generation: Arc<Generation>) {
        let mut translations = lock(&self.translations);
        let classes: Vec<(Arc<ProxyShape>, Arc<Config>)> = {
            let mut state = self.lock();
            let before = state.generation.replace(Arc::clone(&generation));
            self.metrics.triggered(reason(before.as_deref(), &generation));
            state.began.push_back((generation.identifier(), generation.began));
            if state.began.len() > REMEMBERED_GENERATIONS {
                state.began.pop_front();
            }
            state.classes.retain(|_, class| class.clients > 0);
            let current = |class: &Class| Arc::clone(&class.configs.borrow());
            state.classes.iter().map(|(shape, class)| (Arc::clone(shape), current(class))).collect()
        };
        let mut round = translations.advance(&generation);
        self.is_loaded.send_replace(true);
        for (shape, previous) in classes {
            let translation = catch_unwind(AssertUnwindSafe(|| round.config(&shape, Some(&previous))));
            let Ok((config, origins)) = translation else {
                self.failed(&generation, &shape);
                continue;
            };
            let mut state = self.lock();
            if let Some(class) = state.classes.get_mut(&shape) {
                if let Some(origins) = origins {
                    class.origins = origins;
                }
                class.configs.send_replace(config);
            }
        }
    }

    /// A bug of ours. These proxies keep their last configuration; the others must not suffer.
    fn failed(&self, generation: &Generation, shape: &ProxyShape) {
        tracing::error!(generation = generation.number, ?shape, "translation panicked");
        self.metrics.translation_failed();
    }

    pub(crate) fn set_findings(&self, findings: Arc<Findings>) {
        self.lock().findings = findings;
    }

    pub(crate) fn findings(&self) -> Arc<Findings> {
        Arc::clone(&self.lock().findings)
    }

    /// The generation in force; `None` until the sources are synced.
    pub(crate) fn generation(&self) -> Option<Arc<Generation>> {
        self.lock().generation.clone()
    }

    /// The connected proxies in the order in which they came.
    pub(crate) fn connected(&self) -> Vec<ProxyStatus> {
        self.lock().proxies.values().cloned().collect()
    }

    /// What the proxy is served: by node id, or by `name.namespace`.
    pub(crate) fn served(&self, id: &str) -> Option<Arc<Config>> {
        let state = self.lock();
        let proxy = state.proxies.values().rev().find(|p| p.client.node.id == id || p.name() == id)?;
        state.classes.get(&proxy.shape).map(|class| Arc::clone(&class.configs.borrow()))
    }

    /// A watch on the configuration of a shape.
    fn join(&self, shape: &Arc<ProxyShape>) -> Result<watch::Receiver<Arc<Config>>, Refusal> {
        if let Some(configs) = self.join_class(shape) {
            return Ok(configs);
        }
        let mut translations = lock(&self.translations);
        // It may have come while this waited.
        if let Some(configs) = self.join_class(shape) {
            return Ok(configs);
        }
        let round = translations.current();
        let mut round = round.ok_or_else(|| Refusal::Invalid("the mesh is not loaded yet".into()))?;
        let (config, origins) = round.config(shape, None);
        let (configs, receiver) = watch::channel(config);
        let class = Class { configs, origins: origins.unwrap_or_default(), clients: 1 };
        self.lock().classes.insert(Arc::clone(shape), class);
        Ok(receiver)
    }

    fn join_class(&self, shape: &Arc<ProxyShape>) -> Option<watch::Receiver<Arc<Config>>> {
        let mut state = self.lock();
        let class = state.classes.get_mut(shape)?;
        class.clients += 1;
        Some(class.configs.subscribe())
    }

    /// What the user wrote that a refusal is about: for each resource that the reason names, the object behind
    /// the part that it names.
    fn blamed(&self, client: &Client, rejection: &Rejection) -> Vec<Origin> {
        let state = self.lock();
        let Some(proxy) = state.proxies.get(&client.id) else { return Vec::new() };
        let Some(class) = state.classes.get(&proxy.shape) else { return Vec::new() };
        let mut closest: BTreeMap<&str, (&str, &Origin)> = BTreeMap::new();
        for (place, origin) in class.origins.iter() {
            let is_named = place.type_url == rejection.answer.type_url
                && rejection.reason.contains(&place.resource)
                && rejection.reason.contains(&place.path);
            let is_closer =
                closest.get(&*place.resource).is_none_or(|(path, _)| path.len() < place.path.len());
            if is_named && is_closer {
                closest.insert(&place.resource, (&place.path, origin));
            }
        }
        closest.into_values().take(MAX_BLAMED).map(|(_, origin)| origin.clone()).collect()
    }

    fn update(&self, client: &Client, type_url: &str, change: impl FnOnce(&mut TypeStatus)) {
        if let Some(proxy) = self.lock().proxies.get_mut(&client.id) {
            change(proxy.types.entry(type_url.to_owned()).or_default());
        }
    }

    /// How long the proxy took to take the generation, if this answer was the last that it owed.
    fn converged(&self, client: &Client, answer: &Answer) -> Option<std::time::Duration> {
        let state = self.lock();
        let proxy = state.proxies.get(&client.id)?;
        if !proxy.types.values().all(TypeStatus::is_settled) {
            return None;
        }
        let (_, began) = state.began.iter().find(|(identifier, _)| *identifier == answer.generation)?;
        // A proxy that came later has not waited since then.
        Some((*began).max(proxy.since).elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Every critical section leaves its value whole, so a panic in one does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Provider for Proxies {
    fn ready(&self) -> impl Future<Output = ()> + Send {
        self.loaded()
    }

    fn connect(&self, client: &Client) -> Result<watch::Receiver<Arc<Config>>, Refusal> {
        admission::check(&client.proof, &client.node).map_err(Refusal::Denied)?;
        let mut shape =
            ProxyShape::from_node(&client.node).map_err(|e| Refusal::Invalid(format!("node.{e}")))?;
        shape.is_authenticated = admission::proves_namespace(&client.proof, &shape.namespace);
        let shape = Arc::new(shape);
        let configs = self.join(&shape)?;
        let status =
            ProxyStatus { client: client.clone(), shape, since: Instant::now(), types: BTreeMap::new() };
        self.lock().proxies.insert(client.id, status);
        Ok(configs)
    }

    fn sent(&self, client: &Client, sent: &Sent) {
        self.metrics.pushed(&sent.type_url, sent.bytes);
        self.update(client, &sent.type_url, |status| {
            status.sent.clone_from(&sent.version);
            status.generation.clone_from(&sent.generation);
            status.error = None;
        });
    }

    fn acked(&self, client: &Client, answer: &Answer) {
        self.update(client, &answer.type_url, |status| status.acked.clone_from(&answer.version));
        if let Some(took) = self.converged(client, answer) {
            self.metrics.converged(took);
        }
        let (node, type_url) = (client.node.id.clone(), answer.type_url.clone());
        self.reports.tell(Report::Accepted { node, type_url });
    }

    fn rejected(&self, client: &Client, rejection: &Rejection) {
        let answer = &rejection.answer;
        self.metrics.rejected(&answer.type_url);
        self.update(client, &answer.type_url, |status| status.error = Some(rejection.reason.clone()));
        self.reports.tell(Report::Rejected {
            node: client.node.id.clone(),
            type_url: answer.type_url.clone(),
            generation: answer.generation.clone(),
            reason: rejection.reason.clone(),
            blamed: self.blamed(client, rejection),
        });
    }

    fn stale(&self, _: &Client, type_url: &str) {
        self.metrics.stale(type_url);
    }

    fn disconnected(&self, client: &Client) {
        let mut state = self.lock();
        let Some(proxy) = state.proxies.remove(&client.id) else { return };
        if let Some(class) = state.classes.get_mut(&proxy.shape) {
            class.clients -= 1;
        }
        drop(state);
        self.reports.tell(Report::Gone { node: client.node.id.clone() });
    }
}

/// What a generation changes, in the words of istiod's `pilot_push_triggers`.
fn reason(before: Option<&Generation>, now: &Generation) -> &'static str {
    let Some(before) = before else { return "global" };
    let (before, now) = (&before.snapshot, &now.snapshot);
    match () {
        () if !Arc::ptr_eq(&before.services, &now.services) => "service",
        () if !Arc::ptr_eq(&before.config, &now.config) => "config",
        () if !Arc::ptr_eq(&before.secrets, &now.secrets) => "secret",
        () => "endpoint",
    }
}

/// `cds` and so on, as istiod labels its metrics.
pub(crate) fn short_type(type_url: &str) -> &'static str {
    match type_url {
        type_url::CLUSTER => "cds",
        type_url::ENDPOINT => "eds",
        type_url::LISTENER => "lds",
        type_url::ROUTE => "rds",
        type_url::SECRET => "sds",
        type_url::NAME_TABLE => "nds",
        // What else a client may ask for must not make names of its own in the metrics.
        _ => "other",
    }
}
