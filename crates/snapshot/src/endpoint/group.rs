//! Workloads of one namespace, found by their labels. A mesh has about as many selectors as workloads, so that looking at
//! every workload for every selector would grow with the square of the mesh.

use std::collections::BTreeMap;

use super::workload::Workload;
use crate::config::labels_match;

/// Workloads, each with whether it gets traffic.
#[derive(Default)]
pub(super) struct Group {
    workloads: Vec<(bool, Workload)>,
    /// Positions by key and value of a label.
    by_label: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
}

impl Group {
    /// Adds a workload, and says its position.
    pub(super) fn push(&mut self, is_ready: bool, workload: Workload) -> usize {
        let position = self.workloads.len();
        for (key, value) in workload.labels() {
            match self.by_label.get_mut(key).and_then(|values| values.get_mut(value)) {
                Some(positions) => positions.push(position),
                None => {
                    let values = self.by_label.entry(key.clone()).or_default();
                    values.insert(value.clone(), vec![position]);
                }
            }
        }
        self.workloads.push((is_ready, workload));
        position
    }

    pub(super) fn get(&self, position: usize) -> Option<&Workload> {
        self.workloads.get(position).map(|(_, workload)| workload)
    }

    /// Those that a selector finds, in the order in which they came; an empty one finds none.
    pub(super) fn select(
        &self,
        selector: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = &(bool, Workload)> {
        let with = |(key, value): (&String, &String)| {
            self.by_label.get(key).and_then(|values| values.get(value)).map_or(&[][..], Vec::as_slice)
        };
        let fewest = selector.iter().map(with).min_by_key(|positions| positions.len()).unwrap_or_default();
        let candidates = fewest.iter().filter_map(|position| self.workloads.get(*position));
        candidates.filter(|(_, workload)| labels_match(selector, workload.labels()))
    }
}
