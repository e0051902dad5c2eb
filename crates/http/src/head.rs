//! Message heads, the same for both versions.
//!
//! Owns the shape of a request line or status line with its fields. `Host` and `:authority` are one thing here
//! ([`RequestHead::authority`]); the encoders write it back in the form of their version. So is an upgrade: an extended
//! CONNECT of HTTP/2 (RFC 8441) reads as the `GET` with `upgrade` that HTTP/1 has for it, and 101 is its acceptance.

use http::header::{self, HeaderName};
use http::{Method, StatusCode};

use crate::{Headers, Text};

/// The version a message arrived with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl Version {
    /// `HTTP/1.1` and so on, as `%PROTOCOL%` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
    }
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// `:scheme`, or the scheme of an absolute-form target; `None` on an ordinary HTTP/1 request.
    pub scheme: Option<Text>,
    /// `:authority`, or the authority of an absolute-form or authority-form target, or `Host`. `None` on a request without
    /// any, which must be answered with 400 unless it is HTTP/1.0.
    pub authority: Option<Text>,
    /// Path with query; `*` for `OPTIONS *`; empty for plain CONNECT.
    pub path: Text,
    /// The fields, without `host`.
    pub headers: Headers,
    /// The version the message came with. The encoders ignore it.
    pub version: Version,
}

impl RequestHead {
    /// The protocol that the request asks to switch to: `upgrade` with the `connection: upgrade` that it needs.
    pub fn upgrade(&self) -> Option<&str> {
        let protocol = self.headers.get_str(&header::UPGRADE)?;
        has_token(&self.headers, &header::CONNECTION, "upgrade").then_some(protocol)
    }

    /// Whether what follows the head is no HTTP: an upgrade or CONNECT.
    pub fn is_tunnel(&self) -> bool {
        self.method == Method::CONNECT || self.upgrade().is_some()
    }

    /// A request with an origin-form path, no authority and no fields.
    pub fn new(method: Method, path: impl Into<Text>) -> RequestHead {
        RequestHead {
            method,
            scheme: None,
            authority: None,
            path: path.into(),
            headers: Headers::new(),
            version: Version::Http11,
        }
    }
}

/// The head of a response, informational ones included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub headers: Headers,
    /// The version the message came with. The encoders ignore it.
    pub version: Version,
}

impl ResponseHead {
    /// A response without fields.
    pub fn new(status: StatusCode) -> ResponseHead {
        ResponseHead { status, headers: Headers::new(), version: Version::Http11 }
    }
}

fn has_token(headers: &Headers, name: &HeaderName, token: &str) -> bool {
    let lists = headers.get_all(name).filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Whether every character may stand in an authority (RFC 3986, 3.2): what else stands there (a space, a slash) is read
/// differently by everyone behind us.
pub(crate) fn is_authority(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@[]%".contains(&byte))
}
