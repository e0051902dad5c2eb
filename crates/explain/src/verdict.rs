//! [`Verdict`]: what comes of a call.

use meltemi_translate::Origin;
use serde::Serialize;

/// What comes of a call at one proxy. Names are those of the resources, which are Istio's; a part that the call did
/// not reach is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The listener.
    pub listener: String,
    /// The filter chain.
    pub filter_chain: String,
    /// The route configuration, if it is discovered (RDS); empty for one within the listener.
    pub route_config: String,
    /// The virtual host.
    pub virtual_host: String,
    /// The route.
    pub route: String,
    /// The cluster, where there is only one.
    pub cluster: String,
    /// The clusters that the call may go to, with their weights.
    pub clusters: Vec<Share>,
    /// Why it goes nowhere.
    pub error: Option<Failure>,
    /// The error in words, or what is done with the call if it is not forwarded.
    pub detail: String,
    /// What decided, in the order of the decisions.
    pub decided_by: Vec<Decision>,
}

/// A cluster and its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Its name.
    pub name: String,
    /// Its weight among the others.
    pub weight: u32,
}

/// Why a call goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Nothing listens there.
    NoListener,
    /// No filter chain takes such a connection.
    NoFilterChain,
    /// No virtual host has this name.
    NoVirtualHost,
    /// No route of the virtual host matches.
    NoRoute,
    /// The virtual host demands https and answers with a redirect to it.
    TlsRedirect,
    /// The chain demands TLS and the client has none.
    TlsError,
    /// The chain demands the mesh's mutual TLS and the client has other TLS, or the other way round.
    MtlsError,
    /// The chain does not understand what the client speaks.
    ProtocolError,
    /// A policy refuses the call.
    Denied,
    /// The question makes no sense.
    InvalidCall,
    /// The configuration could not be made into what a proxy takes.
    InvalidConfig,
}

/// A field that decided something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The object, as `Kind/namespace/name`.
    pub object: String,
    /// The field, such as `spec.http[1].match[0]`; empty for the whole object.
    pub field: String,
    /// Its file.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
}

impl Decision {
    pub(crate) fn new(origin: &Origin) -> Decision {
        let id = &origin.object;
        let object = match id.namespace.is_empty() {
            true => format!("{}/{}", id.kind, id.name),
            false => format!("{}/{}/{}", id.kind, id.namespace, id.name),
        };
        Decision { object, field: origin.field.clone(), file: origin.file.to_string(), line: origin.line }
    }
}

impl Verdict {
    /// The same, with a reason why it goes no further.
    pub(crate) fn fails(self, error: Failure, detail: impl Into<String>) -> Verdict {
        Verdict { error: Some(error), detail: detail.into(), ..self }
    }

    /// Notes who decided, once.
    pub(crate) fn decided(&mut self, origin: Option<&Origin>) {
        let Some(origin) = origin else { return };
        let decision = Decision::new(origin);
        if !self.decided_by.contains(&decision) {
            self.decided_by.push(decision);
        }
    }
}
