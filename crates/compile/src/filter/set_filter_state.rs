//! Objects of filter state from substitution formats.
//!
//! Source: `envoy.extensions.filters.http.set_filter_state.v3.Config` and
//! `envoy.extensions.filters.common.set_filter_state.v3`. The objects themselves are the proxy's; what counts here is
//! which texts they can be made from.

use std::sync::Arc;

use meltemi_envoy::config::core::v3::SubstitutionFormatString;
use meltemi_envoy::config::core::v3::substitution_format_string::Format as Specifier;
use meltemi_envoy::extensions::filters::common::set_filter_state::v3 as common;
use meltemi_envoy::extensions::filters::common::set_filter_state::v3::filter_state_value::{
    Key, SharedWithUpstream, Value,
};
use meltemi_envoy::extensions::filters::http::set_filter_state::v3::Config;

use super::{Effect, Levels, RouteFilterConfig, Verdict};
use crate::format::Format;
use crate::ledger::{At, harmless, refuse};
use crate::scalar::inline_data;

/// The configuration.
#[derive(Debug)]
pub struct SetFilterState {
    /// `on_request_headers`, in order.
    pub on_request_headers: Vec<ObjectValue>,
    /// `clear_route_cache`: the route is looked for again.
    pub clear_route_cache: bool,
}

/// One object.
#[derive(Debug, Clone)]
pub struct ObjectValue {
    /// `object_key`.
    pub key: Arc<str>,
    /// What it is made from.
    pub value: Format,
    /// Operators without a value give nothing, instead of `-`.
    pub omit_empty: bool,
    /// `shared_with_upstream`.
    pub sharing: ObjectSharing,
    /// `skip_if_empty`.
    pub skip_if_empty: bool,
    /// What texts the factory takes.
    pub kind: ObjectKind,
}

/// `shared_with_upstream`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ObjectSharing {
    /// Not shared.
    #[default]
    None,
    /// With the upstream connection.
    Once,
    /// Over internal listeners too.
    Transitive,
}

/// What the factory of an object makes of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// The text as it is.
    Text,
    /// The text as it is, which hash policies may read.
    HashableText,
    /// A whole number.
    Number,
    /// An IP address.
    Ip,
}

impl ObjectKind {
    /// Whether an object can be made of a text; Envoy drops those that cannot.
    pub fn takes(self, text: &str) -> bool {
        match self {
            ObjectKind::Text | ObjectKind::HashableText => true,
            ObjectKind::Number => text.parse::<u64>().is_ok(),
            ObjectKind::Ip => text.parse::<std::net::IpAddr>().is_ok(),
        }
    }

    /// The factories of Envoy that are known here, by name.
    fn by_factory(name: &str) -> Option<ObjectKind> {
        Some(match name {
            "envoy.string"
            | "envoy.tcp_proxy.cluster"
            | "envoy.network.upstream_server_name"
            | "envoy.network.upstream_subject_alt_names"
            | "envoy.network.application_protocols" => ObjectKind::Text,
            "envoy.hashable_string" => ObjectKind::HashableText,
            "envoy.ratelimit.hits_addend" | "envoy.tcp_proxy.per_connection_idle_timeout_ms" => {
                ObjectKind::Number
            }
            "envoy.network.ip" => ObjectKind::Ip,
            _ => return None,
        })
    }
}

impl SetFilterState {
    /// The listener's objects, then those of the most specific level of the route that has any.
    pub fn all<'a>(
        &'a self,
        name: &'a str,
        levels: &Levels<'a>,
    ) -> impl Iterator<Item = &'a SetFilterState> + use<'a> {
        let of_route = levels.all(name).find_map(|config| match config {
            RouteFilterConfig::SetFilterState(config) => Some(&**config),
            _ => None,
        });
        std::iter::once(self).chain(of_route)
    }

    /// Asks for the objects.
    pub(super) fn decode(&self, name: &str, levels: &Levels<'_>) -> Verdict {
        match self.all(name, levels).any(|config| !config.on_request_headers.is_empty()) {
            true => Verdict::Await(Effect::SetFilterState),
            false => Verdict::Continue,
        }
    }
}

/// Compiles the message, of the listener or of a route.
pub(super) fn compile(at: &At<'_>, message: &Config) -> SetFilterState {
    let Config { on_request_headers, clear_route_cache } = message;
    SetFilterState {
        on_request_headers: at.each("on_request_headers", on_request_headers, object_value),
        clear_route_cache: *clear_route_cache,
    }
}

/// Compiles one object; also for the network filter of the same name.
pub(crate) fn object_value(at: &At<'_>, message: &common::FilterStateValue) -> Option<ObjectValue> {
    let common::FilterStateValue { factory_key, read_only, shared_with_upstream, skip_if_empty, key, value } =
        message;
    harmless!(NotEnforced; read_only);
    let Some(Key::ObjectKey(key)) = key else { return at.field("object_key").none("must be set") };
    at.required("object_key", key);
    let factory = if factory_key.is_empty() { key } else { factory_key };
    let Some(kind) = ObjectKind::by_factory(factory) else {
        return at
            .field(if factory_key.is_empty() { "object_key" } else { "factory_key" })
            .none(format_args!("'{factory}' does not have an object factory that is supported"));
    };
    let Some(Value::FormatString(format)) = value else {
        return at.field("format_string").none("must be set");
    };
    let (value, omit_empty) = format_string(&at.field("format_string"), format)?;
    Some(ObjectValue {
        key: key.as_str().into(),
        value,
        omit_empty,
        sharing: match at.choice("shared_with_upstream", *shared_with_upstream)? {
            SharedWithUpstream::None => ObjectSharing::None,
            SharedWithUpstream::Once => ObjectSharing::Once,
            SharedWithUpstream::Transitive => ObjectSharing::Transitive,
        },
        skip_if_empty: *skip_if_empty,
        kind,
    })
}

fn format_string(at: &At<'_>, message: &SubstitutionFormatString) -> Option<(Format, bool)> {
    let SubstitutionFormatString { omit_empty_values, content_type, formatters, json_format_options, format } =
        message;
    refuse!(at; content_type, formatters, json_format_options);
    let (at, text) = match format {
        Some(Specifier::TextFormat(text)) => (at.field("text_format"), text.as_str()),
        Some(Specifier::TextFormatSource(source)) => {
            let at = at.field("text_format_source");
            match std::str::from_utf8(inline_data(&at, source)?) {
                Ok(text) => (at, text),
                Err(_) => return at.none("must be UTF-8"),
            }
        }
        Some(Specifier::JsonFormat(_)) => return at.field("json_format").none("not supported yet"),
        None => return at.none("a format must be set"),
    };
    match Format::parse(text) {
        Ok(format) => Some((format, *omit_empty_values)),
        Err(error) => at.none(error),
    }
}
