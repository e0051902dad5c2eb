//! Rules of `StringMatch`, which depend on the field that it stands in.

use crate::codes;
use crate::decode::Decoder;
use crate::istio::StringMatch;
use crate::syntax;

/// An empty text at the start of every text is no condition.
pub(super) fn no_empty_prefix(decoder: &mut Decoder, field: &str, value: &StringMatch) {
    if matches!(value, StringMatch::Prefix(prefix) if prefix.is_empty()) {
        let message = "the prefix is empty".to_owned();
        decoder.report_below(
            field,
            &codes::EMPTY,
            message,
            "remove the condition, or write `{}` for any value",
        );
    }
}

/// A text has to be there, whichever way it is compared.
pub(super) fn says_something(decoder: &mut Decoder, field: &str, value: &StringMatch) {
    let text = match value {
        StringMatch::Present => "",
        StringMatch::Exact(text) | StringMatch::Prefix(text) | StringMatch::Regex(text) => text,
    };
    if text.is_empty() {
        decoder.report_below(field, &codes::EMPTY, "the text is empty".to_owned(), "say what it is to match");
    }
}

/// `*` alone stands for any value only where Istio lets it.
pub(super) fn is_expression(decoder: &mut Decoder, field: &str, value: &StringMatch) {
    if let StringMatch::Regex(regex) = value
        && let Err(flaw) = syntax::regex(regex)
        && regex == "*"
    {
        decoder.report_below(field, flaw.code, flaw.message, "write `.*` for any text");
    }
}
