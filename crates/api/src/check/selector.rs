//! Rules of selectors of workloads.

use super::label_keys;
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{PodSelector, WorkloadSelector};

pub(crate) fn pod_selector(selector: &PodSelector, decoder: &mut Decoder) {
    label_keys(&selector.match_labels, "matchLabels", decoder);
    without_labels(selector.match_labels.is_empty(), decoder);
}

pub(crate) fn workload_selector(selector: &WorkloadSelector, decoder: &mut Decoder) {
    label_keys(&selector.labels, "labels", decoder);
    without_labels(selector.labels.is_empty(), decoder);
}

/// A selector that is there and names no label selects everything, which is better said by leaving it out.
fn without_labels(is_empty: bool, decoder: &mut Decoder) {
    if is_empty {
        let message = "the selector has no labels, so it selects every workload".to_owned();
        decoder.report_below("", &codes::DOUBTFUL, message, "name labels, or remove it");
    }
}
