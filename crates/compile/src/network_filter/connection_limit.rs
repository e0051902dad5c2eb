//! `envoy.filters.network.connection_limit`: how many connections a filter chain may have at once.
//!
//! The number is that of all workers together, as in Envoy; it begins anew with a new configuration of the filter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meltemi_envoy::config::core::v3::RuntimeFeatureFlag;
use meltemi_envoy::extensions::filters::network::connection_limit::v3 as proto;

use crate::ledger::{At, harmless};
use crate::program::Name;

/// A limit and how far it is used.
#[derive(Debug)]
pub struct ConnectionLimit {
    /// `stat_prefix`.
    pub stat_prefix: Name,
    /// `max_connections`.
    pub max_connections: u64,
    /// `delay`: how long a refused connection is held before it is closed.
    pub delay: Option<Duration>,
    /// `runtime_enabled.default_value`.
    pub is_enabled: bool,
    active: AtomicU64,
}

/// A connection that counts; until dropped.
#[derive(Debug)]
pub struct Slot(Arc<ConnectionLimit>);

impl ConnectionLimit {
    /// Room for one more connection; `None` when the limit is reached.
    pub fn admit(self: &Arc<ConnectionLimit>) -> Option<Slot> {
        let take = |active| (active < self.max_connections).then_some(active + 1);
        self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Slot(self.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Compiles the filter.
pub(super) fn compile(at: &At<'_>, message: &proto::ConnectionLimit) -> Option<ConnectionLimit> {
    let proto::ConnectionLimit { stat_prefix, max_connections, delay, runtime_enabled } = message;
    at.required("stat_prefix", stat_prefix);
    let Some(max_connections) = max_connections.filter(|max| *max > 0) else {
        return at.field("max_connections").none("must be at least 1");
    };
    let is_enabled = runtime_enabled.as_ref().is_none_or(|flag| {
        let RuntimeFeatureFlag { default_value, runtime_key } = flag;
        harmless!(RuntimeKey; runtime_key);
        default_value.unwrap_or_default()
    });
    Some(ConnectionLimit {
        stat_prefix: stat_prefix.as_str().into(),
        max_connections,
        delay: at.duration("delay", delay).filter(|delay| !delay.is_zero()),
        is_enabled,
        active: AtomicU64::new(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_its_connection_ends() {
        let limit = Arc::new(ConnectionLimit {
            stat_prefix: "x".into(),
            max_connections: 2,
            delay: None,
            is_enabled: true,
            active: AtomicU64::new(0),
        });
        let first = limit.admit();
        let _second = limit.admit().expect("room");
        assert!(limit.admit().is_none());
        drop(first);
        assert!(limit.admit().is_some());
    }
}
