//! What a resource refers to and how long it may wait for it, read from the message.
//!
//! `initial_fetch_timeout` of a config source says how long a warming resource waits: 15 s unless said
//! otherwise, 0 for ever (as Istio sets it).

use std::time::Duration;

use hcm::http_connection_manager::RouteSpecifier;
use hcm::http_filter::ConfigType as FilterConfigType;
use meltemi_compile::filter::{FilterConfig, FilterDiscovery};
use meltemi_compile::program::{Listener, Name, NetworkFilter};
use meltemi_compile::{Origin, Rejection};
use meltemi_envoy::config::cluster::v3::Cluster as ClusterMessage;
use meltemi_envoy::config::core::v3::ConfigSource;
use meltemi_envoy::config::listener::v3::{Filter, Listener as ListenerMessage, filter::ConfigType};
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use meltemi_envoy::type_url;
use tokio::time::Instant;

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

/// Something that a resource refers to by name.
#[derive(Debug, Clone)]
pub struct Need {
    /// Its type.
    pub kind: &'static str,
    /// Its name.
    pub name: Name,
    /// Where it comes from.
    pub origin: Origin,
    /// Until when the resource waits for it; `None` waits for ever.
    pub until: Option<Instant>,
}

/// The endpoints of a cluster.
///
/// # Errors
/// If they come from a file that does not exist.
pub(super) fn cluster_needs(message: &ClusterMessage, now: Instant) -> Result<Vec<Need>, Vec<Rejection>> {
    let Some(eds) = &message.eds_cluster_config else { return Ok(Vec::new()) };
    let service = if eds.service_name.is_empty() { &message.name } else { &eds.service_name };
    let need = need(&message.name, type_url::ENDPOINT, service, eds.eds_config.as_ref(), now)?;
    Ok(need.into_iter().collect())
}

/// The routes and filters of a listener.
///
/// # Errors
/// If something comes from a file that does not exist.
pub(super) fn listener_needs(message: &ListenerMessage, now: Instant) -> Result<Vec<Need>, Vec<Rejection>> {
    let chains = message.filter_chains.iter().chain(&message.default_filter_chain);
    let mut needs = Vec::new();
    for manager in chains.flat_map(|chain| &chain.filters).filter_map(connection_manager) {
        if let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier {
            let source = rds.config_source.as_ref();
            needs.extend(need(&message.name, type_url::ROUTE, &rds.route_config_name, source, now)?);
        }
        for filter in &manager.http_filters {
            let Some(FilterConfigType::ConfigDiscovery(discovery)) = &filter.config_type else { continue };
            let source = discovery.config_source.as_ref();
            let need = need(&message.name, type_url::EXTENSION_CONFIG, &filter.name, source, now)?;
            let warms = !discovery.apply_default_config_without_warming;
            needs.extend(need.map(|need| Need { until: if warms { need.until } else { Some(now) }, ..need }));
        }
    }
    Ok(needs)
}

fn need(
    resource: &str,
    kind: &'static str,
    name: &str,
    source: Option<&ConfigSource>,
    now: Instant,
) -> Result<Option<Need>, Vec<Rejection>> {
    let Some(source) = source else { return Ok(None) };
    let (origin, wait) = meltemi_compile::config_source(source)?;
    check_file(resource, &origin)?;
    Ok(Some(Need { kind, name: name.into(), origin, until: wait.map(|wait| now + wait) }))
}

/// A file must be there when it is first named.
pub(super) fn check_file(resource: &str, origin: &Origin) -> Result<(), Vec<Rejection>> {
    let Origin::File(file) = origin else { return Ok(()) };
    files::check(file).map_err(|reason| vec![Rejection::new(resource, "config_source", reason)])
}

fn connection_manager(filter: &Filter) -> Option<hcm::HttpConnectionManager> {
    let Some(ConfigType::TypedConfig(any)) = &filter.config_type else { return None };
    any.unpack().ok()
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

/// The places in a listener for a discovered filter of that name.
pub(super) fn discoveries<'l>(
    listener: &'l Listener,
    name: &str,
) -> impl Iterator<Item = &'l FilterDiscovery> {
    let managers = listener.chains.iter().filter_map(|chain| match &chain.filter {
        NetworkFilter::Http(manager) => Some(manager),
        NetworkFilter::Tcp(_) | NetworkFilter::DirectResponse(_) => None,
    });
    managers.flat_map(|manager| &manager.filters).filter_map(move |filter| match &filter.config {
        FilterConfig::Discovered(discovery) if *filter.name == *name => Some(&**discovery),
        _ => None,
    })
}
