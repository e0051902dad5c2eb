//! What happened, masked so that two runs compare equal.

use serde::{Deserialize, Serialize};

use crate::backend::Received;
use crate::client;
use crate::tls_client::Agreed;

/// A run of a case.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Per call.
    pub calls: Vec<Outcome>,
    /// The access log, a line per request.
    pub log: Vec<String>,
}

/// What one call led to.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The call's name.
    pub name: String,
    /// The answers (one, unless repeated).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// For raw bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<client::RawAnswer>,
    /// What the backends received.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<Received>,
    /// For `count_only`: the distinct pairs of status and backend that occurred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<String>,
}

/// One response.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Answer {
    /// Status code, 0 when the connection or stream ended without a response.
    pub status: u16,
    /// Informational responses before it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub informational: Vec<u16>,
    /// Headers, sorted.
    pub headers: Vec<(String, String)>,
    /// Body, or its length.
    pub body: String,
    /// Trailers, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<(String, String)>,
    /// What the TLS handshake agreed upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Agreed>,
    /// How a body that did not end well broke off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

impl Outcome {
    /// Keeps only which answers occurred.
    pub(super) fn count(&mut self) {
        let backend = |answer: &Answer| {
            let header = answer.headers.iter().find(|(name, _)| name == "x-backend");
            header.map_or_else(|| "none".to_owned(), |(_, value)| value.clone())
        };
        self.seen = self.answers.iter().map(|a| format!("{} {}", a.status, backend(a))).collect();
        self.seen.sort();
        self.seen.dedup();
        self.answers.clear();
        self.upstream.clear();
    }
}
