//! Requests that are whole before they go on.
//!
//! A request without a body passes at once. One that is too large is answered 413; a request without
//! `content-length` gets one. Source: `envoy.extensions.filters.http.buffer.v3`.

use meltemi_envoy::extensions::filters::http::buffer::v3 as proto;
use meltemi_envoy::extensions::filters::http::buffer::v3::buffer_per_route::Override;

use super::{Effect, FilterView, Levels, RouteFilterConfig, Verdict};
use crate::ledger::At;

/// What a route says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BufferOverride {
    /// `disabled`.
    Disabled,
    /// `buffer.max_request_bytes`.
    Limit(u32),
}

/// Compiles the message of the listener: `max_request_bytes`.
pub(super) fn compile(at: &At<'_>, message: &proto::Buffer) -> Option<u32> {
    let proto::Buffer { max_request_bytes } = message;
    match max_request_bytes {
        Some(0) | None => at.field("max_request_bytes").none("must be at least 1"),
        Some(limit) => Some(*limit),
    }
}

/// Compiles the message of a route.
pub(super) fn per_route(at: &At<'_>, message: &proto::BufferPerRoute) -> Option<BufferOverride> {
    let proto::BufferPerRoute { r#override } = message;
    match r#override {
        Some(Override::Disabled(true)) => Some(BufferOverride::Disabled),
        Some(Override::Disabled(false)) => at.field("disabled").none("must be true"),
        Some(Override::Buffer(buffer)) => compile(&at.field("buffer"), buffer).map(BufferOverride::Limit),
        None => at.none("disabled or buffer must be set"),
    }
}

/// Asks for the whole request, if there is more than a head.
pub(super) fn decode(own: u32, name: &str, view: &impl FilterView, levels: &Levels<'_>) -> Verdict {
    if view.is_head_only() {
        return Verdict::Continue;
    }
    let of_route = levels.all(name).find_map(|config| match config {
        RouteFilterConfig::Buffer(buffer) => Some(*buffer),
        _ => None,
    });
    match of_route.unwrap_or(BufferOverride::Limit(own)) {
        BufferOverride::Disabled => Verdict::Continue,
        BufferOverride::Limit(limit) => Verdict::Await(Effect::BufferRequest { limit }),
    }
}
