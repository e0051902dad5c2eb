//! How many downstream connections the process may have at once, over all listeners and workers.
//!
//! Source: Envoy's resource monitor `downstream_connections`. A connection above the limit is closed as soon as it is
//! accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The limit, and the connections that count towards it.
#[derive(Debug)]
pub struct Admission {
    limit: u64,
    active: AtomicU64,
}

/// The place of an open connection; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Admission>);

impl Admission {
    /// Nobody is admitted yet.
    pub fn new(limit: u64) -> Admission {
        Admission { limit, active: AtomicU64::new(0) }
    }

    /// A place for one more connection, if there is one.
    pub(crate) fn admit(self: &Arc<Admission>) -> Option<Place> {
        let next = |active: u64| (active < self.limit).then_some(active + 1);
        self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        Some(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_as_many_as_the_limit_and_come_back() {
        let admission = Arc::new(Admission::new(2));
        let first = admission.admit().expect("free");
        let _second = admission.admit().expect("free");
        assert!(admission.admit().is_none());
        drop(first);
        assert!(admission.admit().is_some());
    }

    #[test]
    fn threads_together_never_have_more_places_than_the_limit() {
        let admission = Arc::new(Admission::new(3));
        let admitted = std::thread::scope(|scope| {
            let admit = || (0..100).filter_map(|_| admission.admit()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(admit)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
        });
        assert_eq!(admitted.len(), 3);
    }
}
