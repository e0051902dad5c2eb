//! Constructors for the Envoy messages that occur everywhere.

use std::time::Duration;

use meltemi_api::Object;
use meltemi_envoy::Any;
use meltemi_envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Metadata, SocketAddress, address,
    config_source, socket_address,
};
use prost_types::value::Kind;
use prost_types::{Struct, Value};

/// No time limit, where Envoy reads zero as that.
pub(crate) const UNLIMITED: prost_types::Duration = prost_types::Duration { seconds: 0, nanos: 0 };

/// The namespace of Istio's metadata on clusters, endpoints and routes.
const ISTIO_METADATA: &str = "istio";

pub(crate) fn duration(value: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(value.as_secs()).unwrap_or(i64::MAX);
    // Below 10^9, so it fits.
    prost_types::Duration { seconds, nanos: value.subsec_nanos() as i32 }
}

pub(crate) fn socket(host: &str, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: host.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

/// Resources come over the stream that names them, and starting waits for them.
pub(crate) fn ads() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: Some(UNLIMITED),
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    }
}

pub(crate) fn text(value: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

pub(crate) fn boolean(value: bool) -> Value {
    Value { kind: Some(Kind::BoolValue(value)) }
}

pub(crate) fn list(values: impl IntoIterator<Item = Value>) -> Value {
    Value { kind: Some(Kind::ListValue(prost_types::ListValue { values: values.into_iter().collect() })) }
}

pub(crate) fn fields<const N: usize>(entries: [(&str, Value); N]) -> Struct {
    Struct { fields: entries.map(|(k, v)| (k.to_owned(), v)).into() }
}

pub(crate) fn structure<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value { kind: Some(Kind::StructValue(fields(entries))) }
}

/// `filter_metadata.istio`.
pub(crate) fn istio_metadata(value: Struct) -> Metadata {
    Metadata { filter_metadata: [(ISTIO_METADATA.to_owned(), value)].into(), ..Default::default() }
}

/// Metadata that names the object that something comes from.
pub(crate) fn config_metadata(object: &Object) -> Metadata {
    istio_metadata(fields([("config", text(config_path(object)))]))
}

/// The path under which Istio names the object that a route or cluster comes from.
pub(crate) fn config_path(object: &Object) -> String {
    let id = &object.id;
    let kind = kebab(id.kind.as_str());
    format!("/apis/{}/v1/namespaces/{}/{kind}/{}", id.kind.group(), id.namespace, id.name)
}

fn kebab(camel: &str) -> String {
    let mut out = String::new();
    for (i, c) in camel.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// An `Any` of a message without fields set.
pub(crate) fn packed<M: prost::Name + Default>() -> Any {
    Any::pack(&M::default())
}
