//! What becomes of an answered health check: who answered, and its status for the next ones.
//!
//! Differs: Envoy forgets what it remembers at every tick of a timer of `cache_time`; here it holds for `cache_time`.

use std::cell::RefCell;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use meltemi_compile::filter::HttpFilter;
use meltemi_compile::filter::health_check::HealthCheck;
use meltemi_compile::program::Name;
use meltemi_http::ResponseHead;
use tokio::time::Instant;

use crate::stream::Stream;

static HEALTHCHECKED_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");

/// The statuses that the health checks of a connection manager got lately, by filter.
#[derive(Debug, Default)]
pub(crate) struct CachedHealth(RefCell<Vec<(Name, StatusCode, Instant)>>);

impl CachedHealth {
    /// The status, while it holds.
    pub(super) fn get(&self, filter: &str) -> Option<StatusCode> {
        let cached = self.0.borrow();
        let (_, status, end) = cached.iter().find(|(name, ..)| **name == *filter)?;
        (*end > Instant::now()).then_some(*status)
    }

    fn set(&self, filter: &Name, status: StatusCode, time: Duration) {
        let mut cached = self.0.borrow_mut();
        let end = Instant::now() + time;
        match cached.iter_mut().find(|(name, ..)| name == filter) {
            // What came from here does not hold for longer.
            Some((_, _, until)) if *until > Instant::now() => {}
            Some(known) => (known.1, known.2) = (status, end),
            None => cached.push((filter.clone(), status, end)),
        }
    }
}

impl Stream<'_, '_> {
    /// Notes an answer to a health check.
    pub(super) fn health_checked(&self, filter: &HttpFilter, config: &HealthCheck, head: &mut ResponseHead) {
        if let Some(time) = config.cache_time {
            self.manager.cached_health.set(&filter.name, head.status, time);
        }
        let cluster = self.manager.worker.service_cluster();
        if let Ok(value) = HeaderValue::try_from(cluster) {
            head.headers.set(HEALTHCHECKED_CLUSTER.clone(), value);
        }
    }
}
