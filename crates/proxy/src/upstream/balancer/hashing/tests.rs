//! Tables by hash: shares by weight, stability when hosts go, bounded load. That they are Envoy's, host by host, is
//! shown against Envoy in `e2e`.

use std::cell::RefCell;

use meltemi_compile::load_balancing::{ConsistentHashing, HashFunction, Maglev, RingHash};
use proptest::prelude::*;
use xxhash_rust::xxh64::xxh64;

use super::*;

struct Idle;

impl Busy for Idle {
    fn on_host(&self, _: u32) -> u32 {
        0
    }
    fn on_cluster(&self) -> u32 {
        0
    }
}

fn ring(minimum_ring_size: u64, balance_factor: Option<u32>) -> LbPolicy {
    let hashing = ConsistentHashing { use_hostname: false, balance_factor };
    LbPolicy::RingHash(RingHash {
        function: HashFunction::XxHash,
        minimum_ring_size,
        maximum_ring_size: 8 << 20,
        hashing,
    })
}

fn maglev() -> LbPolicy {
    LbPolicy::Maglev(Maglev { table_size: 65537, hashing: ConsistentHashing::default() })
}

/// Hosts by number with their weights.
fn members(weights: impl IntoIterator<Item = (u32, u32)>) -> Vec<Member> {
    let weights: Vec<_> = weights.into_iter().collect();
    let sum: u32 = weights.iter().map(|(_, weight)| weight).sum();
    let member = |(host, weight): (u32, u32)| Member {
        host,
        key: format!("10.0.{}.{}:80", host / 256, host % 256),
        weight: f64::from(weight) / f64::from(sum),
    };
    weights.into_iter().map(member).collect()
}

fn keys() -> impl Iterator<Item = u64> {
    (0..10_000_u32).map(|key| xxh64(&key.to_le_bytes(), 0))
}

fn hosts(policy: &LbPolicy, members: &[Member]) -> Vec<u32> {
    let table = Hashing::new(policy, members).unwrap();
    keys().map(|key| table.host(key, 0, &Idle).unwrap()).collect()
}

#[test]
fn a_host_that_goes_takes_only_its_own_keys_along() {
    // With one host less, the others have some more places on the ring, and take each other's keys there.
    for (policy, most_moved) in [(ring(4096, None), 0.08), (maglev(), 0.02)] {
        let before = hosts(&policy, &members((0..20).map(|host| (host, 1))));
        let after = hosts(&policy, &members((0..20).filter(|host| *host != 7).map(|host| (host, 1))));
        let moved = before.iter().zip(&after).filter(|(before, after)| **before != 7 && before != after);
        let part = moved.count() as f64 / before.len() as f64;
        assert!(part <= most_moved, "{part} of the keys moved without need by {policy:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn keys_are_spread_by_weight(weights in prop::collection::vec(1_u32..6, 2..8)) {
        let sum: u32 = weights.iter().sum();
        let members = members((0..).zip(weights.iter().copied()));
        // Maglev fills its table by weight to within a place per round; the ring's arcs are as random as its hashes.
        for (policy, tolerance) in [(maglev(), 0.06), (ring(65536, None), 0.25)] {
            let found = hosts(&policy, &members);
            for (host, weight) in (0..).zip(&weights) {
                let expected = found.len() as f64 * f64::from(*weight) / f64::from(sum);
                let count = found.iter().filter(|found| **found == host).count() as f64;
                let noise = 4.0 * expected.sqrt();
                prop_assert!((count - expected).abs() <= expected * tolerance + noise, "{policy:?}: {count} for {expected}");
            }
        }
    }
}

#[test]
fn further_attempts_reach_other_hosts() {
    let members = members((0..5).map(|host| (host, 1)));
    for policy in [ring(1024, None), maglev()] {
        let table = Hashing::new(&policy, &members).unwrap();
        let first = table.host(42, 0, &Idle);
        assert!((1..20).any(|attempt| table.host(42, attempt, &Idle) != first));
    }
}

#[test]
fn without_hosts_there_is_none() {
    for policy in [ring(1024, None), maglev()] {
        assert_eq!(Hashing::new(&policy, &[]).unwrap().host(1, 0, &Idle), None);
    }
    assert!(Hashing::new(&LbPolicy::Random, &[]).is_none());
}

/// Requests that never end.
#[derive(Default)]
struct Filling(RefCell<Vec<u32>>);

impl Busy for Filling {
    fn on_host(&self, host: u32) -> u32 {
        self.0.borrow().iter().filter(|other| **other == host).count() as u32
    }
    fn on_cluster(&self) -> u32 {
        self.0.borrow().len() as u32
    }
}

#[test]
fn no_host_gets_much_more_than_the_balance_factor_allows() {
    let table = Hashing::new(&ring(1024, Some(120)), &members((0..4).map(|host| (host, 1)))).unwrap();
    let filling = Filling::default();
    for _ in 0..400 {
        // One key: without the bound all would go to one host.
        let host = table.host(7, 0, &filling).unwrap();
        filling.0.borrow_mut().push(host);
    }
    for host in 0..4 {
        let count = filling.on_host(host);
        assert!(count <= 122, "host {host} has {count} of 400");
    }
}

#[test]
fn murmur_hash_is_that_of_libstdcxx() {
    // std::hash<std::string> of libstdc++ on x86-64.
    let vectors: [(&[u8], u64); 5] = [
        (b"", 0x553e_9390_1e46_2a6e),
        (b"a", 0x454d_dee4_88c1_ed6b),
        (b"10.0.0.1:80_7", 0x8318_d8fc_1aa5_a2e0),
        (b"127.0.0.1:8080_12345", 0xd0b9_792c_202a_9344),
        (b"12345678", 0x8c5b_90a3_3a04_dca5),
    ];
    for (text, hash) in vectors {
        assert_eq!(murmur_hash_2(text), hash, "{text:?}");
    }
}
