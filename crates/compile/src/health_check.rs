//! Active health checks: what is sent, what passes, and when the next one is due.
//!
//! Pure; sockets and clocks are in `proxy`. Source: `envoy.config.core.v3.HealthCheck` and Envoy's
//! `health_checker_base_impl`.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use prost_types::Struct;

use crate::header_edit::AppendAction;
use crate::matcher::StringMatcher;

/// `envoy.config.core.v3.HealthCheck`.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    /// `timeout`.
    pub timeout: Duration,
    /// The pauses between checks.
    pub pace: Pace,
    /// `unhealthy_threshold`: failures in a row, of those that may pass, until the host is unhealthy.
    pub unhealthy_threshold: u32,
    /// `healthy_threshold`: passes in a row until it is healthy again.
    pub healthy_threshold: u32,
    /// `reuse_connection`, default true.
    pub reuse_connection: bool,
    /// `event_log_path`, and the files of `event_logger`.
    pub event_logs: Vec<Box<str>>,
    /// `always_log_health_check_failures`.
    pub always_log_failures: bool,
    /// `always_log_health_check_success`.
    pub always_log_success: bool,
    /// `transport_socket_match_criteria`, in place of what the endpoint's metadata says.
    pub transport_socket_match_criteria: Option<Struct>,
    /// `health_checker`.
    pub kind: HealthCheckKind,
}

/// `health_checker`.
#[derive(Debug, Clone)]
pub enum HealthCheckKind {
    /// `http_health_check`.
    Http(Box<HttpHealthCheck>),
    /// `tcp_health_check`.
    Tcp(TcpHealthCheck),
    /// `grpc_health_check`.
    Grpc(GrpcHealthCheck),
}

/// `envoy.config.core.v3.HealthCheck.HttpHealthCheck`.
#[derive(Debug, Clone)]
pub struct HttpHealthCheck {
    /// `host`; empty for the name of the cluster.
    pub host: Box<str>,
    /// `path`.
    pub path: Box<str>,
    /// `method`, default GET.
    pub method: Method,
    /// `send`.
    pub send: Bytes,
    /// `receive`: what the body must hold, in this order.
    pub receive: Vec<Bytes>,
    /// `response_buffer_size` in bytes, default 1024; `None` is unlimited (0).
    pub response_buffer_size: Option<usize>,
    /// `request_headers_to_add`.
    pub add: Vec<CheckHeader>,
    /// `request_headers_to_remove`.
    pub remove: Vec<HeaderName>,
    /// `expected_statuses`, default 200.
    pub expected_statuses: Vec<Range<u16>>,
    /// `retriable_statuses`: failures of these statuses count towards the threshold, others fail at once.
    pub retriable_statuses: Vec<Range<u16>>,
    /// `codec_client_type` is HTTP2.
    pub http2: bool,
    /// `service_name_matcher`, for `x-envoy-upstream-healthchecked-cluster`.
    pub service_name: Option<StringMatcher>,
}

/// A header of a check.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckHeader {
    /// `header.key`.
    pub name: HeaderName,
    /// `header.value`.
    pub value: HeaderValue,
    /// `append_action`.
    pub action: AppendAction,
}

/// `envoy.config.core.v3.HealthCheck.TcpHealthCheck`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TcpHealthCheck {
    /// `proxy_protocol_config`: a header of the PROXY protocol comes first; whether it is of version 2.
    pub proxy_v2: Option<bool>,
    /// `send`.
    pub send: Bytes,
    /// `receive`: what the answer must hold, in this order. Without any, connecting is enough.
    pub receive: Vec<Bytes>,
}

/// `envoy.config.core.v3.HealthCheck.GrpcHealthCheck`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GrpcHealthCheck {
    /// `service_name`; empty asks for the server as a whole.
    pub service_name: Box<str>,
    /// `authority`; empty for the name of the cluster.
    pub authority: Box<str>,
    /// `initial_metadata`.
    pub metadata: Vec<CheckHeader>,
}

/// What an endpoint says about its checks (`envoy.config.endpoint.v3.Endpoint.HealthCheckConfig`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostCheck {
    /// `address` and `port_value`: where to check, when it is not the endpoint itself.
    pub address: Option<SocketAddr>,
    /// `hostname`: the authority of checks; empty for that of the check.
    pub hostname: Box<str>,
    /// `disable_active_health_check`.
    pub disabled: bool,
}

/// The pauses between checks.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    /// `interval`.
    pub interval: Duration,
    /// `unhealthy_interval`, default `interval`.
    pub unhealthy_interval: Duration,
    /// `unhealthy_edge_interval`, default `unhealthy_interval`.
    pub unhealthy_edge_interval: Duration,
    /// `healthy_edge_interval`, default `interval`.
    pub healthy_edge_interval: Duration,
    /// `no_traffic_interval`, default 60 s.
    pub no_traffic_interval: Duration,
    /// `no_traffic_healthy_interval`, default `no_traffic_interval`.
    pub no_traffic_healthy_interval: Duration,
    /// `initial_jitter`.
    pub initial_jitter: Duration,
    /// `interval_jitter`.
    pub interval_jitter: Duration,
    /// `interval_jitter_percent`.
    pub interval_jitter_percent: u32,
}

/// What a check meant for its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Nothing is new.
    Unchanged,
    /// The host is healthy, degraded or unhealthy from now on.
    Changed,
    /// It will be when the next checks say the same.
    Pending,
}

impl Pace {
    /// The pause after a check; `random` is any number.
    pub fn pause(&self, passed: bool, transition: Transition, had_traffic: bool, random: u64) -> Duration {
        let pending = transition == Transition::Pending;
        let base = match (had_traffic, passed, pending) {
            (false, true, false) => self.no_traffic_healthy_interval,
            (false, _, _) => self.no_traffic_interval,
            (true, true, false) => self.interval,
            (true, true, true) => self.healthy_edge_interval,
            (true, false, false) => self.unhealthy_interval,
            (true, false, true) => self.unhealthy_edge_interval,
        };
        let share = base * self.interval_jitter_percent / 100;
        let pause = base + jitter(share, random) + jitter(self.interval_jitter, random.rotate_left(32));
        pause.max(Duration::from_millis(1))
    }

    /// The pause before the first check; `random` is any number.
    pub fn first_pause(&self, random: u64) -> Duration {
        jitter(self.initial_jitter, random)
    }
}

/// Less than `limit`, in whole milliseconds.
fn jitter(limit: Duration, random: u64) -> Duration {
    let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random.checked_rem(millis).unwrap_or(0))
}

/// Whether `body` holds all of `wanted`, one after the other.
pub fn holds(body: &[u8], wanted: &[Bytes]) -> bool {
    let mut rest = body;
    wanted.iter().all(|piece| {
        let found = match piece.is_empty() {
            true => Some(0),
            false => rest.windows(piece.len()).position(|window| window == piece),
        };
        let Some(at) = found else { return false };
        rest = &rest[at + piece.len()..];
        true
    })
}

impl HealthCheck {
    /// The authority of a check: what the endpoint says (`hostname`), else the check, else the name of the cluster.
    pub fn authority<'a>(&'a self, hostname: &'a str, cluster: &'a str) -> &'a str {
        let configured = match &self.kind {
            HealthCheckKind::Http(check) => &check.host,
            HealthCheckKind::Grpc(check) => &check.authority,
            HealthCheckKind::Tcp(_) => "",
        };
        [hostname, configured].into_iter().find(|name| !name.is_empty()).unwrap_or(cluster)
    }
}

impl HttpHealthCheck {
    /// Whether a status is one of `expected_statuses`.
    pub fn expects(&self, status: u16) -> bool {
        self.expected_statuses.iter().any(|range| range.contains(&status))
    }

    /// Whether a failure with this status only counts towards the threshold.
    pub fn may_pass_later(&self, status: u16) -> bool {
        self.retriable_statuses.iter().any(|range| range.contains(&status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        let seconds = Duration::from_secs;
        Pace {
            interval: seconds(1),
            unhealthy_interval: seconds(2),
            unhealthy_edge_interval: seconds(3),
            healthy_edge_interval: seconds(4),
            no_traffic_interval: seconds(5),
            no_traffic_healthy_interval: seconds(6),
            initial_jitter: Duration::ZERO,
            interval_jitter: Duration::ZERO,
            interval_jitter_percent: 0,
        }
    }

    #[test]
    fn the_pause_depends_on_state_edge_and_traffic() {
        use Transition::{Changed, Pending, Unchanged};
        let pause = |passed, transition, traffic| pace().pause(passed, transition, traffic, 7).as_secs();
        assert_eq!([pause(true, Unchanged, true), pause(true, Changed, true)], [1, 1]);
        assert_eq!([pause(false, Unchanged, true), pause(false, Changed, true)], [2, 2]);
        assert_eq!([pause(false, Pending, true), pause(true, Pending, true)], [3, 4]);
        assert_eq!([pause(true, Pending, false), pause(false, Unchanged, false)], [5, 5]);
        assert_eq!(pause(true, Unchanged, false), 6);
    }

    #[test]
    fn jitter_adds_less_than_its_limit() {
        let jittered =
            Pace { interval_jitter: Duration::from_millis(100), interval_jitter_percent: 10, ..pace() };
        for random in [0, 99, 12345, u64::MAX] {
            let pause = jittered.pause(true, Transition::Unchanged, true, random);
            assert!((1000..1199).contains(&pause.as_millis()), "{pause:?}");
        }
        assert_eq!(jittered.first_pause(99), Duration::ZERO);
    }

    #[test]
    fn pieces_are_found_in_their_order() {
        let pieces = |list: &[&'static str]| -> Vec<Bytes> {
            list.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
        };
        assert!(holds(b"xabyabc", &pieces(&["ab", "abc"])));
        assert!(!holds(b"abcab", &pieces(&["abc", "abc"])));
        assert!(holds(b"", &[]));
    }
}
