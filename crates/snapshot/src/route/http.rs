//! Rules for requests: what happens to those that a condition holds for.

use std::time::Duration;

use crate::route::{Destination, HttpCondition, Written};

/// A rule for requests.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRule {
    /// Name for logs; may be empty.
    pub name: String,
    /// Any one suffices; empty for all requests.
    pub conditions: Vec<HttpCondition>,
    /// Header changes on the way there and back.
    pub headers: HeaderChanges,
    /// What goes wrong on purpose.
    pub fault: Option<Fault>,
    /// What browsers may do across origins.
    pub cors: Option<Cors>,
    /// What happens.
    pub action: HttpAction,
    /// Where it says so.
    pub written: Written,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum HttpAction {
    /// It goes on.
    Forward(Forward),
    /// It is sent elsewhere.
    Redirect(Redirect),
    /// It is answered here.
    Respond(DirectResponse),
}

/// How a request goes on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Forward {
    /// Where to, by weight. A single one gets everything.
    pub destinations: Vec<Weighted>,
    /// Who gets a copy.
    pub mirrors: Vec<Mirror>,
    /// Changes to path and authority.
    pub rewrite: Rewrite,
    /// Longest time for all of it; `None` and zero for no bound.
    pub timeout: Option<Duration>,
    /// When to try again; `None` for the mesh's default.
    pub retries: Option<Retries>,
}

/// A destination with its share.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    /// Where to.
    pub destination: Destination,
    /// Share, relative to the sum.
    pub weight: u32,
    /// Header changes for this destination only.
    pub headers: HeaderChanges,
    /// Where it says so.
    pub written: Written,
}

/// A destination that gets copies.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// Share of the requests, in percent.
    pub percent: f64,
}

/// Changes to path and authority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Of the path.
    pub path: Option<PathRewrite>,
    /// The new authority.
    pub authority: Option<String>,
}

/// What becomes of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// Replaces the matched prefix, or all of it.
    Prefix(String),
    /// Replaces what a regular expression finds; `\1` is the first group.
    Regex {
        /// The expression.
        pattern: String,
        /// What comes in its place.
        substitution: String,
    },
}

/// When and how often to try again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retries {
    /// Most retries; 0 for none.
    pub attempts: u32,
    /// Longest time of one try.
    pub per_try_timeout: Option<Duration>,
    /// Conditions and status codes, comma-separated; empty for the mesh's default.
    pub on: String,
    /// Whether hosts already tried are avoided; `None` for the default.
    pub ignores_previous_hosts: Option<bool>,
    /// Whether a retry may go to another locality than the first try.
    pub reaches_remote_localities: bool,
    /// Base interval of the back-off.
    pub backoff: Option<Duration>,
}

/// Where a request is sent instead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redirect {
    /// The new path; `None` for the same.
    pub path: Option<RedirectPath>,
    /// The new authority; empty for the same.
    pub authority: String,
    /// The new scheme; empty for the same.
    pub scheme: String,
    /// The new port; `None` for the scheme's own.
    pub port: Option<RedirectPort>,
    /// The status code: 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// The path of a redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPath {
    /// All of it.
    Whole(String),
    /// In place of the matched prefix.
    Prefix(String),
}

/// The port of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// The one that was called.
    OfRequest,
    /// The scheme's own.
    OfScheme,
}

/// A fixed answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectResponse {
    /// The status code.
    pub status: u32,
    /// The body.
    pub body: Option<Body>,
}

/// A body, as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// As text.
    Text(String),
    /// As bytes.
    Bytes(Vec<u8>),
}

/// What goes wrong on purpose.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fault {
    /// Requests that wait.
    pub delay: Option<Delay>,
    /// Requests that fail.
    pub abort: Option<Abort>,
}

/// Requests that wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Delay {
    /// How long.
    pub time: Duration,
    /// Share of the requests, in percent.
    pub percent: f64,
}

/// Requests that fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Abort {
    /// With what.
    pub code: AbortCode,
    /// Share of the requests, in percent.
    pub percent: f64,
}

/// What a request fails with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortCode {
    /// A status code of HTTP.
    Http(u32),
    /// A status code of gRPC.
    Grpc(u32),
}

/// What browsers may do across origins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cors {
    /// Origins that are let in.
    pub origins: Vec<crate::route::TextMatch>,
    /// `access-control-allow-methods`.
    pub methods: Vec<String>,
    /// `access-control-allow-headers`.
    pub headers: Vec<String>,
    /// `access-control-expose-headers`.
    pub exposed: Vec<String>,
    /// `access-control-max-age`.
    pub max_age: Option<Duration>,
    /// `access-control-allow-credentials`; `None` leaves it to the proxy's default.
    pub credentials: Option<bool>,
    /// Whether preflights of other origins go on to the service.
    pub forwards_unmatched: bool,
}

/// Header changes on the way there and back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Before forwarding.
    pub request: HeaderEdits,
    /// Before answering.
    pub response: HeaderEdits,
}

/// Changes to one set of headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Overwritten, by name.
    pub set: Vec<(String, String)>,
    /// Appended, by name.
    pub add: Vec<(String, String)>,
    /// Removed.
    pub remove: Vec<String>,
}

impl HttpRule {
    /// Every destination, mirrors included.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let forward = match &self.action {
            HttpAction::Forward(forward) => Some(forward),
            HttpAction::Redirect(_) | HttpAction::Respond(_) => None,
        };
        let routed = forward.into_iter().flat_map(|f| f.destinations.iter().map(|w| &w.destination));
        routed.chain(forward.into_iter().flat_map(|f| f.mirrors.iter().map(|m| &m.destination)))
    }
}
