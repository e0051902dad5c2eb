//! Where a resource comes from: the ADS stream, or nowhere.
//!
//! Source: `envoy.config.core.v3.ConfigSource`.

use std::time::Duration;

use meltemi_envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use meltemi_envoy::config::core::v3::{AggregatedConfigSource, ApiVersion, ConfigSource, SelfConfigSource};

use crate::ledger::{At, refuse};
use crate::program::INITIAL_FETCH_TIMEOUT;

/// Checks that the source is ADS; gives its `initial_fetch_timeout`.
pub(crate) fn ads(at: &At<'_>, source: Option<&ConfigSource>) -> Option<Duration> {
    let Some(source) = source else {
        at.reject("must be set");
        return None;
    };
    let ConfigSource { authorities, initial_fetch_timeout, resource_api_version, config_source_specifier } =
        source;
    refuse!(at; authorities);
    let version = at.choice::<ApiVersion>("resource_api_version", *resource_api_version);
    if version == Some(ApiVersion::V2) {
        at.field("resource_api_version").reject("V2 is gone");
    }
    match config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})) => {}
        // The stream that brought this resource, which is the ADS stream.
        Some(ConfigSourceSpecifier::Self_(SelfConfigSource { transport_api_version })) => {
            at.choice::<ApiVersion>("transport_api_version", *transport_api_version);
        }
        Some(
            ConfigSourceSpecifier::Path(_)
            | ConfigSourceSpecifier::PathConfigSource(_)
            | ConfigSourceSpecifier::ApiConfigSource(_),
        ) => at.reject("not supported yet: only ads"),
        None => at.reject("a config source specifier must be set"),
    }
    at.timeout("initial_fetch_timeout", initial_fetch_timeout, Some(INITIAL_FETCH_TIMEOUT))
}
