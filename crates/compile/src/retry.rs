//! When a request is tried again: `retry_on`, and the decisions from a response head or a reset.
//!
//! Source: `envoy.config.route.v3.RetryPolicy`, and the router filter's `x-envoy-retry-on` and
//! `x-envoy-retry-grpc-on`.

use crate::route::{RetryOn, RetryPolicy};

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

impl RetryOn {
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

    /// Whether any condition of `other` is in this set.
    pub fn has(self, other: RetryOn) -> bool {
        self.0 & other.0 != 0
    }

    fn named(name: &str) -> Option<RetryOn> {
        Some(match name {
            "5xx" => RetryOn::FIVE_XX,
            "gateway-error" => RetryOn::GATEWAY_ERROR,
            "reset" => RetryOn::RESET,
            "reset-before-request" => RetryOn::RESET_BEFORE_REQUEST,
            "connect-failure" => RetryOn::CONNECT_FAILURE,
            "envoy-ratelimited" => RetryOn::ENVOY_RATELIMITED,
            "retriable-4xx" => RetryOn::RETRIABLE_4XX,
            "refused-stream" => RetryOn::REFUSED_STREAM,
            "retriable-status-codes" => RetryOn::RETRIABLE_STATUS_CODES,
            "retriable-headers" => RetryOn::RETRIABLE_HEADERS,
            "http3-post-connect-failure" => RetryOn::HTTP3_POST_CONNECT_FAILURE,
            "cancelled" => RetryOn::CANCELLED,
            "deadline-exceeded" => RetryOn::DEADLINE_EXCEEDED,
            "internal" => RetryOn::INTERNAL,
            "resource-exhausted" => RetryOn::RESOURCE_EXHAUSTED,
            "unavailable" => RetryOn::UNAVAILABLE,
            _ => return None,
        })
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
    /// Whether this policy retries a response: its status, its `grpc-status` when it is in the head.
    pub fn retries_response(&self, status: u16, grpc_status: Option<u32>) -> bool {
        self.on.on_status(status, &self.retriable_status_codes)
            || grpc_status.is_some_and(|status| self.on.on_grpc_status(status))
    }
}
