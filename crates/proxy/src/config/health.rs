//! What health checks mean for configuration: whom to judge, what a cluster waits for while it warms, and which hosts
//! stay although discovery dropped them.
//!
//! Source: Envoy's `ClusterImplBase::finishInitialization` and `BaseDynamicClusterImpl::updateDynamicHostList`.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use meltemi_compile::program::{Cluster, Endpoints, Host, Name};

use super::store::{Store, active, discovered};
use crate::health::Judged;
use crate::upstream::shared::{ClusterState, HealthFlag, HostStates};

impl Store {
    /// Shares the state of hosts with those who set and read it.
    pub(super) fn share(&mut self, hosts: Arc<HostStates>) {
        self.hosts = hosts;
    }

    /// The clusters whose hosts are checked or watched for outliers, in force and warming.
    pub(super) fn judged(&self) -> BTreeMap<(Name, u64), Judged> {
        let mut judged: BTreeMap<(Name, u64), Judged> = BTreeMap::new();
        for (name, entry) in &self.clusters.entries {
            for (loaded, in_force) in entry
                .active
                .iter()
                .map(|loaded| (loaded, true))
                .chain(entry.warming.iter().map(|l| (l, false)))
            {
                let cluster = &loaded.value.cluster;
                if cluster.outlier.is_none() && cluster.health_check.is_none() {
                    continue;
                }
                let kept = self.checked.get(name).filter(|_| in_force);
                let found = kept.or_else(|| discovered(loaded, &self.endpoints, &self.resolved));
                let (_, endpoints) = judged
                    .entry((name.clone(), cluster.health_digest))
                    .or_insert_with(|| (Arc::clone(cluster), Vec::new()));
                endpoints.extend(found.cloned());
            }
        }
        judged
    }

    /// Works out anew which hosts of checked clusters are in force.
    pub(super) fn settle_checked(&mut self) {
        let mut checked = BTreeMap::new();
        for (name, loaded) in active(&self.clusters) {
            let cluster = &loaded.value.cluster;
            if cluster.health_check.is_none() || cluster.ignore_health_on_host_removal {
                continue;
            }
            let Some(found) = discovered(loaded, &self.endpoints, &self.resolved) else { continue };
            let before = self.checked.get(name);
            let state = self.hosts.cluster(cluster);
            let now = before.map_or_else(|| Arc::clone(found), |before| retained(before, found, &state));
            self.dirty |= before.is_some_and(|before| **before != *now);
            let same = before.filter(|before| ***before == *now);
            checked.insert(name.clone(), same.map_or(now, Arc::clone));
        }
        self.checked = checked;
    }
}

/// Whether every host was checked once; a cluster without checks waits for none.
pub(super) fn is_checked(cluster: &Cluster, endpoints: &Endpoints, hosts: &HostStates) -> bool {
    if cluster.health_check.is_none() {
        return true;
    }
    let state = hosts.cluster(cluster);
    all(endpoints).all(|host| state.host(host.address).checks.is_first_done())
}

fn all(endpoints: &Endpoints) -> impl Iterator<Item = &Host> {
    endpoints.priorities.iter().flatten()
}

/// What discovery names now, and of what it named before the hosts that it dropped while they pass their checks: they
/// stay until they fail.
fn retained(before: &Endpoints, now: &Arc<Endpoints>, state: &ClusterState) -> Arc<Endpoints> {
    let named: HashSet<SocketAddr> = all(now).map(|host| host.address).collect();
    let mut kept: Vec<(usize, Host)> = Vec::new();
    for (priority, hosts) in before.priorities.iter().enumerate() {
        let dropped = hosts.iter().filter(|host| !named.contains(&host.address));
        for host in dropped.filter(|host| host.is_healthy()) {
            if !state.host(host.address).flags.has(HealthFlag::FailedActiveHc) {
                kept.push((priority, host.clone()));
            }
        }
    }
    for host in all(before).filter(|host| named.contains(&host.address)) {
        state.put_flag(&state.host(host.address), HealthFlag::PendingDynamicRemoval, false);
    }
    if kept.is_empty() {
        return Arc::clone(now);
    }
    let mut endpoints = Endpoints::clone(now);
    for (priority, host) in kept {
        state.put_flag(&state.host(host.address), HealthFlag::PendingDynamicRemoval, true);
        if endpoints.priorities.len() <= priority {
            endpoints.priorities.resize_with(priority + 1, Vec::new);
            endpoints.locality_weights.resize_with(priority + 1, Default::default);
        }
        endpoints.priorities[priority].push(host);
    }
    Arc::new(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(ports: &[u16]) -> Arc<Endpoints> {
        let host = |port: &u16| Host { address: ([127, 0, 0, 1], *port).into(), ..Host::default() };
        Arc::new(Endpoints { priorities: vec![ports.iter().map(host).collect()], ..Endpoints::default() })
    }

    fn ports(endpoints: &Endpoints) -> Vec<u16> {
        all(endpoints).map(|host| host.address.port()).collect()
    }

    #[test]
    fn a_host_that_passes_its_checks_stays_until_it_fails() {
        let state = ClusterState::new(&"c".into(), None);
        let host = |port: u16| state.host(([127, 0, 0, 1], port).into());
        state.put_flag(&host(3), HealthFlag::FailedActiveHc, true);
        let before = endpoints(&[1, 2, 3]);
        let now = endpoints(&[1]);
        let kept = retained(&before, &now, &state);
        assert_eq!(ports(&kept), [1, 2], "3 fails its checks, so it goes");
        assert!(host(2).flags.has(HealthFlag::PendingDynamicRemoval));
        state.put_flag(&host(2), HealthFlag::FailedActiveHc, true);
        assert_eq!(ports(&retained(&kept, &now, &state)), [1]);
    }

    #[test]
    fn a_host_that_is_named_again_is_no_longer_to_go() {
        let state = ClusterState::new(&"c".into(), None);
        let kept = retained(&endpoints(&[1, 2]), &endpoints(&[1]), &state);
        let both = endpoints(&[1, 2]);
        assert!(Arc::ptr_eq(&retained(&kept, &both, &state), &both));
        let host = state.host(([127, 0, 0, 1], 2).into());
        assert!(!host.flags.has(HealthFlag::PendingDynamicRemoval));
    }

    #[test]
    fn a_host_that_discovery_calls_unhealthy_goes_at_once() {
        let state = ClusterState::new(&"c".into(), None);
        let mut before = Endpoints::clone(&endpoints(&[1, 2]));
        before.priorities[0][1].health = meltemi_envoy::config::core::v3::HealthStatus::Unhealthy;
        assert_eq!(ports(&retained(&before, &endpoints(&[1]), &state)), [1]);
    }
}
