//! Rules across the settings of a load balancer.

use std::collections::BTreeMap;

use super::{at_most_one, unique};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{
    ConsistentHashLb, Distribute, Failover, HashCookie, LoadBalancerSettings, LocalityLbSetting, Maglev,
    OutlierDetection, ZoneAwareLbSetting,
};

/// Labels that say where something runs.
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";

/// What the weights of one `distribute` add up to.
const WHOLE: u64 = 100;

pub(crate) fn load_balancer(settings: &LoadBalancerSettings, decoder: &mut Decoder) {
    at_most_one(
        decoder,
        &[("simple", settings.simple.is_some()), ("consistentHash", settings.consistent_hash.is_some())],
    );
    at_most_one(
        decoder,
        &[
            ("localityLbSetting", settings.locality_lb_setting.is_some()),
            ("zoneAwareLbSetting", settings.zone_aware_lb_setting.is_some()),
        ],
    );
    if settings.warmup.is_some() && settings.warmup_duration_secs.is_some() {
        let message = "`warmup` counts, and not its old form `warmupDurationSecs`".to_owned();
        decoder.report_below("warmupDurationSecs", &codes::NO_USE, message, "remove it");
    }
}

pub(crate) fn consistent_hash(hash: &ConsistentHashLb, decoder: &mut Decoder) {
    at_most_one(
        decoder,
        &[
            ("httpHeaderName", hash.http_header_name.is_some()),
            ("httpCookie", hash.http_cookie.is_some()),
            ("useSourceIp", hash.use_source_ip.is_some()),
            ("httpQueryParameterName", hash.http_query_parameter_name.is_some()),
        ],
    );
    at_most_one(
        decoder,
        &[
            ("ringHash", hash.ring_hash.is_some()),
            ("maglev", hash.maglev.is_some()),
            ("minimumRingSize", hash.minimum_ring_size.is_some_and(|size| size != 0)),
        ],
    );
    if hash.minimum_ring_size.is_some_and(|size| size != 0) {
        let message = "`minimumRingSize` is deprecated here".to_owned();
        let help = "write `ringHash: {minimumRingSize: …}`";
        decoder.report_below("minimumRingSize", &codes::DEPRECATED, message, help);
    }
}

pub(crate) fn hash_cookie(cookie: &HashCookie, decoder: &mut Decoder) {
    let names = cookie.attributes.iter().map(|attribute| attribute.name.as_str()).enumerate();
    unique(decoder, names.filter(|(_, name)| !name.is_empty()), |index| format!("attributes[{index}].name"));
}

pub(crate) fn maglev(maglev: &Maglev, decoder: &mut Decoder) {
    if maglev.table_size.is_none() {
        let message = "`maglev` needs `tableSize`".to_owned();
        decoder.report_below("tableSize", &codes::MISSING_FIELD, message, "write a prime such as 65537");
    }
}

pub(crate) fn locality_lb_setting(setting: &LocalityLbSetting, decoder: &mut Decoder) {
    at_most_one(
        decoder,
        &[("distribute", !setting.distribute.is_empty()), ("failover", !setting.failover.is_empty())],
    );
    let topology = [REGION, ZONE, SUBZONE];
    for (index, label) in setting.failover_priority.iter().enumerate() {
        if !setting.failover.is_empty() && topology.contains(&label.as_str()) {
            let message = format!("`failover` and the label `{label}` exclude each other");
            let field = format!("failoverPriority[{index}]");
            decoder.report_below(&field, &codes::CONFLICTING_FIELDS, message, "keep one of them");
        }
    }
    let from = setting.distribute.iter().map(|entry| entry.from.as_str()).enumerate();
    disjoint(from, |index| format!("distribute[{index}].from"), decoder);
}

pub(crate) fn distribute(entry: &Distribute, decoder: &mut Decoder) {
    let field = |locality: &str| {
        let mut field = "to".to_owned();
        crate::span::push_key(&mut field, locality);
        field
    };
    for locality in entry.to.keys() {
        if let Err(flaw) = crate::syntax::locality(locality) {
            decoder.report_below(&field(locality), flaw.code, flaw.message, &flaw.help);
        }
    }
    let names: Vec<&str> = entry.to.keys().map(String::as_str).collect();
    disjoint(names.iter().copied().enumerate(), |index| field(names[index]), decoder);
    let sum: u64 = entry.to.values().map(|weight| u64::from(*weight)).sum();
    if sum != WHOLE {
        let message = format!("the weights add up to {sum}");
        decoder.report_below("to", &codes::OUT_OF_RANGE, message, "they are percentages: 100 together");
    }
}

pub(crate) fn failover(entry: &Failover, decoder: &mut Decoder) {
    if entry.from == entry.to {
        let message = format!("the region `{}` cannot stand in for itself", entry.to);
        decoder.report_below("to", &codes::CONFLICTING_FIELDS, message, "name another region");
    }
}

pub(crate) fn zone_aware_lb_setting(setting: &ZoneAwareLbSetting, decoder: &mut Decoder) {
    for (index, label) in setting.failover_priority.iter().enumerate() {
        if [REGION, ZONE, SUBZONE].contains(&label.as_str()) {
            let message = format!("`{label}` is looked at without being named");
            let field = format!("failoverPriority[{index}]");
            decoder.report_below(&field, &codes::CONFLICTING_FIELDS, message, "remove it");
        }
    }
}

/// Reports a failover that never happens: without outlier detection no endpoint is known to be down.
pub(super) fn failover_without_detection(
    load_balancer: Option<&LoadBalancerSettings>,
    detection: Option<&OutlierDetection>,
    field: &str,
    decoder: &mut Decoder,
) {
    let Some(settings) = load_balancer.filter(|_| detection.is_none()) else { return };
    let fails_over =
        |failover: &[Failover], priority: &[String]| !failover.is_empty() || !priority.is_empty();
    let locality = settings.locality_lb_setting.as_ref();
    let zone_aware = settings.zone_aware_lb_setting.as_ref();
    let set = [
        ("localityLbSetting", locality.is_some_and(|s| fails_over(&s.failover, &s.failover_priority))),
        ("zoneAwareLbSetting", zone_aware.is_some_and(|s| fails_over(&s.failover, &s.failover_priority))),
    ];
    for (name, _) in set.iter().filter(|(_, is_set)| *is_set) {
        let message =
            "nothing fails over without `outlierDetection`: no endpoint is known to be down".to_owned();
        let field = format!("{field}.loadBalancer.{name}");
        decoder.report_below(&field, &codes::NO_USE, message, "add `outlierDetection`, even an empty one");
    }
}

/// Reports localities of which one holds another; a `*` that comes last is for the rest.
fn disjoint<'a>(
    localities: impl Iterator<Item = (usize, &'a str)>,
    field: impl Fn(usize) -> String,
    decoder: &mut Decoder,
) {
    let mut known: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (index, locality) in localities {
        let parts: Vec<&str> = locality.split('/').filter(|part| *part != "*").collect();
        let overlapping = known.iter().find(|(_, earlier)| {
            let shared = earlier.len().min(parts.len());
            earlier[..shared] == parts[..shared] && (earlier.is_empty() || !parts.is_empty())
        });
        if let Some((earlier, _)) = overlapping {
            let message = format!("`{locality}` overlaps with {}", field(*earlier));
            decoder.report_below(
                &field(index),
                &codes::CONFLICTING_FIELDS,
                message,
                "name each locality once",
            );
        }
        known.insert(index, parts);
    }
}
