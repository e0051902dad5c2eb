//! Whether, and after which pause, a request is tried again.
//!
//! Source: Envoy's `RetryStateImpl` (conditions are compiled; see `meltemi_compile::retry`).

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use http::header::HeaderName;
use meltemi_compile::matcher::RequestView;
use meltemi_compile::retry::{Reset, RetryOn, RetryPolicy};
use meltemi_http::{Headers, ResponseHead};
use smallvec::SmallVec;

use super::asked::AskedRetry;
use crate::random;
use crate::record::ResponseFlags;
use crate::stream::names;
use crate::upstream::shared::{Permit, Resource};
use crate::upstream::{Cluster, Host, PickContext};

/// The retries of one request.
#[derive(Debug)]
pub(super) struct Retry {
    policy: Arc<RetryPolicy>,
    on: RetryOn,
    left: u32,
    back_off: Duration,
    permit: Option<Permit>,
    /// Where attempts went, when `previous_hosts` asks.
    tried: SmallVec<[SocketAddr; 4]>,
    /// Their priorities, when `previous_priorities` asks.
    tried_priorities: SmallVec<[u32; 4]>,
    asked: Option<Box<AskedRetry>>,
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
    /// The retries that policy and request together allow; `None` when there can be none.
    pub(super) fn new(
        policy: Option<&Arc<RetryPolicy>>,
        asked: Option<Box<AskedRetry>>,
        request: &impl RequestView,
    ) -> Option<Retry> {
        let asked_on = asked.as_ref().map_or(RetryOn::default(), |asked| asked.on);
        let on = policy.map_or(RetryOn::default(), |policy| policy.on).union(asked_on);
        if on == RetryOn::default() || policy.is_some_and(|policy| !policy.allows(request)) {
            return None;
        }
        let policy = policy.cloned().unwrap_or_else(no_policy);
        Some(Retry {
            on,
            left: asked.as_ref().and_then(|asked| asked.max_retries).unwrap_or(policy.num_retries),
            back_off: policy.back_off.base,
            policy,
            permit: None,
            tried: SmallVec::new(),
            tried_priorities: SmallVec::new(),
            asked,
        })
    }

    /// What the pick of a host should heed, besides what every pick of the request does.
    pub(super) fn context(&self, is_retry: bool) -> PickContext<'_> {
        if !is_retry {
            return PickContext::default();
        }
        let frequency = self.policy.previous_priorities.unwrap_or(1);
        PickContext {
            avoid: &self.tried,
            omit_canary: self.policy.omit_canary_hosts,
            attempts: self.policy.host_selection_attempts,
            tried_priorities: &self.tried_priorities,
            priority_update_frequency: usize::try_from(frequency).unwrap_or(usize::MAX),
            ..PickContext::default()
        }
    }

    /// An attempt goes to this host.
    pub(super) fn attempted(&mut self, host: &Host) {
        if self.policy.avoid_previous_hosts {
            self.tried.push(host.address);
        }
        if self.policy.previous_priorities.is_some() {
            self.tried_priorities.push(host.priority);
        }
    }

    /// After a response head.
    pub(super) fn after_response(
        &mut self,
        head: &ResponseHead,
        cluster: &Cluster,
        priority: usize,
    ) -> Decision {
        if !self.wants(head) {
            self.succeeded(cluster);
            return Decision::No;
        }
        let asked = self.policy.rate_limited.as_ref().and_then(|limited| {
            let interval = limited.interval(&Fields(&head.headers), unix_seconds())?;
            (interval > Duration::from_millis(1)).then_some(interval)
        });
        self.again(asked, cluster, priority)
    }

    /// After an attempt without a response.
    pub(super) fn after_reset(&mut self, reset: Reset, cluster: &Cluster, priority: usize) -> Decision {
        if !self.on.on_reset(reset) {
            self.succeeded(cluster);
            return Decision::No;
        }
        self.again(None, cluster, priority)
    }

    fn wants(&self, head: &ResponseHead) -> bool {
        // From another proxy, which says that it has not passed the request on.
        if head.headers.contains(&names::X_ENVOY_RATELIMITED) {
            return self.on.has(RetryOn::ENVOY_RATELIMITED);
        }
        let status = head.status.as_u16();
        self.on.on_status(status, &self.policy.retriable_status_codes)
            || (self.on.has(RetryOn::RETRIABLE_STATUS_CODES)
                && self.asked_for(|asked| asked.codes.contains(&status)))
            || (self.on.has(RetryOn::RETRIABLE_HEADERS) && self.has_retriable_header(&head.headers))
            || (self.on.has(RetryOn::GRPC) && self.has_retriable_grpc_status(&head.headers))
    }

    fn has_retriable_header(&self, headers: &Headers) -> bool {
        self.policy.has_retriable_header(&Fields(headers))
            || self.asked_for(|asked| asked.headers.iter().any(|name| headers.contains(name)))
    }

    fn has_retriable_grpc_status(&self, headers: &Headers) -> bool {
        let status = headers.get(&names::GRPC_STATUS).and_then(number);
        status.is_some_and(|status| self.on.on_grpc_status(status))
    }

    fn asked_for(&self, test: impl Fn(&AskedRetry) -> bool) -> bool {
        self.asked.as_deref().is_some_and(test)
    }

    /// The outcome of a retry, if there was one, is no reason for another.
    fn succeeded(&mut self, cluster: &Cluster) {
        if self.permit.take().is_some() {
            cluster.stats.counts.upstream_rq_retry_success.inc();
        }
    }

    fn again(&mut self, asked: Option<Duration>, cluster: &Cluster, priority: usize) -> Decision {
        let counts = &cluster.stats.counts;
        self.permit = None;
        if self.left == 0 {
            counts.upstream_rq_retry_limit_exceeded.inc();
            return Decision::Refused(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        }
        self.left -= 1;
        let limit = cluster.max_retries(priority);
        self.permit = Permit::take(&cluster.shared, priority, Resource::Retries, limit);
        if self.permit.is_none() {
            counts.upstream_rq_retry_overflow.inc();
            return Decision::Refused(ResponseFlags::UPSTREAM_OVERFLOW);
        }
        counts.upstream_rq_retry.inc();
        Decision::After(match asked {
            Some(interval) => {
                counts.upstream_rq_retry_backoff_ratelimited.inc();
                // Up to half as much again, so that not all who wait come back at once.
                interval + part_of(interval / 2)
            }
            None => {
                counts.upstream_rq_retry_backoff_exponential.inc();
                self.next_pause()
            }
        })
    }

    /// A random part of an interval that doubles from pause to pause up to its maximum.
    fn next_pause(&mut self) -> Duration {
        let interval = self.back_off.min(self.policy.back_off.max);
        self.back_off = (interval * 2).min(self.policy.back_off.max);
        part_of(interval)
    }
}

thread_local! {
    static NO_POLICY: Arc<RetryPolicy> = Arc::new(RetryPolicy { num_retries: 1, ..RetryPolicy::default() });
}

/// What holds for a request that asks for retries where the route has no policy.
fn no_policy() -> Arc<RetryPolicy> {
    NO_POLICY.with(Arc::clone)
}

fn part_of(interval: Duration) -> Duration {
    let micros = usize::try_from(interval.as_micros()).unwrap_or(usize::MAX);
    Duration::from_micros(random::below(micros) as u64)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn number(value: &HeaderValue) -> Option<u32> {
    value.to_str().ok()?.parse().ok()
}

/// The header fields of a response, for matchers.
struct Fields<'h>(&'h Headers);

impl RequestView for Fields<'_> {
    fn method(&self) -> &str {
        ""
    }

    fn scheme(&self) -> &str {
        ""
    }

    fn authority(&self) -> &str {
        ""
    }

    fn path(&self) -> &str {
        ""
    }

    fn header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        self.0.get(name).map(|value| Cow::Borrowed(value.as_bytes()))
    }

    fn any_header_value(&self, name: &HeaderName, test: &dyn Fn(&[u8]) -> bool) -> Option<bool> {
        let mut values = self.0.get_all(name).peekable();
        values.peek()?;
        Some(values.any(|value| test(value.as_bytes())))
    }

    fn random(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use meltemi_compile::retry::BackOff;

    use super::*;

    /// Pauses are spread evenly over the interval: of n draws the mean lies within 4 standard errors, interval / √(12 n).
    #[test]
    fn pauses_are_fully_jittered() {
        const DRAWS: u32 = 10_000;
        let interval = Duration::from_millis(100);
        let draws: Vec<Duration> = (0..DRAWS).map(|_| part_of(interval)).collect();
        assert!(draws.iter().all(|draw| *draw < interval));
        let mean = draws.iter().map(Duration::as_secs_f64).sum::<f64>() / f64::from(DRAWS);
        let error = interval.as_secs_f64() / (12.0 * f64::from(DRAWS)).sqrt();
        assert!((mean - 0.05).abs() < 4.0 * error, "mean {mean}");
    }

    #[test]
    fn the_interval_doubles_up_to_its_maximum() {
        let back_off = BackOff { base: Duration::from_millis(10), max: Duration::from_millis(35) };
        let policy = RetryPolicy { on: RetryOn::FIVE_XX, back_off, ..RetryPolicy::default() };
        let headers = Headers::default();
        let request = Fields(&headers);
        let mut retry = Retry::new(Some(&Arc::new(policy)), None, &request).expect("a condition is set");
        let mut intervals = Vec::new();
        for _ in 0..4 {
            intervals.push(retry.back_off.as_millis());
            assert!(retry.next_pause() < Duration::from_millis(35));
        }
        assert_eq!(intervals, [10, 20, 35, 35]);
    }
}
