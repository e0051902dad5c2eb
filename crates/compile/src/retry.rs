//! When a request is tried again: `retry_on`, and the decisions from a response head or a reset.
//!
//! Source: `envoy.config.route.v3.RetryPolicy`, and the router filter's `x-envoy-retry-on` and
//! `x-envoy-retry-grpc-on`.

use std::time::Duration;

use http::HeaderName;

use crate::matcher::{HeaderMatcher, RequestView};

/// `envoy.config.route.v3.RetryPolicy`.
#[derive(Debug, Clone, Default)]
pub struct RetryPolicy {
    /// `retry_on`.
    pub on: RetryOn,
    /// `num_retries`, default 1.
    pub num_retries: u32,
    /// `per_try_timeout`; `None` is the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// `per_try_idle_timeout`.
    pub per_try_idle_timeout: Option<Duration>,
    /// `retriable_status_codes`, sorted.
    pub retriable_status_codes: Vec<u16>,
    /// `retriable_headers`: any of them makes a response retriable.
    pub retriable_headers: Vec<HeaderMatcher>,
    /// `retriable_request_headers`: one of them must match for a request to be retried at all, unless there are none.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    /// `retry_back_off`.
    pub back_off: BackOff,
    /// `rate_limited_retry_back_off`.
    pub rate_limited: Option<RateLimitedBackOff>,
    /// The `previous_hosts` predicate is there.
    pub avoid_previous_hosts: bool,
    /// The `omit_canary_hosts` predicate is there.
    pub omit_canary_hosts: bool,
    /// `host_selection_retry_max_attempts`, default 1.
    pub host_selection_attempts: u32,
    /// `update_frequency` of the `previous_priorities` plugin.
    pub previous_priorities: Option<u32>,
}

/// The conditions of `retry_on`, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(pub u32);

/// `retry_back_off`: a random part of an interval that doubles from pause to pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// `base_interval`, default 25 ms.
    pub base: Duration,
    /// `max_interval`, default 10 times the base.
    pub max: Duration,
}

impl Default for BackOff {
    fn default() -> BackOff {
        BackOff { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

/// `rate_limited_retry_back_off`: a response may say how long to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitedBackOff {
    /// `reset_headers`: the first that is usable counts.
    pub headers: Vec<ResetHeader>,
    /// `max_interval`, default 300 s; a longer wait is not believed.
    pub max_interval: Duration,
}

/// An entry of `reset_headers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeader {
    /// `name`.
    pub name: HeaderName,
    /// `format`.
    pub format: ResetFormat,
}

/// `ResetHeaderFormat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetFormat {
    /// So many seconds from now.
    Seconds,
    /// A moment in seconds since 1970.
    UnixTimestamp,
}

impl RateLimitedBackOff {
    /// How long a response asks to wait, if it does; `now_s` in seconds since 1970.
    pub fn interval(&self, response: &impl RequestView, now_s: u64) -> Option<Duration> {
        self.headers.iter().find_map(|header| {
            let value = response.header(&header.name)?;
            let number: u64 = std::str::from_utf8(&value).ok()?.trim().parse().ok()?;
            let seconds = match header.format {
                ResetFormat::Seconds => number,
                ResetFormat::UnixTimestamp => number.checked_sub(now_s)?,
            };
            let interval = Duration::from_secs(seconds);
            (interval <= self.max_interval).then_some(interval)
        })
    }
}

/// How an upstream attempt ended without a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// No connection: refused, unreachable, or its timeout.
    ConnectFailure,
    /// The stream was refused before it was processed (HTTP/2 `REFUSED_STREAM`, GOAWAY beyond the last id).
    RefusedStream,
    /// The connection or stream broke; `request_sent` when the request's head had left.
    Broken {
        /// Bytes of the request may have reached the upstream.
        request_sent: bool,
    },
    /// A limit of ours was reached: never retried.
    Overflow,
    /// `per_try_timeout` ran out.
    PerTryTimeout,
}

#[expect(missing_docs, reason = "each is the value of retry_on of that name")]
impl RetryOn {
    pub const FIVE_XX: RetryOn = RetryOn(1);
    pub const GATEWAY_ERROR: RetryOn = RetryOn(1 << 1);
    pub const RESET: RetryOn = RetryOn(1 << 2);
    pub const RESET_BEFORE_REQUEST: RetryOn = RetryOn(1 << 3);
    pub const CONNECT_FAILURE: RetryOn = RetryOn(1 << 4);
    pub const ENVOY_RATELIMITED: RetryOn = RetryOn(1 << 5);
    pub const RETRIABLE_4XX: RetryOn = RetryOn(1 << 6);
    pub const REFUSED_STREAM: RetryOn = RetryOn(1 << 7);
    pub const RETRIABLE_STATUS_CODES: RetryOn = RetryOn(1 << 8);
    pub const RETRIABLE_HEADERS: RetryOn = RetryOn(1 << 9);
    pub const HTTP3_POST_CONNECT_FAILURE: RetryOn = RetryOn(1 << 10);
    pub const CANCELLED: RetryOn = RetryOn(1 << 11);
    pub const DEADLINE_EXCEEDED: RetryOn = RetryOn(1 << 12);
    pub const INTERNAL: RetryOn = RetryOn(1 << 13);
    pub const RESOURCE_EXHAUSTED: RetryOn = RetryOn(1 << 14);
    pub const UNAVAILABLE: RetryOn = RetryOn(1 << 15);
}

/// The conditions by their names in `retry_on`.
const NAMES: [(&str, RetryOn); 16] = [
    ("5xx", RetryOn::FIVE_XX),
    ("gateway-error", RetryOn::GATEWAY_ERROR),
    ("reset", RetryOn::RESET),
    ("reset-before-request", RetryOn::RESET_BEFORE_REQUEST),
    ("connect-failure", RetryOn::CONNECT_FAILURE),
    ("envoy-ratelimited", RetryOn::ENVOY_RATELIMITED),
    ("retriable-4xx", RetryOn::RETRIABLE_4XX),
    ("refused-stream", RetryOn::REFUSED_STREAM),
    ("retriable-status-codes", RetryOn::RETRIABLE_STATUS_CODES),
    ("retriable-headers", RetryOn::RETRIABLE_HEADERS),
    ("http3-post-connect-failure", RetryOn::HTTP3_POST_CONNECT_FAILURE),
    ("cancelled", RetryOn::CANCELLED),
    ("deadline-exceeded", RetryOn::DEADLINE_EXCEEDED),
    ("internal", RetryOn::INTERNAL),
    ("resource-exhausted", RetryOn::RESOURCE_EXHAUSTED),
    ("unavailable", RetryOn::UNAVAILABLE),
];

/// As `retry_on` has it.
impl std::fmt::Display for RetryOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = NAMES.iter().filter(|(_, on)| self.has(*on)).map(|(name, _)| *name).collect();
        f.write_str(&names.join(","))
    }
}

impl RetryOn {
    /// The conditions of `x-envoy-retry-grpc-on`; those of `x-envoy-retry-on` are the others.
    pub const GRPC: RetryOn = RetryOn(
        Self::CANCELLED.0
            | Self::DEADLINE_EXCEEDED.0
            | Self::INTERNAL.0
            | Self::RESOURCE_EXHAUSTED.0
            | Self::UNAVAILABLE.0,
    );

    /// Reads a comma-separated list. Also gives the first name that is not known; Envoy passes over such
    /// names in request headers.
    pub fn parse(text: &str) -> (RetryOn, Option<&str>) {
        let mut on = RetryOn::default();
        let mut unknown = None;
        for name in text.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            match RetryOn::named(name) {
                Some(bit) => on = on.union(bit),
                None => unknown = unknown.or(Some(name)),
            }
        }
        (on, unknown)
    }

    /// Both sets of conditions.
    pub fn union(self, other: RetryOn) -> RetryOn {
        RetryOn(self.0 | other.0)
    }

    /// The conditions that are in both sets.
    pub fn only(self, other: RetryOn) -> RetryOn {
        RetryOn(self.0 & other.0)
    }

    /// The conditions that are only in this set.
    pub fn without(self, other: RetryOn) -> RetryOn {
        RetryOn(self.0 & !other.0)
    }

    /// Whether any condition of `other` is in this set.
    pub fn has(self, other: RetryOn) -> bool {
        self.0 & other.0 != 0
    }

    fn named(name: &str) -> Option<RetryOn> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, on)| *on)
    }

    /// Whether a response of `status` is tried again, given `retriable_status_codes`.
    pub fn on_status(self, status: u16, retriable: &[u16]) -> bool {
        (self.has(RetryOn::FIVE_XX) && (500..600).contains(&status))
            || (self.has(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status))
            || (self.has(RetryOn::RETRIABLE_4XX) && status == 409)
            || (self.has(RetryOn::RETRIABLE_STATUS_CODES) && retriable.contains(&status))
    }

    /// Whether a response whose head says `grpc-status` is tried again.
    pub fn on_grpc_status(self, status: u32) -> bool {
        match status {
            1 => self.has(RetryOn::CANCELLED),
            4 => self.has(RetryOn::DEADLINE_EXCEEDED),
            8 => self.has(RetryOn::RESOURCE_EXHAUSTED),
            13 => self.has(RetryOn::INTERNAL),
            14 => self.has(RetryOn::UNAVAILABLE),
            _ => false,
        }
    }

    /// Whether an attempt without a response is tried again.
    pub fn on_reset(self, reset: Reset) -> bool {
        let any = RetryOn::RESET.union(RetryOn::FIVE_XX).union(RetryOn::GATEWAY_ERROR);
        match reset {
            Reset::Overflow => false,
            Reset::ConnectFailure => {
                self.has(any.union(RetryOn::CONNECT_FAILURE).union(RetryOn::RESET_BEFORE_REQUEST))
            }
            Reset::RefusedStream => self.has(any.union(RetryOn::REFUSED_STREAM)),
            Reset::Broken { request_sent: false } => self.has(any.union(RetryOn::RESET_BEFORE_REQUEST)),
            Reset::Broken { request_sent: true } | Reset::PerTryTimeout => self.has(any),
        }
    }
}

impl RetryPolicy {
    /// Whether `retriable_request_headers` let this request be retried.
    pub fn allows(&self, request: &impl RequestView) -> bool {
        let matchers = &self.retriable_request_headers;
        matchers.is_empty() || matchers.iter().any(|matcher| matcher.matches(request))
    }

    /// Whether a response has one of the `retriable_headers`.
    pub fn has_retriable_header(&self, response: &impl RequestView) -> bool {
        self.retriable_headers.iter().any(|matcher| matcher.matches(response))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    struct OneHeader(&'static str, &'static str);

    impl RequestView for OneHeader {
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
            (name == self.0).then_some(Cow::Borrowed(self.1.as_bytes()))
        }
        fn random(&self) -> u64 {
            0
        }
    }

    #[test]
    fn a_reset_header_says_how_long_to_wait_up_to_a_maximum() {
        let header = |name, format| ResetHeader { name: HeaderName::from_static(name), format };
        let limited = RateLimitedBackOff {
            headers: vec![
                header("retry-after", ResetFormat::Seconds),
                header("x-reset", ResetFormat::UnixTimestamp),
            ],
            max_interval: Duration::from_secs(10),
        };
        let interval = |name, value| limited.interval(&OneHeader(name, value), 1_000);
        assert_eq!(interval("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(interval("x-reset", "1003"), Some(Duration::from_secs(3)));
        for (name, value) in
            [("retry-after", "11"), ("retry-after", "soon"), ("x-reset", "999"), ("other", "1")]
        {
            assert_eq!(interval(name, value), None, "{name}: {value}");
        }
    }

    #[test]
    fn lists_of_conditions_ignore_spaces_and_tell_unknown_names() {
        let both = RetryOn::FIVE_XX.union(RetryOn::CANCELLED);
        assert_eq!(RetryOn::parse("5xx, cancelled"), (both, None));
        assert_eq!(RetryOn::parse("5xx,never"), (RetryOn::FIVE_XX, Some("never")));
        assert_eq!(both.only(RetryOn::GRPC), RetryOn::CANCELLED);
    }
}
