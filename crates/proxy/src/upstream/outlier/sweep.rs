//! What happens at every interval: hosts come back, success rates are compared, multipliers fall.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use meltemi_compile::program::{Ejection, OutlierDetection};
use tokio::time::Instant;

use super::ejection::{self, Subject, uneject};
use super::{Monitor, Origin};
use crate::upstream::shared::{ClusterState, HealthFlag, Member};

/// One interval of a cluster is over.
pub(crate) fn sweep(cluster: &ClusterState, detection: &OutlierDetection, members: &[Member], now: Instant) {
    for member in members {
        bring_back(&member.subject(cluster), detection, now);
    }
    for origin in [Origin::External, Origin::Local] {
        compare(cluster, detection, members, origin);
    }
    for member in members {
        calm_down(&member.subject(cluster), detection, now);
    }
}

fn bring_back(subject: &Subject<'_>, detection: &OutlierDetection, now: Instant) {
    if !subject.state.flags.has(HealthFlag::FailedOutlierCheck) {
        return;
    }
    let past = *subject.state.outlier.ejections();
    let time = detection.ejection_time(past.multiplier) + past.jitter;
    if past.ejected_at.is_none_or(|at| now.saturating_duration_since(at) >= time) {
        uneject(subject);
    }
}

/// A quiet interval takes one step off the multiplier.
fn calm_down(subject: &Subject<'_>, detection: &OutlierDetection, now: Instant) {
    if subject.state.flags.has(HealthFlag::FailedOutlierCheck) {
        return;
    }
    let mut past = subject.state.outlier.ejections();
    if past.returned_at.is_some_and(|at| now.saturating_duration_since(at) >= detection.interval) {
        past.multiplier = past.multiplier.saturating_sub(1);
    }
}

impl Monitor {
    /// Ends the interval: requests, and their success rate in percent.
    fn end_interval(&self, origin: Origin) -> (u32, f64) {
        let tally = match origin {
            Origin::External => &self.answers,
            Origin::Local => &self.connects,
        };
        let (requests, successes) = tally.take();
        (requests, f64::from(successes) * 100.0 / f64::from(requests.max(1)))
    }

    fn show_rate(&self, origin: Origin, rate: f64) {
        self.rates[origin as usize].store(rate.to_bits(), Ordering::Relaxed);
    }
}

/// A host with its success rate in the interval.
type Rated<'m> = (&'m Member, f64);

/// Ejects hosts whose success rate is an outlier, or too low in itself.
fn compare(cluster: &ClusterState, detection: &OutlierDetection, members: &[Member], origin: Origin) {
    let (by_rate, by_percentage) = (&detection.success_rate, &detection.failure_percentage);
    let enough = by_rate.request_volume.min(by_percentage.request_volume);
    // The interval of every host ends here, whether its rate counts or not.
    let counted: Vec<(Rated<'_>, u32)> = members
        .iter()
        .map(|member| {
            let (requests, rate) = member.state.outlier.end_interval(origin);
            ((member, rate), requests)
        })
        .collect();
    members.iter().for_each(|member| member.state.outlier.show_rate(origin, -1.0));
    set_rates(cluster, origin, None);
    let fewest_hosts = by_rate.minimum_hosts.min(by_percentage.minimum_hosts);
    if members.len() < fewest_hosts as usize {
        return;
    }
    let present = |((member, _), requests): &&(Rated<'_>, u32)| {
        *requests > 0 && !member.state.flags.has(HealthFlag::FailedOutlierCheck)
    };
    let counted: Vec<_> = counted.iter().filter(present).collect();
    for ((member, rate), _) in counted.iter().filter(|(_, requests)| *requests >= enough) {
        member.state.outlier.show_rate(origin, *rate);
    }
    let with = |volume| -> Vec<Rated<'_>> {
        counted.iter().filter(|(_, requests)| *requests >= volume).map(|(rated, _)| *rated).collect()
    };
    let rated = with(by_rate.request_volume);
    let rates: Vec<f64> = rated.iter().map(|(_, rate)| *rate).collect();
    if let Some(normal) = detection.success_rate_of(&rates) {
        set_rates(cluster, origin, Some(normal));
        eject(cluster, detection, &rated, success_rate(origin), |rate| rate < normal.threshold);
    }
    let rated = with(by_percentage.request_volume);
    if !rated.is_empty() && rated.len() >= by_percentage.minimum_hosts as usize {
        eject(cluster, detection, &rated, failure_percentage(origin), |rate| detection.fails_too_often(rate));
    }
}

fn eject(
    cluster: &ClusterState,
    detection: &OutlierDetection,
    rated: &[Rated<'_>],
    ejection: Ejection,
    is_outlier: impl Fn(f64) -> bool,
) {
    for (member, _) in rated.iter().filter(|(_, rate)| is_outlier(*rate)) {
        ejection::by_comparison(&member.subject(cluster), detection, ejection);
    }
}

fn set_rates(cluster: &ClusterState, origin: Origin, rate: Option<meltemi_compile::program::SuccessRate>) {
    cluster.outlier.rates.lock().unwrap_or_else(PoisonError::into_inner)[origin as usize] = rate;
}

fn success_rate(origin: Origin) -> Ejection {
    match origin {
        Origin::External => Ejection::SuccessRate,
        Origin::Local => Ejection::SuccessRateLocalOrigin,
    }
}

fn failure_percentage(origin: Origin) -> Ejection {
    match origin {
        Origin::External => Ejection::FailurePercentage,
        Origin::Local => Ejection::FailurePercentageLocalOrigin,
    }
}
