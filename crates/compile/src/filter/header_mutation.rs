//! Changes of headers, trailers and query parameters.
//!
//! The listener's changes come first, then those of the levels of the route: the most specific first, so that the
//! others win, unless `most_specific_header_mutations_wins`. Differs: Envoy takes `remove` of a pseudo header, which
//! can only break a message; it is refused here as in `append`. Source: `envoy.extensions.filters.http.header_mutation.v3`.

use http::HeaderName;
use meltemi_envoy::config::common::mutation_rules::v3 as rules;
use meltemi_envoy::config::common::mutation_rules::v3::header_mutation::{Action, RemoveOnMatch};
use meltemi_envoy::config::core::v3::key_value_append::KeyValueAppendAction;
use meltemi_envoy::config::core::v3::{KeyValueAppend, KeyValueMutation, KeyValuePair};
use meltemi_envoy::extensions::filters::http::header_mutation::v3 as proto;
use prost_types::value::Kind;

use super::{Effect, HeadEdit, Levels, RouteFilterConfig, Verdict};
use crate::format::Format;
use crate::header_edit::{AppendAction, HeaderAdd, header_add, modifiable};
use crate::ledger::{At, refuse};
use crate::matcher::{StringMatcher, string_matcher};

/// The configuration at the listener.
#[derive(Debug, Default)]
pub struct HeaderMutation {
    /// `mutations`.
    pub mutations: Mutations,
    /// `most_specific_header_mutations_wins`.
    pub most_specific_wins: bool,
}

/// A compiled `Mutations`.
#[derive(Debug, Default)]
pub struct Mutations {
    /// `request_mutations`.
    pub request: Vec<FieldMutation>,
    /// `query_parameter_mutations`, done after those of the request's headers.
    pub query: Vec<QueryMutation>,
    /// `response_mutations`.
    pub response: Vec<FieldMutation>,
    /// `request_trailers_mutations`.
    pub request_trailers: Vec<FieldMutation>,
    /// `response_trailers_mutations`.
    pub response_trailers: Vec<FieldMutation>,
}

/// A change of one header, or of several by name.
#[derive(Debug)]
pub enum FieldMutation {
    /// `remove`.
    Remove(HeaderName),
    /// `remove_on_match`: every header whose name matches.
    RemoveOnMatch(StringMatcher),
    /// `append`.
    Append(HeaderAdd),
}

/// A change of one query parameter.
#[derive(Debug)]
pub enum QueryMutation {
    /// `remove`.
    Remove(Box<str>),
    /// `append`.
    Append {
        /// Its name.
        key: Box<str>,
        /// Its value, maybe with operators.
        value: Format,
        /// `action`.
        action: AppendAction,
    },
}

/// The place of a change: which list of [`Mutations`] is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `request_mutations` (and the query).
    Request,
    /// `response_mutations`.
    Response,
    /// `request_trailers_mutations`.
    RequestTrailers,
    /// `response_trailers_mutations`.
    ResponseTrailers,
}

impl Mutations {
    /// The changes at a place.
    pub fn at(&self, place: Place) -> &[FieldMutation] {
        match place {
            Place::Request => &self.request,
            Place::Response => &self.response,
            Place::RequestTrailers => &self.request_trailers,
            Place::ResponseTrailers => &self.response_trailers,
        }
    }
}

impl HeaderMutation {
    /// All changes of a request or response, in the order in which they are done.
    pub fn all<'a>(
        &'a self,
        name: &'a str,
        levels: &Levels<'a>,
    ) -> impl Iterator<Item = &'a Mutations> + use<'a> {
        let mut levels = *levels;
        if self.most_specific_wins {
            levels.levels.reverse();
        }
        let of_route = levels.all(name).filter_map(|config| match config {
            RouteFilterConfig::HeaderMutation(mutations) => Some(&**mutations),
            _ => None,
        });
        std::iter::once(&self.mutations).chain(of_route)
    }

    /// Asks for the changes of the request, if there are any.
    pub(super) fn decode(&self, name: &str, levels: &Levels<'_>) -> Verdict {
        let any = self.has(name, levels, Place::Request) || self.has(name, levels, Place::RequestTrailers);
        if any { Verdict::Await(Effect::MutateRequest) } else { Verdict::Continue }
    }

    /// Asks for the changes of the response, if there are any.
    pub(super) fn encode(&self, name: &str, levels: &Levels<'_>) -> HeadEdit {
        let any = self.has(name, levels, Place::Response) || self.has(name, levels, Place::ResponseTrailers);
        if any { HeadEdit::Mutate } else { HeadEdit::Nothing }
    }

    /// Whether anything happens at a place.
    fn has(&self, name: &str, levels: &Levels<'_>, place: Place) -> bool {
        let is_query = place == Place::Request;
        self.all(name, levels).any(|all| !all.at(place).is_empty() || is_query && !all.query.is_empty())
    }
}

/// Compiles the message of the listener.
pub(super) fn compile(at: &At<'_>, message: &proto::HeaderMutation) -> HeaderMutation {
    let proto::HeaderMutation { mutations: all, most_specific_header_mutations_wins } = message;
    HeaderMutation {
        mutations: mutations(&at.field("mutations"), all.as_ref()),
        most_specific_wins: *most_specific_header_mutations_wins,
    }
}

/// Compiles the message of a route.
pub(super) fn per_route(at: &At<'_>, message: &proto::HeaderMutationPerRoute) -> Mutations {
    let proto::HeaderMutationPerRoute { mutations: all } = message;
    mutations(&at.field("mutations"), all.as_ref())
}

fn mutations(at: &At<'_>, message: Option<&proto::Mutations>) -> Mutations {
    let Some(proto::Mutations {
        request_mutations,
        query_parameter_mutations,
        response_mutations,
        response_trailers_mutations,
        request_trailers_mutations,
    }) = message
    else {
        return Mutations::default();
    };
    Mutations {
        request: at.each("request_mutations", request_mutations, field_mutation),
        query: at.each("query_parameter_mutations", query_parameter_mutations, query_mutation),
        response: at.each("response_mutations", response_mutations, field_mutation),
        request_trailers: at.each("request_trailers_mutations", request_trailers_mutations, field_mutation),
        response_trailers: at.each(
            "response_trailers_mutations",
            response_trailers_mutations,
            field_mutation,
        ),
    }
}

fn field_mutation(at: &At<'_>, message: &rules::HeaderMutation) -> Option<FieldMutation> {
    let rules::HeaderMutation { action } = message;
    match action {
        Some(Action::Remove(name)) => modifiable(&at.field("remove"), name).map(FieldMutation::Remove),
        Some(Action::Append(message)) => header_add(&at.field("append"), message).map(FieldMutation::Append),
        Some(Action::RemoveOnMatch(RemoveOnMatch { key_matcher })) => {
            let at_match = at.field("remove_on_match");
            let at = at_match.field("key_matcher");
            match key_matcher {
                Some(matcher) => string_matcher(&at, matcher).map(FieldMutation::RemoveOnMatch),
                None => at.none("must be set"),
            }
        }
        None => at.none("an action must be set"),
    }
}

fn query_mutation(at: &At<'_>, message: &KeyValueMutation) -> Option<QueryMutation> {
    let KeyValueMutation { append, remove } = message;
    let Some(KeyValueAppend { record, entry, action }) = append else {
        if remove.is_empty() {
            return at.none("append or remove must be set");
        }
        return Some(QueryMutation::Remove(remove.as_str().into()));
    };
    let at = at.field("append");
    refuse!(at; entry);
    let Some(KeyValuePair { key, value }) = record else { return at.field("record").none("must be set") };
    let at_record = at.field("record");
    at_record.required("key", key);
    let Some(Kind::StringValue(text)) = value.as_ref().and_then(|value| value.kind.as_ref()) else {
        return at_record.field("value").none("must be a string");
    };
    let value = match Format::parse(text) {
        Ok(format) => format,
        Err(error) => return at_record.field("value").none(error),
    };
    let action = match at.choice("action", *action)? {
        KeyValueAppendAction::AppendIfExistsOrAdd => AppendAction::AppendIfExistsOrAdd,
        KeyValueAppendAction::AddIfAbsent => AppendAction::AddIfAbsent,
        KeyValueAppendAction::OverwriteIfExistsOrAdd => AppendAction::OverwriteIfExistsOrAdd,
        KeyValueAppendAction::OverwriteIfExists => AppendAction::OverwriteIfExists,
    };
    Some(QueryMutation::Append { key: key.as_str().into(), value, action })
}
