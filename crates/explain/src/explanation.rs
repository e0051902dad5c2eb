//! [`Explanation`]: a verdict with what is done on the way and why it was not another one.

use meltemi_translate::Origin;
use serde::Serialize;

use crate::verdict::{Decision, Failure, Verdict};

/// What comes of a call at one proxy, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What comes of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What is done with it on the way, in words: timeouts, retries, rewrites, faults.
    pub effects: Vec<String>,
    /// The routes of the virtual host before the one that was taken, and why each was passed by.
    pub near_misses: Vec<NearMiss>,
    /// What decides about connection security, in words.
    pub security: String,
    /// The path that the next hop sees.
    #[serde(skip)]
    pub(crate) next_path: String,
    /// The status of an answer that this proxy gives itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Where a redirect leads.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub location: String,
}

/// A route that a request passed by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    /// Its name, may be empty.
    pub route: String,
    /// The condition that the request does not fulfil.
    pub unmet: String,
    /// Who wrote it.
    pub written: Option<Decision>,
}

impl Explanation {
    /// The same, with a reason why it goes no further.
    pub(crate) fn fails(mut self, error: Failure, detail: impl Into<String>) -> Explanation {
        self.verdict = self.verdict.fails(error, detail);
        self
    }

    /// The same, answered here.
    pub(crate) fn answers(mut self, status: u16, detail: impl Into<String>) -> Explanation {
        self.status = Some(status);
        self.verdict.detail = detail.into();
        self
    }

    pub(crate) fn decided(&mut self, origin: Option<&Origin>) {
        self.verdict.decided(origin);
    }
}
