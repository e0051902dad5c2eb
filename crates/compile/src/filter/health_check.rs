//! Health checks from outside, answered by the proxy itself.
//!
//! Source: `envoy.extensions.filters.http.health_check.v3`.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use meltemi_envoy::extensions::filters::http::health_check::v3 as proto;
use meltemi_envoy::r#type::v3::Percent;

use super::{Answer, AnswerFlag, Effect, FilterState, FilterView, HeadEdit, Verdict};
use crate::ledger::At;
use crate::matcher::{HeaderMatcher, header_matcher};
use crate::program::Name;

const IMMEDIATE_FAIL: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");

/// The configuration.
#[derive(Debug)]
pub struct HealthCheck {
    /// `pass_through_mode`: the upstream is asked, unless something says that it need not be.
    pub pass_through: bool,
    /// `cache_time`: how long the upstream's answer stands for it.
    pub cache_time: Option<Duration>,
    /// `cluster_min_healthy_percentages`.
    pub min_healthy_percent: Vec<(Name, f64)>,
    /// `headers`: which requests are health checks.
    pub headers: Vec<HeaderMatcher>,
}

/// Compiles the message.
pub(super) fn compile(at: &At<'_>, message: &proto::HealthCheck) -> Option<HealthCheck> {
    let proto::HealthCheck { pass_through_mode, cache_time, cluster_min_healthy_percentages, headers } =
        message;
    let Some(pass_through) = *pass_through_mode else {
        return at.field("pass_through_mode").none("must be set");
    };
    let cache_time = at.timeout("cache_time", cache_time, None);
    if !pass_through && cache_time.is_some() {
        at.field("cache_time").reject("cache_time_ms must not be set when path_through_mode is disabled");
    }
    if pass_through && !cluster_min_healthy_percentages.is_empty() {
        at.field("cluster_min_healthy_percentages")
            .reject("cluster_min_healthy_percentages must not be set when path_through_mode is enabled");
    }
    let percentages = cluster_min_healthy_percentages.iter().map(|(name, Percent { value })| {
        if !(0.0..=100.0).contains(value) {
            at.key("cluster_min_healthy_percentages", name).reject("must be from 0 to 100");
        }
        (Name::from(name.as_str()), *value)
    });
    Some(HealthCheck {
        pass_through,
        cache_time,
        min_healthy_percent: percentages.collect(),
        headers: at.each("headers", headers, header_matcher),
    })
}

/// Answers a health check, unless the upstream is to do it.
pub(super) fn decode(
    config: &HealthCheck,
    name: &Name,
    view: &impl FilterView,
    state: &mut FilterState,
) -> Verdict {
    if !config.headers.iter().all(|header| header.matches(view)) {
        return Verdict::Continue;
    }
    *state = FilterState::HealthCheck;
    let cached = config.cache_time.and_then(|_| view.cached_health_check(name));
    if config.pass_through && !view.fails_health_checks() && cached.is_none() {
        return Verdict::Continue;
    }
    if !view.is_head_only() {
        return Verdict::Await(Effect::DiscardRequest);
    }
    config.respond(view, cached)
}

/// The answer, once the whole request is there.
pub(super) fn resume(config: &HealthCheck, name: &Name, view: &impl FilterView) -> Verdict {
    config.respond(view, config.cache_time.and_then(|_| view.cached_health_check(name)))
}

impl HealthCheck {
    fn respond(&self, view: &impl FilterView, cached: Option<StatusCode>) -> Verdict {
        let (status, details) = self.answer(view, cached);
        let is_ok = status.is_success();
        Verdict::Respond(Box::new(Answer {
            flag: (!is_ok).then_some(AnswerFlag::FailedLocalHealthCheck),
            ..Answer::new(status, details)
        }))
    }

    fn answer(&self, view: &impl FilterView, cached: Option<StatusCode>) -> (StatusCode, &'static str) {
        const FAILED: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
        if view.fails_health_checks() {
            return (FAILED, "health_check_failed");
        }
        if let Some(status) = cached {
            return (status, "health_check_cached");
        }
        for (cluster, percent) in &self.min_healthy_percent {
            match view.cluster_health(cluster) {
                None => return (FAILED, "health_check_failed_no_cluster_found"),
                Some((_, 0)) if *percent == 0.0 => {}
                Some((_, 0)) => return (FAILED, "health_check_failed_cluster_empty"),
                // Envoy compares whole percents.
                Some((healthy, total)) if u64::from(healthy) * 100 < u64::from(total) * *percent as u64 => {
                    return (FAILED, "health_check_failed_cluster_unhealthy");
                }
                Some(_) => {}
            }
        }
        let is_by_cluster = !self.min_healthy_percent.is_empty();
        let details = if is_by_cluster { "health_check_ok_cluster_healthy" } else { "health_check_ok" };
        (StatusCode::OK, details)
    }
}

/// Says in the answer who was asked; in any other answer, that this proxy fails its health checks.
pub(super) fn encode(view: &impl FilterView, state: &FilterState) -> HeadEdit {
    match state {
        FilterState::HealthCheck => HeadEdit::HealthChecked,
        _ if view.fails_health_checks() => {
            HeadEdit::Set(vec![(IMMEDIATE_FAIL, HeaderValue::from_static("true"))])
        }
        _ => HeadEdit::Nothing,
    }
}
