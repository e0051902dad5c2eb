//! The hash ring of `RING_HASH`: every host stands on it many times, a key goes to the next host behind its hash.
//!
//! Built exactly as Envoy's `RingHashLoadBalancer::Ring` builds its ring, so that both send a key to the same host.

use meltemi_compile::load_balancing::{HashFunction, RingHash};
use xxhash_rust::xxh64::xxh64;

use super::hashing::{Member, murmur_hash_2};

/// Sorted by hash; host `i` belongs to hash `i`. Apart from each other, so that a search reads only hashes.
#[derive(Debug)]
pub(crate) struct Ring {
    hashes: Box<[u64]>,
    hosts: Box<[u32]>,
    /// Fewest and most places of a host.
    pub(crate) per_host: (u64, u64),
}

impl Ring {
    /// The ring of these members, whose weights sum up to 1.
    pub(crate) fn new(members: &[Member], config: &RingHash) -> Ring {
        let Some(least) = members.iter().map(|member| member.weight).reduce(f64::min) else {
            return Ring { hashes: Box::default(), hosts: Box::default(), per_host: (0, 0) };
        };
        // The lightest host gets a whole number of places.
        let scale =
            ((least * config.minimum_ring_size as f64).ceil() / least).min(config.maximum_ring_size as f64);
        let size = scale.ceil() as usize;
        let mut places = Vec::with_capacity(size);
        let mut per_host = (size as u64, 0);
        let mut key = Vec::new();
        // Running sums over all hosts: how many places there should be, and how many there are.
        let (mut target, mut current) = (0.0, 0.0);
        for member in members {
            key.clear();
            key.extend_from_slice(member.key.as_bytes());
            key.push(b'_');
            let prefix = key.len();
            target += scale * member.weight;
            let mut place = 0_u64;
            while current < target {
                key.truncate(prefix);
                key.extend_from_slice(place.to_string().as_bytes());
                places.push((hash(config.function, &key), member.host));
                place += 1;
                current += 1.0;
            }
            per_host = (per_host.0.min(place), per_host.1.max(place));
        }
        places.sort_by_key(|(hash, _)| *hash);
        let (hashes, hosts): (Vec<u64>, Vec<u32>) = places.into_iter().unzip();
        Ring { hashes: hashes.into(), hosts: hosts.into(), per_host }
    }

    /// Places on it.
    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The host for a hash; further attempts go on along the ring.
    pub(crate) fn host(&self, hash: u64, attempt: u32) -> Option<u32> {
        if self.hashes.is_empty() {
            return None;
        }
        let at = self.hashes.partition_point(|place| *place < hash) + attempt as usize;
        Some(self.hosts[at % self.hosts.len()])
    }
}

fn hash(function: HashFunction, key: &[u8]) -> u64 {
    match function {
        HashFunction::XxHash => xxh64(key, 0),
        HashFunction::MurmurHash2 => murmur_hash_2(key),
    }
}
