//! The `istio.stats` filter, HTTP and TCP: `stats.PluginConfig` in a `TypedStruct`.
//!
//! Source: <https://istio.io/latest/docs/reference/config/proxy_extensions/stats/>

use prost_types::value::Kind;

use crate::ledger::At;

/// Name of the configuration message.
pub(crate) const PLUGIN_CONFIG: &str = "stats.PluginConfig";

/// Checks the configuration: the standard metrics with the standard labels. Changes of them are refused.
/// `disable_host_header_fallback` may be either: `destination_service` always comes from the cluster.
pub(crate) fn check(at: &At<'_>, config: &prost_types::Struct) {
    for (name, value) in &config.fields {
        let is_default = matches!(
            (name.as_str(), &value.kind),
            ("disable_host_header_fallback", Some(Kind::BoolValue(_)))
                | ("debug", Some(Kind::BoolValue(false)))
                | (_, None | Some(Kind::NullValue(_)))
        );
        if !is_default {
            at.key("value", name).reject("not supported yet");
        }
    }
}
