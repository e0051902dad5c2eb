//! The layouts of a cluster's hosts, shared by the workers: built when configuration comes and when health changes.
//!
//! A layout that is quickly made is made by the worker that needs it; a hash table, or the layout of many hosts, is
//! made on a thread of its own after a change of health, while requests go on with the one before. Source: Envoy
//! builds on its main thread and posts the result to its workers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meltemi_compile::program::{Cluster, Endpoints, Host, Locality};

use super::balancer::ClusterLayout;
use super::balancer::layout::{Fitness, Plan};
use super::shared::{ClusterState, Health, HostState};

/// A worker makes the layout of as many hosts while a request waits; that takes some microseconds.
const MAX_INLINE_HOSTS: usize = 256;

/// What the layout of a cluster is made of.
#[derive(Debug)]
pub(crate) struct Spec {
    config: Arc<Cluster>,
    endpoints: Arc<Endpoints>,
    /// By number of the host.
    states: Vec<Arc<HostState>>,
    home: Option<Arc<Locality>>,
}

/// The layout in force of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Layouts {
    latest: Mutex<Option<Built>>,
    /// Epoch of `latest`.
    epoch: AtomicU64,
    is_building: AtomicBool,
}

/// A layout and what it was made of.
#[derive(Debug)]
struct Built {
    spec: Arc<Spec>,
    epoch: u64,
    layout: Arc<ClusterLayout>,
}

impl Spec {
    /// The parts of a cluster's layouts, but for health.
    pub(crate) fn new(
        config: Arc<Cluster>,
        endpoints: Arc<Endpoints>,
        states: Vec<Arc<HostState>>,
        home: Option<Arc<Locality>>,
    ) -> Spec {
        Spec { config, endpoints, states, home }
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.endpoints.priorities.iter().flatten()
    }

    /// Whether a request may wait for the layout.
    fn is_quick(&self) -> bool {
        let lb = &self.config.lb;
        !lb.policy.is_hashing() && lb.subsets.is_none() && self.states.len() <= MAX_INLINE_HOSTS
    }

    fn is_same(&self, other: &Spec) -> bool {
        self.config.digest == other.config.digest
            && (Arc::ptr_eq(&self.endpoints, &other.endpoints) || self.endpoints == other.endpoints)
    }

    fn layout(&self) -> ClusterLayout {
        let fitness: Vec<Fitness> =
            self.hosts().zip(&self.states).map(|(host, state)| fitness(host, state)).collect();
        ClusterLayout::new(Plan {
            config: &self.config.lb,
            endpoints: &self.endpoints,
            fitness: &fitness,
            home: self.home.as_deref(),
        })
    }
}

fn fitness(host: &Host, state: &HostState) -> Fitness {
    let health = state.health(Health::from(host.health));
    state.note_health(health);
    Fitness { health, is_excluded: state.is_excluded() }
}

impl Layouts {
    /// The layout for a new configuration and its epoch: of whichever worker came first.
    pub(crate) fn first(&self, spec: &Arc<Spec>, health_epoch: &AtomicU64) -> (Arc<ClusterLayout>, u64) {
        let mut latest = self.locked();
        let epoch = health_epoch.load(Ordering::Acquire);
        if let Some(built) = latest.as_ref().filter(|built| built.epoch == epoch && built.spec.is_same(spec))
        {
            return (Arc::clone(&built.layout), epoch);
        }
        let layout = Arc::new(spec.layout());
        *latest = Some(Built { spec: Arc::clone(spec), epoch, layout: Arc::clone(&layout) });
        self.epoch.store(epoch, Ordering::Release);
        (layout, epoch)
    }

    /// The layout after a change of health and its epoch; `None` while it is being built.
    pub(crate) fn next(
        state: &Arc<ClusterState>,
        spec: &Arc<Spec>,
        epoch: u64,
    ) -> Option<(Arc<ClusterLayout>, u64)> {
        let layouts = &state.layouts;
        if spec.is_quick() {
            return Some(layouts.first(spec, &state.health_epoch));
        }
        if layouts.epoch.load(Ordering::Acquire) == epoch {
            let latest = layouts.locked();
            let built = latest.as_ref().filter(|built| built.spec.is_same(spec));
            if let Some(built) = built {
                return Some((Arc::clone(&built.layout), built.epoch));
            }
        }
        if !layouts.is_building.swap(true, Ordering::AcqRel) {
            let (state, spec) = (Arc::clone(state), Arc::clone(spec));
            drop(tokio::task::spawn_blocking(move || state.layouts.build(&spec, &state.health_epoch)));
        }
        None
    }

    /// Builds without holding the lock: whoever takes over a configuration meanwhile need not wait.
    fn build(&self, spec: &Arc<Spec>, health_epoch: &AtomicU64) {
        let epoch = health_epoch.load(Ordering::Acquire);
        let layout = Arc::new(spec.layout());
        {
            let mut latest = self.locked();
            *latest = Some(Built { spec: Arc::clone(spec), epoch, layout });
            self.epoch.store(epoch, Ordering::Release);
        }
        self.is_building.store(false, Ordering::Release);
    }

    /// Statistics of the hash tables by their names below `cluster.<name>`.
    pub(crate) fn table_sizes(&self) -> Vec<(&'static str, u64)> {
        self.locked().as_ref().map(|built| built.layout.table_sizes()).unwrap_or_default()
    }

    fn locked(&self) -> MutexGuard<'_, Option<Built>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
