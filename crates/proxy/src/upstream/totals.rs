//! Statistics of a cluster that belong to no worker: any thread may count, since it happens seldom.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that any thread may change.
#[derive(Debug, Default)]
pub struct Total(AtomicU64);

impl Total {
    /// Adds one.
    pub(crate) fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one away.
    pub(crate) fn dec(&self) {
        // The closure never refuses.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(1)));
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a total only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TotalKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

macro_rules! totals {
    ($(#[$meta:meta])* $scope:ident { $($kind:ident $field:ident $doc:literal;)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $scope {
            $(#[doc = $doc] pub $field: $crate::upstream::totals::Total,)*
        }

        impl $scope {
            /// Shows every number with its name.
            pub fn visit(&self, visit: &mut dyn FnMut(&'static str, $crate::upstream::totals::TotalKind, u64)) {
                $(visit(stringify!($field), $crate::upstream::totals::TotalKind::$kind, self.$field.get());)*
            }
        }
    };
}

pub(crate) use totals;
