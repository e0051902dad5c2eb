//! What the main thread does for the health of hosts: it knows who belongs to a cluster and runs the intervals of
//! outlier detection. Workers only read the outcome, [`HostState::flags`](crate::upstream::shared::HostState::flags).
//!
//! Leaves out what is counted on the path of requests (`upstream::outlier`). Source: Envoy's `DetectorImpl`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use meltemi_compile::program::{Cluster, Endpoints, Name, OutlierDetection};
use meltemi_runtime::task::{self, Task};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::upstream::outlier::sweep;
use crate::upstream::shared::{ClusterState, HostStates, Member};

/// The clusters whose hosts are judged.
#[derive(Debug)]
pub(crate) struct Health {
    hosts: Arc<HostStates>,
    watched: BTreeMap<(Name, u64), Watched>,
}

/// A cluster whose hosts are judged.
#[derive(Debug)]
struct Watched {
    state: Arc<ClusterState>,
    members: watch::Sender<Vec<Member>>,
    _sweeps: Option<Task<()>>,
}

impl Health {
    /// No clusters yet.
    pub(crate) fn new(hosts: Arc<HostStates>) -> Health {
        Health { hosts, watched: BTreeMap::new() }
    }

    /// Judges the hosts of these clusters from now on.
    pub(crate) fn follow<'a>(
        &mut self,
        clusters: impl Iterator<Item = (&'a Arc<Cluster>, Option<&'a Arc<Endpoints>>)>,
    ) {
        let mut wanted = BTreeSet::new();
        for (cluster, endpoints) in clusters.filter(|(cluster, _)| cluster.outlier.is_some()) {
            let key = (cluster.name.clone(), cluster.health_digest);
            let hosts = &self.hosts;
            let watched = self.watched.entry(key.clone()).or_insert_with(|| Watched::new(cluster, hosts));
            watched.follow(endpoints.map(|endpoints| &**endpoints));
            wanted.insert(key);
        }
        self.watched.retain(|key, _| wanted.contains(key));
    }
}

impl Watched {
    fn new(cluster: &Arc<Cluster>, hosts: &HostStates) -> Watched {
        let state = hosts.cluster(cluster);
        let (members, followed) = watch::channel(Vec::new());
        let sweeps = cluster.outlier.map(|detection| {
            task::spawn("outliers", sweep_at_intervals(Arc::clone(&state), detection, followed))
        });
        Watched { state, members, _sweeps: sweeps }
    }

    fn follow(&self, endpoints: Option<&Endpoints>) {
        let hosts = endpoints.into_iter().flat_map(|endpoints| endpoints.priorities.iter().flatten());
        let now: BTreeSet<SocketAddr> = hosts.map(|host| host.address).collect();
        let before: BTreeSet<SocketAddr> =
            self.members.borrow().iter().map(|member| member.address).collect();
        if now == before {
            return;
        }
        before.difference(&now).for_each(|gone| self.state.forget(*gone));
        let member = |address| Member { address, state: self.state.host(address) };
        self.members.send_replace(now.into_iter().map(member).collect());
    }
}

/// Runs as long as the cluster is watched.
async fn sweep_at_intervals(
    state: Arc<ClusterState>,
    detection: OutlierDetection,
    members: watch::Receiver<Vec<Member>>,
) {
    let mut intervals = interval_at(Instant::now() + detection.interval, detection.interval);
    intervals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        intervals.tick().await;
        let members = members.borrow().clone();
        sweep(&state, &detection, &members, Instant::now());
    }
}
