//! Matchers of paths, headers and query parameters, and what they look at.
//!
//! Source: `envoy.config.route.v3.RouteMatch`, `envoy.type.matcher.v3`. Regexes match the whole string (RE2
//! full match) and are bounded in compiled size.

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderName;

use crate::uri_template::UriTemplate;

mod build;
mod describe;
mod eval;
mod metadata;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use build::{
    cookie_matcher, header_matcher, header_subject, query_matcher, regex_full_match, rewrite_pattern,
    string_matcher,
};
pub use metadata::{FilterStateMatcher, MetadataMatcher};
pub(crate) use metadata::{filter_state_matcher, metadata_matcher};

pub use eval::without_query;
pub(crate) use eval::{cookie, query_parameter};

/// A request as routing sees it.
pub trait RequestView {
    /// `:method`.
    fn method(&self) -> &str;
    /// `:scheme`.
    fn scheme(&self) -> &str;
    /// `:authority`, as it came.
    fn authority(&self) -> &str;
    /// `:path` with its query.
    fn path(&self) -> &str;
    /// All values of a header, joined by `,` when there are several.
    fn header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>>;
    /// Whether any one value of a header passes `test`, each value on its own; `None` when the header is missing.
    /// The default is right for views that hold no header twice.
    fn any_header_value(&self, name: &HeaderName, test: &dyn Fn(&[u8]) -> bool) -> Option<bool> {
        self.header(name).map(|value| test(&value))
    }
    /// A number that is uniform per request, for runtime fractions.
    fn random(&self) -> u64;
    /// The value at a path of dynamic metadata, as filters or the connection set it.
    fn dynamic_metadata(&self, _namespace: &str, _path: &[Box<str>]) -> Option<&prost_types::Value> {
        None
    }
    /// A filter state object, as text.
    fn filter_state(&self, _key: &str) -> Option<Cow<'_, str>> {
        None
    }
    /// A filter state object that hashes as its text (`envoy.hashable_string`).
    fn hashable_filter_state(&self, _key: &str) -> Option<Cow<'_, str>> {
        None
    }
    /// The client's address, as `x-forwarded-for` or the connection tells it.
    fn source_ip(&self) -> Option<IpAddr> {
        None
    }
    /// What TLS says of the client's connection; `None` for plaintext.
    fn tls(&self) -> Option<ClientTls> {
        None
    }
}

/// The TLS side of a downstream connection, as `RouteMatch.TlsContextMatchOptions` asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTls {
    /// The client presented a certificate.
    pub presented: bool,
    /// It was verified.
    pub validated: bool,
}

/// `path_specifier`.
#[derive(Debug, Clone)]
pub enum PathMatcher {
    /// `path`; lower case when case does not count.
    Exact(Box<str>, CaseSensitive),
    /// `prefix`.
    Prefix(Box<str>, CaseSensitive),
    /// `path_separated_prefix`: the prefix itself, or it and a `/`.
    Separated(Box<str>, CaseSensitive),
    /// `safe_regex`, on the path without its query.
    Regex(regex::Regex),
    /// `path_match_policy` with a URI template.
    Template(Box<UriTemplate>),
    /// `connect_matcher`: any CONNECT.
    Connect,
}

/// `case_sensitive`, default true.
pub type CaseSensitive = bool;

/// `envoy.type.matcher.v3.StringMatcher` and the header forms that equal it.
#[derive(Debug, Clone)]
pub enum StringMatcher {
    /// `exact`, ignoring case when the flag is set (text is then lower case).
    Exact(Box<str>, bool),
    /// `prefix`.
    Prefix(Box<str>, bool),
    /// `suffix`.
    Suffix(Box<str>, bool),
    /// `contains`.
    Contains(Box<str>, bool),
    /// `safe_regex`, whole string.
    Regex(regex::Regex),
}

/// `envoy.config.route.v3.HeaderMatcher`.
#[derive(Debug, Clone)]
pub struct HeaderMatcher {
    /// What is read.
    pub subject: HeaderSubject,
    /// What it must be.
    pub test: HeaderTest,
    /// `invert_match`.
    pub invert: bool,
    /// `treat_missing_header_as_empty`.
    pub missing_as_empty: bool,
}

/// `name` of a header matcher; Envoy allows the pseudo headers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the pseudo headers")]
pub enum HeaderSubject {
    Named(HeaderName),
    Method,
    Authority,
    Path,
    Scheme,
}

/// `header_match_specifier`.
#[derive(Debug, Clone)]
pub enum HeaderTest {
    /// `present_match` (its bool).
    Present(bool),
    /// `string_match` and the old forms.
    String(StringMatcher),
    /// `range_match`: start inclusive, end exclusive.
    Range(i64, i64),
}

/// `envoy.config.route.v3.QueryParameterMatcher`.
#[derive(Debug, Clone)]
pub struct QueryMatcher {
    /// `name`.
    pub name: Box<str>,
    /// What its value must be.
    pub test: QueryTest,
}

/// `query_parameter_match_specifier`.
#[derive(Debug, Clone)]
pub enum QueryTest {
    /// `present_match` (its bool).
    Present(bool),
    /// `string_match`.
    String(StringMatcher),
}

/// `envoy.config.route.v3.CookieMatcher`.
#[derive(Debug, Clone)]
pub struct CookieMatcher {
    /// `name`.
    pub name: Box<str>,
    /// What the first value of the cookie must be.
    pub test: StringMatcher,
    /// `invert_match`.
    pub invert: bool,
}

/// `envoy.type.matcher.v3.RegexMatchAndSubstitute`.
#[derive(Debug, Clone)]
pub struct RewritePattern {
    /// `pattern`: every match is replaced.
    pub pattern: regex::Regex,
    /// `substitution` in the `regex` crate's form (`\1` became `${1}`).
    pub substitution: Box<str>,
}
