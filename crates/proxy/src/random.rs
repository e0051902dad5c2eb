//! Random numbers of a worker: routing points, jitter, balancing, request ids.
//!
//! A xorshift generator per thread, seeded from the hasher keys of the standard library (which come from the
//! kernel). Good enough for spreading load and for ids that must be unique; nothing secret is made from it.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    static STATE: Cell<[u64; 2]> = Cell::new(seed());
}

fn seed() -> [u64; 2] {
    let (a, b) = (RandomState::new().hash_one(1_u64), RandomState::new().hash_one(2_u64));
    [a | 1, b]
}

/// The next number (xoroshiro128+).
pub(crate) fn next() -> u64 {
    STATE.with(|state| {
        let [a, mut b] = state.get();
        let sum = a.wrapping_add(b);
        b ^= a;
        state.set([a.rotate_left(24) ^ b ^ (b << 16), b.rotate_left(37)]);
        sum
    })
}

/// A number below `bound`; 0 when the bound is 0.
pub(crate) fn below(bound: usize) -> usize {
    // The product's high half spreads evenly, without a division.
    ((u128::from(next()) * bound as u128) >> 64) as usize
}

/// A number above 0, and 1 at most.
pub(crate) fn part() -> f64 {
    const BITS: u32 = 53;
    ((next() >> (u64::BITS - BITS)) + 1) as f64 / (1_u64 << BITS) as f64
}

/// A UUID version 4 in its text form.
pub(crate) fn uuid() -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut raw = [0_u8; 16];
    raw[..8].copy_from_slice(&next().to_ne_bytes());
    raw[8..].copy_from_slice(&next().to_ne_bytes());
    raw[6] = raw[6] & 0x0f | 0x40;
    raw[8] = raw[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in raw.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    text
}

/// How often a test that counts instructions repeats what it counts; set by `scripts/bench-micro`.
#[cfg(test)]
pub(crate) fn micro_iterations() -> usize {
    std::env::var("MICRO_ITERATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_the_shape_of_version_4() {
        let text = String::from_utf8(uuid().to_vec()).unwrap();
        let parts: Vec<&str> = text.split('-').collect();
        assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(parts[2].starts_with('4') && matches!(&parts[3][..1], "8" | "9" | "a" | "b"));
        assert_ne!(uuid(), uuid());
    }

    /// How often a share of the points of many requests comes up, against its mean and standard deviation.
    fn deviation(total: u64, share: u64) -> f64 {
        const REQUESTS: u32 = 200_000;
        let hits = (0..REQUESTS).filter(|_| next() % total < share).count() as f64;
        let (n, p) = (f64::from(REQUESTS), share as f64 / total as f64);
        (hits - n * p) / (n * p * (1.0 - p)).sqrt()
    }

    #[test]
    fn the_points_of_fractions_and_weights_are_even() {
        // Five standard deviations: one run in two million fails by chance.
        for (total, share) in [(1_000_000, 100_000), (1_000_000, 500), (100, 10), (6, 1), (6, 3), (3, 2)] {
            let deviation = deviation(total, share);
            assert!(deviation.abs() < 5.0, "{share} of {total}: {deviation} standard deviations");
        }
    }

    #[test]
    fn below_stays_below_and_reaches_every_number() {
        let mut seen = [0_u32; 7];
        (0..7000).for_each(|_| seen[below(7)] += 1);
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
        assert_eq!(below(0), 0);
    }
}
