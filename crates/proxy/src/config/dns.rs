//! Hosts of `STRICT_DNS` and `LOGICAL_DNS` clusters: a task per cluster that asks for each of its names again and again.
//!
//! `/etc/hosts` is used, and `/etc/resolv.conf` unless the cluster names its own servers. A failure changes nothing: the
//! last answer stays. That there is no such name is an answer: it empties a `STRICT_DNS` cluster; a `LOGICAL_DNS`
//! cluster keeps its host. Source: Envoy's `StrictDnsClusterImpl` and `LogicalDnsCluster`.

mod ask;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use meltemi_compile::program::{DnsTargets, Endpoints, Host};
use meltemi_runtime::task::{self, Task};
use tokio::sync::mpsc;

use self::ask::{Asker, Outcome};
use super::store::DnsKey;
use crate::random;

/// Answers that may wait for the configurator; more makes the tasks wait.
const MAX_WAITING_ANSWERS: usize = 64;

/// Shortest pause between two questions, whatever chance says of the pause after a failure.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// All hosts that are known of a cluster.
pub(super) type Answer = (DnsKey, Endpoints);

/// The running tasks.
#[derive(Debug)]
pub(super) struct Resolvers {
    tasks: BTreeMap<DnsKey, Task<()>>,
    answers: mpsc::Sender<Answer>,
}

impl Resolvers {
    /// No tasks yet, and where their answers come.
    pub(super) fn new() -> (Resolvers, mpsc::Receiver<Answer>) {
        let (answers, receiver) = mpsc::channel(MAX_WAITING_ANSWERS);
        (Resolvers { tasks: BTreeMap::new(), answers }, receiver)
    }

    /// Starts and stops tasks so that there is one for each of these.
    pub(super) fn follow(&mut self, wanted: BTreeMap<DnsKey, (Arc<DnsTargets>, bool)>) {
        self.tasks.retain(|key, _| wanted.contains_key(key));
        for (key, (targets, is_logical)) in wanted {
            let answers = &self.answers;
            self.tasks.entry(key).or_insert_with_key(|key| {
                task::spawn("dns", follow(key.clone(), Names::new(targets, is_logical), answers.clone()))
            });
        }
    }
}

async fn follow(key: DnsKey, mut names: Names, answers: mpsc::Sender<Answer>) {
    let asker = Asker::new(&names.targets, &key.0);
    let mut questions = FuturesUnordered::new();
    for index in 0..names.targets.names.len() {
        questions.push(asker.ask(index, names.targets.names[index].clone(), Duration::ZERO));
    }
    if questions.is_empty() && answers.send((key.clone(), names.endpoints())).await.is_err() {
        return;
    }
    while let Some((index, outcome)) = questions.next().await {
        if let Outcome::Failed(error) = &outcome {
            let name = &names.targets.names[index];
            tracing::warn!(cluster = %key.0, %name, %error, "DNS: name does not resolve");
        }
        let pause = names.take(index, outcome);
        // Whoever warms waits for the first answer, be it none.
        if answers.send((key.clone(), names.endpoints())).await.is_err() {
            return;
        }
        questions.push(asker.ask(index, names.targets.names[index].clone(), pause));
    }
}

/// The names of a cluster and what is known of them.
struct Names {
    targets: Arc<DnsTargets>,
    is_logical: bool,
    /// Addresses by name.
    found: Vec<Vec<IpAddr>>,
    /// Failures in a row by name.
    failures: Vec<u32>,
}

impl Names {
    fn new(targets: Arc<DnsTargets>, is_logical: bool) -> Names {
        let count = targets.names.len();
        Names { targets, is_logical, found: vec![Vec::new(); count], failures: vec![0; count] }
    }

    /// Takes in what came of a question; gives the pause before the next one.
    fn take(&mut self, index: usize, outcome: Outcome) -> Duration {
        let (addresses, valid_for) = match outcome {
            Outcome::Found { addresses, valid_for } => (addresses, Some(valid_for)),
            // A logical host must not go because of an answer without addresses.
            Outcome::None if !self.is_logical => (Vec::new(), None),
            Outcome::None | Outcome::Failed(_) => {
                self.failures[index] += 1;
                return self.pause_after_failures(self.failures[index]);
            }
        };
        self.failures[index] = 0;
        if !self.is_same(&self.found[index], &addresses) {
            self.found[index] = addresses;
        }
        let ttl = valid_for.filter(|ttl| self.targets.respect_ttl && ttl.as_secs() > 0);
        self.jittered(ttl.unwrap_or(self.targets.refresh))
    }

    /// Servers turn their answers round; only for a logical host it matters which address is the first.
    fn is_same(&self, old: &[IpAddr], new: &[IpAddr]) -> bool {
        let set = |list: &[IpAddr]| list.iter().copied().collect::<HashSet<_>>();
        (!self.is_logical || old.first() == new.first()) && set(old) == set(new)
    }

    fn pause_after_failures(&self, failures: u32) -> Duration {
        let Some((base, max)) = self.targets.failure_refresh else {
            return self.jittered(self.targets.refresh);
        };
        let doubled = base.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
        below(doubled.min(max)).max(MIN_PAUSE)
    }

    fn jittered(&self, pause: Duration) -> Duration {
        (pause + below(self.targets.jitter)).max(MIN_PAUSE)
    }

    /// Every address of every name, or the first one of the logical host, where the template has the name.
    fn endpoints(&self) -> Endpoints {
        let template = &self.targets.template;
        let mut seen = HashSet::new();
        let mut digest = DefaultHasher::new();
        template.digest.hash(&mut digest);
        let priorities = template.priorities.iter().map(|hosts| {
            let found = hosts.iter().flat_map(|host| self.expanded(host));
            // Of an address that is there twice, the first counts.
            found.filter(|host| seen.insert(host.address)).collect::<Vec<Host>>()
        });
        let priorities: Vec<Vec<Host>> = priorities.collect();
        priorities.iter().flatten().for_each(|host| host.address.hash(&mut digest));
        Endpoints { priorities, digest: digest.finish(), ..template.clone() }
    }

    fn expanded(&self, host: &Host) -> Vec<Host> {
        let IpAddr::V4(index) = host.address.ip() else { return Vec::new() };
        let port = host.address.port();
        let found = self.found.get(u32::from(index) as usize).into_iter().flatten();
        let mut addresses = found.map(|ip| SocketAddr::new(*ip, port));
        if !self.is_logical {
            return addresses.map(|address| Host { address, ..host.clone() }).collect();
        }
        let Some(address) = addresses.next() else { return Vec::new() };
        vec![Host { address, additional_addresses: addresses.collect(), ..host.clone() }]
    }
}

/// Less than `limit`, in whole milliseconds.
fn below(limit: Duration) -> Duration {
    let millis = usize::try_from(limit.as_millis()).unwrap_or(usize::MAX);
    Duration::from_millis(random::below(millis) as u64)
}
