//! Names, labels, protocols, expressions.

use super::spelling::did_you_mean;
use super::{Flaw, Verdict};
use crate::codes;
use crate::limits::MAX_REGEX_BYTES;

fn bad_name(text: &str, what: &str, rule: &str) -> Flaw {
    Flaw::new(&codes::BAD_NAME, format!("`{text}` is not {what}: {rule}"))
}

/// RFC 1123 label in any case: letters, digits and inner `-`, at most 63.
pub(super) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A namespace: a label in lower case.
pub(super) fn is_namespace(text: &str) -> bool {
    is_label(text) && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

const LOWER: &str = "use lower-case letters, digits and inner `-`, at most 63";

/// A name of one lower-case label (namespaces, containers).
pub(crate) fn dns_label(text: &str) -> Verdict {
    if is_namespace(text) { Ok(()) } else { Err(bad_name(text, "a name", LOWER)) }
}

/// A name of lower-case labels with dots between them (most objects).
pub(crate) fn dns_name(text: &str) -> Verdict {
    let fine = text.len() <= 253 && text.split('.').all(is_namespace);
    let rule = "use lower-case letters, digits, `-` and `.`, at most 253";
    if fine { Ok(()) } else { Err(bad_name(text, "a name", rule)) }
}

/// Name of a subset: it becomes part of a cluster's name.
pub(crate) fn subset_name(text: &str) -> Verdict {
    if is_label(text) { Ok(()) } else { Err(bad_name(text, "the name of a subset", LABEL)) }
}

const LABEL: &str = "use letters, digits and inner `-`, at most 63";

/// Name of a port.
pub(crate) fn port_name(text: &str) -> Verdict {
    if is_label(text) { Ok(()) } else { Err(bad_name(text, "the name of a port", LABEL)) }
}

/// Name of a container's port (an IANA service name).
pub(crate) fn container_port_name(text: &str) -> Verdict {
    let fine = is_namespace(text)
        && text.len() <= 15
        && !text.contains("--")
        && text.bytes().any(|byte| byte.is_ascii_alphabetic());
    let rule =
        "use at most 15 lower-case letters, digits and single inner `-`, at least one of them a letter";
    // A number in quotes is reported by the field, which can say what to write instead.
    if fine || text.parse::<u32>().is_ok() { Ok(()) } else { Err(bad_name(text, "the name of a port", rule)) }
}

/// Letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit, at most 63.
fn is_label_part(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}

/// Value of a label; may be empty.
pub(crate) fn label_value(text: &str) -> Verdict {
    let rule = "use at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends";
    if text.is_empty() || is_label_part(text) {
        Ok(())
    } else {
        Err(bad_name(text, "the value of a label", rule))
    }
}

/// Key of a label: a name, with an optional DNS prefix and `/` in front.
pub(crate) fn label_key(text: &str) -> Verdict {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let fine = is_label_part(name) && prefix.is_none_or(|prefix| dns_name(prefix).is_ok());
    let rule = "use at most 63 letters, digits, `-`, `_` and `.`, optionally after a DNS name and `/`";
    if fine { Ok(()) } else { Err(bad_name(text, "the key of a label", rule)) }
}

/// Name of a header (RFC 9110 token), or a pseudo-header.
pub(crate) fn header_name(text: &str) -> Verdict {
    let name = text.strip_prefix(':').unwrap_or(text);
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let fine = !name.is_empty() && name.bytes().all(token);
    if fine { Ok(()) } else { Err(bad_name(text, "the name of a header", "use letters, digits and `-`")) }
}

/// A method that browsers may ask for, or `*` for any.
pub(crate) fn cors_method(text: &str) -> Verdict {
    const METHODS: &[&str] =
        &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];
    one_of(text, "a method", METHODS)
}

/// Name of an environment variable.
pub(crate) fn env_name(text: &str) -> Verdict {
    let fine = !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let rule = "use letters, digits, `_`, `-` and `.`, and no digit first";
    if fine { Ok(()) } else { Err(bad_name(text, "the name of a variable", rule)) }
}

/// Namespace to which an object is visible.
pub(crate) fn export_to(text: &str) -> Verdict {
    let fine = matches!(text, "." | "*" | "~") || is_namespace(text);
    if fine {
        Ok(())
    } else {
        Err(bad_name(text, "a namespace", "write `.`, `*`, `~` or the name of a namespace"))
    }
}

/// A reference to a Gateway: `mesh`, `name`, `namespace/name`.
pub(crate) fn gateway_reference(text: &str) -> Verdict {
    let fine = match text.split_once('/') {
        Some((namespace, name)) => (namespace == "." || is_namespace(namespace)) && dns_name(name).is_ok(),
        None => dns_name(text).is_ok(),
    };
    let rule = "write `mesh`, the name of a Gateway, or `namespace/name`";
    if fine { Ok(()) } else { Err(bad_name(text, "a reference to a Gateway", rule)) }
}

/// Accepts one of a list, and otherwise says which there are.
fn one_of(text: &str, what: &str, choices: &[&str]) -> Verdict {
    if choices.contains(&text) {
        return Ok(());
    }
    let message = format!("`{text}` is not {what}");
    Err(Flaw::new(&codes::BAD_ENUM, message).help(did_you_mean(text, choices.iter().copied())))
}

/// An Istio protocol, in any case.
pub(crate) fn protocol(text: &str) -> Verdict {
    const PROTOCOLS: &[&str] = &[
        "HTTP",
        "HTTP2",
        "HTTPS",
        "GRPC",
        "GRPC-WEB",
        "TCP",
        "TLS",
        "UDP",
        "HTTP_PROXY",
        "MONGO",
        "REDIS",
        "MYSQL",
        "HBONE",
    ];
    one_of(&text.to_ascii_uppercase().replace("GRPC_WEB", "GRPC-WEB"), "a protocol", PROTOCOLS)
}

/// A Kubernetes transport protocol.
pub(crate) fn transport_protocol(text: &str) -> Verdict {
    one_of(text, "a transport protocol", &["TCP", "UDP", "SCTP"])
}

/// How a tunnel is asked for.
pub(crate) fn tunnel_protocol(text: &str) -> Verdict {
    if text.is_empty() { Ok(()) } else { one_of(text, "the protocol of a tunnel", &["CONNECT", "POST"]) }
}

/// Scheme of an HTTP probe.
pub(crate) fn probe_scheme(text: &str) -> Verdict {
    one_of(text, "the scheme of a probe", &["HTTP", "HTTPS"])
}

/// A field of the pod that a variable can take its value from.
pub(crate) fn field_path(text: &str) -> Verdict {
    const FIELDS: &[&str] = &[
        "metadata.name",
        "metadata.namespace",
        "spec.serviceAccountName",
        "status.podIP",
        "metadata.labels['KEY']",
    ];
    let keyed = ["metadata.labels['", "metadata.annotations['"].into_iter();
    let keyed = keyed.filter_map(|prefix| text.strip_prefix(prefix)?.strip_suffix("']"));
    if keyed.into_iter().any(|key| label_key(key).is_ok()) {
        return Ok(());
    }
    const LATER: &[&str] =
        &["metadata.uid", "spec.nodeName", "status.hostIP", "status.hostIPs", "status.podIPs"];
    if LATER.contains(&text) {
        return Err(Flaw::new(&codes::UNSUPPORTED_VALUE, format!("the field `{text}` is not supported yet")));
    }
    one_of(text, "a field of the pod", FIELDS)
}

/// Conditions of Envoy's retry policy, and status codes.
pub(crate) fn retry_on(text: &str) -> Verdict {
    const CONDITIONS: &[&str] = &[
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ];
    for condition in text.split(',').map(str::trim) {
        let status = condition.parse::<u16>().is_ok_and(|status| (100..=599).contains(&status));
        if !status {
            one_of(condition, "a retry condition or status code", CONDITIONS)?;
        }
    }
    Ok(())
}

/// A regular expression, or `*` alone where that stands for any value.
pub(crate) fn regex_or_any(text: &str) -> Verdict {
    if text == "*" { Ok(()) } else { regex(text) }
}

/// An RE2 expression that Rust's `regex` can stand for: same language, same linear time.
pub(crate) fn regex(text: &str) -> Verdict {
    let compiled = regex::RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build();
    compiled.map(|_| ()).map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Flaw::new(&codes::BAD_REGEX, format!("the regular expression `{text}` does not compile: {reason}"))
    })
}

/// Base64 with padding (RFC 4648).
pub(crate) fn base64(text: &str) -> Verdict {
    match decode_base64(text) {
        Some(_) => Ok(()),
        None => Err(Flaw::new(&codes::WRONG_TYPE, "the bytes are not base64")),
    }
}

/// The bytes of a text in base64 with padding.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - body.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(body.len() / 4 * 3 + 2);
    for group in body.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for digit in group {
            bits = bits << 6 | sextet(*digit)?;
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

fn sextet(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

/// A text that is not empty.
pub(crate) fn not_empty(text: &str) -> Verdict {
    if text.is_empty() { Err(Flaw::new(&codes::EMPTY, "the text is empty")) } else { Ok(()) }
}

/// Names of proxies' secrets that other places than a Kubernetes Secret stand for.
const OTHER_CREDENTIALS: &[&str] = &["configmap://", "builtin://", "sds://", "invalid://"];

/// The name of a Secret, maybe with `kubernetes://` or `kubernetes://NAMESPACE/` in front.
pub(crate) fn credential_name(text: &str) -> Verdict {
    if let Some(scheme) = OTHER_CREDENTIALS.iter().find(|scheme| text.starts_with(**scheme)) {
        let message = format!("credentials by `{scheme}` are not supported yet");
        return Err(Flaw::new(&codes::UNSUPPORTED_VALUE, message).help("name a Secret"));
    }
    let place = text.strip_prefix("kubernetes://");
    let (namespace, name) = place.and_then(|place| place.split_once('/')).unzip();
    let fine = namespace.is_none_or(is_namespace) && dns_name(name.or(place).unwrap_or(text)).is_ok();
    if fine { Ok(()) } else { Err(bad_name(text, "the name of a secret", "write the name of a Secret")) }
}
