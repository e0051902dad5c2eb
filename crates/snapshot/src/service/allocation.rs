//! Addresses for services that have none, so that their names can be resolved and their streams told apart.
//!
//! Source: Istio `pilot/pkg/serviceregistry/serviceentry/auto_allocation.go`: a place in the table by FNV-1a of
//! `namespace/host`, by double hashing where it is taken. The same set of services always gets the same addresses.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use meltemi_api::Spec;

use super::address::may_allocate;
use super::{AutoAddresses, Registry, Resolution, Service};

/// Places in the table, one for each address that may be given: no more services get one.
const PLACES: u32 = 256 * 254;
/// Of the second hash.
const PRIME: u32 = 65011;
/// Addresses of one third octet: .255 is left out.
const PER_OCTET: u32 = 255;

/// Gives addresses to the services that have none; those in the status of an object stay. In the order of their age.
pub(super) fn allocate(services: &mut [Service]) {
    let mut table: BTreeMap<u32, usize> = BTreeMap::new();
    for (index, service) in services.iter().enumerate().filter(|(_, service)| wants(service)) {
        if table.len() >= PLACES as usize {
            break;
        }
        table.insert(place(&key(service), &table), index);
    }
    let mut known: BTreeMap<String, AutoAddresses> = BTreeMap::new();
    let mut skipped = 0;
    for (place, index) in table {
        let mut number = place + 1 + skipped;
        if number.is_multiple_of(PER_OCTET) {
            skipped += 1;
            number += 1;
        }
        let service = &mut services[index];
        let addresses = *known.entry(key(service)).or_insert_with(|| addresses(number));
        if service.auto_addresses.is_empty() {
            service.auto_addresses = addresses;
        }
    }
}

fn wants(service: &Service) -> bool {
    let Spec::ServiceEntry(spec) = &service.object.spec else { return false };
    service.registry == Registry::External
        && may_allocate(&service.object, spec)
        && !service.host.is_wildcard()
        && service.resolution != Resolution::Passthrough
}

fn key(service: &Service) -> String {
    format!("{}/{}", service.namespace, service.host)
}

/// The first free place of a key. There is one: the caller has counted.
fn place(key: &str, taken: &BTreeMap<u32, usize>) -> u32 {
    let sum = fnv1a(key.as_bytes());
    let first = sum % PLACES;
    if !taken.contains_key(&first) {
        return first;
    }
    let step = PRIME - sum % PRIME;
    let at = |round: u32| sum.wrapping_add(round.wrapping_mul(step)) % (PLACES - 1);
    let free = (1..PLACES).map(at).find(|place| !taken.contains_key(place));
    // The steps may come round before they have met every place.
    free.or_else(|| (0..PLACES).find(|place| !taken.contains_key(place))).unwrap_or(first)
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// `240.240.A.B` and `2001:2::f0f0:AB`, with A and B written one after the other.
fn addresses(number: u32) -> AutoAddresses {
    let (third, fourth) = (number / PER_OCTET, number % PER_OCTET);
    let octet = |value: u32| u8::try_from(value).ok();
    let v4 = octet(third).zip(octet(fourth)).map(|(a, b)| Ipv4Addr::new(240, 240, a, b));
    let tail = if third == 0 { format!("{fourth:x}") } else { format!("{third:x}{fourth:x}") };
    let v6 = format!("2001:2::f0f0:{tail}").parse::<Ipv6Addr>().ok();
    AutoAddresses { v4, v6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_addresses() {
        let text = |number| {
            let found = addresses(number);
            format!("{} {}", found.v4.expect("IPv4"), found.v6.expect("IPv6"))
        };
        assert_eq!(text(1), "240.240.0.1 2001:2::f0f0:1");
        assert_eq!(text(254), "240.240.0.254 2001:2::f0f0:fe");
        assert_eq!(text(256), "240.240.1.1 2001:2::f0f0:11");
    }

    #[test]
    fn a_taken_place_leads_to_another() {
        let first = place("shop/a.example", &BTreeMap::new());
        let taken = BTreeMap::from([(first, 0)]);
        let second = place("shop/a.example", &taken);
        assert_ne!(first, second);
        assert!(second < PLACES);
    }
}
