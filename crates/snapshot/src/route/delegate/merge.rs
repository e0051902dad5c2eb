//! A route of a delegate below the route that leads to it: what both say, or that they contradict each other.
//!
//! Source: Istio `mergeHTTPRoute`, `mergeHTTPMatchRequests`, `hasConflict`, `stringMatchConflict`.

use std::collections::BTreeMap;

use meltemi_api::istio::{HttpMatchRequest, HttpRoute, StringMatch};

use super::Route;
use crate::route::Written;

/// What the delegate leaves open, the root says.
pub(super) fn route(root: &HttpRoute, delegate: HttpRoute) -> HttpRoute {
    HttpRoute {
        name: joined(root.name.as_deref(), delegate.name.as_deref()),
        rewrite: delegate.rewrite.or_else(|| root.rewrite.clone()),
        direct_response: delegate.direct_response.or_else(|| root.direct_response.clone()),
        timeout: delegate.timeout.or(root.timeout),
        retries: delegate.retries.or_else(|| root.retries.clone()),
        fault: delegate.fault.or_else(|| root.fault.clone()),
        mirror: delegate.mirror.or_else(|| root.mirror.clone()),
        mirror_percent: delegate.mirror_percent.or(root.mirror_percent),
        old_mirror_percent: delegate.old_mirror_percent.or(root.old_mirror_percent),
        mirror_percentage: delegate.mirror_percentage.or_else(|| root.mirror_percentage.clone()),
        cors_policy: delegate.cors_policy.or_else(|| root.cors_policy.clone()),
        mirrors: if delegate.mirrors.is_empty() { root.mirrors.clone() } else { delegate.mirrors },
        headers: delegate.headers.or_else(|| root.headers.clone()),
        ..delegate
    }
}

/// The conditions of both, each with the place that says more; `None` if one of the delegate's fits none of the root's.
pub(super) fn conditions(
    root: &[HttpMatchRequest],
    delegate: &[HttpMatchRequest],
    root_at: &Written,
    own: &Route<'_>,
) -> Option<(Vec<HttpMatchRequest>, Vec<Written>)> {
    let root_place = |i: usize| root_at.below(&format!("match[{i}]"));
    if root.is_empty() {
        return Some((delegate.to_vec(), own.matches.clone()));
    }
    if delegate.is_empty() {
        return Some((root.to_vec(), (0..root.len()).map(root_place).collect()));
    }
    let (mut merged, mut places) = (Vec::new(), Vec::new());
    for (leaf, place) in delegate.iter().zip(&own.matches) {
        let fitting: Vec<&HttpMatchRequest> = root.iter().filter(|above| !conflict(above, leaf)).collect();
        if fitting.is_empty() {
            return None;
        }
        merged.extend(fitting.iter().map(|above| condition(above, leaf)));
        places.extend(fitting.iter().map(|_| place.clone()));
    }
    Some((merged, places))
}

fn condition(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> HttpMatchRequest {
    let text = |leaf: &Option<String>, root: &Option<String>| {
        leaf.clone().filter(|text| !text.is_empty()).or_else(|| root.clone())
    };
    HttpMatchRequest {
        name: joined(root.name.as_deref(), leaf.name.as_deref()),
        uri: leaf.uri.clone().or_else(|| root.uri.clone()),
        scheme: leaf.scheme.clone().or_else(|| root.scheme.clone()),
        method: leaf.method.clone().or_else(|| root.method.clone()),
        authority: leaf.authority.clone().or_else(|| root.authority.clone()),
        headers: both(&root.headers, &leaf.headers),
        without_headers: both(&root.without_headers, &leaf.without_headers),
        query_params: both(&root.query_params, &leaf.query_params),
        port: leaf.port.filter(|port| *port > 0).or(root.port),
        source_labels: both(&root.source_labels, &leaf.source_labels),
        source_namespace: text(&leaf.source_namespace, &root.source_namespace),
        gateways: if leaf.gateways.is_empty() { root.gateways.clone() } else { leaf.gateways.clone() },
        stat_prefix: text(&leaf.stat_prefix, &root.stat_prefix),
        ignore_uri_case: leaf.ignore_uri_case,
    }
}

/// `root-delegate`, or the one that there is.
fn joined(root: Option<&str>, delegate: Option<&str>) -> Option<String> {
    let parts: Vec<&str> = [root, delegate].into_iter().flatten().filter(|name| !name.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join("-"))
}

/// Of an entry in both the delegate's counts.
fn both<T: Clone>(root: &BTreeMap<String, T>, leaf: &BTreeMap<String, T>) -> BTreeMap<String, T> {
    root.iter().chain(leaf).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether the delegate's condition is not part of the root's.
fn conflict(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> bool {
    let texts = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    let maps = [
        (&root.headers, &leaf.headers),
        (&root.without_headers, &leaf.without_headers),
        (&root.query_params, &leaf.query_params),
    ];
    let differ = |(root, leaf): (&BTreeMap<String, StringMatch>, &BTreeMap<String, StringMatch>)| {
        leaf.iter().any(|(name, value)| text_conflict(root.get(name), Some(value)))
    };
    texts.iter().any(|(root, leaf)| text_conflict(root.as_ref(), leaf.as_ref()))
        || maps.into_iter().any(differ)
        || caller_conflict(root, leaf)
}

fn caller_conflict(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> bool {
    let port = |m: &HttpMatchRequest| m.port.unwrap_or(0);
    let namespace = |m: &HttpMatchRequest| m.source_namespace.clone().unwrap_or_default();
    let label_differs =
        |(name, value): (&String, &String)| root.source_labels.get(name).is_some_and(|above| above != value);
    let gateways_differ = !root.gateways.is_empty()
        && (root.gateways.len() < leaf.gateways.len()
            || leaf.gateways.iter().any(|name| !root.gateways.contains(name)));
    root.ignore_uri_case.unwrap_or_default() != leaf.ignore_uri_case.unwrap_or_default()
        || (port(root) > 0 && port(leaf) > 0 && port(root) != port(leaf))
        || (!namespace(root).is_empty() && namespace(root) != namespace(leaf))
        || leaf.source_labels.iter().any(label_differs)
        || gateways_differ
}

/// Only what is surely part of the root's fits: the same text, or one that begins as it says.
fn text_conflict(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    use StringMatch::{Exact, Prefix};
    match (root, leaf) {
        (None, _) | (_, None) => false,
        (Some(Exact(root)), Some(Exact(leaf))) => root != leaf,
        (Some(Prefix(root)), Some(Exact(leaf) | Prefix(leaf))) if !root.is_empty() => {
            !leaf.starts_with(root.as_str())
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Option<StringMatch> {
        Some(StringMatch::Exact(text.to_owned()))
    }

    fn prefix(text: &str) -> Option<StringMatch> {
        Some(StringMatch::Prefix(text.to_owned()))
    }

    #[test]
    fn a_text_fits_where_it_is_surely_part_of_the_other() {
        let regex = Some(StringMatch::Regex("/a.*".to_owned()));
        let fits = |root: &Option<StringMatch>, leaf: &Option<StringMatch>| {
            !text_conflict(root.as_ref(), leaf.as_ref())
        };
        assert!(fits(&None, &exact("/a")) && fits(&regex, &None));
        assert!(fits(&prefix("/a"), &exact("/a/b")) && fits(&prefix("/a"), &prefix("/ab")));
        assert!(!fits(&prefix("/a/b"), &prefix("/a")) && !fits(&prefix("/a"), &exact("/b")));
        assert!(fits(&exact("/a"), &exact("/a")) && !fits(&exact("/a"), &prefix("/a")));
        assert!(!fits(&regex, &exact("/a")) && !fits(&prefix("/"), &regex));
        assert!(!fits(&Some(StringMatch::Present), &exact("a")));
    }

    #[test]
    fn callers_fit_where_they_are_among_the_others() {
        let root = HttpMatchRequest {
            gateways: vec!["shop/a".to_owned(), "mesh".to_owned()],
            port: Some(80),
            source_labels: [("app".to_owned(), "a".to_owned())].into(),
            ..Default::default()
        };
        let leaf = |change: fn(&mut HttpMatchRequest)| {
            let mut leaf = HttpMatchRequest::default();
            change(&mut leaf);
            !conflict(&root, &leaf)
        };
        assert!(leaf(|_| {}) && leaf(|m| m.gateways = vec!["mesh".to_owned()]));
        assert!(!leaf(|m| m.gateways = vec!["shop/b".to_owned()]) && !leaf(|m| m.port = Some(81)));
        assert!(!leaf(|m| m.ignore_uri_case = Some(true)));
        assert!(leaf(|m| _ = m.source_labels.insert("team".to_owned(), "b".to_owned())));
        assert!(!leaf(|m| _ = m.source_labels.insert("app".to_owned(), "b".to_owned())));
        // One that does not say its namespace may be of another.
        let of_shop = HttpMatchRequest { source_namespace: Some("shop".to_owned()), ..Default::default() };
        assert!(conflict(&of_shop, &HttpMatchRequest::default()));
    }
}
