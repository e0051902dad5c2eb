//! Faults on purpose: delays, aborts, slow responses.
//!
//! A route's configuration stands in the place of the listener's. A delay comes first; whether an abort follows is
//! decided when the delay is over. Values from request headers are held to what the percentage of the
//! configuration allows. Source: `envoy.extensions.filters.http.fault.v3` and `filters.common.fault.v3`.

use std::num::NonZeroU64;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use meltemi_envoy::extensions::filters::common::fault::v3 as common;
use meltemi_envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use meltemi_envoy::extensions::filters::common::fault::v3::fault_rate_limit::{FixedLimit, LimitType};
use meltemi_envoy::extensions::filters::http::fault::v3 as proto;
use meltemi_envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use meltemi_envoy::r#type::v3::FractionalPercent;
use meltemi_envoy::r#type::v3::fractional_percent::DenominatorType;

use super::{
    Answer, AnswerFlag, Effect, Event, FilterState, FilterView, HeadEdit, Levels, RouteFilterConfig, Verdict,
};
use crate::ledger::{At, harmless, refuse};
use crate::matcher::{HeaderMatcher, header_matcher};

const DELAY: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request");
const DELAY_PERCENTAGE: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request-percentage");
const ABORT: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request");
const ABORT_GRPC: HeaderName = HeaderName::from_static("x-envoy-fault-abort-grpc-request");
const ABORT_PERCENTAGE: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request-percentage");
const THROUGHPUT: HeaderName = HeaderName::from_static("x-envoy-fault-throughput-response");
const THROUGHPUT_PERCENTAGE: HeaderName =
    HeaderName::from_static("x-envoy-fault-throughput-response-percentage");
const DOWNSTREAM_NODE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-node");

/// A compiled `HTTPFault`.
#[derive(Debug, Default)]
pub struct Fault {
    /// `delay`.
    pub delay: Option<(Delay, Percentage)>,
    /// `abort`.
    pub abort: Option<(Abort, Percentage)>,
    /// `response_rate_limit`.
    pub rate_limit: Option<(RateLimit, Percentage)>,
    /// `upstream_cluster`: only requests to this one.
    pub upstream_cluster: Option<Box<str>>,
    /// `headers`: only requests that match all.
    pub headers: Vec<HeaderMatcher>,
    /// `downstream_nodes`: only requests of these.
    pub downstream_nodes: Vec<Box<str>>,
    /// `max_active_faults`.
    pub max_active_faults: Option<u32>,
    /// `disable_downstream_cluster_stats`.
    pub disable_downstream_cluster_stats: bool,
}

/// `fault_delay_secifier`.
#[derive(Debug, Clone, Copy)]
pub enum Delay {
    /// `fixed_delay`.
    Fixed(Duration),
    /// `header_delay`: milliseconds in `x-envoy-fault-delay-request`.
    Header,
}

/// `error_type` of an abort.
#[derive(Debug, Clone, Copy)]
pub enum Abort {
    /// `http_status`.
    Http(StatusCode),
    /// `grpc_status`.
    Grpc(u32),
    /// `header_abort`: `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request`.
    Header,
}

/// `limit_type` of a rate limit.
#[derive(Debug, Clone, Copy)]
pub enum RateLimit {
    /// `fixed_limit.limit_kbps`, in KiB/s.
    Fixed(NonZeroU64),
    /// `header_limit`: KiB/s in `x-envoy-fault-throughput-response`.
    Header,
}

/// How often; a header may lower the numerator where the fault itself comes from headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Percentage {
    numerator: u32,
    denominator: u32,
}

/// As people write it, `10 %`.
impl std::fmt::Display for Percentage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = f64::from(self.numerator) / f64::from(self.denominator.max(1)) * 100.0;
        let text = format!("{share:.2}");
        write!(f, "{} %", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// What the filter keeps of a request.
#[derive(Debug, Default, Clone, Copy)]
pub struct FaultState {
    /// It counts as an active fault.
    pub is_active: bool,
    /// KiB/s that the response body may have.
    pub rate_limit_kbps: Option<NonZeroU64>,
}

/// Compiles the message, of the listener or of a route.
pub(super) fn compile(at: &At<'_>, message: &proto::HttpFault) -> Option<Fault> {
    let proto::HttpFault {
        delay,
        abort,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        delay_percent_runtime,
        abort_percent_runtime,
        delay_duration_runtime,
        abort_http_status_runtime,
        max_active_faults_runtime,
        response_rate_limit_percent_runtime,
        abort_grpc_status_runtime,
        disable_downstream_cluster_stats,
        filter_metadata,
    } = message;
    harmless!(RuntimeKey; delay_percent_runtime, abort_percent_runtime, delay_duration_runtime);
    harmless!(RuntimeKey; abort_http_status_runtime, max_active_faults_runtime, abort_grpc_status_runtime);
    harmless!(RuntimeKey; response_rate_limit_percent_runtime);
    refuse!(at; filter_metadata);
    Some(Fault {
        delay: match delay {
            Some(message) => Some(delay_of(&at.field("delay"), message)?),
            None => None,
        },
        abort: match abort {
            Some(message) => Some(abort_of(&at.field("abort"), message)?),
            None => None,
        },
        rate_limit: match response_rate_limit {
            Some(message) => Some(rate_limit_of(&at.field("response_rate_limit"), message)?),
            None => None,
        },
        upstream_cluster: (!upstream_cluster.is_empty()).then(|| upstream_cluster.as_str().into()),
        headers: at.each("headers", headers, header_matcher),
        downstream_nodes: downstream_nodes.iter().map(|node| node.as_str().into()).collect(),
        max_active_faults: *max_active_faults,
        disable_downstream_cluster_stats: *disable_downstream_cluster_stats,
    })
}

fn delay_of(at: &At<'_>, message: &common::FaultDelay) -> Option<(Delay, Percentage)> {
    let common::FaultDelay { percentage, fault_delay_secifier } = message;
    let delay = match fault_delay_secifier {
        Some(FaultDelaySecifier::FixedDelay(fixed)) => {
            Delay::Fixed(at.positive("fixed_delay", &Some(*fixed))?)
        }
        Some(FaultDelaySecifier::HeaderDelay(common::fault_delay::HeaderDelay {})) => Delay::Header,
        None => return at.none("fixed_delay or header_delay must be set"),
    };
    Some((delay, percentage_of(at, percentage.as_ref())?))
}

fn abort_of(at: &At<'_>, message: &proto::FaultAbort) -> Option<(Abort, Percentage)> {
    let proto::FaultAbort { percentage, response_body, error_type } = message;
    refuse!(at; response_body);
    let abort = match error_type {
        Some(ErrorType::HttpStatus(status)) => {
            let code = u16::try_from(*status).ok().filter(|code| (200..600).contains(code));
            match code.and_then(|code| StatusCode::from_u16(code).ok()) {
                Some(status) => Abort::Http(status),
                None => return at.field("http_status").none("must be from 200 to 599"),
            }
        }
        Some(ErrorType::GrpcStatus(status)) => Abort::Grpc(*status),
        Some(ErrorType::HeaderAbort(proto::fault_abort::HeaderAbort {})) => Abort::Header,
        None => return at.none("http_status, grpc_status or header_abort must be set"),
    };
    Some((abort, percentage_of(at, percentage.as_ref())?))
}

fn rate_limit_of(at: &At<'_>, message: &common::FaultRateLimit) -> Option<(RateLimit, Percentage)> {
    let common::FaultRateLimit { percentage, limit_type } = message;
    let limit = match limit_type {
        Some(LimitType::FixedLimit(FixedLimit { limit_kbps })) => match NonZeroU64::new(*limit_kbps) {
            Some(limit) => RateLimit::Fixed(limit),
            None => return at.field("fixed_limit").field("limit_kbps").none("must be at least 1"),
        },
        Some(LimitType::HeaderLimit(common::fault_rate_limit::HeaderLimit {})) => RateLimit::Header,
        None => return at.none("fixed_limit or header_limit must be set"),
    };
    Some((limit, percentage_of(at, percentage.as_ref())?))
}

/// None is never.
fn percentage_of(at: &At<'_>, message: Option<&FractionalPercent>) -> Option<Percentage> {
    let Some(FractionalPercent { numerator, denominator }) = message else {
        return Some(Percentage { numerator: 0, denominator: 100 });
    };
    let denominator = match at.field("percentage").choice("denominator", *denominator)? {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    Some(Percentage { numerator: *numerator, denominator })
}

impl Percentage {
    /// Whether it falls on this request.
    fn falls(self, view: &impl FilterView) -> bool {
        self.numerator > 0 && view.draw() % u64::from(self.denominator) < u64::from(self.numerator)
    }

    /// As [`Percentage::falls`], with the numerator that a header asks for if it is lower.
    fn falls_by_header(self, view: &impl FilterView, name: &HeaderName) -> bool {
        let asked = number(view, name).unwrap_or(u64::from(self.numerator));
        let numerator = u32::try_from(asked).unwrap_or(u32::MAX).min(self.numerator);
        Percentage { numerator, ..self }.falls(view)
    }
}

/// The first value of a header, as a number.
fn number(view: &impl FilterView, name: &HeaderName) -> Option<u64> {
    let value = view.header(name)?;
    let first = value.split(|byte| *byte == b',').next()?;
    std::str::from_utf8(first).ok()?.trim().parse().ok()
}

/// The configuration that holds: a route's, else the listener's.
fn in_force<'f>(own: &'f Fault, name: &str, levels: &Levels<'f>) -> &'f Fault {
    let of_route = levels.all(name).find_map(|config| match config {
        RouteFilterConfig::Fault(fault) => Some(&**fault),
        _ => None,
    });
    of_route.unwrap_or(own)
}

/// Decides which faults fall on a request.
pub(super) fn decode(
    own: &Fault,
    name: &str,
    view: &impl FilterView,
    levels: &Levels<'_>,
    state: &mut FilterState,
) -> Verdict {
    let fault = in_force(own, name, levels);
    if fault.delay.is_none() && fault.abort.is_none() && fault.rate_limit.is_none() || !fault.concerns(view) {
        return Verdict::Continue;
    }
    let mut faults = FaultState { is_active: false, rate_limit_kbps: fault.rate_limit_for(view) };
    if faults.rate_limit_kbps.is_some() {
        faults.is_active = true;
        view.count(Event::RateLimitInjected);
    }
    let verdict = match fault.delay_for(view) {
        Some(delay) => {
            faults.is_active = true;
            view.count(Event::DelayInjected {
                by_downstream_cluster: !fault.disable_downstream_cluster_stats,
            });
            Verdict::Await(Effect::Delay(delay))
        }
        None => fault.abort(view, &mut faults),
    };
    if faults.is_active {
        *state = FilterState::Fault(faults);
    }
    verdict
}

/// After the delay.
pub(super) fn resume(
    own: &Fault,
    name: &str,
    view: &impl FilterView,
    levels: &Levels<'_>,
    state: &mut FilterState,
) -> Verdict {
    let FilterState::Fault(faults) = state else { return Verdict::Continue };
    in_force(own, name, levels).abort(view, faults)
}

/// Slows the response down.
pub(super) fn encode(state: &FilterState) -> HeadEdit {
    match state {
        FilterState::Fault(FaultState { rate_limit_kbps: Some(limit), .. }) => HeadEdit::Pace(*limit),
        _ => HeadEdit::Nothing,
    }
}

impl Fault {
    /// Whether it is for requests like this one.
    fn concerns(&self, view: &impl FilterView) -> bool {
        if self.max_active_faults.is_some_and(|max| view.active_faults() >= max) {
            view.count(Event::FaultsOverflow);
            return false;
        }
        let is_target = |cluster: &str| view.target_cluster().is_some_and(|target| target == cluster);
        let is_node = || {
            let node = view.header(&DOWNSTREAM_NODE);
            node.is_some_and(|node| self.downstream_nodes.iter().any(|one| one.as_bytes() == &*node))
        };
        self.upstream_cluster.as_deref().is_none_or(is_target)
            && (self.downstream_nodes.is_empty() || is_node())
            && self.headers.iter().all(|header| header.matches(view))
    }

    fn delay_for(&self, view: &impl FilterView) -> Option<Duration> {
        match self.delay? {
            (Delay::Fixed(delay), percentage) => Some(delay).filter(|_| percentage.falls(view)),
            (Delay::Header, percentage) => {
                let delay = number(view, &DELAY).map(Duration::from_millis).filter(|delay| !delay.is_zero());
                delay.filter(|_| percentage.falls_by_header(view, &DELAY_PERCENTAGE))
            }
        }
    }

    fn rate_limit_for(&self, view: &impl FilterView) -> Option<NonZeroU64> {
        match self.rate_limit? {
            (RateLimit::Fixed(limit), percentage) => Some(limit).filter(|_| percentage.falls(view)),
            (RateLimit::Header, percentage) => {
                let limit = number(view, &THROUGHPUT).and_then(NonZeroU64::new);
                limit.filter(|_| percentage.falls_by_header(view, &THROUGHPUT_PERCENTAGE))
            }
        }
    }

    fn abort(&self, view: &impl FilterView, faults: &mut FaultState) -> Verdict {
        let Some((abort, percentage)) = self.abort else { return Verdict::Continue };
        let (falls, status) = match abort {
            Abort::Http(status) => (percentage.falls(view), Some((status, None))),
            Abort::Grpc(code) => (percentage.falls(view), Some((StatusCode::OK, Some(code)))),
            Abort::Header => (percentage.falls_by_header(view, &ABORT_PERCENTAGE), asked_abort(view)),
        };
        let Some((status, grpc)) = status.filter(|_| falls) else { return Verdict::Continue };
        faults.is_active = true;
        view.count(Event::AbortInjected { by_downstream_cluster: !self.disable_downstream_cluster_stats });
        Verdict::Respond(Box::new(Answer {
            body: "fault filter abort".into(),
            grpc_status: grpc,
            flag: Some(AnswerFlag::FaultInjected),
            ..Answer::new(status, "fault_filter_abort")
        }))
    }
}

/// What the headers ask for: an HTTP status before a gRPC one.
fn asked_abort(view: &impl FilterView) -> Option<(StatusCode, Option<u32>)> {
    let http = number(view, &ABORT).filter(|code| (200..600).contains(code));
    let http = http.and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
    if let Some(status) = http {
        return Some((status, None));
    }
    let grpc = number(view, &ABORT_GRPC)?;
    Some((StatusCode::OK, Some(u32::try_from(grpc).ok()?)))
}
