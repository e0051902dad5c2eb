//! What outlier detection decides: who may be ejected, for how long, and which success rates are outliers.
//!
//! Pure; the counting is in `proxy`. Source: `envoy.config.cluster.v3.OutlierDetection` and Envoy's
//! `outlier_detection_impl`.

use std::time::Duration;

/// Why a host is ejected (`envoy.data.cluster.v3.OutlierEjectionType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ejection {
    /// Server errors in a row.
    Consecutive5xx,
    /// Gateway errors (502, 503, 504) in a row.
    ConsecutiveGatewayFailure,
    /// A success rate far below that of the cluster.
    SuccessRate,
    /// Failures in a row to reach the host.
    ConsecutiveLocalOriginFailure,
    /// Reaching the host succeeds far less often than in the cluster.
    SuccessRateLocalOrigin,
    /// Too many failures of a hundred requests.
    FailurePercentage,
    /// Too many failures to reach the host.
    FailurePercentageLocalOrigin,
}

impl Ejection {
    /// All of them; the place here is the index in [`OutlierDetection::enforcing_percent`].
    pub const ALL: [Ejection; 7] = [
        Ejection::Consecutive5xx,
        Ejection::ConsecutiveGatewayFailure,
        Ejection::SuccessRate,
        Ejection::ConsecutiveLocalOriginFailure,
        Ejection::SuccessRateLocalOrigin,
        Ejection::FailurePercentage,
        Ejection::FailurePercentageLocalOrigin,
    ];
}

/// `envoy.config.cluster.v3.OutlierDetection`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutlierDetection {
    /// `consecutive_5xx`, default 5; 0 is never reached.
    pub consecutive_5xx: u32,
    /// `consecutive_gateway_failure`, default 5; 0 is never reached.
    pub consecutive_gateway_failure: u32,
    /// `consecutive_local_origin_failure`, default 5; 0 is never reached.
    pub consecutive_local_origin_failure: u32,
    /// `split_external_local_origin_errors`.
    pub split_external_local_origin_errors: bool,
    /// `enforcing_*` in percent, in the order of [`Ejection::ALL`].
    pub enforcing_percent: [u32; 7],
    /// `success_rate_*`; the bound is the factor of the standard deviation, in thousandths (default 1900).
    pub success_rate: RateDetection,
    /// `failure_percentage_*`; the bound is the threshold in percent (default 85).
    pub failure_percentage: RateDetection,
    /// `interval`, default 10 s.
    pub interval: Duration,
    /// `base_ejection_time`, default 30 s.
    pub base_ejection_time: Duration,
    /// `max_ejection_time`, default 300 s or `base_ejection_time` if that is longer.
    pub max_ejection_time: Duration,
    /// `max_ejection_time_jitter`, default 0.
    pub max_ejection_time_jitter: Duration,
    /// `max_ejection_percent`, default 10.
    pub max_ejection_percent: u32,
    /// `always_eject_one_host`, default false.
    pub always_eject_one_host: bool,
    /// `successful_active_health_check_uneject_host`, default true.
    pub successful_active_health_check_uneject_host: bool,
}

/// A kind of detection that compares the hosts at every interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateDetection {
    /// How many hosts must have had enough requests, default 5.
    pub minimum_hosts: u32,
    /// How many requests in an interval are enough; default 100 for success rates, 50 for percentages.
    pub request_volume: u32,
    /// What is too bad.
    pub bound: u32,
}

/// The success rate of a cluster, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuccessRate {
    /// The average of the hosts that had enough requests.
    pub average: f64,
    /// Hosts below this are outliers.
    pub threshold: f64,
}

impl OutlierDetection {
    /// Whether one more host may be ejected when `ejected` of `hosts` are. Envoy has rounded up to one host in older
    /// versions; since `always_eject_one_host` exists, one host of nine is too many for 10 percent.
    pub fn allows_ejection(&self, ejected: u32, hosts: u32) -> bool {
        if self.always_eject_one_host && ejected == 0 {
            return true;
        }
        u64::from(ejected + 1) * 100 <= u64::from(self.max_ejection_percent) * u64::from(hosts)
    }

    /// Percent of detections of this kind that are enforced.
    pub fn enforcing_percent(&self, ejection: Ejection) -> u32 {
        let index = Ejection::ALL.iter().position(|kind| *kind == ejection);
        index.map_or(0, |index| self.enforcing_percent[index])
    }

    /// How long a host stays away; `multiplier` grows with each ejection and falls with each quiet interval.
    pub fn ejection_time(&self, multiplier: u32) -> Duration {
        self.base_ejection_time.saturating_mul(multiplier).min(self.max_ejection_time)
    }

    /// The multiplier after one more ejection; it stops growing once [`OutlierDetection::max_ejection_time`] is passed.
    pub fn next_multiplier(&self, multiplier: u32) -> u32 {
        let passed = self.base_ejection_time.saturating_mul(multiplier);
        match passed < self.max_ejection_time.saturating_add(self.base_ejection_time) {
            true => multiplier + 1,
            false => multiplier,
        }
    }

    /// What is normal among these success rates, in percent; `None` when there are too few of them.
    pub fn success_rate_of(&self, rates: &[f64]) -> Option<SuccessRate> {
        if rates.is_empty() || rates.len() < self.success_rate.minimum_hosts as usize {
            return None;
        }
        let count = rates.len() as f64;
        let average = rates.iter().sum::<f64>() / count;
        let variance = rates.iter().map(|rate| (rate - average).powi(2)).sum::<f64>() / count;
        let factor = f64::from(self.success_rate.bound) / 1000.0;
        Some(SuccessRate { average, threshold: average - factor * variance.sqrt() })
    }

    /// Whether a success rate in percent is a failure percentage that is too high.
    pub fn fails_too_often(&self, success_rate: f64) -> bool {
        100.0 - success_rate >= f64::from(self.failure_percentage.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection() -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx: 5,
            consecutive_gateway_failure: 5,
            consecutive_local_origin_failure: 5,
            split_external_local_origin_errors: false,
            enforcing_percent: [100, 0, 100, 100, 100, 0, 0],
            success_rate: RateDetection { minimum_hosts: 5, request_volume: 100, bound: 1900 },
            failure_percentage: RateDetection { minimum_hosts: 5, request_volume: 50, bound: 85 },
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(100),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 34,
            always_eject_one_host: false,
            successful_active_health_check_uneject_host: true,
        }
    }

    #[test]
    fn the_share_of_ejected_hosts_counts_the_next_one() {
        let third = detection();
        assert!(third.allows_ejection(0, 3));
        assert!(!third.allows_ejection(1, 3));
        let tenth = OutlierDetection { max_ejection_percent: 10, ..third };
        assert!(!tenth.allows_ejection(0, 9) && tenth.allows_ejection(0, 10));
        let one = OutlierDetection { always_eject_one_host: true, ..tenth };
        assert!(one.allows_ejection(0, 2) && !one.allows_ejection(1, 2));
        assert!(!OutlierDetection { max_ejection_percent: 0, ..third }.allows_ejection(0, 1000));
    }

    #[test]
    fn the_time_grows_to_its_maximum_and_the_multiplier_one_step_further() {
        let detection = detection();
        let (mut multiplier, mut times) = (0, Vec::new());
        for _ in 0..8 {
            multiplier = detection.next_multiplier(multiplier);
            times.push(detection.ejection_time(multiplier).as_secs());
        }
        assert_eq!(times, [30, 60, 90, 100, 100, 100, 100, 100]);
        assert_eq!(multiplier, 5);
    }

    #[test]
    fn one_bad_host_of_five_is_below_the_threshold() {
        let rates = [50.0, 100.0, 100.0, 100.0, 100.0];
        let found = detection().success_rate_of(&rates).expect("five hosts are enough");
        assert_eq!((found.average, found.threshold), (90.0, 52.0));
        assert_eq!(detection().success_rate_of(&rates[1..]), None);
    }

    #[test]
    fn the_failure_percentage_reaches_its_threshold() {
        assert!(detection().fails_too_often(15.0) && !detection().fails_too_often(15.1));
    }

    #[test]
    fn every_kind_has_its_enforcement() {
        let found = Ejection::ALL.map(|kind| detection().enforcing_percent(kind));
        assert_eq!(found, detection().enforcing_percent);
    }
}
