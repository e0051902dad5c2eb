//! The small values that many messages share: durations, ports, addresses, fractions, header names and values.
//!
//! Bounds are those of the protocol buffers' validation rules in the Envoy API.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use meltemi_envoy::config::core::v3::address::Address as AddressKind;
use meltemi_envoy::config::core::v3::socket_address::{PortSpecifier, Protocol};
use meltemi_envoy::config::core::v3::{
    Address, CidrRange, RuntimeFractionalPercent, SocketAddress, data_source,
};
use meltemi_envoy::r#type::v3::FractionalPercent;
use meltemi_envoy::r#type::v3::fractional_percent::DenominatorType;
use prost::Message;

use crate::ledger::{At, harmless, refuse};

/// One whole, in parts per million.
pub(crate) const WHOLE_PPM: u32 = 1_000_000;

/// Digest of an encoded message. Equal messages have equal digests; that is all it is for.
pub(crate) fn digest(message: &impl Message) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&message.encode_to_vec())
}

impl At<'_> {
    /// A duration that is not negative; absent is `None`.
    pub(crate) fn duration(
        &self,
        field: &'static str,
        value: &Option<prost_types::Duration>,
    ) -> Option<Duration> {
        let value = (*value)?;
        match Duration::try_from(value) {
            Ok(duration) => Some(duration),
            Err(_) => self.field(field).none("must not be negative, and at most 10000 years"),
        }
    }

    /// A duration that is longer than 0; absent is `None`.
    pub(crate) fn positive(
        &self,
        field: &'static str,
        value: &Option<prost_types::Duration>,
    ) -> Option<Duration> {
        let duration = self.duration(field, value)?;
        if duration.is_zero() {
            return self.field(field).none("must be longer than 0");
        }
        Some(duration)
    }

    /// A timeout that 0 turns off.
    pub(crate) fn timeout(
        &self,
        field: &'static str,
        value: &Option<prost_types::Duration>,
        default: Option<Duration>,
    ) -> Option<Duration> {
        match self.duration(field, value) {
            Some(Duration::ZERO) => None,
            Some(timeout) => Some(timeout),
            None => default,
        }
    }

    /// A value of an enum of the protocol.
    pub(crate) fn choice<T: TryFrom<i32>>(&self, field: &'static str, value: i32) -> Option<T> {
        match T::try_from(value) {
            Ok(value) => Some(value),
            Err(_) => self.field(field).none(format_args!("unknown value {value}")),
        }
    }

    /// A port; 0 is allowed.
    pub(crate) fn port(&self, field: &'static str, value: u32) -> Option<u16> {
        match u16::try_from(value) {
            Ok(port) => Some(port),
            Err(_) => self.field(field).none(format_args!("{value} is not a port")),
        }
    }

    /// A number within bounds (inclusive), or its default.
    pub(crate) fn bounded(
        &self,
        field: &'static str,
        value: Option<u32>,
        default: u32,
        bounds: (u32, u32),
    ) -> u32 {
        let Some(number) = value else { return default };
        let (low, high) = bounds;
        if !(low..=high).contains(&number) {
            self.field(field).reject(format_args!("{number} is not between {low} and {high}"));
        }
        number
    }

    /// A string that must not be empty.
    pub(crate) fn required(&self, field: &'static str, value: &str) {
        if value.is_empty() {
            self.field(field).reject("must not be empty");
        }
    }

    /// A header name.
    pub(crate) fn header_name(&self, field: &'static str, value: &str) -> Option<HeaderName> {
        match HeaderName::try_from(value) {
            Ok(name) => Some(name),
            Err(_) => self.field(field).none(format_args!("{value:?} is not a header name")),
        }
    }

    /// A header value; empty is `None`.
    pub(crate) fn header_value(&self, field: &'static str, value: &str) -> Option<HeaderValue> {
        if value.is_empty() {
            return None;
        }
        match HeaderValue::try_from(value) {
            Ok(value) => Some(value),
            Err(_) => self.field(field).none(format_args!("{value:?} is not a header value")),
        }
    }
}

/// The address and port of a TCP socket by IP.
pub(crate) fn socket_addr(at: &At<'_>, address: &Option<Address>) -> Option<SocketAddr> {
    let (host, port) = host_port(at, address)?;
    match host.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, port)),
        Err(_) => at.field("socket_address").field("address").none(format_args!(
            "malformed IP address: {host}; a name needs a STRICT_DNS or LOGICAL_DNS cluster"
        )),
    }
}

/// The host (name or IP) and port of a TCP socket.
pub(crate) fn host_port<'m>(at: &At<'_>, address: &'m Option<Address>) -> Option<(&'m str, u16)> {
    let socket = match address.as_ref().and_then(|a| a.address.as_ref()) {
        Some(AddressKind::SocketAddress(socket)) => socket,
        Some(AddressKind::Pipe(_)) => return at.field("pipe").none("not supported yet"),
        Some(AddressKind::EnvoyInternalAddress(_)) => {
            return at.field("envoy_internal_address").none("not supported yet");
        }
        None => return at.none("must be set"),
    };
    let at = at.field("socket_address");
    let SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat,
        network_namespace_filepath,
        port_specifier,
    } = socket;
    refuse!(at; resolver_name, network_namespace_filepath, ipv4_compat);
    if at.choice::<Protocol>("protocol", *protocol)? != Protocol::Tcp {
        at.field("protocol").reject("not supported yet: only TCP");
    }
    at.required("address", address);
    let port = match port_specifier {
        Some(PortSpecifier::PortValue(port)) => at.port("port_value", *port)?,
        Some(PortSpecifier::NamedPort(_)) => return at.field("named_port").none("not supported yet"),
        None => return at.field("port_value").none("must be set"),
    };
    Some((address, port))
}

/// A range of addresses; the bits behind the prefix are dropped.
pub(crate) fn cidr(at: &At<'_>, range: &CidrRange) -> Option<IpNet> {
    let CidrRange { address_prefix, prefix_len } = range;
    let Ok(ip) = address_prefix.parse::<IpAddr>() else {
        return at.field("address_prefix").none(format_args!("malformed IP address: {address_prefix}"));
    };
    // Envoy reads an absent length as 0, not as a single address.
    match u8::try_from(prefix_len.unwrap_or(0)).ok().and_then(|len| IpNet::new(ip, len).ok()) {
        Some(net) => Some(net.trunc()),
        None => at.field("prefix_len").none("longer than the address"),
    }
}

/// A fraction in parts per million; more than a whole is a whole.
pub(crate) fn fraction_ppm(at: &At<'_>, percent: &FractionalPercent) -> u32 {
    let FractionalPercent { numerator, denominator } = percent;
    let per_unit = match at.choice("denominator", *denominator) {
        Some(DenominatorType::Hundred) | None => WHOLE_PPM / 100,
        Some(DenominatorType::TenThousand) => WHOLE_PPM / 10_000,
        Some(DenominatorType::Million) => 1,
    };
    numerator.saturating_mul(per_unit).min(WHOLE_PPM)
}

/// A fraction with a runtime key; absent is `None`.
pub(crate) fn runtime_fraction_ppm(at: &At<'_>, value: &Option<RuntimeFractionalPercent>) -> Option<u32> {
    let RuntimeFractionalPercent { default_value, runtime_key } = value.as_ref()?;
    harmless!(RuntimeKey; runtime_key);
    match default_value {
        Some(percent) => Some(fraction_ppm(&at.field("default_value"), percent)),
        None => at.field("default_value").none("must be set"),
    }
}

/// The inline bytes of a data source; files and environment variables are refused, since reading them is IO.
pub(crate) fn inline_data<'m>(
    at: &At<'_>,
    source: &'m meltemi_envoy::config::core::v3::DataSource,
) -> Option<&'m [u8]> {
    let meltemi_envoy::config::core::v3::DataSource { watched_directory, specifier } = source;
    refuse!(at; watched_directory);
    match specifier {
        Some(data_source::Specifier::InlineString(text)) => Some(text.as_bytes()),
        Some(data_source::Specifier::InlineBytes(bytes)) => Some(bytes),
        Some(data_source::Specifier::Filename(_)) => at.field("filename").none("not supported yet"),
        Some(data_source::Specifier::EnvironmentVariable(_)) => {
            at.field("environment_variable").none("not supported yet")
        }
        None => at.none("must be set"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    #[test]
    fn fractions_become_parts_per_million() {
        let ppm = |numerator, denominator: DenominatorType| {
            let percent = FractionalPercent { numerator, denominator: denominator.into() };
            Ledger::run("", |at| Some(fraction_ppm(at, &percent))).unwrap()
        };
        assert_eq!(ppm(50, DenominatorType::Hundred), 500_000);
        assert_eq!(ppm(1, DenominatorType::TenThousand), 100);
        assert_eq!(ppm(7, DenominatorType::Million), 7);
        assert_eq!(ppm(u32::MAX, DenominatorType::Hundred), WHOLE_PPM);
    }

    #[test]
    fn a_range_drops_host_bits_and_needs_a_fitting_length() {
        let parse = |text: &str, len| {
            let range = CidrRange { address_prefix: text.into(), prefix_len: len };
            Ledger::run("", |at| cidr(at, &range)).map(|net| net.to_string()).map_err(|e| e[0].path.clone())
        };
        assert_eq!(parse("10.1.2.3", Some(8)), Ok("10.0.0.0/8".into()));
        assert_eq!(parse("10.1.2.3", None), Ok("0.0.0.0/0".into()));
        assert_eq!(parse("10.1.2.3", Some(33)), Err("prefix_len".into()));
        assert_eq!(parse("10.1.2", Some(8)), Err("address_prefix".into()));
    }
}
