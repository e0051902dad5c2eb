//! What a resource refers to and how long it may wait for it, read from the message.
//!
//! `initial_fetch_timeout` of a config source says how long a warming resource waits: 15 s unless said
//! otherwise, 0 for ever (as Istio sets it).

use std::time::Duration;

use meltemi_compile::program::{Listener, Name, NetworkFilter, RouteSource};
use meltemi_compile::{Origin, Rejection};
use meltemi_envoy::config::cluster::v3::Cluster as ClusterMessage;
use meltemi_envoy::config::core::v3::ConfigSource;
use meltemi_envoy::config::listener::v3::{Filter, Listener as ListenerMessage, filter::ConfigType};
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use meltemi_envoy::type_url;

use super::files;

const DEFAULT_INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// The timeout of a config source; `None` waits for ever.
pub(super) fn initial_fetch_timeout(source: Option<&ConfigSource>) -> Option<Duration> {
    let Some(timeout) = source.and_then(|source| source.initial_fetch_timeout) else {
        return Some(DEFAULT_INITIAL_FETCH_TIMEOUT);
    };
    Duration::try_from(timeout).ok().filter(|timeout| !timeout.is_zero())
}

/// How long a cluster waits for its endpoints.
pub(super) fn cluster_timeout(message: &ClusterMessage) -> Option<Duration> {
    let eds = message.eds_cluster_config.as_ref().and_then(|eds| eds.eds_config.as_ref());
    initial_fetch_timeout(eds)
}

/// How long a listener waits for its routes: the longest of its connection managers.
pub(super) fn listener_timeout(message: &ListenerMessage) -> Option<Duration> {
    let chains = message.filter_chains.iter().chain(&message.default_filter_chain);
    let timeouts = chains.flat_map(|chain| &chain.filters).filter_map(rds);
    let mut longest = Duration::ZERO;
    for rds in timeouts {
        longest = longest.max(initial_fetch_timeout(rds.config_source.as_ref())?);
    }
    Some(longest)
}

/// What is not to be had from ADS of what a resource refers to.
pub(super) type Others = Vec<(&'static str, String, Origin)>;

/// Where a cluster's endpoints come from, unless from ADS.
///
/// # Errors
/// If it is a file that does not exist.
pub(super) fn cluster_others(message: &ClusterMessage) -> Result<Others, Vec<Rejection>> {
    let Some(eds) = &message.eds_cluster_config else { return Ok(Vec::new()) };
    let service = if eds.service_name.is_empty() { &message.name } else { &eds.service_name };
    let other = other(&message.name, type_url::ENDPOINT, service, eds.eds_config.as_ref())?;
    Ok(other.into_iter().collect())
}

/// Where a listener's routes come from, unless from ADS.
///
/// # Errors
/// If it is a file that does not exist.
pub(super) fn listener_others(message: &ListenerMessage) -> Result<Others, Vec<Rejection>> {
    let chains = message.filter_chains.iter().chain(&message.default_filter_chain);
    let mut others = Others::new();
    for rds in chains.flat_map(|chain| &chain.filters).filter_map(rds) {
        let source = rds.config_source.as_ref();
        others.extend(other(&message.name, type_url::ROUTE, &rds.route_config_name, source)?);
    }
    Ok(others)
}

fn other(
    resource: &str,
    kind: &'static str,
    name: &str,
    source: Option<&ConfigSource>,
) -> Result<Option<(&'static str, String, Origin)>, Vec<Rejection>> {
    let Some(source) = source else { return Ok(None) };
    let (origin, _) = meltemi_compile::config_source(source)?;
    if let Origin::File(file) = &origin {
        files::check(file).map_err(|reason| vec![Rejection::new(resource, "config_source", reason)])?;
    }
    Ok((origin != Origin::Ads).then(|| (kind, name.to_owned(), origin)))
}

/// The RDS of a filter.
fn rds(filter: &Filter) -> Option<hcm::Rds> {
    let Some(ConfigType::TypedConfig(any)) = &filter.config_type else { return None };
    let manager: hcm::HttpConnectionManager = any.unpack().ok()?;
    match manager.route_specifier {
        Some(hcm::http_connection_manager::RouteSpecifier::Rds(rds)) => Some(rds),
        _ => None,
    }
}

/// The files that a listener logs to.
pub(super) fn log_paths(listener: &Listener) -> impl Iterator<Item = &str> {
    let of_chains = listener.chains.iter().flat_map(|chain| match &chain.filter {
        NetworkFilter::Http(manager) => manager.access_log.as_slice(),
        NetworkFilter::Tcp(proxy) => proxy.access_log.as_slice(),
        NetworkFilter::DirectResponse(_) => &[],
    });
    listener.access_log.iter().chain(of_chains).map(|log| &*log.path)
}

/// The names of route configurations that a listener gets by RDS.
pub(super) fn route_names(listener: &Listener) -> impl Iterator<Item = &Name> {
    listener.chains.iter().filter_map(|chain| match &chain.filter {
        NetworkFilter::Http(manager) => match &manager.routes {
            RouteSource::Rds(name) => Some(name),
            RouteSource::Inline(_) => None,
        },
        NetworkFilter::Tcp(_) | NetworkFilter::DirectResponse(_) => None,
    })
}
