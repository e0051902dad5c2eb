//! Hosts of an `ORIGINAL_DST` cluster: made when somebody wants to go there, forgotten when they were not used for a
//! while.
//!
//! The destination comes from a header, if the cluster has one, else it is where the client's connection wanted to go.
//! Source: Envoy's `OriginalDstCluster`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use meltemi_compile::load_balancing::OriginalDst;
use tokio::time::Instant;

use super::{Host, PickContext};
use crate::stats::ClusterCounts;

/// Most hosts that a worker remembers of a cluster; clients may name any. Further ones are served, but their
/// connections are not kept.
const MAX_HOSTS: usize = 4096;

/// The hosts that a worker knows now.
#[derive(Debug)]
pub(super) struct OriginalHosts {
    config: OriginalDst,
    hosts: RefCell<HashMap<SocketAddr, Known>>,
    cleaned: Cell<Instant>,
}

#[derive(Debug)]
struct Known {
    host: Rc<Host>,
    /// Since the last cleanup.
    is_used: Cell<bool>,
}

impl OriginalHosts {
    pub(super) fn new(config: &OriginalDst) -> OriginalHosts {
        OriginalHosts {
            config: config.clone(),
            hosts: RefCell::default(),
            cleaned: Cell::new(Instant::now()),
        }
    }

    /// Where the request wants to go.
    pub(super) fn destination(
        &self,
        context: &PickContext<'_>,
        counts: &ClusterCounts,
    ) -> Option<SocketAddr> {
        let mut found = self.named(context, counts).or(context.original_destination)?;
        if let Some(port) = self.config.port {
            found.set_port(port);
        }
        Some(found)
    }

    fn named(&self, context: &PickContext<'_>, counts: &ClusterCounts) -> Option<SocketAddr> {
        let value = context.headers?.get(self.config.header.as_ref()?)?;
        let address = value.to_str().ok().and_then(|text| text.parse().ok());
        if address.is_none() {
            counts.original_dst_host_invalid.inc();
        }
        address
    }

    /// The host of an address, which `make` makes when it is new.
    pub(super) fn host(&self, address: SocketAddr, make: impl FnOnce() -> Rc<Host>) -> Rc<Host> {
        let mut hosts = self.hosts.borrow_mut();
        if let Some(known) = hosts.get(&address) {
            known.is_used.set(true);
            return known.host.clone();
        }
        let host = make();
        if hosts.len() < MAX_HOSTS {
            hosts.insert(address, Known { host: host.clone(), is_used: Cell::new(true) });
        } else {
            host.pool.close();
        }
        host
    }

    /// Reaps idle connections, and every `cleanup_interval` hosts that nobody used and that have no connection. Says
    /// whether it was time for that.
    pub(super) fn reap(&self, now: Instant) -> bool {
        let is_due = now.saturating_duration_since(self.cleaned.get()) >= self.config.cleanup_interval;
        if is_due {
            self.cleaned.set(now);
        }
        self.hosts.borrow_mut().retain(|_, known| {
            let idle = known.host.pool.reap(now);
            !is_due || known.is_used.replace(false) || Rc::strong_count(&known.host) > 1 || idle > 0
        });
        is_due
    }

    /// Closes idle connections for good.
    pub(super) fn close(&self) {
        self.hosts.borrow_mut().drain().for_each(|(_, known)| known.host.pool.close());
    }
}
