//! Header changes from their messages.

use http::header::HOST;
use http::{HeaderName, HeaderValue};
use meltemi_envoy::config::core::v3::header_value_option::HeaderAppendAction;
use meltemi_envoy::config::core::v3::{HeaderValue as HeaderValueMessage, HeaderValueOption};

use super::{AppendAction, HeaderAdd, HeaderEdits};
use crate::format::{Format, Op};
use crate::ledger::At;

/// The most additions at one level that Envoy takes.
const MAX_HEADERS_TO_ADD: usize = 1000;

/// The fields that hold a pair of additions and removals.
pub(crate) struct Fields {
    pub(crate) add: &'static str,
    remove: &'static str,
}

impl Fields {
    /// `request_headers_to_add`, `request_headers_to_remove`.
    pub(crate) const REQUEST: Fields =
        Fields { add: "request_headers_to_add", remove: "request_headers_to_remove" };
    /// `initial_metadata` of gRPC requests of our own.
    pub(crate) const METADATA: Fields = Fields { add: "initial_metadata", remove: "" };
    /// `headers_to_add` of answers of the proxy's own.
    pub(crate) const LOCAL_REPLY: Fields = Fields { add: "headers_to_add", remove: "" };
    /// `response_headers_to_add`, `response_headers_to_remove`.
    pub(crate) const RESPONSE: Fields =
        Fields { add: "response_headers_to_add", remove: "response_headers_to_remove" };
}

/// Compiles the changes of one level and direction.
pub(crate) fn header_edits(
    at: &At<'_>,
    fields: &Fields,
    add: &[HeaderValueOption],
    remove: &[String],
) -> HeaderEdits {
    if add.len() > MAX_HEADERS_TO_ADD {
        at.field(fields.add).reject(format_args!("more than {MAX_HEADERS_TO_ADD} headers"));
    }
    HeaderEdits {
        remove: at.each(fields.remove, remove, |at, name| modifiable(at, name)),
        add: at.each(fields.add, add, header_add),
    }
}

/// A header that a configuration may touch: Envoy keeps pseudo headers and `host` to the rewrites of the route.
pub(crate) fn modifiable(at: &At<'_>, name: &str) -> Option<HeaderName> {
    match HeaderName::try_from(name) {
        _ if name.starts_with(':') => at.none(":-prefixed or host headers may not be modified"),
        Ok(HOST) => at.none(":-prefixed or host headers may not be modified"),
        Ok(name) => Some(name),
        Err(_) => at.none(format_args!("{name:?} is not a header name")),
    }
}

/// One addition.
pub(crate) fn header_add(at: &At<'_>, message: &HeaderValueOption) -> Option<HeaderAdd> {
    let HeaderValueOption { header, append, append_action, keep_empty_value } = message;
    let Some(HeaderValueMessage { key, value, raw_value }) = header else {
        return at.field("header").none("must be set");
    };
    let at_header = at.field("header");
    let name = modifiable(&at_header.field("key"), key)?;
    let value = match (value.is_empty(), std::str::from_utf8(raw_value)) {
        (true, Ok(raw)) => format_value(&at_header.field("raw_value"), raw)?,
        (true, Err(_)) => {
            return at_header.field("raw_value").none("not supported yet: bytes that are not UTF-8");
        }
        (false, _) if raw_value.is_empty() => format_value(&at_header.field("value"), value)?,
        (false, _) => return at_header.field("raw_value").none("must not be set beside value"),
    };
    let action = append_action_of(at, *append, *append_action)?;
    Some(HeaderAdd { name, value, action, keep_empty: *keep_empty_value })
}

fn append_action_of(at: &At<'_>, append: Option<bool>, action: i32) -> Option<AppendAction> {
    let action = at.choice("append_action", action)?;
    match (append, action) {
        (Some(true), HeaderAppendAction::AppendIfExistsOrAdd) => Some(AppendAction::AppendIfExistsOrAdd),
        (Some(false), HeaderAppendAction::AppendIfExistsOrAdd) => Some(AppendAction::OverwriteIfExistsOrAdd),
        (Some(_), _) => at.field("append").none("must not be set beside append_action"),
        (None, HeaderAppendAction::AppendIfExistsOrAdd) => Some(AppendAction::AppendIfExistsOrAdd),
        (None, HeaderAppendAction::AddIfAbsent) => Some(AppendAction::AddIfAbsent),
        (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => Some(AppendAction::OverwriteIfExistsOrAdd),
        (None, HeaderAppendAction::OverwriteIfExists) => Some(AppendAction::OverwriteIfExists),
    }
}

fn format_value(at: &At<'_>, text: &str) -> Option<Format> {
    let format = match Format::parse(text) {
        Ok(format) => format,
        Err(error) => return at.none(error),
    };
    let is_valid = |op: &Op| match op {
        Op::Literal(text) => HeaderValue::try_from(&**text).is_ok(),
        _ => true,
    };
    if !format.ops.iter().all(is_valid) {
        return at.none("holds bytes that a header value must not have");
    }
    Some(format)
}
