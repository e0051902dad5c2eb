//! Rules across one Telemetry.

use super::{at_least_one, at_most_one};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{CustomTag, MetricSelector, TagOperation, TagOverride, Telemetry};

pub(crate) fn telemetry(telemetry: &Telemetry, decoder: &mut Decoder) {
    let selector = telemetry.selector.as_ref();
    super::policy::attachment(selector, telemetry.target_ref.as_ref(), &telemetry.target_refs, decoder);
    let help = "only the first one counts";
    if telemetry.tracing.len() > 1 {
        let message = "more than one entry of `tracing` is not looked at".to_owned();
        decoder.report_below("tracing[1]", &codes::DOUBTFUL, message, help);
    }
    for (index, tracing) in telemetry.tracing.iter().enumerate().filter(|(_, t)| t.providers.len() > 1) {
        let message = format!("spans go to one provider, and here are {}", tracing.providers.len());
        decoder.report_below(&format!("tracing[{index}].providers[1]"), &codes::DOUBTFUL, message, help);
    }
}

pub(crate) fn custom_tag(tag: &CustomTag, decoder: &mut Decoder) {
    let kinds = [
        ("literal", tag.literal.is_some()),
        ("environment", tag.environment.is_some()),
        ("header", tag.header.is_some()),
        ("formatter", tag.formatter.is_some()),
    ];
    at_least_one(decoder, &kinds);
    at_most_one(decoder, &kinds);
}

pub(crate) fn metric_selector(selector: &MetricSelector, decoder: &mut Decoder) {
    if selector.custom_metric.as_deref() == Some("") {
        decoder.report_below("customMetric", &codes::EMPTY, "the name of a metric is empty".to_owned(), "");
    }
    at_most_one(
        decoder,
        &[("metric", selector.metric.is_some()), ("customMetric", selector.custom_metric.is_some())],
    );
}

pub(crate) fn tag_override(change: &TagOverride, decoder: &mut Decoder) {
    let is_given = change.value.as_deref().is_some_and(|value| !value.is_empty());
    match change.operation.unwrap_or_default() {
        TagOperation::Upsert if !is_given => {
            let message = "operation UPSERT needs `value`".to_owned();
            decoder.report_below("value", &codes::MISSING_FIELD, message, "");
        }
        TagOperation::Remove if is_given => {
            let message = "operation REMOVE has no `value`".to_owned();
            decoder.report_below("value", &codes::CONFLICTING_FIELDS, message, "remove it");
        }
        _ => {}
    }
}
