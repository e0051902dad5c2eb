//! Header changes of routes, carried out.
//!
//! Source: Envoy's `HeaderParser` and `RouteEntryImplBase::finalizeRequestHeaders`: within a level removals come
//! first, and a later level wins; by default the route is first and the route configuration last.

use http::HeaderValue;
use meltemi_compile::format::{Format, Op};
use meltemi_compile::header_edit::{AppendAction, HeaderAdd, HeaderEdits};
use meltemi_compile::route::{Found, RouteEdits, WeightedCluster};
use meltemi_http::{Headers, RequestHead};
use smallvec::SmallVec;

use crate::access_log::format::{Missing, render};
use crate::record::{RecordView, RequestRecord};

/// Where header changes come from, most specific first.
pub(crate) struct Levels<'a> {
    pub(crate) found: Found<'a>,
    pub(crate) entry: Option<&'a WeightedCluster>,
}

/// Changes the request.
pub(crate) fn request(head: &mut RequestHead, levels: &Levels<'_>, record: &RequestRecord) {
    for edits in in_order(levels).map(|edits| &edits.request).filter(|edits| !edits.is_empty()) {
        remove(&mut head.headers, edits);
        let changes = changes(edits, &head.headers, &record.view(Some(head), None, None));
        apply(&mut head.headers, changes);
    }
}

/// Changes the response.
pub(crate) fn response(
    headers: &mut Headers,
    levels: &Levels<'_>,
    record: &RequestRecord,
    request: &RequestHead,
) {
    for edits in in_order(levels).map(|edits| &edits.response).filter(|edits| !edits.is_empty()) {
        remove(headers, edits);
        let changes = changes(edits, headers, &record.view(Some(request), Some(headers), None));
        apply(headers, changes);
    }
}

/// Adds the headers of an answer of ours.
pub(crate) fn add(
    headers: &mut Headers,
    edits: &HeaderEdits,
    record: &RequestRecord,
    request: Option<&RequestHead>,
) {
    let changes = changes(edits, headers, &record.view(request, Some(headers), None));
    apply(headers, changes);
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

/// A header value from a format; `None` when it holds what a header must not.
pub(crate) fn evaluate(format: &Format, view: &RecordView<'_>) -> Option<HeaderValue> {
    if let [Op::Literal(text)] = format.ops.as_slice() {
        return HeaderValue::from_str(text).ok();
    }
    HeaderValue::try_from(text(format, view, Missing::Empty)).ok()
}

/// A format, evaluated.
pub(crate) fn text(format: &Format, view: &RecordView<'_>, missing: Missing) -> Vec<u8> {
    let mut out = Vec::new();
    render(format, view, missing, &mut out);
    out
}

/// What a level adds: all of it is worked out on the headers as they were before, as in Envoy.
fn changes<'e>(
    edits: &'e HeaderEdits,
    headers: &Headers,
    view: &RecordView<'_>,
) -> SmallVec<[(&'e HeaderAdd, HeaderValue); 4]> {
    let change = |add: &'e HeaderAdd| {
        let value = evaluate(&add.value, view)?;
        // An empty value is not added, unless the configuration says so.
        let is_wanted = (add.keep_empty || !value.is_empty())
            && match add.action {
                AppendAction::AppendIfExistsOrAdd | AppendAction::OverwriteIfExistsOrAdd => true,
                AppendAction::AddIfAbsent => !headers.contains(&add.name),
                AppendAction::OverwriteIfExists => headers.contains(&add.name),
            };
        is_wanted.then_some((add, value))
    };
    edits.add.iter().filter_map(change).collect()
}

/// Overwrites first, then adds.
fn apply(headers: &mut Headers, changes: SmallVec<[(&HeaderAdd, HeaderValue); 4]>) {
    let mut added: SmallVec<[_; 4]> = SmallVec::new();
    for (add, value) in changes {
        match add.action {
            AppendAction::AppendIfExistsOrAdd | AppendAction::AddIfAbsent => added.push((add, value)),
            AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => {
                headers.set(add.name.clone(), value);
            }
        }
    }
    for (add, value) in added {
        headers.append(add.name.clone(), value);
    }
}

#[cfg(test)]
mod micro;
