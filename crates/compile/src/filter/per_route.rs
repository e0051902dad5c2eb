//! What routes say to filters: `typed_per_filter_config` at every level.
//!
//! The name of the filter is the key, the type says what it is. The most specific level wins (weighted cluster,
//! route, virtual host, route configuration), unless a filter merges them.
//! Source: `envoy.config.route.v3.FilterConfig` and `typed_per_filter_config`.

use std::collections::BTreeMap;

use meltemi_envoy::Any;
use meltemi_envoy::config::route::v3::FilterConfig;

use super::{RouteFilterConfig, known_route_config};
use crate::extension::{unknown, unpack};
use crate::ledger::At;
use crate::program::Name;

/// What one level says, by the name of the filter. A list: there are few, and looking through none costs nothing.
#[derive(Debug, Default)]
pub struct PerFilterConfigs {
    entries: Vec<(Name, PerFilter)>,
}

/// What one level says to one filter.
#[derive(Debug)]
pub enum PerFilter {
    /// `disabled`.
    Disabled,
    /// A configuration; it also enables a filter that is disabled at the listener.
    Config(RouteFilterConfig),
}

impl PerFilterConfigs {
    /// None.
    pub const EMPTY: &'static PerFilterConfigs = &PerFilterConfigs { entries: Vec::new() };

    fn get(&self, filter: &str) -> Option<&PerFilter> {
        self.entries.iter().find(|(name, _)| **name == *filter).map(|(_, config)| config)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The levels of a route.
#[derive(Debug, Clone, Copy)]
pub struct Levels<'r> {
    /// Most specific first: weighted cluster, route, virtual host, route configuration.
    pub levels: [&'r PerFilterConfigs; 4],
}

impl<'r> Levels<'r> {
    /// Of a request without a route.
    pub const NONE: Levels<'static> = Levels { levels: [PerFilterConfigs::EMPTY; 4] };

    /// Whether no level says anything to any filter.
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(|level| level.is_empty())
    }

    /// Whether a filter is on; `None` when no level says anything of it.
    pub fn is_enabled(&self, filter: &str) -> Option<bool> {
        let first = self.levels.iter().find_map(|level| level.get(filter))?;
        Some(!matches!(first, PerFilter::Disabled))
    }

    /// What the levels say to a filter, most specific first.
    pub fn all<'f>(&self, filter: &'f str) -> impl Iterator<Item = &'r RouteFilterConfig> + use<'r, 'f> {
        self.levels.into_iter().filter_map(move |level| match level.get(filter) {
            Some(PerFilter::Config(config)) => Some(config),
            Some(PerFilter::Disabled) | None => None,
        })
    }
}

/// Compiles `typed_per_filter_config` of one level.
pub(crate) fn per_filter_configs(at: &At<'_>, configs: &BTreeMap<String, Any>) -> PerFilterConfigs {
    let compiled = configs.iter().filter_map(|(name, any)| {
        let at = at.key("typed_per_filter_config", name);
        Some((Name::from(name.as_str()), per_filter(&at, name, any)?))
    });
    PerFilterConfigs { entries: compiled.collect() }
}

fn per_filter(at: &At<'_>, name: &str, any: &Any) -> Option<PerFilter> {
    if !any.is::<FilterConfig>() {
        return typed(at, name, any, false);
    }
    let FilterConfig { config, is_optional, disabled } = unpack(at, any)?;
    match config {
        _ if disabled => Some(PerFilter::Disabled),
        Some(any) => typed(&at.field("config"), name, &any, is_optional),
        None => at.field("config").none("must be set, or disabled"),
    }
}

fn typed(at: &At<'_>, name: &str, any: &Any, is_optional: bool) -> Option<PerFilter> {
    match known_route_config(at, any)? {
        Some(config) => Some(PerFilter::Config(config)),
        None if is_optional => None,
        None => unknown(at, name, any),
    }
}
