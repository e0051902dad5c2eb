//! Whether, and after which pause, a request is tried again.
//!
//! Source: Envoy's `RetryStateImpl` (conditions are compiled; see `meltemi_compile::retry`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use meltemi_compile::retry::Reset;
use meltemi_compile::route::{RetryOn, RetryPolicy};
use meltemi_http::ResponseHead;
use smallvec::SmallVec;

use crate::random;
use crate::record::ResponseFlags;
use crate::stream::names;
use crate::upstream::Cluster;
use crate::upstream::shared::{Permit, Resource};

/// The retries of one request.
#[derive(Debug)]
pub(super) struct Retry {
    policy: Arc<RetryPolicy>,
    left: u32,
    back_off: Duration,
    permit: Option<Permit>,
    tried: SmallVec<[SocketAddr; 4]>,
}

/// What to do after an attempt that may be retried.
#[derive(Debug)]
pub(super) enum Decision {
    /// The outcome stands.
    No,
    /// The outcome stands although a retry was wanted, for this reason.
    Refused(ResponseFlags),
    /// Again, after this pause.
    After(Duration),
}

impl Retry {
    pub(super) fn new(policy: &Arc<RetryPolicy>) -> Retry {
        Retry {
            left: policy.num_retries,
            back_off: policy.back_off_base,
            policy: policy.clone(),
            permit: None,
            tried: SmallVec::new(),
        }
    }

    /// Hosts that a further attempt should avoid, and how many picks that may cost.
    pub(super) fn avoid(&self) -> (&[SocketAddr], u32) {
        if self.policy.avoid_previous_hosts {
            (&self.tried, self.policy.host_selection_attempts)
        } else {
            (&[], 0)
        }
    }

    /// An attempt goes to this host.
    pub(super) fn attempted(&mut self, host: SocketAddr) {
        if self.policy.avoid_previous_hosts {
            self.tried.push(host);
        }
    }

    /// After a response head.
    pub(super) fn after_response(
        &mut self,
        head: &ResponseHead,
        cluster: &Cluster,
        priority: usize,
    ) -> Decision {
        let wanted = self.wants(head);
        self.decide(wanted, cluster, priority)
    }

    /// After an attempt without a response.
    pub(super) fn after_reset(&mut self, reset: Reset, cluster: &Cluster, priority: usize) -> Decision {
        self.decide(self.policy.on.on_reset(reset), cluster, priority)
    }

    fn wants(&self, head: &ResponseHead) -> bool {
        if head.headers.contains(&names::X_ENVOY_OVERLOADED) {
            return false;
        }
        if head.headers.contains(&names::X_ENVOY_RATELIMITED) {
            return self.policy.on.has(RetryOn::ENVOY_RATELIMITED);
        }
        let grpc_status = head.headers.get(&names::GRPC_STATUS).and_then(number);
        self.policy.retries_response(head.status.as_u16(), grpc_status)
    }

    fn decide(&mut self, wanted: bool, cluster: &Cluster, priority: usize) -> Decision {
        let counts = &cluster.stats.counts;
        if self.permit.take().is_some() && !wanted {
            counts.upstream_rq_retry_success.inc();
        }
        if !wanted {
            return Decision::No;
        }
        if self.left == 0 {
            counts.upstream_rq_retry_limit_exceeded.inc();
            return Decision::Refused(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        }
        self.left -= 1;
        let limit = cluster.config.circuit_breakers[priority].max_retries;
        self.permit = Permit::take(&cluster.shared, priority, Resource::Retries, limit);
        if self.permit.is_none() {
            counts.upstream_rq_retry_overflow.inc();
            return Decision::Refused(ResponseFlags::UPSTREAM_OVERFLOW);
        }
        counts.upstream_rq_retry.inc();
        counts.upstream_rq_retry_backoff_exponential.inc();
        Decision::After(self.next_pause())
    }

    /// A random part of an interval that doubles from pause to pause up to its maximum.
    fn next_pause(&mut self) -> Duration {
        let interval = self.back_off.min(self.policy.back_off_max);
        self.back_off = (interval * 2).min(self.policy.back_off_max);
        let micros = usize::try_from(interval.as_micros()).unwrap_or(usize::MAX);
        Duration::from_micros(random::below(micros) as u64)
    }
}

fn number(value: &HeaderValue) -> Option<u32> {
    value.to_str().ok()?.parse().ok()
}
