//! What the policies by hash have in common: who stands in the table with which weight, and bounded load.
//!
//! Source: Envoy's `ThreadAwareLoadBalancerBase` and its `BoundedLoadHashingLoadBalancer`.

use meltemi_compile::load_balancing::LbPolicy;

use super::maglev::MaglevTable;
use super::mersenne::Mersenne;
use super::ring::Ring;

/// A host in a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    /// Its number.
    pub(crate) host: u32,
    /// What is hashed for it.
    pub(crate) key: String,
    /// Its part of the traffic; those of all members sum up to 1.
    pub(crate) weight: f64,
}

/// A table, and what bounded load needs.
#[derive(Debug)]
pub(crate) struct Hashing {
    table: Table,
    bound: Option<Bound>,
}

#[derive(Debug)]
enum Table {
    Ring(Ring),
    Maglev(MaglevTable),
}

#[derive(Debug)]
struct Bound {
    /// `hash_balance_factor`.
    percent: u32,
    /// Hosts with their weights.
    weights: Box<[(u32, f64)]>,
}

/// Who knows how busy hosts are.
pub(crate) trait Busy {
    /// Requests under way on a host.
    fn on_host(&self, host: u32) -> u32;
    /// Requests under way in the cluster.
    fn on_cluster(&self) -> u32;
}

impl Hashing {
    /// The table of a policy; `None` when the policy has none.
    pub(crate) fn new(policy: &LbPolicy, members: &[Member]) -> Option<Hashing> {
        let (table, hashing) = match policy {
            LbPolicy::RingHash(config) => (Table::Ring(Ring::new(members, config)), config.hashing),
            LbPolicy::Maglev(config) => (Table::Maglev(MaglevTable::new(members, config)), config.hashing),
            _ => return None,
        };
        let bound = hashing.balance_factor.map(|percent| Bound {
            percent,
            weights: members.iter().map(|member| (member.host, member.weight)).collect(),
        });
        Some(Hashing { table, bound })
    }

    /// The host for a hash.
    pub(crate) fn host(&self, hash: u64, attempt: u32, busy: &impl Busy) -> Option<u32> {
        let host = match &self.table {
            Table::Ring(ring) => ring.host(hash, attempt),
            Table::Maglev(table) => table.host(hash, attempt),
        }?;
        match &self.bound {
            None => Some(host),
            Some(bound) => Some(bound.host(hash, host, busy)),
        }
    }

    /// Its statistics under their names below `cluster.<name>`.
    pub(crate) fn sizes(&self) -> Vec<(&'static str, u64)> {
        match &self.table {
            Table::Ring(ring) => vec![
                ("ring_hash_lb.size", ring.len() as u64),
                ("ring_hash_lb.min_hashes_per_host", ring.per_host.0),
                ("ring_hash_lb.max_hashes_per_host", ring.per_host.1),
            ],
            Table::Maglev(table) => vec![
                ("maglev_lb.min_entries_per_host", table.per_host.0),
                ("maglev_lb.max_entries_per_host", table.per_host.1),
            ],
        }
    }
}

impl Bound {
    /// The host itself while it has not more than its part; else one at random, always the same for a hash, that has
    /// not; else the least overloaded.
    fn host(&self, hash: u64, host: u32, busy: &impl Busy) -> u32 {
        let weight = self.weights.iter().find(|(other, _)| *other == host).map_or(0.0, |(_, weight)| *weight);
        let mut least = (host, self.overload(host, weight, busy));
        if least.1 <= 1.0 {
            return host;
        }
        let mut random = Mersenne::new(hash as u32);
        let mut order: Vec<u32> = (0..self.weights.len() as u32).collect();
        for i in 0..order.len() {
            let j = i + random.below((order.len() - i) as u32) as usize;
            order.swap(i, j);
            let (other, weight) = self.weights[order[i] as usize];
            if other == host {
                continue;
            }
            let overload = self.overload(other, weight, busy);
            if overload <= 1.0 {
                return other;
            }
            if overload < least.1 {
                least = (other, overload);
            }
        }
        least.0
    }

    fn overload(&self, host: u32, weight: f64, busy: &impl Busy) -> f64 {
        let slots = (busy.on_cluster().wrapping_add(1).wrapping_mul(self.percent).wrapping_add(99)) / 100;
        let slots = (f64::from(slots) * weight).ceil().max(1.0);
        f64::from(busy.on_host(host)) / slots
    }
}

/// The 64-bit MurmurHash2 with the seed of libstdc++'s `std::hash`.
pub(crate) fn murmur_hash_2(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0xc70f_6907;
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mix = |word: u64| {
        let word = word.wrapping_mul(MULTIPLIER);
        (word ^ (word >> SHIFT)).wrapping_mul(MULTIPLIER)
    };
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = (hash ^ mix(u64::from_le_bytes(*word))).wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> SHIFT)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> SHIFT)
}

#[cfg(test)]
mod tests;
