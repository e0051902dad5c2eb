//! Leaves of policies and extensions: accounts, paths with templates, URIs, bounded texts.

use super::text::not_empty;
use super::{Flaw, Verdict};
use crate::codes;

/// Longest service account with its namespace.
const LONGEST_ACCOUNT: usize = 320;

/// `ACCOUNT` or `NAMESPACE/ACCOUNT`, without wildcards.
pub(crate) fn service_account(text: &str) -> Verdict {
    let parts: Vec<&str> = text.split('/').collect();
    let fine = text.len() <= LONGEST_ACCOUNT
        && parts.len() <= 2
        && parts.iter().all(|part| !part.is_empty() && !part.contains('*'));
    let flaw = || Flaw::new(&codes::BAD_NAME, format!("`{text}` is not a service account"));
    if fine { Ok(()) } else { Err(flaw().help("write `ACCOUNT` or `NAMESPACE/ACCOUNT`, without wildcards")) }
}

/// A trust domain, with at most one `*`, at its start or end.
pub(crate) fn trust_domain_pattern(text: &str) -> Verdict {
    not_empty(text)?;
    let inner = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
    let flaw = || Flaw::new(&codes::BAD_NAME, format!("`{text}` is not a trust domain"));
    if inner.contains(['*', '/']) {
        return Err(flaw().help("write a name without `/`, with at most one `*` at its start or end"));
    }
    Ok(())
}

/// A port, written as a text.
pub(crate) fn port_text(text: &str) -> Verdict {
    match text.parse::<u16>() {
        Ok(_) => Ok(()),
        Err(_) => Err(Flaw::new(&codes::OUT_OF_RANGE, format!("`{text}` is not the number of a port"))),
    }
}

/// A path; `{*}` stands for one segment of it, and `{**}`, as the last template, for any number.
pub(crate) fn path_template(text: &str) -> Verdict {
    not_empty(text)?;
    let is_template = text.contains("{*}") || text.contains("{**}");
    let mut is_open = true;
    for segment in text.trim_matches('/').split('/') {
        let reason = match segment {
            "{*}" | "{**}" if !is_open => Some("`{**}` must be its last template"),
            "{*}" => None,
            "{**}" => {
                is_open = false;
                None
            }
            _ if segment.contains(['{', '}']) => Some("braces stand only around `*` and `**`"),
            _ if is_template && !segment.bytes().all(is_path_byte) => {
                Some("a segment has a byte that no path has")
            }
            _ if is_template && segment.is_empty() => Some("a segment is empty"),
            _ => None,
        };
        if let Some(reason) = reason {
            return Err(Flaw::new(&codes::BAD_NAME, format!("`{text}` is not a path: {reason}")));
        }
    }
    Ok(())
}

/// `pchar` of RFC 3986, without `*`.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

/// An absolute URI of http or https.
pub(crate) fn http_uri(text: &str) -> Verdict {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let port = authority.and_then(|authority| authority.rsplit_once(':')).map(|(_, port)| port);
    let fine = authority.is_some_and(|authority| !authority.is_empty())
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        && port.is_none_or(|port| port.ends_with(']') || port.parse::<u16>().is_ok());
    let flaw = || Flaw::new(&codes::BAD_ADDRESS, format!("`{}` is not an HTTP URI", text.escape_debug()));
    if fine { Ok(()) } else { Err(flaw().help("write `https://HOST/PATH`")) }
}

/// Where a WebAssembly module is.
pub(crate) fn module_url(text: &str) -> Verdict {
    let flaw = |reason| {
        Flaw::new(
            &codes::BAD_ADDRESS,
            format!("`{}` is not the URL of a module: {reason}", text.escape_debug()),
        )
    };
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(flaw("it is empty or has white space"));
    }
    match text.split_once("://") {
        Some((scheme, _)) if !["oci", "file", "http", "https"].contains(&scheme) => {
            Err(flaw("its scheme is none of oci, file, http, https"))
        }
        _ => Ok(()),
    }
}

/// The hex of a SHA-256, in lower case.
pub(crate) fn sha256_hex(text: &str) -> Verdict {
    let fine = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let flaw = || Flaw::new(&codes::BAD_NAME, format!("`{text}` is not the hex of a SHA-256"));
    if fine { Ok(()) } else { Err(flaw().help("write 64 digits and letters from a to f")) }
}

/// A header that Istio sets: letters, digits, `-` and `_`.
pub(crate) fn strict_header_name(text: &str) -> Verdict {
    let fine =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let flaw = || Flaw::new(&codes::BAD_NAME, format!("`{text}` is not the name of a header"));
    if fine { Ok(()) } else { Err(flaw().help("use letters, digits, `-` and `_`")) }
}

fn at_most(text: &str, most: usize) -> Verdict {
    let length = text.chars().count();
    let flaw =
        || Flaw::new(&codes::OUT_OF_RANGE, format!("the text has {length} characters, {most} are allowed"));
    if length <= most { Ok(()) } else { Err(flaw()) }
}

/// A text of at most 256 characters.
pub(crate) fn at_most_256(text: &str) -> Verdict {
    at_most(text, 256)
}

/// A text of at most 2,048 characters.
pub(crate) fn at_most_2048(text: &str) -> Verdict {
    at_most(text, 2048)
}

/// A text of at most 64 KiB.
pub(crate) fn at_most_64_kib(text: &str) -> Verdict {
    at_most(text, 64 << 10)
}
