//! Filters whose configuration comes by extension discovery (ECDS), apart from the listener.
//!
//! The connection manager keeps the place, the types that may come and the default; the proxy puts in what came last
//! under the filter's name, for each request. Source: `envoy.config.core.v3.ExtensionConfigSource`.

use std::sync::Arc;

use meltemi_envoy::Any;
use meltemi_envoy::config::core::v3::{ExtensionConfigSource, TypedExtensionConfig};

use super::{FilterConfig, HttpFilter, Known, known_filter};
use crate::config_source::ads;
use crate::extension::{type_name, unknown};
use crate::ledger::{At, Ledger};
use crate::program::Name;
use crate::rejection::Rejection;

/// What a connection manager says of a filter that is discovered.
#[derive(Debug)]
pub struct FilterDiscovery {
    /// `type_urls`: full names of the messages that may come.
    pub types: Vec<Box<str>>,
    /// `default_config`: until something came.
    pub default: Option<Arc<HttpFilter>>,
    /// The listener waits for the configuration: not `apply_default_config_without_warming`.
    pub warms: bool,
}

impl FilterDiscovery {
    /// What runs in the filter's place, given what was discovered under its name.
    pub fn choose<'f>(&'f self, found: Option<&'f Arc<DiscoveredFilter>>) -> Option<&'f Arc<HttpFilter>> {
        let found = found.filter(|found| self.allows(&found.type_name));
        found.map(|found| &found.filter).or(self.default.as_ref())
    }

    /// Whether a message of this full name may come.
    pub fn allows(&self, type_name: &str) -> bool {
        self.types.iter().any(|allowed| **allowed == *type_name)
    }
}

/// A filter as extension discovery delivered it.
#[derive(Debug)]
pub struct DiscoveredFilter {
    /// Full name of its message.
    pub type_name: Box<str>,
    /// The filter.
    pub filter: Arc<HttpFilter>,
}

/// Compiles a filter by itself, as extension discovery delivers it.
///
/// # Errors
/// All fields that are invalid or not supported, or the type when it is not known.
pub fn discovered(message: &TypedExtensionConfig) -> Result<DiscoveredFilter, Vec<Rejection>> {
    let TypedExtensionConfig { name, typed_config } = message;
    Ledger::run(name, |at| {
        let at = at.field("typed_config");
        let Some(any) = typed_config else { return at.none("must be set") };
        Some(DiscoveredFilter { type_name: type_name(&at, any), filter: alone(&at, name, any)? })
    })
}

/// A filter that takes the place of a discovered one.
fn alone(at: &At<'_>, name: &str, any: &Any) -> Option<Arc<HttpFilter>> {
    match known_filter(at, any)? {
        Some(Known::Filter(config)) => {
            Some(Arc::new(HttpFilter { name: Name::from(name), disabled: false, config }))
        }
        Some(Known::IstioStats | Known::PeerMetadata(_) | Known::Router(_)) => {
            at.none("not supported yet: only filters before the router")
        }
        None => unknown(at, name, any),
    }
}

/// Compiles the `config_discovery` of the filter of that name.
pub(super) fn config_discovery(
    at: &At<'_>,
    name: &str,
    message: &ExtensionConfigSource,
) -> Option<FilterConfig> {
    let ExtensionConfigSource {
        config_source,
        default_config,
        apply_default_config_without_warming,
        type_urls,
    } = message;
    ads(&at.field("config_source"), config_source.as_ref());
    if *apply_default_config_without_warming && default_config.is_none() {
        at.field("default_config").reject("must be set with apply_default_config_without_warming");
    }
    if type_urls.is_empty() {
        at.field("type_urls").reject("must not be empty");
    }
    let types = at.each("type_urls", type_urls, |at, url| {
        let any = Any { type_url: url.clone(), value: Default::default() };
        let name: Box<str> = any.message_name().into();
        if !is_known(&any) {
            return at.none(format_args!("no filter of type {name:?} is known"));
        }
        Some(name)
    });
    let mut discovery =
        FilterDiscovery { types, default: None, warms: !*apply_default_config_without_warming };
    if let Some(any) = default_config {
        let at = at.field("default_config");
        let found = type_name(&at, any);
        if !discovery.allows(&found) {
            at.reject(format_args!("has type {found:?}, which is not in type_urls"));
        }
        discovery.default = Some(alone(&at, name, any)?);
    }
    Some(FilterConfig::Discovered(Box::new(discovery)))
}

/// Whether there is a filter of this type. An empty message may be invalid, but then it is known.
fn is_known(any: &Any) -> bool {
    !matches!(Ledger::run("", |at| known_filter(at, any)), Ok(None))
}
