//! Earliest deadline first: a weighted schedule in which each pick moves an item's deadline on by the reciprocal of its
//! weight.
//!
//! Source: Envoy's `EdfScheduler`. Envoy begins after a random number of picks, here every item begins at a random
//! part of its first period: the shares are the same, within one pick of each item.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use crate::random;

/// A schedule over items by number.
#[derive(Debug, Default)]
pub(crate) struct Edf {
    queue: BinaryHeap<Entry>,
    order: u64,
}

#[derive(Debug, PartialEq)]
struct Entry {
    deadline: f64,
    order: u64,
    item: u32,
}

impl Edf {
    /// A schedule over items with their weights, which are more than 0.
    pub(crate) fn new(items: impl IntoIterator<Item = (u32, f64)>) -> Edf {
        let mut order = 0;
        let entry = |(item, weight): (u32, f64)| {
            order += 1;
            Entry { deadline: random::part() / weight, order, item }
        };
        let queue: Vec<Entry> = items.into_iter().map(entry).collect();
        Edf { queue: queue.into(), order }
    }

    /// The item whose turn it is; `weight` says what it weighs from now on.
    pub(crate) fn pick(&mut self, weight: impl FnOnce(u32) -> f64) -> Option<u32> {
        let mut first = self.queue.peek_mut()?;
        self.order += 1;
        first.deadline += 1.0 / weight(first.item);
        first.order = self.order;
        let item = first.item;
        drop::<PeekMut<'_, Entry>>(first);
        Some(item)
    }
}

impl Eq for Entry {}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        // Reversed: the heap gives the greatest, the schedule wants the earliest.
        other.deadline.total_cmp(&self.deadline).then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_item_gets_its_share_within_a_pick(weights in prop::collection::vec(1_u32..20, 1..12)) {
            let total: u32 = weights.iter().sum();
            let rounds = 10;
            let mut edf = Edf::new(weights.iter().enumerate().map(|(i, w)| (i as u32, f64::from(*w))));
            let mut counts = vec![0_u32; weights.len()];
            for _ in 0..total * rounds {
                counts[edf.pick(|item| f64::from(weights[item as usize])).unwrap() as usize] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert!(count.abs_diff(weight * rounds) <= 1, "{counts:?} for {weights:?}");
            }
        }
    }

    #[test]
    fn nothing_has_no_turn() {
        assert_eq!(Edf::new([]).pick(|_| 1.0), None);
    }
}
