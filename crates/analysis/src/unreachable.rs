//! Routes and conditions of a VirtualService that earlier ones leave nothing to.
//!
//! Source: Istio `pkg/config/validation` (`analyzeUnreachable…Rules`).

use std::collections::BTreeMap;

use meltemi_api::istio::{HttpMatchRequest, HttpRoute, StringMatch};
use meltemi_api::{Diagnostic, Object, Spec};

use crate::catalogue::{INEFFECTIVE_MATCH, UNREACHABLE_RULE};
use crate::finding::found;
use crate::mesh::Mesh;

pub(crate) fn routes(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects() {
        let Spec::VirtualService(spec) = &object.spec else { continue };
        let nameless = |condition: &HttpMatchRequest| HttpMatchRequest { name: None, ..condition.clone() };
        let http: Vec<Vec<HttpMatchRequest>> =
            spec.http.iter().map(|route| route.matches.iter().map(nameless).collect()).collect();
        duplicates(object, "http", &http, findings);
        let tls: Vec<_> = spec.tls.iter().map(|route| route.matches.clone()).collect();
        duplicates(object, "tls", &tls, findings);
        let tcp: Vec<_> = spec.tcp.iter().map(|route| route.matches.clone()).collect();
        duplicates(object, "tcp", &tcp, findings);
        overlaps(object, &spec.http, findings);
    }
}

/// Conditions that stand in an earlier route already, and routes of nothing else.
fn duplicates<T: PartialEq>(object: &Object, list: &str, routes: &[Vec<T>], findings: &mut Vec<Diagnostic>) {
    let mut seen: Vec<(&T, usize)> = Vec::new();
    let mut takes_all: Option<usize> = None;
    for (index, conditions) in routes.iter().enumerate() {
        let field = format!("spec.{list}[{index}]");
        if let Some(earlier) = takes_all {
            let message = format!("this route can never match: `{list}[{earlier}]` takes everything");
            findings.push(found(&UNREACHABLE_RULE, object, &*field, message).help("move it further up"));
        }
        if conditions.is_empty() {
            takes_all = Some(index);
            continue;
        }
        if takes_all.is_some() {
            continue;
        }
        let mut doubled = 0;
        for (position, condition) in conditions.iter().enumerate() {
            let Some((_, earlier)) = seen.iter().find(|(known, _)| *known == condition) else {
                seen.push((condition, index));
                continue;
            };
            doubled += 1;
            let message = format!("`{list}[{earlier}]` has the same condition");
            findings.push(found(&INEFFECTIVE_MATCH, object, format!("{field}.match[{position}]"), message));
        }
        if doubled == conditions.len() {
            let message = "this route can never match: earlier routes have all of its conditions".to_owned();
            findings.push(
                found(&UNREACHABLE_RULE, object, field, message).help("remove it, or move it further up"),
            );
        }
    }
}

/// A condition on a prefix of the path, with what else narrows it.
struct Prefix<'a> {
    route: usize,
    position: usize,
    prefix: &'a str,
    condition: &'a HttpMatchRequest,
}

/// Conditions on a longer prefix after one on its beginning that is otherwise no narrower.
fn overlaps(object: &Object, routes: &[HttpRoute], findings: &mut Vec<Diagnostic>) {
    let mut prefixes: Vec<Prefix<'_>> = Vec::new();
    for (route, of) in routes.iter().enumerate() {
        for (position, condition) in of.matches.iter().enumerate() {
            if let Some(StringMatch::Prefix(prefix)) = &condition.uri
                && !prefix.is_empty()
            {
                prefixes.push(Prefix { route, position, prefix, condition });
            }
        }
    }
    for (index, later) in prefixes.iter().enumerate() {
        let earlier =
            prefixes[..index].iter().find(|earlier| earlier.prefix != later.prefix && covers(earlier, later));
        let Some(earlier) = earlier else { continue };
        let message = format!(
            "the prefix `{}` is taken by the prefix `{}` of `http[{}].match[{}]`",
            later.prefix, earlier.prefix, earlier.route, earlier.position
        );
        let field = format!("spec.http[{}].match[{}]", later.route, later.position);
        findings.push(
            found(&INEFFECTIVE_MATCH, object, field, message).help("move the longer prefix further up"),
        );
    }
}

fn covers(earlier: &Prefix<'_>, later: &Prefix<'_>) -> bool {
    let (a, b) = (earlier.condition, later.condition);
    later.prefix.starts_with(earlier.prefix)
        && a.port == b.port
        && part(&method(a)).starts_with(&part(&method(b)))
        && part(&a.authority).starts_with(&part(&b.authority))
        && all_cover(&a.headers, &b.headers)
        && all_cover(&a.query_params, &b.query_params)
        && all_cover(&a.without_headers, &b.without_headers)
}

/// Istio takes a condition without method for one on GET here.
fn method(condition: &HttpMatchRequest) -> Option<StringMatch> {
    condition.method.clone().or_else(|| Some(StringMatch::Exact("GET".to_owned())))
}

/// A condition as text that begins with its kind, so that one can be compared with another.
fn part(condition: &Option<StringMatch>) -> String {
    match condition {
        Some(StringMatch::Exact(text)) => format!("exact:{text}"),
        Some(StringMatch::Prefix(text)) => format!("prefix:{text}"),
        _ => String::new(),
    }
}

fn all_cover(earlier: &BTreeMap<String, StringMatch>, later: &BTreeMap<String, StringMatch>) -> bool {
    let text = |condition: &StringMatch| part(&Some(condition.clone()));
    let covered = |(name, condition): (&String, &StringMatch)| {
        later.get(name).is_some_and(|other| text(condition).starts_with(&text(other)))
    };
    earlier.len() == later.len() && earlier.iter().all(covered)
}
