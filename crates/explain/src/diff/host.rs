//! Names of clusters as people say them, and which proxies know a host.

use std::collections::{BTreeMap, BTreeSet};

use meltemi_translate::Resources;

/// What the names of services in the default namespace end with.
const DEFAULT: &str = ".default.svc.cluster.local";
const SUFFIX: &str = ".svc.cluster.local";

/// The parts of a cluster's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Destination<'n> {
    pub(super) is_inbound: bool,
    pub(super) port: &'n str,
    pub(super) subset: &'n str,
    /// The host, or the whole name where it has another form.
    pub(super) host: &'n str,
}

impl<'n> Destination<'n> {
    pub(super) fn of(cluster: &'n str) -> Destination<'n> {
        match cluster.split('|').collect::<Vec<_>>().as_slice() {
            [direction, port, subset, host] => {
                Destination { is_inbound: *direction == "inbound", port, subset, host }
            }
            _ => Destination { is_inbound: false, port: "", subset: "", host: cluster },
        }
    }

    /// `reviews`, `v2 of reviews`, `port 8080 of the program`.
    pub(super) fn said(&self) -> String {
        match (self.is_inbound, self.subset) {
            (true, _) => format!("port {} of the program", self.port),
            (false, "") => short(self.host),
            (false, subset) => format!("{subset} of {}", short(self.host)),
        }
    }
}

/// `reviews`, `reviews.shop`, `example.com`.
pub(super) fn short(host: &str) -> String {
    host.strip_suffix(DEFAULT).or_else(|| host.strip_suffix(SUFFIX)).unwrap_or(host).to_owned()
}

/// Which proxies have a destination of a host.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    callers: BTreeMap<String, BTreeSet<String>>,
}

impl Knowledge {
    pub(super) fn learn(&mut self, proxy: &str, resources: [&Resources; 2]) {
        for cluster in resources.iter().flat_map(|resources| &resources.clusters) {
            let destination = Destination::of(&cluster.name);
            if !destination.is_inbound {
                self.callers.entry(destination.host.to_owned()).or_default().insert(proxy.to_owned());
            }
        }
    }

    /// Everybody who may call the host; nobody who is known if the host is not a destination.
    pub(super) fn callers(&self, host: &str) -> BTreeSet<String> {
        let nobody = || BTreeSet::from([String::new()]);
        self.callers.get(host).cloned().unwrap_or_else(nobody)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_said_shortly() {
        let said = |name: &str| Destination::of(name).said();
        assert_eq!(said("outbound|80|v2|reviews.default.svc.cluster.local"), "v2 of reviews");
        assert_eq!(said("outbound|80||cart.shop.svc.cluster.local"), "cart.shop");
        assert_eq!(said("outbound|443||api.example.com"), "api.example.com");
        assert_eq!(said("inbound|8080||"), "port 8080 of the program");
        assert_eq!(said("PassthroughCluster"), "PassthroughCluster");
    }
}
