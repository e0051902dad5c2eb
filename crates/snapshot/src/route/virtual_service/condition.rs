//! `match` of a VirtualService.

use std::collections::BTreeMap;

use meltemi_api::istio::{HttpMatchRequest, L4MatchAttributes, StringMatch, TlsMatchAttributes};

use super::port;
use crate::config::GatewayName;
use crate::route::{
    Callers, ClaimMatch, HeaderMatch, HttpCondition, PathMatch, QueryMatch, TextMatch, Written,
};

/// What a regular expression is replaced by that stands for any value: it is no RE2 by itself.
const ANY: &str = "*";

pub(super) fn http(m: &HttpMatchRequest, written: &Written) -> HttpCondition {
    let (headers, claims) = headers(m);
    HttpCondition {
        name: m.name.clone().unwrap_or_default(),
        stat_prefix: m.stat_prefix.clone().unwrap_or_default(),
        path: path(m.uri.as_ref()),
        ignores_path_case: m.ignore_uri_case == Some(true),
        headers,
        method: m.method.as_ref().map(text),
        authority: m.authority.as_ref().map(text),
        scheme: m.scheme.as_ref().map(text),
        query: m
            .query_params
            .iter()
            .map(|(name, value)| QueryMatch { name: name.clone(), value: text(value) })
            .collect(),
        claims,
        callers: callers_of_http(m, written),
        written: written.clone(),
    }
}

fn path(uri: Option<&StringMatch>) -> PathMatch {
    match uri {
        None | Some(StringMatch::Present) => PathMatch::Any,
        Some(StringMatch::Exact(path)) => PathMatch::Exact(path.clone()),
        Some(StringMatch::Prefix(prefix)) => PathMatch::Prefix(prefix.clone()),
        Some(StringMatch::Regex(regex)) => PathMatch::Regex(regex.clone()),
    }
}

pub(super) fn text(wire: &StringMatch) -> TextMatch {
    match wire {
        StringMatch::Present => TextMatch::Present,
        StringMatch::Prefix(prefix) if prefix.is_empty() => TextMatch::Present,
        StringMatch::Regex(regex) if regex == ANY => TextMatch::Present,
        StringMatch::Exact(text) => TextMatch::Exact(text.clone()),
        StringMatch::Prefix(prefix) => TextMatch::Prefix(prefix.clone()),
        StringMatch::Regex(regex) => TextMatch::Regex(regex.clone()),
    }
}

/// Those that must match and those that must not, by name; claims are spelt as headers.
fn headers(m: &HttpMatchRequest) -> (Vec<HeaderMatch>, Vec<ClaimMatch>) {
    let wanted = m.headers.iter().map(|entry| (entry, false));
    let unwanted = m.without_headers.iter().map(|entry| (entry, true));
    let (mut headers, mut claims) = (Vec::new(), Vec::new());
    for ((name, value), is_inverted) in wanted.chain(unwanted) {
        let value = text(value);
        match meltemi_api::istio::claim_of_header(name) {
            Some(path) => claims.push(ClaimMatch { path, value, is_inverted }),
            None => headers.push(HeaderMatch { name: name.clone(), value, is_inverted }),
        }
    }
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    (headers, claims)
}

/// Where gateways are named, the workload behind the call is not looked at: behind a gateway there is none.
fn callers_of_http(m: &HttpMatchRequest, written: &Written) -> Callers {
    let callers = callers(m.port, &m.gateways, &m.source_labels, written);
    let namespace = m.source_namespace.clone().unwrap_or_default();
    match callers.gateways.as_slice() {
        [] => Callers { namespace, ..callers },
        _ => Callers { labels: BTreeMap::new(), ..callers },
    }
}

pub(super) fn callers_of_tls(m: &TlsMatchAttributes, written: &Written) -> Callers {
    let callers = callers(m.port, &m.gateways, &m.source_labels, written);
    Callers { namespace: m.source_namespace.clone().unwrap_or_default(), ..callers }
}

pub(super) fn callers_of_tcp(m: &L4MatchAttributes, written: &Written) -> Callers {
    let callers = callers(m.port, &m.gateways, &m.source_labels, written);
    Callers { namespace: m.source_namespace.clone().unwrap_or_default(), ..callers }
}

fn callers(
    called: Option<u32>,
    gateways: &[String],
    labels: &BTreeMap<String, String>,
    written: &Written,
) -> Callers {
    let namespace = &written.object.id.namespace;
    Callers {
        port: called.and_then(port),
        gateways: gateways.iter().map(|name| GatewayName::resolve(name, namespace)).collect(),
        labels: labels.clone(),
        namespace: String::new(),
    }
}
