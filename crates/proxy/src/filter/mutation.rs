//! Carrying out the changes of the header_mutation filter.
//!
//! What is changed when: request headers and query while the request passes the filters, response headers when the
//! response does. Trailers come later; their changes are worked out with the head and kept ([`TrailerEdits`]).

use http::{HeaderName, HeaderValue};
use meltemi_compile::filter::header_mutation::{
    FieldMutation, HeaderMutation, Mutations, Place, QueryMutation,
};
use meltemi_compile::header_edit::{AppendAction, HeaderAdd};
use meltemi_compile::matcher::StringMatcher;
use meltemi_http::{Headers, ResponseHead, Text};

use super::query::Query;
use crate::record::RecordView;
use crate::stream::Stream;
use crate::stream::edits::evaluate;

/// Changes of trailers that are still to come.
#[derive(Debug, Default)]
pub(crate) struct TrailerEdits(Vec<Edit>);

/// A change whose value is known.
#[derive(Debug)]
enum Edit {
    Remove(HeaderName),
    RemoveOnMatch(StringMatcher),
    Put(HeaderName, HeaderValue, AppendAction),
}

impl TrailerEdits {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Changes the trailers.
    pub(crate) fn apply(&self, trailers: &mut Headers) {
        for edit in &self.0 {
            match edit {
                Edit::Remove(name) => {
                    trailers.remove(name);
                }
                Edit::RemoveOnMatch(matcher) => remove_matching(trailers, matcher),
                Edit::Put(name, value, action) => put(trailers, name, value.clone(), *action),
            }
        }
    }

    fn add(&mut self, mutation: &FieldMutation, view: &RecordView<'_>) {
        match mutation {
            FieldMutation::Remove(name) => self.0.push(Edit::Remove(name.clone())),
            FieldMutation::RemoveOnMatch(matcher) => self.0.push(Edit::RemoveOnMatch(matcher.clone())),
            FieldMutation::Append(add) => {
                let value = value_of(add, view);
                self.0.extend(value.map(|value| Edit::Put(add.name.clone(), value, add.action)));
            }
        }
    }
}

impl Stream<'_, '_> {
    /// Changes the request; what there is for its trailers waits in the body.
    pub(super) fn mutate_request(&mut self, config: &HeaderMutation, name: &str) {
        let taken = self.record.found.clone();
        let levels = self.levels_of(taken.as_ref());
        for mutations in config.all(name, &levels) {
            mutations.request.iter().for_each(|mutation| self.mutate_request_head(mutation));
            self.mutate_query(&mutations.query);
        }
        let edits = self.trailer_edits(config.all(name, &levels), Place::RequestTrailers, None);
        if !edits.is_empty() {
            self.body.edit_trailers(edits);
        }
    }

    fn mutate_request_head(&mut self, mutation: &FieldMutation) {
        let view = self.record.view(Some(&self.request), None, None);
        let value = added(mutation, &view);
        mutate(&mut self.request.headers, mutation, value);
    }

    fn mutate_query(&mut self, mutations: &[QueryMutation]) {
        if mutations.is_empty() {
            return;
        }
        let mut query = Query::parse(&self.request.path);
        for mutation in mutations {
            match mutation {
                QueryMutation::Remove(key) => query.remove(key),
                QueryMutation::Append { key, value, action } => {
                    let view = self.record.view(Some(&self.request), None, None);
                    let value = evaluate(value, &view).unwrap_or(HeaderValue::from_static(""));
                    query.put(key, &String::from_utf8_lossy(value.as_bytes()), *action);
                }
            }
        }
        self.request.path = Text::from(query.replaced_in(&self.request.path));
    }

    /// Changes a response; gives what there is for its trailers.
    pub(super) fn mutate_response(
        &mut self,
        config: &HeaderMutation,
        name: &str,
        head: &mut ResponseHead,
    ) -> TrailerEdits {
        let taken = self.record.found.clone();
        let levels = self.levels_of(taken.as_ref());
        for mutation in config.all(name, &levels).flat_map(|mutations| &mutations.response) {
            self.mutate_response_head(mutation, head);
        }
        self.trailer_edits(config.all(name, &levels), Place::ResponseTrailers, Some(&head.headers))
    }

    fn mutate_response_head(&self, mutation: &FieldMutation, head: &mut ResponseHead) {
        let view = self.record.view(Some(&self.request), Some(&head.headers), None);
        let value = added(mutation, &view);
        mutate(&mut head.headers, mutation, value);
    }

    fn trailer_edits<'m>(
        &self,
        all: impl Iterator<Item = &'m Mutations>,
        place: Place,
        response: Option<&Headers>,
    ) -> TrailerEdits {
        let mut edits = TrailerEdits::default();
        let view = self.record.view(Some(&self.request), response, None);
        all.flat_map(|mutations| mutations.at(place)).for_each(|mutation| edits.add(mutation, &view));
        edits
    }
}

/// The value that a change adds.
fn added(mutation: &FieldMutation, view: &RecordView<'_>) -> Option<HeaderValue> {
    match mutation {
        FieldMutation::Append(add) => value_of(add, view),
        FieldMutation::Remove(_) | FieldMutation::RemoveOnMatch(_) => None,
    }
}

/// The value of an addition; an empty one is none, unless the configuration says so.
fn value_of(add: &HeaderAdd, view: &RecordView<'_>) -> Option<HeaderValue> {
    evaluate(&add.value, view).filter(|value| add.keep_empty || !value.is_empty())
}

fn mutate(headers: &mut Headers, mutation: &FieldMutation, value: Option<HeaderValue>) {
    match (mutation, value) {
        (FieldMutation::Remove(name), _) => {
            headers.remove(name);
        }
        (FieldMutation::RemoveOnMatch(matcher), _) => remove_matching(headers, matcher),
        (FieldMutation::Append(add), Some(value)) => put(headers, &add.name, value, add.action),
        (FieldMutation::Append(_), None) => {}
    }
}

fn remove_matching(headers: &mut Headers, matcher: &StringMatcher) {
    headers.retain(|name, _| !matcher.matches(name.as_str().as_bytes()));
}

fn put(headers: &mut Headers, name: &HeaderName, value: HeaderValue, action: AppendAction) {
    let is_there = headers.contains(name);
    match action {
        AppendAction::AddIfAbsent if is_there => {}
        AppendAction::OverwriteIfExists if !is_there => {}
        AppendAction::AppendIfExistsOrAdd | AppendAction::AddIfAbsent => headers.append(name.clone(), value),
        AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => {
            headers.set(name.clone(), value)
        }
    }
}
