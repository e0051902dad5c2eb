//! How path and host change on the way, from `RouteAction`.
//!
//! `path_rewrite` and `host_rewrite` are formats, which the proxy evaluates.

use http::HeaderName;
use http::HeaderValue;
use meltemi_envoy::config::core::v3::TypedExtensionConfig;
use meltemi_envoy::config::route::v3::route_action::HostRewriteSpecifier;
use meltemi_envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;
use meltemi_envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use crate::extension::{unknown, unpack};
use crate::format::Format;
use crate::ledger::At;
use crate::matcher::{PathMatcher, RewritePattern, rewrite_pattern};
use crate::uri_template::UriRewrite;

/// How `:path` changes on the way.
#[derive(Debug)]
pub enum PathRewrite {
    /// Not at all.
    Keep,
    /// `prefix_rewrite`.
    Prefix(Box<str>),
    /// `regex_rewrite`.
    Regex(RewritePattern),
    /// `path_rewrite_policy` with a URI template.
    Template(UriRewrite),
    /// `path_rewrite`: all but the query.
    Format(Format),
}

/// How `:authority` changes on the way.
#[derive(Debug)]
pub enum HostRewrite {
    /// Not at all.
    None,
    /// `host_rewrite_literal`.
    Literal(HeaderValue),
    /// `auto_host_rewrite`: the upstream host's `hostname`, when it has one.
    Auto,
    /// `host_rewrite_header`.
    Header(HeaderName),
    /// `host_rewrite_path_regex`, on the path without its query.
    PathRegex(RewritePattern),
    /// `host_rewrite`.
    Format(Format),
}

/// The fields that change the path; at most one may be set.
pub(super) struct PathFields<'m> {
    pub(super) prefix_rewrite: &'m str,
    pub(super) regex_rewrite: Option<&'m RegexMatchAndSubstitute>,
    pub(super) path_rewrite_policy: Option<&'m TypedExtensionConfig>,
    pub(super) path_rewrite: &'m str,
}

impl PathFields<'_> {
    /// Compiles them for a route that matches `path`.
    pub(super) fn compile(&self, at: &At<'_>, path: Option<&PathMatcher>) -> Option<PathRewrite> {
        let is_set = [
            !self.prefix_rewrite.is_empty(),
            self.regex_rewrite.is_some(),
            self.path_rewrite_policy.is_some(),
            !self.path_rewrite.is_empty(),
        ];
        if is_set.iter().filter(|is_set| **is_set).count() > 1 {
            return at.none(
                "only one of prefix_rewrite, regex_rewrite, path_rewrite_policy and path_rewrite may be set",
            );
        }
        if !self.prefix_rewrite.is_empty() {
            at.header_value("prefix_rewrite", self.prefix_rewrite)?;
            if matches!(path, Some(PathMatcher::Template(_))) {
                return at.field("prefix_rewrite").none("must not be set beside path_match_policy");
            }
            return Some(PathRewrite::Prefix(self.prefix_rewrite.into()));
        }
        if let Some(pattern) = self.regex_rewrite {
            return rewrite_pattern(&at.field("regex_rewrite"), pattern).map(PathRewrite::Regex);
        }
        if let Some(policy) = self.path_rewrite_policy {
            return template(&at.field("path_rewrite_policy"), policy, path).map(PathRewrite::Template);
        }
        if !self.path_rewrite.is_empty() {
            return format(&at.field("path_rewrite"), self.path_rewrite).map(PathRewrite::Format);
        }
        Some(PathRewrite::Keep)
    }
}

fn template(at: &At<'_>, policy: &TypedExtensionConfig, path: Option<&PathMatcher>) -> Option<UriRewrite> {
    let TypedExtensionConfig { name, typed_config } = policy;
    let Some(any) = typed_config else { return at.field("typed_config").none("must be set") };
    if !any.is::<UriTemplateRewriteConfig>() {
        return unknown(at, name, any);
    }
    let UriTemplateRewriteConfig { path_template_rewrite } = unpack(at, any)?;
    let Some(PathMatcher::Template(template)) = path else {
        return at.none("needs a path_match_policy with a URI template");
    };
    match UriRewrite::parse(&path_template_rewrite, template) {
        Ok(rewrite) => Some(rewrite),
        Err(reason) => at.field("path_template_rewrite").none(reason),
    }
}

/// A format string that becomes a part of the request.
pub(super) fn format(at: &At<'_>, text: &str) -> Option<Format> {
    Format::parse(text).map_err(|error| at.reject(error)).ok()
}

/// Compiles `host_rewrite_specifier`.
pub(super) fn host_rewrite(at: &At<'_>, specifier: Option<&HostRewriteSpecifier>) -> Option<HostRewrite> {
    match specifier {
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(
            at.header_value("host_rewrite_literal", host).map_or(HostRewrite::None, HostRewrite::Literal),
        ),
        Some(HostRewriteSpecifier::AutoHostRewrite(true)) => Some(HostRewrite::Auto),
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) if !name.is_empty() => {
            at.header_name("host_rewrite_header", name).map(HostRewrite::Header)
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(pattern)) => {
            rewrite_pattern(&at.field("host_rewrite_path_regex"), pattern).map(HostRewrite::PathRegex)
        }
        Some(HostRewriteSpecifier::HostRewrite(text)) if !text.is_empty() => {
            format(&at.field("host_rewrite"), text).map(HostRewrite::Format)
        }
        Some(
            HostRewriteSpecifier::AutoHostRewrite(false)
            | HostRewriteSpecifier::HostRewriteHeader(_)
            | HostRewriteSpecifier::HostRewrite(_),
        )
        | None => Some(HostRewrite::None),
    }
}
