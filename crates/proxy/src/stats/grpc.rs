//! The statistics of gRPC calls to a cluster, below `cluster.<name>.grpc.`: together, or by service and method.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::scope::Cell;
use super::value::{Counter, Histogram};

/// The most methods that one cluster counts apart; further ones count nowhere: clients may invent names.
const MAX_METHODS: usize = 1000;

/// How many status codes gRPC has.
const CODES: usize = 17;

/// The numbers of one method, or of all that have none of their own.
#[derive(Debug, Default)]
pub struct GrpcCounts {
    codes: [Counter; CODES],
    success: Counter,
    failure: Counter,
    total: Counter,
    /// Messages of requests.
    pub request_message_count: Counter,
    /// Messages of responses.
    pub response_message_count: Counter,
    /// Time of the call, in milliseconds.
    pub upstream_rq_time: Histogram,
}

impl GrpcCounts {
    /// Counts a call by its `grpc-status`.
    pub fn ended(&self, status: &str) {
        let code = status.parse::<usize>().ok();
        if let Some(counter) = code.and_then(|code| self.codes.get(code)) {
            counter.inc();
        }
        let outcome = if code == Some(0) { &self.success } else { &self.failure };
        outcome.inc();
        self.total.inc();
    }

    /// Shows every cell that was ever used, as Envoy makes them with their first use.
    fn visit(&self, visit: &mut dyn FnMut(&str, Cell<'_>)) {
        for (code, counter) in self.codes.iter().enumerate().filter(|(_, counter)| counter.get() > 0) {
            visit(&code.to_string(), Cell::Counter(counter));
        }
        let named = [
            ("success", &self.success),
            ("failure", &self.failure),
            ("total", &self.total),
            ("request_message_count", &self.request_message_count),
            ("response_message_count", &self.response_message_count),
        ];
        for (name, counter) in named.into_iter().filter(|(_, counter)| counter.get() > 0) {
            visit(name, Cell::Counter(counter));
        }
        if self.upstream_rq_time.is_used() {
            visit("upstream_rq_time", Cell::Histogram(&self.upstream_rq_time));
        }
    }
}

/// The gRPC statistics of a cluster on one worker.
#[derive(Debug, Default)]
pub struct GrpcStats {
    methods: Mutex<BTreeMap<Box<str>, Arc<GrpcCounts>>>,
}

impl GrpcStats {
    /// The numbers of a method, as `service/method`; of all others under an empty name.
    pub fn method(&self, name: &str) -> Option<Arc<GrpcCounts>> {
        let mut methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = methods.get(name) {
            return Some(counts.clone());
        }
        if methods.len() >= MAX_METHODS {
            return None;
        }
        Some(methods.entry(name.into()).or_default().clone())
    }

    /// Shows every cell with the method that it belongs to.
    pub(super) fn visit(&self, visit: &mut dyn FnMut(&str, &str, Cell<'_>)) {
        let methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        for (method, counts) in methods.iter() {
            counts.visit(&mut |field, cell| visit(method, field, cell));
        }
    }
}
