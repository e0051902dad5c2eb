//! The number by which hashing balancers choose a host (`hash_policy`).
//!
//! Source: `envoy.config.route.v3.RouteAction.HashPolicy`. Values are hashed with XXH64, seed 0; the hash so far is
//! rotated left by one bit before the next is mixed in by exclusive or, exactly as Envoy does it, so that both
//! proxies send a key to the same host.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use meltemi_envoy::config::route::v3::route_action::HashPolicy as Message;
use meltemi_envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, FilterState, Header, PolicySpecifier, QueryParameter,
};
use xxhash_rust::xxh64::xxh64;

use crate::ledger::At;
use crate::matcher::{
    HeaderSubject, RequestView, RewritePattern, cookie, header_subject, query_parameter, rewrite_pattern,
};

/// The policies of a route, in order.
#[derive(Debug, Clone, Default)]
pub struct HashPolicies(Vec<HashPolicy>);

/// One policy.
#[derive(Debug, Clone)]
struct HashPolicy {
    source: HashSource,
    /// `terminal`: with a hash so far, later policies do not count.
    is_terminal: bool,
}

/// `policy_specifier`.
#[derive(Debug, Clone)]
enum HashSource {
    Header(HeaderSubject, Option<RewritePattern>),
    Cookie(CookiePolicy),
    SourceIp,
    QueryParameter(Box<str>),
    FilterState(Box<str>),
}

/// `cookie`: with a `ttl`, a client that has none gets one.
#[derive(Debug, Clone)]
pub struct CookiePolicy {
    name: Box<str>,
    ttl: Option<Duration>,
    /// What follows the value in `set-cookie`.
    attributes: Box<str>,
}

/// Longest text of an IP address.
const MAX_IP_BYTES: usize = 45;

impl HashPolicies {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hash of a request, if any policy gives one. `new_cookie` makes a cookie for a client without one and says
    /// its value; without it such a policy gives nothing.
    pub fn hash(
        &self,
        view: &impl RequestView,
        mut new_cookie: Option<&mut dyn FnMut(&CookiePolicy) -> String>,
    ) -> Option<u64> {
        let mut hash: Option<u64> = None;
        for policy in &self.0 {
            if let Some(new) = policy.source.hash(view, &mut new_cookie) {
                hash = Some(hash.unwrap_or(0).rotate_left(1) ^ new);
            }
            if policy.is_terminal && hash.is_some() {
                break;
            }
        }
        hash
    }
}

impl HashSource {
    fn hash(
        &self,
        view: &impl RequestView,
        new_cookie: &mut Option<&mut dyn FnMut(&CookiePolicy) -> String>,
    ) -> Option<u64> {
        match self {
            HashSource::Header(name, rewrite) => header_hash(view, name, rewrite.as_ref()),
            HashSource::Cookie(policy) => match cookie(view, &policy.name) {
                Some(value) if !value.is_empty() => Some(xxh64(&value, 0)),
                _ => {
                    policy.ttl?;
                    let value = new_cookie.as_mut()?(policy);
                    Some(xxh64(value.as_bytes(), 0))
                }
            },
            HashSource::SourceIp => {
                let mut text = [0_u8; MAX_IP_BYTES];
                let mut rest = &mut text[..];
                write!(rest, "{}", view.source_ip()?).ok()?;
                let len = MAX_IP_BYTES - rest.len();
                Some(xxh64(&text[..len], 0))
            }
            HashSource::QueryParameter(name) => {
                query_parameter(view.path(), name).map(|value| xxh64(value.as_bytes(), 0))
            }
            HashSource::FilterState(key) => {
                view.hashable_filter_state(key).map(|value| xxh64(value.as_bytes(), 0))
            }
        }
    }
}

/// All values of a header, in sorted order, so that the order in which they came does not matter; each is the seed of
/// the next.
fn header_hash(
    view: &impl RequestView,
    name: &HeaderSubject,
    rewrite: Option<&RewritePattern>,
) -> Option<u64> {
    let values = RefCell::new(Vec::new());
    let collect = |value: &[u8]| {
        let rewritten = match (rewrite, std::str::from_utf8(value)) {
            (Some(rewrite), Ok(text)) => rewrite.apply(text).into_owned().into_bytes(),
            _ => value.to_vec(),
        };
        values.borrow_mut().push(rewritten);
        false
    };
    name.any_value(view, &collect)?;
    let mut values = values.into_inner();
    values.sort_unstable();
    Some(values.iter().fold(0, |seed, value| xxh64(value, seed)))
}

impl CookiePolicy {
    /// The `set-cookie` that gives a client this value.
    pub fn set_cookie(&self, value: &str) -> String {
        format!("{}=\"{value}\"{}", self.name, self.attributes)
    }
}

/// Compiles the policies of a route.
pub(crate) fn hash_policies(at: &At<'_>, messages: &[Message]) -> HashPolicies {
    HashPolicies(at.each("hash_policy", messages, hash_policy).into_iter().flatten().collect())
}

/// A policy; the inner `None` is one that has no effect.
fn hash_policy(at: &At<'_>, message: &Message) -> Option<Option<HashPolicy>> {
    let Message { terminal, policy_specifier } = message;
    let source = match policy_specifier {
        Some(PolicySpecifier::Header(header)) => header_source(&at.field("header"), header)?,
        Some(PolicySpecifier::Cookie(cookie)) => cookie_source(&at.field("cookie"), cookie)?,
        Some(PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })) => {
            HashSource::SourceIp
        }
        Some(PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: false })) => {
            return Some(None);
        }
        Some(PolicySpecifier::QueryParameter(QueryParameter { name })) => {
            at.field("query_parameter").required("name", name);
            HashSource::QueryParameter(name.as_str().into())
        }
        Some(PolicySpecifier::FilterState(FilterState { key })) => {
            at.field("filter_state").required("key", key);
            HashSource::FilterState(key.as_str().into())
        }
        None => return at.none("a policy must be set"),
    };
    Some(Some(HashPolicy { source, is_terminal: *terminal }))
}

fn header_source(at: &At<'_>, message: &Header) -> Option<HashSource> {
    let Header { header_name, regex_rewrite } = message;
    let rewrite = match regex_rewrite {
        Some(rewrite) => Some(rewrite_pattern(&at.field("regex_rewrite"), rewrite)?),
        None => None,
    };
    Some(HashSource::Header(header_subject(at, "header_name", header_name)?, rewrite))
}

fn cookie_source(at: &At<'_>, message: &Cookie) -> Option<HashSource> {
    let Cookie { name, ttl, path, attributes } = message;
    at.required("name", name);
    let ttl = at.duration("ttl", ttl);
    let mut text = String::new();
    // Envoy counts whole seconds; 0 is a cookie for the session.
    if let Some(seconds) = ttl.map(|ttl| ttl.as_secs()).filter(|seconds| *seconds > 0) {
        let _ = write!(text, "; Max-Age={seconds}");
    }
    if !path.is_empty() {
        let _ = write!(text, "; Path={path}");
    }
    at.each("attributes", attributes, |at, CookieAttribute { name, value }| {
        at.required("name", name);
        text.push_str("; ");
        text.push_str(name);
        if !value.is_empty() {
            text.push('=');
            text.push_str(value);
        }
        Some(())
    });
    text.push_str("; HttpOnly");
    let policy = CookiePolicy { name: name.as_str().into(), ttl, attributes: text.into() };
    if http::HeaderValue::try_from(policy.set_cookie("")).is_err() {
        return at.none("holds bytes that a header value must not have");
    }
    Some(HashSource::Cookie(policy))
}

#[cfg(test)]
mod tests;
