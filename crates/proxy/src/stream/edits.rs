//! Header changes of routes, carried out.
//!
//! Source: Envoy's `HeaderParser` and `RouteEntryImplBase::finalizeRequestHeaders`: within a level removals come
//! first, and a later level wins; by default the route is first and the route configuration last.

use http::HeaderValue;
use meltemi_compile::format::{Format, Op};
use meltemi_compile::header_edit::{AppendAction, HeaderAdd, HeaderEdits};
use meltemi_compile::route::{Found, RouteEdits, WeightedCluster};
use meltemi_http::{Headers, RequestHead};

use crate::access_log::format::{Missing, render};
use crate::record::{RecordView, RequestRecord};

/// Where header changes come from, most specific first.
pub(crate) struct Levels<'a> {
    pub(crate) found: Found<'a>,
    pub(crate) entry: Option<&'a WeightedCluster>,
}

/// Changes the request.
pub(crate) fn request(head: &mut RequestHead, levels: &Levels<'_>, record: &RequestRecord) {
    for edits in in_order(levels) {
        let edits = &edits.request;
        if edits.is_empty() {
            continue;
        }
        remove(&mut head.headers, edits);
        for add in &edits.add {
            let value = evaluate(&add.value, &record.view(Some(head), None, None));
            if let Some(value) = accepted(value, add) {
                apply(&mut head.headers, add, value);
            }
        }
    }
}

/// Changes the response.
pub(crate) fn response(
    headers: &mut Headers,
    levels: &Levels<'_>,
    record: &RequestRecord,
    request: &RequestHead,
) {
    for edits in in_order(levels) {
        let edits = &edits.response;
        if edits.is_empty() {
            continue;
        }
        remove(headers, edits);
        for add in &edits.add {
            let value = evaluate(&add.value, &record.view(Some(request), Some(headers), None));
            if let Some(value) = accepted(value, add) {
                apply(headers, add, value);
            }
        }
    }
}

/// The levels in the order in which they are applied.
fn in_order<'a>(levels: &Levels<'a>) -> impl Iterator<Item = &'a RouteEdits> {
    let route = &levels.found.route.edits;
    let virtual_host = &levels.found.virtual_host.edits;
    let table = &levels.found.table.edits;
    let levels_then = if levels.found.table.most_specific_wins {
        [table, virtual_host, route]
    } else {
        [route, virtual_host, table]
    };
    levels.entry.map(|entry| &entry.edits).into_iter().chain(levels_then)
}

fn remove(headers: &mut Headers, edits: &HeaderEdits) {
    for name in &edits.remove {
        headers.remove(name);
    }
}

fn evaluate(format: &Format, view: &RecordView<'_>) -> Option<HeaderValue> {
    if let [Op::Literal(text)] = format.ops.as_slice() {
        return HeaderValue::from_str(text).ok();
    }
    let mut out = Vec::new();
    render(format, view, Missing::Empty, &mut out);
    HeaderValue::try_from(out).ok()
}

/// An empty value is not added, unless the configuration says so.
fn accepted(value: Option<HeaderValue>, add: &HeaderAdd) -> Option<HeaderValue> {
    value.filter(|value| add.keep_empty || !value.is_empty())
}

fn apply(headers: &mut Headers, add: &HeaderAdd, value: HeaderValue) {
    let name = add.name.clone();
    match add.action {
        AppendAction::AppendIfExistsOrAdd => headers.append(name, value),
        AppendAction::AddIfAbsent if headers.contains(&name) => {}
        AppendAction::OverwriteIfExists if !headers.contains(&name) => {}
        AppendAction::AddIfAbsent => headers.append(name, value),
        AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => headers.set(name, value),
    }
}
