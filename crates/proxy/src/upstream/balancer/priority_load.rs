//! How much of the traffic each priority gets, and which priorities are in panic.
//!
//! Source: Envoy's `LoadBalancerBase` (availability with overprovisioning, healthy before degraded hosts, panic
//! threshold) and its `previous_priorities` retry plugin.

/// Hosts of a priority, as far as load goes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LevelCounts {
    /// Hosts, whatever their health.
    pub(crate) all: u64,
    /// Hosts that do not count.
    pub(crate) excluded: u64,
    pub(crate) healthy: u64,
    pub(crate) degraded: u64,
    /// The same three as sums of weights, when `weighted_priority_health` asks for them.
    pub(crate) weights: Option<LevelWeights>,
}

/// Weights in place of numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LevelWeights {
    /// All but the excluded.
    pub(crate) counted: u64,
    pub(crate) healthy: u64,
    pub(crate) degraded: u64,
}

/// Percent of traffic by priority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loads {
    /// To healthy hosts, or to all of a priority in panic.
    pub(crate) healthy: Vec<u32>,
    /// To degraded hosts.
    pub(crate) degraded: Vec<u32>,
    /// Priorities that use all hosts because too few are fit.
    pub(crate) panic: Vec<bool>,
    /// Percent of the load that each priority could take, by healthy and degraded hosts.
    available: Vec<(u32, u32)>,
}

impl Loads {
    /// Spreads the load over the levels; there is at least one.
    pub(crate) fn new(
        levels: &[LevelCounts],
        overprovisioning_percent: u32,
        panic_threshold_percent: u32,
    ) -> Loads {
        let available: Vec<_> =
            levels.iter().map(|level| level.available(overprovisioning_percent)).collect();
        let total = total(&available);
        let panic: Vec<bool> =
            levels.iter().map(|level| total < 100 && level.is_in_panic(panic_threshold_percent)).collect();
        let (healthy, degraded) = match distribute(&available, total) {
            _ if panic.iter().all(|panic| *panic) => (by_size(levels), vec![0; levels.len()]),
            Some(loads) => loads,
            // Nobody is fit and panic is off: the first priority gets all, and fails it.
            None => (all_to_first(levels.len()), vec![0; levels.len()]),
        };
        Loads { healthy, degraded, panic, available }
    }

    /// The priority for a point, and whether its degraded hosts are meant.
    pub(crate) fn choose(&self, point: u64) -> (usize, bool) {
        let mut left = (point % 100) as u32;
        let both = self.healthy.iter().map(|load| (load, false)).enumerate();
        let both = both.chain(self.degraded.iter().map(|load| (load, true)).enumerate());
        for (priority, (load, is_degraded)) in both {
            if left < *load {
                return (priority, is_degraded);
            }
            left -= load;
        }
        (0, false)
    }

    /// The only priority that gets traffic, when its healthy hosts take all.
    pub(crate) fn sole(&self) -> Option<usize> {
        self.healthy.iter().position(|load| *load == 100)
    }

    /// The loads without the priorities that were tried, `every` so many attempts; as they are while there were fewer,
    /// or when nothing else is left.
    pub(crate) fn without(&self, tried: &[u32], every: usize) -> Option<Loads> {
        let every = every.max(1);
        let mut excluded = vec![false; self.available.len()];
        for tried in tried.chunks_exact(every) {
            for priority in tried {
                if let Some(excluded) = excluded.get_mut(*priority as usize) {
                    *excluded = true;
                }
            }
            if total(&self.left(&excluded)) == 0 {
                excluded.fill(false);
            }
        }
        let left = self.left(&excluded);
        let (healthy, degraded) = distribute_all(&left, total(&left))?;
        Some(Loads { healthy, degraded, panic: self.panic.clone(), available: self.available.clone() })
    }

    fn left(&self, excluded: &[bool]) -> Vec<(u32, u32)> {
        let each = self.available.iter().zip(excluded);
        each.map(|(available, excluded)| if *excluded { (0, 0) } else { *available }).collect()
    }
}

impl LevelCounts {
    fn available(&self, overprovisioning_percent: u32) -> (u32, u32) {
        let weights = self.weights.unwrap_or(LevelWeights {
            counted: self.all - self.excluded,
            healthy: self.healthy,
            degraded: self.degraded,
        });
        if self.all == self.excluded || weights.counted == 0 {
            return (0, 0);
        }
        let percent = |part: u64| {
            (u64::from(overprovisioning_percent).saturating_mul(part) / weights.counted).min(100) as u32
        };
        (percent(weights.healthy), percent(weights.degraded))
    }

    fn is_in_panic(&self, threshold_percent: u32) -> bool {
        let counted = self.all - self.excluded;
        let percent = |part: u64| if counted == 0 { 0.0 } else { 100.0 * part as f64 / counted as f64 };
        percent(self.healthy) + percent(self.degraded) < f64::from(threshold_percent)
    }
}

fn total(available: &[(u32, u32)]) -> u32 {
    available.iter().map(|(healthy, degraded)| healthy + degraded).sum::<u32>().min(100)
}

/// Healthy hosts first, by priority; what rounding leaves goes to the first that has any. `None` when nobody has.
fn distribute(available: &[(u32, u32)], total: u32) -> Option<(Vec<u32>, Vec<u32>)> {
    let mut left = 100;
    let (mut healthy, mut degraded) = one_round(available, total, &mut left)?;
    if let Some(first) = available.iter().position(|(healthy, _)| *healthy > 0) {
        healthy[first] += left;
    } else if let Some(first) = available.iter().position(|(_, degraded)| *degraded > 0) {
        degraded[first] += left;
    }
    Some((healthy, degraded))
}

/// As [`distribute`], but what rounding leaves is spread again (`previous_priorities`).
fn distribute_all(available: &[(u32, u32)], total: u32) -> Option<(Vec<u32>, Vec<u32>)> {
    let mut left = 100;
    let (mut healthy, mut degraded) = one_round(available, total, &mut left)?;
    while left > 0 {
        let (more_healthy, more_degraded) = one_round(available, total, &mut left)?;
        healthy.iter_mut().zip(more_healthy).for_each(|(load, more)| *load += more);
        degraded.iter_mut().zip(more_degraded).for_each(|(load, more)| *load += more);
    }
    Some((healthy, degraded))
}

fn one_round(available: &[(u32, u32)], total: u32, left: &mut u32) -> Option<(Vec<u32>, Vec<u32>)> {
    let mut share = |available: u32| {
        let share = (available * 100 / total).min(*left);
        *left -= share;
        share
    };
    if total == 0 {
        return None;
    }
    let healthy = available.iter().map(|(healthy, _)| share(*healthy)).collect();
    let degraded = available.iter().map(|(_, degraded)| share(*degraded)).collect();
    Some((healthy, degraded))
}

/// When all priorities are in panic: by their number of hosts.
fn by_size(levels: &[LevelCounts]) -> Vec<u32> {
    let all: u64 = levels.iter().map(|level| level.all).sum();
    if all == 0 {
        return all_to_first(levels.len());
    }
    let mut loads: Vec<u32> = levels.iter().map(|level| (100 * level.all / all) as u32).collect();
    let left = 100 - loads.iter().sum::<u32>();
    if let Some(first) = levels.iter().position(|level| level.all > 0) {
        loads[first] += left;
    }
    loads
}

fn all_to_first(levels: usize) -> Vec<u32> {
    (0..levels).map(|level| if level == 0 { 100 } else { 0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(all: u64, healthy: u64, degraded: u64) -> LevelCounts {
        LevelCounts { all, healthy, degraded, ..LevelCounts::default() }
    }

    fn loads(levels: &[LevelCounts]) -> (Vec<u32>, Vec<u32>) {
        let loads = Loads::new(levels, 140, 50);
        (loads.healthy, loads.degraded)
    }

    #[test]
    fn a_priority_that_is_fit_enough_takes_all() {
        assert_eq!(loads(&[level(10, 8, 0), level(10, 10, 0)]), (vec![100, 0], vec![0, 0]));
    }

    #[test]
    fn what_is_missing_spills_over() {
        assert_eq!(loads(&[level(2, 1, 0), level(1, 1, 0)]), (vec![70, 30], vec![0, 0]));
    }

    #[test]
    fn degraded_hosts_come_after_healthy_ones_of_all_priorities() {
        assert_eq!(loads(&[level(4, 1, 3), level(4, 1, 0)]), (vec![35, 35], vec![30, 0]));
        assert_eq!(loads(&[level(2, 0, 2)]), (vec![0], vec![100]));
    }

    #[test]
    fn too_little_in_all_priorities_is_scaled_up() {
        // 28 % and 28 % of the load could be taken.
        let found = Loads::new(&[level(5, 1, 0), level(5, 1, 0)], 140, 0);
        assert_eq!(found.healthy, [50, 50]);
        assert_eq!(found.panic, [false, false]);
    }

    #[test]
    fn panic_is_per_priority_and_total_panic_goes_by_size() {
        let found = Loads::new(&[level(10, 1, 0), level(10, 5, 0)], 140, 50);
        assert_eq!((found.panic, found.healthy), (vec![true, false], vec![17, 83]));
        let found = Loads::new(&[level(1, 0, 0), level(2, 0, 0)], 140, 50);
        assert_eq!((found.panic, found.healthy), (vec![true, true], vec![34, 66]));
    }

    #[test]
    fn without_panic_the_first_priority_fails_alone() {
        let found = Loads::new(&[level(1, 0, 0), level(2, 0, 0)], 140, 0);
        assert_eq!((found.panic, found.healthy), (vec![false, false], vec![100, 0]));
    }

    #[test]
    fn excluded_hosts_do_not_count_and_weights_may() {
        let counts = LevelCounts { all: 4, excluded: 2, healthy: 2, ..LevelCounts::default() };
        assert_eq!(counts.available(140), (100, 0));
        let weights = Some(LevelWeights { counted: 10, healthy: 1, degraded: 9 });
        assert_eq!(LevelCounts { weights, ..level(2, 1, 1) }.available(100), (10, 90));
    }

    #[test]
    fn tried_priorities_are_left_out_until_none_is_left() {
        let all = Loads::new(&[level(1, 1, 0), level(1, 1, 0), level(1, 0, 0)], 100, 50);
        let healthy = |tried: &[u32], every| all.without(tried, every).map(|loads| loads.healthy);
        assert_eq!(healthy(&[0], 1), Some(vec![0, 100, 0]));
        assert_eq!(healthy(&[0], 2), Some(vec![100, 0, 0]), "not yet");
        assert_eq!(healthy(&[0, 1], 1), Some(vec![100, 0, 0]), "both were tried: begin again");
        assert_eq!(healthy(&[0, 1, 0], 1), Some(vec![0, 100, 0]));
        assert_eq!(Loads::new(&[level(1, 0, 0)], 140, 50).without(&[0], 1), None);
    }

    #[test]
    fn points_fall_on_priorities_by_load() {
        let found = Loads::new(&[level(4, 1, 3), level(4, 1, 0)], 140, 50);
        let mut seen = [0; 3];
        for point in 0..100 {
            match found.choose(point) {
                (0, false) => seen[0] += 1,
                (1, false) => seen[1] += 1,
                (0, true) => seen[2] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, [35, 35, 30]);
    }
}
