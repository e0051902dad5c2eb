//! The statistics of HTTP filters, below `http.<stat_prefix>.`. A filter has its numbers once it was configured there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use meltemi_compile::filter::{FilterConfig, HttpFilter};

use super::scope::{Cell, counts};
use super::value::{Counter, Gauge};

counts! {
    /// `cors.*`.
    CorsCounts {
        Counter origin_valid "Requests from origins that are allowed.";
        Counter origin_invalid "Requests from other origins.";
    }
}

counts! {
    /// `fault.*`.
    FaultCounts {
        Counter aborts_injected "Requests aborted.";
        Counter delays_injected "Requests delayed.";
        Counter faults_overflow "Requests spared by `max_active_faults`.";
        Counter response_rl_injected "Responses slowed down.";
        Gauge active_faults "Requests with a fault under way.";
    }
}

/// The most statistics that requests can name (`fault.<downstream cluster>.*`): who calls may invent names.
const MAX_NAMED: usize = 1000;

/// What one worker counts for the filters under a `stat_prefix`.
#[derive(Debug, Default)]
pub struct FilterStats {
    cors: OnceLock<CorsCounts>,
    fault: OnceLock<FaultCounts>,
    named: Mutex<BTreeMap<String, Arc<Counter>>>,
}

impl FilterStats {
    /// Makes the numbers of a chain, so that they show before their first use.
    pub(crate) fn make(&self, filters: &[HttpFilter]) {
        for filter in filters {
            match &filter.config {
                FilterConfig::Cors => drop(self.cors()),
                FilterConfig::Fault(_) => drop(self.fault()),
                // Its numbers show from the first request on.
                FilterConfig::Discovered(_)
                | FilterConfig::Buffer(_)
                | FilterConfig::GrpcStats(_)
                | FilterConfig::HeaderMutation(_)
                | FilterConfig::HealthCheck(_)
                | FilterConfig::SetFilterState(_) => {}
            }
        }
    }

    /// Of the cors filter.
    pub fn cors(&self) -> &CorsCounts {
        self.cors.get_or_init(CorsCounts::default)
    }

    /// Of the fault filter.
    pub fn fault(&self) -> &FaultCounts {
        self.fault.get_or_init(FaultCounts::default)
    }

    /// A counter whose name comes with a request; of too many, all further ones share one.
    pub(crate) fn named(&self, parts: &[&str]) -> Arc<Counter> {
        let name = parts.concat();
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() >= MAX_NAMED && !named.contains_key(&name) {
            return Arc::default();
        }
        named.entry(name).or_default().clone()
    }

    /// Shows every cell with its name.
    pub fn visit(&self, visit: &mut dyn FnMut(&str, Cell<'_>)) {
        if let Some(cors) = self.cors.get() {
            cors.visit(&mut |field, cell| visit(&format!("cors.{field}"), cell));
        }
        if let Some(fault) = self.fault.get() {
            fault.visit(&mut |field, cell| visit(&format!("fault.{field}"), cell));
        }
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.iter().for_each(|(name, counter)| visit(name, Cell::Counter(counter)));
    }
}
