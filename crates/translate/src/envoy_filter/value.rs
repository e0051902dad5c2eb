//! The value of a patch: the message that it has to be, and the extensions in it.

use meltemi_api::istio::{ApplyTo, EnvoyConfigObjectPatch};
use prost::Name;
use serde_json::Value as Json;

use meltemi_envoy::config::bootstrap::v3::Bootstrap;
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::core::v3::TypedExtensionConfig;
use meltemi_envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use meltemi_envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

/// The key that says which message an `Any` holds.
const TYPE: &str = "@type";

/// A message that stands for another one, which its `type_url` names.
const TYPED_STRUCT: &str = "TypedStruct";

/// The value as JSON.
pub(super) fn json(wire: &EnvoyConfigObjectPatch) -> Option<Json> {
    let value = wire.patch.as_ref()?.value.as_ref()?;
    Some(Json::Object(value.0.clone()))
}

/// The name of the message that the value is; `None` where nothing is patched.
pub(super) fn message(apply_to: ApplyTo) -> Option<String> {
    Some(match apply_to {
        ApplyTo::Invalid => return None,
        ApplyTo::Bootstrap => Bootstrap::full_name(),
        ApplyTo::Listener => Listener::full_name(),
        ApplyTo::ListenerFilter => ListenerFilter::full_name(),
        ApplyTo::FilterChain => FilterChain::full_name(),
        ApplyTo::NetworkFilter => Filter::full_name(),
        ApplyTo::HttpFilter => HttpFilter::full_name(),
        ApplyTo::RouteConfiguration => RouteConfiguration::full_name(),
        ApplyTo::VirtualHost => VirtualHost::full_name(),
        ApplyTo::HttpRoute => Route::full_name(),
        ApplyTo::Cluster => Cluster::full_name(),
        ApplyTo::ExtensionConfig => TypedExtensionConfig::full_name(),
    })
}

/// Messages that are no extension's.
const COMMON: &str = "google.protobuf.";

/// The names of all messages of extensions that are packed in the value.
pub(super) fn types(wire: &EnvoyConfigObjectPatch) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(value) = json(wire) {
        collect(&value, &mut found);
    }
    found.retain(|name| !name.starts_with(COMMON));
    found
}

fn collect(json: &Json, found: &mut Vec<String>) {
    match json {
        Json::Object(fields) => {
            let text = |key: &str| fields.get(key).and_then(Json::as_str).map(name);
            match text(TYPE) {
                Some(outer) if outer.ends_with(TYPED_STRUCT) => {
                    let inner = text("type_url").or_else(|| text("typeUrl")).unwrap_or(outer);
                    found.push(inner.to_owned());
                }
                Some(outer) => {
                    found.push(outer.to_owned());
                    fields.values().for_each(|value| collect(value, found));
                }
                None => fields.values().for_each(|value| collect(value, found)),
            }
        }
        Json::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}
