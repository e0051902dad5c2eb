//! The JSON that an echo answers.

use std::collections::BTreeMap;

use meltemi_http::RequestHead;
use serde::Serialize;
use serde_json::Value;

/// Fields whose values are secrets: the answer may end up in logs and screenshots.
const SECRET: [&str; 5] = ["authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key"];

/// Who answered, what arrived, and what the services called for it said.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) instance: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) protocol: &'static str,
    pub(crate) headers: BTreeMap<String, String>,
    /// Bytes of the request body.
    pub(crate) body_bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) calls: Vec<Called>,
}

/// One service called.
#[derive(Debug, Serialize)]
pub(crate) struct Called {
    pub(crate) url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    /// Its answer: JSON as such, anything else as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answer: Option<Value>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Who took part, from its `x-echo-versions`.
    #[serde(skip)]
    pub(crate) versions: Option<String>,
}

/// The fields of a request, repeated ones joined, secrets hidden.
pub(crate) fn headers(request: &RequestHead) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &request.headers {
        let hidden = SECRET.contains(&name.as_str());
        let value = if hidden { "(hidden)".into() } else { String::from_utf8_lossy(value.as_bytes()) };
        let joined = headers.entry(name.as_str().to_owned()).or_default();
        if !joined.is_empty() {
            joined.push_str(", ");
        }
        joined.push_str(&value);
    }
    headers
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Method};

    use super::*;

    #[test]
    fn secrets_are_hidden_and_repeated_fields_joined() {
        let mut request = RequestHead::new(Method::GET, "/");
        for (name, value) in [("x-a", "1"), ("authorization", "Bearer abc"), ("x-a", "2")] {
            request.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let headers = headers(&request);
        assert_eq!(headers["x-a"], "1, 2");
        assert_eq!(headers["authorization"], "(hidden)");
    }
}
