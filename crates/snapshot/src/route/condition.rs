//! Conditions of HTTP rules, and which callers a condition is for.

use std::collections::BTreeMap;

use crate::config::GatewayName;
use crate::route::Written;

/// One condition; all of its parts must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpCondition {
    /// Name, appended to the rule's; may be empty.
    pub name: String,
    /// Prefix of the statistics of requests that take it; may be empty.
    pub stat_prefix: String,
    /// The path, without query.
    pub path: PathMatch,
    /// Whether exact paths and prefixes are compared without regard to case.
    pub ignores_path_case: bool,
    /// Headers, by name.
    pub headers: Vec<HeaderMatch>,
    /// The method.
    pub method: Option<TextMatch>,
    /// The authority.
    pub authority: Option<TextMatch>,
    /// The scheme.
    pub scheme: Option<TextMatch>,
    /// Query parameters, by name.
    pub query: Vec<QueryMatch>,
    /// Claims of the token that the request was authenticated by.
    pub claims: Vec<ClaimMatch>,
    /// For which callers.
    pub callers: Callers,
    /// Where it says so.
    pub written: Written,
}

/// How a path is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// Any path.
    Any,
    /// The whole path.
    Exact(String),
    /// The start of the path.
    Prefix(String),
    /// A regular expression for the whole path.
    Regex(String),
}

/// How a text is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    /// Anything, as long as it is there.
    Present,
    /// The whole text.
    Exact(String),
    /// The start of the text.
    Prefix(String),
    /// A regular expression for the whole text.
    Regex(String),
}

/// A header that must match, or must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Name, in any case.
    pub name: String,
    /// Its value.
    pub value: TextMatch,
    /// The header must not match.
    pub is_inverted: bool,
}

/// A query parameter that must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryMatch {
    /// Name.
    pub name: String,
    /// Its value.
    pub value: TextMatch,
}

/// A claim that must match, or must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimMatch {
    /// The claim; with several names one within the other.
    pub path: Vec<String>,
    /// Its value, or one of a list.
    pub value: TextMatch,
    /// The claim must not match.
    pub is_inverted: bool,
}

/// Which callers a condition is for. Decided when the configuration of a proxy is made, not by the proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Callers {
    /// The port that the call is addressed to.
    pub port: Option<u16>,
    /// Gateways through which it comes; empty for those of the object.
    pub gateways: Vec<GatewayName>,
    /// Labels of the calling workload.
    pub labels: BTreeMap<String, String>,
    /// Namespace of the calling workload; empty for any.
    pub namespace: String,
}
