//! Pools within a pool: connections that only serve whom they were made for.
//!
//! A transport socket that tells the host of its client makes connections that no other client may use. Each purpose
//! gets a pool of its own, which goes when nothing of it is left. Source: the pool key of Envoy's `ClusterManagerImpl`,
//! to which transport sockets add (`hashKey`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tokio::time::Instant;

use super::Pool;
use crate::upstream::transport::{Purpose, TransportOptions};

/// Most purposes whose connections a worker keeps, for each host: clients make any number of them. Further ones are
/// served, but their connections are closed after use.
const MAX_VARIANTS: usize = 1024;

/// The pools by their purpose.
#[derive(Debug, Default)]
pub(super) struct Variants(RefCell<HashMap<Purpose, Rc<Pool>>>);

impl Variants {
    pub(super) fn close(&self) {
        // Taken out first: what goes with a pool may look here.
        let pools = self.0.take();
        pools.values().for_each(|pool| pool.close());
    }

    /// Reaps idle connections, and pools that hold and wait for nothing. Says how many idle connections remain.
    pub(super) fn reap(&self, now: Instant) -> usize {
        let mut idle = 0;
        self.0.borrow_mut().retain(|_, pool| {
            let left = pool.reap(now);
            idle += left;
            left > 0 || Rc::strong_count(pool) > 1
        });
        idle
    }
}

impl Pool {
    /// The pool whose connections may serve such a client.
    pub(super) fn serving(self: &Rc<Pool>, options: TransportOptions<'_>) -> Rc<Pool> {
        let purpose = self.purpose_of(options);
        if purpose == Purpose::default() {
            return self.clone();
        }
        let mut pools = self.variants.0.borrow_mut();
        if let Some(pool) = pools.get(&purpose) {
            return pool.clone();
        }
        let pool = self.sibling(self.priority, purpose.clone());
        match pools.len() < MAX_VARIANTS && !self.closed.get() {
            true => drop(pools.insert(purpose, pool.clone())),
            false => pool.close(),
        }
        pool
    }
}
