//! What the main thread does for the health of hosts: it knows who belongs to a cluster, checks them actively and runs
//! the intervals of outlier detection. Workers only read the outcome,
//! [`HostState::flags`](crate::upstream::shared::HostState::flags).
//!
//! Leaves out what is counted on the path of requests (`upstream::outlier`). Source: Envoy's `HealthCheckerImplBase`
//! and `DetectorImpl`.

mod events;
mod judge;
mod probe;
mod session;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use meltemi_compile::program::{
    Cluster, Discovery, Endpoints, HealthCheck, Host, Name, OutlierDetection, TransportSocket,
};
use meltemi_runtime::task::{self, Task};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use self::events::Events;
use self::probe::Target;
use self::session::Session;
use crate::stats::Registry;
use crate::upstream::outlier::sweep;
use crate::upstream::shared::{ClusterState, EventLog, HealthFlag, HostStates, Member};
use crate::upstream::transport::Transport;

/// A cluster to judge, and its hosts: those in force, and those of a version that warms.
pub(crate) type Judged = (Arc<Cluster>, Vec<Arc<Endpoints>>);

/// The clusters whose hosts are judged.
#[derive(Debug)]
pub(crate) struct Health {
    hosts: Arc<HostStates>,
    registry: Arc<Registry>,
    watched: BTreeMap<(Name, u64), Watched>,
}

/// A cluster whose hosts are judged.
#[derive(Debug)]
struct Watched {
    cluster: Arc<Cluster>,
    state: Arc<ClusterState>,
    event_logs: Arc<[EventLog]>,
    /// What was followed last.
    endpoints: Vec<Arc<Endpoints>>,
    members: watch::Sender<Vec<Member>>,
    _sweeps: Option<Task<()>>,
    sessions: HashMap<SocketAddr, Task<()>>,
}

impl Health {
    /// No clusters yet.
    pub(crate) fn new(hosts: Arc<HostStates>, registry: Arc<Registry>) -> Health {
        Health { hosts, registry, watched: BTreeMap::new() }
    }

    /// Judges the hosts of these clusters from now on, and no others.
    pub(crate) fn follow(&mut self, judged: BTreeMap<(Name, u64), Judged>) {
        self.watched.retain(|key, _| judged.contains_key(key));
        for (key, (cluster, endpoints)) in judged {
            let hosts = &self.hosts;
            let watched = self.watched.entry(key).or_insert_with(|| Watched::new(cluster, hosts));
            let is_same = watched.endpoints.len() == endpoints.len()
                && watched.endpoints.iter().zip(&endpoints).all(|(old, new)| Arc::ptr_eq(old, new));
            if !is_same {
                watched.follow(endpoints, hosts, &self.registry);
            }
        }
    }
}

impl Watched {
    fn new(cluster: Arc<Cluster>, hosts: &HostStates) -> Watched {
        let state = hosts.cluster(&cluster);
        let (members, followed) = watch::channel(Vec::new());
        let sweeps = cluster.outlier.map(|detection| {
            let members = match cluster.discovery {
                Discovery::OriginalDst => Members::Found,
                _ => Members::Named(followed),
            };
            task::spawn("outliers", sweep_at_intervals(Arc::clone(&state), detection, members))
        });
        let paths = cluster.health_check.iter().flat_map(|check| &check.event_logs);
        Watched {
            event_logs: paths.filter_map(|path| hosts.event_log(path)).collect(),
            cluster,
            state,
            endpoints: Vec::new(),
            members,
            _sweeps: sweeps,
            sessions: HashMap::new(),
        }
    }

    fn follow(&mut self, endpoints: Vec<Arc<Endpoints>>, hosts: &Arc<HostStates>, registry: &Arc<Registry>) {
        let all = endpoints.iter().flat_map(|endpoints| endpoints.priorities.iter().flatten());
        let mut now: BTreeMap<SocketAddr, &Host> = BTreeMap::new();
        for host in all {
            now.entry(host.address).or_insert(host);
        }
        let before: Vec<Member> = self.members.borrow().clone();
        for gone in before.iter().filter(|member| !now.contains_key(&member.address)) {
            if self.sessions.remove(&gone.address).is_some() {
                self.state.discount_checks(&gone.state);
            }
            self.state.forget(gone.address);
        }
        let mut members = Vec::with_capacity(now.len());
        for (address, host) in now {
            let member = Member { address, state: self.state.host(address) };
            if !before.iter().any(|known| known.address == address) {
                self.begin_checks(host, &member, hosts, registry);
            }
            members.push(member);
        }
        self.members.send_replace(members);
        self.endpoints = endpoints;
    }

    /// A new host is unhealthy until its first check passes.
    fn begin_checks(
        &mut self,
        host: &Host,
        member: &Member,
        hosts: &Arc<HostStates>,
        registry: &Arc<Registry>,
    ) {
        let Some(check) = &self.cluster.health_check else { return };
        let special = host.check.as_deref();
        if special.is_some_and(|special| special.disabled) {
            member.state.checks.finish_first();
            return;
        }
        self.state.put_flag(&member.state, HealthFlag::FailedActiveHc, true);
        if self.cluster.ignore_new_hosts_until_first_hc {
            self.state.put_flag(&member.state, HealthFlag::PendingActiveHc, true);
        }
        let target = Target {
            address: special.and_then(|special| special.address).unwrap_or(host.address),
            transport: Transport::new(self.transport_of_check(check, host), self.state.tls(), &host.hostname)
                .exchanging(self.cluster.peer_exchange.as_deref(), self.state.tls()),
        };
        let hostname = special.map_or("", |special| &special.hostname);
        let events =
            Events::new(&self.event_logs, &check.kind, &self.cluster.name, host.address, &host.locality);
        let detection = &self.cluster.outlier;
        let session = Session {
            authority: check.authority(hostname, &self.cluster.name).into(),
            check: Arc::clone(check),
            cluster: Arc::clone(&self.state),
            member: member.clone(),
            target,
            events,
            ends_ejection: detection
                .is_some_and(|detection| detection.successful_active_health_check_uneject_host),
            registry: Arc::clone(registry),
            hosts: Arc::clone(hosts),
        };
        self.sessions.insert(host.address, task::spawn_local("health-check", session.run()));
    }
}

impl Watched {
    /// The transport socket of checks: the host's own, or what the check names in its place.
    fn transport_of_check(&self, check: &HealthCheck, host: &Host) -> Arc<TransportSocket> {
        let sockets = &self.cluster.transport_sockets;
        let Some(criteria) = &check.transport_socket_match_criteria else { return sockets.of(host).1 };
        let (name, socket) = sockets.of_check(criteria, host);
        self.state.count_transport_socket(name);
        socket
    }
}

/// Whose rates are compared at an interval.
enum Members {
    /// The hosts that discovery names.
    Named(watch::Receiver<Vec<Member>>),
    /// The hosts that requests went to (`ORIGINAL_DST`).
    Found,
}

/// Runs as long as the cluster is watched.
async fn sweep_at_intervals(state: Arc<ClusterState>, detection: OutlierDetection, members: Members) {
    let mut intervals = interval_at(Instant::now() + detection.interval, detection.interval);
    intervals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        intervals.tick().await;
        let members = match &members {
            Members::Named(members) => members.borrow().clone(),
            Members::Found => state.all(),
        };
        sweep(&state, &detection, &members, Instant::now());
    }
}
