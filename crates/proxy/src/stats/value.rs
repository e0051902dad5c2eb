//! The cells that workers write: counter, gauge, histogram.
//!
//! Each cell has one writer, the worker that it was made for, so an update is a plain load and store; readers sum
//! the cells of all workers. Buckets are Envoy's default histogram buckets.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Only the worker that owns the cell may call it.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`. Only the worker that owns the cell may call it.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// The bit that says that a gauge was ever set; no gauge counts so far.
const USED: u64 = 1 << 63;

impl Gauge {
    /// Adds one. Only the worker that owns the cell may call it.
    pub fn inc(&self) {
        self.set(self.get().saturating_add(1));
    }

    /// Takes one away. Only the worker that owns the cell may call it.
    pub fn dec(&self) {
        self.set(self.get().saturating_sub(1));
    }

    /// Sets the number. Only the worker that owns the cell may call it.
    pub fn set(&self, value: u64) {
        self.0.store(value | USED, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed) & !USED
    }

    /// Whether it was ever set.
    pub fn is_used(&self) -> bool {
        self.0.load(Ordering::Relaxed) & USED != 0
    }
}

/// Upper bounds of the buckets, in the unit of the histogram (milliseconds or bytes); one more is +Inf.
pub const BUCKETS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6,
    3.6e6,
];

/// A distribution over [`BUCKETS`].
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS.len() + 1],
    sum: Counter,
}

impl Histogram {
    /// Takes in a value. Only the worker that owns the cell may call it.
    pub fn record(&self, value: u64) {
        let index = BUCKETS.partition_point(|bound| *bound < value as f64);
        self.buckets[index].inc();
        self.sum.add(value);
    }

    /// Takes in a time as whole milliseconds, as Envoy does.
    pub fn record_millis(&self, time: std::time::Duration) {
        self.record(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }

    /// Whether it took in any value.
    pub fn is_used(&self) -> bool {
        self.buckets.iter().any(|bucket| bucket.get() > 0)
    }

    /// Adds this distribution to a sum over workers.
    pub fn add_to(&self, total: &mut Distribution) {
        for (into, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *into += bucket.get();
        }
        total.sum = total.sum.wrapping_add(self.sum.get());
    }
}

/// A [`Histogram`] summed over workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Values per bucket (not cumulative); the last is +Inf.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// Sum of the values.
    pub sum: u64,
}

impl Distribution {
    /// Adds the values of another distribution.
    pub fn add(&mut self, other: &Distribution) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, n)| *sum += n);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The value below which the fraction `q` of all values lies, by linear interpolation in its bucket; `None`
    /// when there are no values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = q * count as f64;
        let mut below = 0.0;
        let mut lower = 0.0;
        for (bucket, n) in self.buckets.iter().enumerate() {
            let upper = BUCKETS.get(bucket).copied().unwrap_or(lower);
            let n = *n as f64;
            if n > 0.0 && below + n >= rank {
                return Some(lower + (upper - lower) * ((rank - below) / n).clamp(0.0, 1.0));
            }
            below += n;
            lower = upper;
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lands_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for value in [0, 1, 2, 5, 6, 4_000_000] {
            histogram.record(value);
        }
        let mut total = Distribution::default();
        histogram.add_to(&mut total);
        assert_eq!(&total.buckets[..4], &[1, 1, 2, 1]);
        assert_eq!(total.buckets[19], 1);
        assert_eq!((total.count(), total.sum), (6, 4_000_014));
    }

    #[test]
    fn quantiles_interpolate() {
        let mut total = Distribution::default();
        assert_eq!(total.quantile(0.5), None);
        total.buckets[4] = 10; // 10..25
        assert_eq!(total.quantile(0.0), Some(10.0));
        assert_eq!(total.quantile(1.0), Some(25.0));
    }
}
