//! Values of headers: what a header may carry, and the operators in them that the proxy replaces per request. Source:
//! RFC 9110, section 5.5; Envoy, "command operators" of its substitution format.

use super::{Flaw, Verdict};
use crate::codes;

/// Operators without parameter.
const PLAIN: &[&str] = &[
    "PROTOCOL",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "CONNECTION_TERMINATION_DETAILS",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "DURATION",
    "REQUEST_DURATION",
    "RESPONSE_DURATION",
    "RESPONSE_TX_DURATION",
    "START_TIME",
    "UPSTREAM_HOST",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "UPSTREAM_PROTOCOL",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "REQUESTED_SERVER_NAME",
    "ROUTE_NAME",
    "VIRTUAL_HOST_NAME",
    "HOSTNAME",
    "CONNECTION_ID",
    "STREAM_ID",
];

/// Operators that take the name of a header.
const OF_HEADER: &[&str] = &["REQ", "RESP", "TRAILER"];

/// Text that may stand in a header or a request line.
pub(crate) fn header_text(text: &str) -> Verdict {
    if text.chars().any(|c| c != '\t' && c.is_ascii_control()) {
        let message = "the text has a line break or another control character in it";
        return Err(Flaw::new(&codes::OUT_OF_RANGE, message));
    }
    Ok(())
}

/// The value of a header that is set or added: text with operators.
pub(crate) fn header_value(text: &str) -> Verdict {
    header_text(text)?;
    let mut rest = text;
    while let Some(start) = rest.find('%') {
        rest = &rest[start + 1..];
        rest = match rest.strip_prefix('%') {
            Some(after) => after,
            None => operator(rest)?,
        };
    }
    Ok(())
}

/// Reads one operator from behind its first `%`; gives what follows it.
fn operator(text: &str) -> Result<&str, Flaw> {
    let malformed = || {
        Flaw::new(&codes::OUT_OF_RANGE, "a `%` starts no operator here")
            .help("write `%%` for the character itself")
    };
    let (body, after) = text.split_once('%').ok_or_else(malformed)?;
    let name_end = body.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
    let (name, parameter) = body.split_at(name_end.unwrap_or(body.len()));
    if name.is_empty() {
        return Err(malformed());
    }
    let is_fine = match parameter {
        "" => PLAIN.contains(&name),
        parameter => OF_HEADER.contains(&name) && is_header_parameter(parameter),
    };
    if is_fine {
        return Ok(after);
    }
    Err(Flaw::new(
        &codes::UNSUPPORTED_VALUE,
        format!("the operator `%{body}%` is not known or not supported yet"),
    ))
}

/// `(name)`, with `:length` after it or not.
fn is_header_parameter(parameter: &str) -> bool {
    let Some((name, length)) = parameter.strip_prefix('(').and_then(|rest| rest.split_once(')')) else {
        return false;
    };
    let is_pseudo =
        [":METHOD", ":PATH", ":AUTHORITY", ":SCHEME"].iter().any(|p| name.eq_ignore_ascii_case(p));
    match length.strip_prefix(':') {
        None => {
            length.is_empty() && (is_pseudo || super::header_name(name).is_ok() && !name.starts_with(':'))
        }
        Some(length) => {
            length.parse::<usize>().is_ok() && super::header_name(name).is_ok() && !name.starts_with(':')
        }
    }
}
