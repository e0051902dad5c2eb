//! Rules across one DestinationRule.

use super::unique;
use crate::decode::Decoder;
use crate::istio::{DestinationRule, TrafficPolicy};

pub(crate) fn destination_rule(rule: &DestinationRule, decoder: &mut Decoder) {
    let names = rule.subsets.iter().map(|subset| subset.name.as_str()).enumerate();
    unique(decoder, names.filter(|(_, name)| !name.is_empty()), |index| format!("subsets[{index}].name"));
    ports(rule.traffic_policy.as_ref(), "trafficPolicy", decoder);
    for (index, subset) in rule.subsets.iter().enumerate() {
        ports(subset.traffic_policy.as_ref(), &format!("subsets[{index}].trafficPolicy"), decoder);
    }
}

fn ports(policy: Option<&TrafficPolicy>, field: &str, decoder: &mut Decoder) {
    let settings = policy.map_or(&[][..], |policy| &policy.port_level_settings);
    let numbers = settings.iter().map(|setting| setting.port.number).enumerate();
    unique(decoder, numbers, |index| format!("{field}.portLevelSettings[{index}].port.number"));
}
