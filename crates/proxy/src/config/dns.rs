//! Hosts of `STRICT_DNS` and `LOGICAL_DNS` clusters: a task per cluster that asks again and again.
//!
//! `/etc/hosts` and `/etc/resolv.conf` of the system are used. A failure changes nothing: the last answer stays.
//! Source: Envoy's DNS service discovery.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use meltemi_compile::program::{DnsFamily, DnsTargets, Endpoints, Host};
use meltemi_runtime::task::{self, Task};
use tokio::sync::mpsc;

use super::store::DnsKey;

/// Answers that may wait for the configurator; more makes the tasks wait.
const MAX_WAITING_ANSWERS: usize = 64;

/// Shortest pause between two questions, whatever the TTL says.
const MIN_REFRESH: Duration = Duration::from_secs(1);

/// An answer: the hosts, or `None` when no name resolved.
pub(super) type Answer = (DnsKey, Option<Endpoints>);

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
    pub(super) fn follow(&mut self, wanted: BTreeMap<DnsKey, (DnsTargets, bool)>) {
        self.tasks.retain(|key, _| wanted.contains_key(key));
        for (key, (targets, first_only)) in wanted {
            let answers = &self.answers;
            self.tasks.entry(key).or_insert_with_key(|key| {
                task::spawn("dns", follow(key.clone(), targets, first_only, answers.clone()))
            });
        }
    }
}

async fn follow(key: DnsKey, targets: DnsTargets, first_only: bool, answers: mpsc::Sender<Answer>) {
    let resolver = match resolver(targets.family) {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            tracing::warn!(cluster = %key.0, %error, "no DNS: cannot read the system's resolver configuration");
            None
        }
    };
    loop {
        let (endpoints, valid_for) = resolve(resolver.as_ref(), &key, &targets, first_only).await;
        if answers.send((key.clone(), endpoints)).await.is_err() {
            return;
        }
        let pause = if targets.respect_ttl { valid_for.unwrap_or(targets.refresh) } else { targets.refresh };
        tokio::time::sleep(pause.max(MIN_REFRESH)).await;
    }
}

fn resolver(family: DnsFamily) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Always;
    options.ip_strategy = match family {
        DnsFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        DnsFamily::V4Only => LookupIpStrategy::Ipv4Only,
        DnsFamily::V6Only => LookupIpStrategy::Ipv6Only,
        DnsFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        DnsFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    builder.build()
}

/// All targets' hosts, and for how long they are valid. A target that does not resolve takes the whole answer
/// away, so that the last complete one stays.
async fn resolve(
    resolver: Option<&TokioResolver>,
    key: &DnsKey,
    targets: &DnsTargets,
    first_only: bool,
) -> (Option<Endpoints>, Option<Duration>) {
    let mut hosts = Vec::new();
    let mut valid_for: Option<Duration> = None;
    for (name, port, weight) in &targets.targets {
        let found = match name.parse::<IpAddr>() {
            Ok(address) => Ok((vec![address], None)),
            Err(_) => look_up(resolver, name).await,
        };
        let (addresses, ttl) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(cluster = %key.0, name = %name, %error, "DNS: name does not resolve");
                return (None, None);
            }
        };
        valid_for = ttl.into_iter().chain(valid_for).min();
        let count = if first_only { 1 } else { addresses.len() };
        let host = |address| Host {
            address: SocketAddr::new(address, *port),
            weight: *weight,
            hostname: name.clone(),
            ..Host::default()
        };
        hosts.extend(addresses.into_iter().take(count).map(host));
    }
    (Some(endpoints(hosts)), valid_for)
}

async fn look_up(
    resolver: Option<&TokioResolver>,
    name: &str,
) -> Result<(Vec<IpAddr>, Option<Duration>), String> {
    let resolver = resolver.ok_or("no resolver")?;
    let answer = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
    let ttl = answer.valid_until().saturating_duration_since(Instant::now());
    Ok((answer.iter().collect(), Some(ttl)))
}

/// Sorted, so that the order of an answer does not look like a change.
fn endpoints(mut hosts: Vec<Host>) -> Endpoints {
    hosts.sort_by_key(|host| host.address);
    hosts.dedup_by_key(|host| host.address);
    let mut digest = DefaultHasher::new();
    hosts.iter().for_each(|host| (host.address, host.weight).hash(&mut digest));
    Endpoints { priorities: vec![hosts], digest: digest.finish(), ..Endpoints::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(names: &[&str]) -> DnsTargets {
        let targets = names.iter().map(|name| (Box::from(*name), 80, 1)).collect();
        let refresh = Duration::from_secs(5);
        DnsTargets { targets, refresh, respect_ttl: false, family: DnsFamily::V4Only }
    }

    async fn addresses(names: &[&str]) -> Option<Vec<String>> {
        let resolver = resolver(DnsFamily::V4Only).ok();
        let key = ("c".into(), 0);
        let (endpoints, _) = resolve(resolver.as_ref(), &key, &targets(names), false).await;
        Some(endpoints?.priorities[0].iter().map(|host| host.address.to_string()).collect())
    }

    #[tokio::test]
    async fn addresses_and_names_of_the_hosts_file_resolve() {
        let found = addresses(&["127.0.0.2", "localhost"]).await;
        assert_eq!(found, Some(vec!["127.0.0.1:80".to_owned(), "127.0.0.2:80".to_owned()]));
    }
}
