//! Where a resource comes from: the ADS stream, a stream of its own, or a file.
//!
//! Source: `envoy.config.core.v3.{ConfigSource, ApiConfigSource, PathConfigSource}`.

use std::time::Duration;

use meltemi_envoy::config::core::v3 as core;
use meltemi_envoy::config::core::v3::api_config_source::ApiType;
use meltemi_envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use meltemi_envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use meltemi_envoy::config::core::v3::{
    AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, GrpcService, HeaderValue,
    PathConfigSource, RetryPolicy, SelfConfigSource,
};

use crate::Rejection;
use crate::ledger::{At, Ledger, harmless, refuse};
use crate::program::INITIAL_FETCH_TIMEOUT;

/// Where a resource comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The ADS stream of the bootstrap.
    Ads,
    /// A file that holds a `DiscoveryResponse`.
    File(FileOrigin),
    /// A stream for this one type.
    Grpc(GrpcOrigin),
}

/// A watched file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileOrigin {
    /// `path`.
    pub path: Box<str>,
    /// `watched_directory.path`: a move in it, instead of one onto the file, is the sign to read.
    pub watched_directory: Option<Box<str>>,
}

/// A gRPC service behind a static cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrpcOrigin {
    /// Incremental or state of the world.
    pub delta: bool,
    /// `envoy_grpc.cluster_name`.
    pub cluster: Box<str>,
    /// `envoy_grpc.authority`.
    pub authority: Option<Box<str>>,
    /// `initial_metadata`, keys in lower case.
    pub metadata: Vec<(Box<str>, Box<str>)>,
    /// Shortest and longest pause of `envoy_grpc.retry_policy.retry_back_off`.
    pub back_off: Option<(Duration, Duration)>,
}

/// Reads a config source: where from, and its `initial_fetch_timeout` (`None` waits for ever).
///
/// # Errors
/// All fields that are invalid or not supported.
pub fn config_source(source: &ConfigSource) -> Result<(Origin, Option<Duration>), Vec<Rejection>> {
    Ledger::run("", |at| compile(at, source))
}

/// Reads the `ads_config` of a bootstrap.
///
/// # Errors
/// All fields that are invalid or not supported.
pub fn ads_config(source: &ApiConfigSource) -> Result<GrpcOrigin, Vec<Rejection>> {
    Ledger::run("", |at| api(at, source, [ApiType::Grpc, ApiType::DeltaGrpc]))
}

/// Reads a config source that must be set; gives its `initial_fetch_timeout`.
pub(crate) fn ads(at: &At<'_>, source: Option<&ConfigSource>) -> Option<Duration> {
    let Some(source) = source else {
        at.reject("must be set");
        return None;
    };
    compile(at, source).and_then(|(_, timeout)| timeout)
}

pub(crate) fn compile(at: &At<'_>, source: &ConfigSource) -> Option<(Origin, Option<Duration>)> {
    let ConfigSource { authorities, initial_fetch_timeout, resource_api_version, config_source_specifier } =
        source;
    refuse!(at; authorities);
    let version = at.choice::<ApiVersion>("resource_api_version", *resource_api_version);
    if version == Some(ApiVersion::V2) {
        at.field("resource_api_version").reject("V2 is gone");
    }
    let timeout = at.timeout("initial_fetch_timeout", initial_fetch_timeout, Some(INITIAL_FETCH_TIMEOUT));
    let origin = match config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})) => Origin::Ads,
        // The stream that brought this resource, which is the ADS stream.
        Some(ConfigSourceSpecifier::Self_(SelfConfigSource { transport_api_version })) => {
            at.choice::<ApiVersion>("transport_api_version", *transport_api_version);
            Origin::Ads
        }
        Some(ConfigSourceSpecifier::Path(path)) => {
            at.required("path", path);
            Origin::File(FileOrigin { path: path.as_str().into(), watched_directory: None })
        }
        Some(ConfigSourceSpecifier::PathConfigSource(file)) => {
            Origin::File(self::file(&at.field("path_config_source"), file))
        }
        Some(ConfigSourceSpecifier::ApiConfigSource(api)) => {
            let at = at.field("api_config_source");
            Origin::Grpc(self::api(&at, api, [ApiType::Grpc, ApiType::DeltaGrpc])?)
        }
        None => return at.none("a config source specifier must be set"),
    };
    Some((origin, timeout))
}

fn file(at: &At<'_>, file: &PathConfigSource) -> FileOrigin {
    let PathConfigSource { path, watched_directory, poll_interval } = file;
    refuse!(at; poll_interval);
    at.required("path", path);
    let watched_directory = watched_directory.as_ref().map(|directory| {
        let core::WatchedDirectory { path, watch_modify } = directory;
        let at = at.field("watched_directory");
        at.required("path", path);
        refuse!(at; watch_modify);
        path.as_str().into()
    });
    FileOrigin { path: path.as_str().into(), watched_directory }
}

fn api(at: &At<'_>, source: &ApiConfigSource, types: [ApiType; 2]) -> Option<GrpcOrigin> {
    let ApiConfigSource {
        api_type,
        transport_api_version,
        cluster_names,
        grpc_services,
        refresh_delay,
        request_timeout,
        rate_limit_settings,
        set_node_on_first_message_only,
        config_validators,
    } = source;
    refuse!(at; rate_limit_settings, config_validators);
    harmless!(OnlyRest; refresh_delay, request_timeout);
    harmless!(NodeOnce; set_node_on_first_message_only);
    let api_type = at.choice::<ApiType>("api_type", *api_type)?;
    if !types.contains(&api_type) {
        at.field("api_type").reject("not supported yet: only GRPC and DELTA_GRPC");
    }
    // AUTO means V3 since V2 is gone.
    if at.choice::<ApiVersion>("transport_api_version", *transport_api_version) == Some(ApiVersion::V2) {
        at.field("transport_api_version").reject("V2 is gone");
    }
    if !cluster_names.is_empty() {
        at.field("cluster_names").reject("belongs to REST; gRPC has grpc_services");
    }
    let [service] = grpc_services.as_slice() else {
        return at.field("grpc_services").none("not supported yet: exactly one is");
    };
    let origin = grpc(&at.item("grpc_services", 0), service)?;
    Some(GrpcOrigin { delta: api_type == ApiType::DeltaGrpc, ..origin })
}

fn grpc(at: &At<'_>, service: &GrpcService) -> Option<GrpcOrigin> {
    let GrpcService { timeout, initial_metadata, retry_policy, target_specifier } = service;
    refuse!(at; retry_policy);
    harmless!(StreamForever; timeout);
    let metadata = at.each("initial_metadata", initial_metadata, |at, header| {
        let HeaderValue { key, value, raw_value } = header;
        refuse!(at; raw_value);
        at.header_name("key", key)?;
        at.header_value("value", value);
        Some((key.to_ascii_lowercase().into(), value.as_str().into()))
    });
    let target = match target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(target)) => target,
        Some(TargetSpecifier::GoogleGrpc(_)) => return at.field("google_grpc").none("not supported"),
        None => return at.none("a target must be set"),
    };
    let at = at.field("envoy_grpc");
    let EnvoyGrpc { cluster_name, authority, retry_policy, max_receive_message_length, skip_envoy_headers } =
        target;
    refuse!(at; max_receive_message_length);
    harmless!(NoEnvoyHeaders; skip_envoy_headers);
    at.required("cluster_name", cluster_name);
    Some(GrpcOrigin {
        delta: false,
        cluster: cluster_name.as_str().into(),
        authority: (!authority.is_empty()).then(|| authority.as_str().into()),
        metadata,
        back_off: retry_policy.as_ref().and_then(|policy| back_off(&at.field("retry_policy"), policy)),
    })
}

/// Of a retry policy, a stream that comes back for ever uses the pauses only, as in Envoy.
fn back_off(at: &At<'_>, policy: &RetryPolicy) -> Option<(Duration, Duration)> {
    let RetryPolicy {
        retry_back_off,
        num_retries,
        retry_on,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts,
    } = policy;
    refuse!(at; num_retries, retry_on, retry_priority, retry_host_predicate, host_selection_retry_max_attempts);
    let core::BackoffStrategy { base_interval, max_interval } = retry_back_off.as_ref()?;
    let at = at.field("retry_back_off");
    let base = at.positive("base_interval", base_interval)?;
    let longest = at.positive("max_interval", max_interval).unwrap_or(base * 10);
    if longest < base {
        at.field("max_interval").reject("must not be shorter than base_interval");
    }
    Some((base, longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<(Origin, Option<Duration>), String> {
        let source: ConfigSource = meltemi_envoy::json::Codec::new().parse(yaml).expect("YAML");
        config_source(&source).map_err(|rejections| rejections[0].to_string())
    }

    #[test]
    fn every_kind_of_source_is_read() {
        assert_eq!(read("{ads: {}, initial_fetch_timeout: 0s}"), Ok((Origin::Ads, None)));
        let file = FileOrigin { path: "/a.yaml".into(), watched_directory: Some("/b".into()) };
        let source = "{path_config_source: {path: /a.yaml, watched_directory: {path: /b}}}";
        assert_eq!(read(source), Ok((Origin::File(file), Some(INITIAL_FETCH_TIMEOUT))));
        let source = "{api_config_source: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: \
                      [{envoy_grpc: {cluster_name: x}, initial_metadata: [{key: A-b, value: c}]}]}}";
        let Ok((Origin::Grpc(grpc), _)) = read(source) else { panic!("a stream") };
        assert_eq!((grpc.delta, &*grpc.cluster), (true, "x"));
        assert_eq!(grpc.metadata, [("a-b".into(), "c".into())]);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let rest = "{api_config_source: {api_type: REST, grpc_services: [{envoy_grpc: {cluster_name: x}}]}}";
        assert_eq!(
            read(rest).unwrap_err(),
            ": api_config_source.api_type: not supported yet: only GRPC and DELTA_GRPC"
        );
        let google = "{api_config_source: {api_type: GRPC, grpc_services: [{google_grpc: {target_uri: x}}]}}";
        assert!(read(google).unwrap_err().contains("grpc_services[0].google_grpc: not supported"));
    }
}
