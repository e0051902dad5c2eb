//! The neutral route model: what a routing object asks for, whatever its kind. VirtualServices lower into it here; other
//! kinds lower into it beside them, so that translation knows one form and every rule still says what the user wrote.
//!
//! Owns: the rules with names resolved and spellings unified. Leaves out which object wins for a host (`scope.rs`) and
//! everything that depends on the proxy: a condition says which callers it is for, and translation asks it.

mod condition;
mod delegate;
mod http;
mod l4;
mod virtual_service;

use std::sync::Arc;

use meltemi_api::Object;

use crate::host::Host;

pub use condition::{Callers, ClaimMatch, HeaderMatch, HttpCondition, PathMatch, QueryMatch, TextMatch};
pub(crate) use delegate::{Delegates, broken as broken_delegates};
pub use http::{
    Abort, AbortCode, Body, Cors, Delay, DirectResponse, Fault, Forward, HeaderChanges, HeaderEdits,
    HttpAction, HttpRule, Mirror, PathRewrite, Redirect, RedirectPath, RedirectPort, Retries, Rewrite,
    Weighted,
};
pub use l4::{L4Condition, L4Destination, TcpRule, TlsCondition, TlsRule};
pub(crate) use virtual_service::lower;

/// The rules of one object, in order: the first that holds counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// For requests.
    pub http: Vec<HttpRule>,
    /// For connections by the server name that they ask for.
    pub tls: Vec<TlsRule>,
    /// For connections that nobody looks into.
    pub tcp: Vec<TcpRule>,
}

/// What the user wrote: a field of an object.
#[derive(Clone, PartialEq)]
pub struct Written {
    /// The object; with delegation not always the one that names the hosts.
    pub object: Arc<Object>,
    /// Path in it, such as `spec.http[1].match[0]`.
    pub field: String,
}

/// Where to: a service, maybe a subset of it, maybe a port of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// The host, resolved in the namespace of the object.
    pub host: Host,
    /// The subset; empty for the whole service.
    pub subset: String,
    /// The port; `None` for the service's only one, else the one that was called.
    pub port: Option<u16>,
    /// Where it says so.
    pub written: Written,
}

impl Rules {
    /// Every destination of every rule, mirrors included.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let http = self.http.iter().flat_map(HttpRule::destinations);
        let tls = self.tls.iter().flat_map(|rule| &rule.destinations);
        let tcp = self.tcp.iter().flat_map(|rule| &rule.destinations);
        http.chain(tls.chain(tcp).map(|weighted| &weighted.destination))
    }
}

impl Written {
    pub(crate) fn new(object: &Arc<Object>, field: impl Into<String>) -> Written {
        Written { object: Arc::clone(object), field: field.into() }
    }

    /// A field below this one.
    pub(crate) fn below(&self, path: &str) -> Written {
        Written::new(&self.object, format!("{}.{path}", self.field))
    }
}

/// Without the whole object.
impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.object.id, self.field)
    }
}
