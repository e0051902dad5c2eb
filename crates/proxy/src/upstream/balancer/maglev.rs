//! The table of `MAGLEV`: every host fills places of a table of prime size in an order of its own.
//!
//! Built exactly as Envoy's `MaglevTable` builds its table, so that both send a key to the same host. Source: the
//! paper "Maglev: A Fast and Reliable Software Network Load Balancer", listing 1.

use meltemi_compile::load_balancing::Maglev;
use xxhash_rust::xxh64::xxh64;

use super::hashing::Member;

/// Hosts by place.
#[derive(Debug)]
pub(crate) struct MaglevTable {
    places: Box<[u32]>,
    /// Fewest and most places of a host.
    pub(crate) per_host: (u64, u64),
}

/// A host while the table is filled.
struct Filler<'m> {
    member: &'m Member,
    /// Its first place, and the step to the next.
    offset: u64,
    skip: u64,
    /// How many steps it has gone.
    next: u64,
    /// The weight that must be reached for the next place.
    target: f64,
    count: u64,
}

/// No host yet.
const EMPTY: u32 = u32::MAX;

impl MaglevTable {
    /// The table of these members.
    pub(crate) fn new(members: &[Member], config: &Maglev) -> MaglevTable {
        if members.is_empty() {
            return MaglevTable { places: Box::default(), per_host: (0, 0) };
        }
        let size = u64::from(config.table_size);
        let most = members.iter().map(|member| member.weight).fold(0.0, f64::max);
        let mut sorted: Vec<&Member> = members.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        let mut fillers: Vec<Filler<'_>> = sorted
            .into_iter()
            .map(|member| Filler {
                member,
                offset: xxh64(member.key.as_bytes(), 0) % size,
                skip: xxh64(member.key.as_bytes(), 1) % (size - 1) + 1,
                next: 0,
                target: 0.0,
                count: 0,
            })
            .collect();
        let places = fill(&mut fillers, size, most);
        let counts = || fillers.iter().map(|filler| filler.count);
        let per_host = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
        MaglevTable { places, per_host }
    }

    /// The host for a hash; further attempts look elsewhere.
    pub(crate) fn host(&self, hash: u64, attempt: u32) -> Option<u32> {
        let size = self.places.len() as u64;
        if size == 0 {
            return None;
        }
        let hash = match attempt {
            0 => hash,
            attempt => hash ^ (u64::MAX - u64::from(attempt) + 1),
        };
        Some(self.places[(hash % size) as usize])
    }
}

/// Round after round, each host takes its next free place; a lighter host sits rounds out.
fn fill(fillers: &mut [Filler<'_>], size: u64, most: f64) -> Box<[u32]> {
    let mut places = vec![EMPTY; size as usize].into_boxed_slice();
    let mut taken = 0;
    for round in 1_u32.. {
        for filler in fillers.iter_mut() {
            if taken == size {
                return places;
            }
            if f64::from(round) * filler.member.weight < filler.target {
                continue;
            }
            filler.target += most;
            filler.take(&mut places, size);
            taken += 1;
        }
    }
    places
}

impl Filler<'_> {
    fn take(&mut self, places: &mut [u32], size: u64) {
        loop {
            let place = (self.offset + self.skip * self.next) % size;
            self.next += 1;
            if places[place as usize] == EMPTY {
                places[place as usize] = self.member.host;
                self.count += 1;
                return;
            }
        }
    }
}
