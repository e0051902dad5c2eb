//! What runs in the place of a filter whose configuration is discovered (ECDS).
//!
//! A request sees one generation, so it passes the same filter on its way in and out. Source: Envoy's
//! `MissingConfigFilter` and `FilterChainUtility`.

use std::sync::Arc;

use http::StatusCode;
use meltemi_compile::filter::{FilterConfig, FilterDiscovery, HttpFilter};

use super::Stop;
use crate::record::ResponseFlags;
use crate::stream::{LocalReply, Stream};

/// Whether the filter is only a place for a discovered one.
pub(super) fn place(filter: &HttpFilter) -> Option<&FilterDiscovery> {
    match &filter.config {
        FilterConfig::Discovered(discovery) => Some(discovery),
        _ => None,
    }
}

/// A request that meets a filter without a configuration is answered.
pub(super) fn missing() -> Stop {
    // Envoy gives no details either.
    let reply = LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, "");
    Stop::Reply(Box::new(reply.flags(ResponseFlags::NO_FILTER_CONFIG_FOUND)))
}

impl Stream<'_, '_> {
    /// What runs in the filter's place.
    pub(super) fn discovered(
        &self,
        filter: &HttpFilter,
        discovery: &FilterDiscovery,
    ) -> Option<Arc<HttpFilter>> {
        discovery.choose(self.generation.program.filters.get(&filter.name)).cloned()
    }
}
