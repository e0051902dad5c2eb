//! Mirrors from `RequestMirrorPolicy`.

use http::HeaderValue;
use meltemi_envoy::config::route::v3::route_action::RequestMirrorPolicy;

use super::cluster::name_or_header;
use crate::choice::ClusterName;
use crate::ledger::{At, harmless, refuse};
use crate::scalar::{WHOLE_PPM, runtime_fraction_ppm};

/// An entry of `request_mirror_policies`: where a copy of some requests goes, its response unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `cluster` or `cluster_header`.
    pub cluster: ClusterName,
    /// `runtime_fraction` as parts per million, default all.
    pub fraction_ppm: u32,
    /// `-shadow` is appended to the host of the copy, unless `disable_shadow_host_suffix_append`.
    pub appends_shadow: bool,
    /// `host_rewrite_literal`: the host of the copy, without the suffix.
    pub host_rewrite: Option<HeaderValue>,
}

/// Compiles mirrors.
pub(super) fn mirrors(at: &At<'_>, policies: &[RequestMirrorPolicy]) -> Vec<Mirror> {
    at.each("request_mirror_policies", policies, |at, policy| {
        let RequestMirrorPolicy {
            cluster,
            cluster_header,
            runtime_fraction,
            trace_sampled,
            disable_shadow_host_suffix_append,
            request_headers_mutations,
            host_rewrite_literal,
        } = policy;
        refuse!(at; request_headers_mutations);
        harmless!(NoTracing; trace_sampled);
        let fraction_ppm = runtime_fraction_ppm(&at.field("runtime_fraction"), runtime_fraction);
        Some(Mirror {
            cluster: name_or_header(at, ("cluster", cluster), cluster_header)?,
            fraction_ppm: fraction_ppm.unwrap_or(WHOLE_PPM),
            appends_shadow: !disable_shadow_host_suffix_append,
            host_rewrite: at.header_value("host_rewrite_literal", host_rewrite_literal),
        })
    })
}
