//! How a client's connections to a port of a service are secured.
//!
//! Source: Istio `buildUpstreamTLSSettings`, `BestEffortInferServiceMTLSMode` and
//! `pilot/pkg/xds/endpoints/mtls_checker.go`. Without a word of the user mutual TLS is spoken with every endpoint
//! whose sidecar can and may.

use meltemi_api::istio::{ClientTlsMode, ClientTlsSettings, SimpleLb, Subset, TrafficPolicy};

use crate::destination_rule::DestinationRule;
use crate::endpoint::Endpoint;
use crate::mesh::Snapshot;
use crate::peer_authentication::MtlsMode;
use crate::policy::Policy;
use crate::service::{Resolution, Service};

/// The way to a port of a service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ClientTls<'a> {
    /// Nothing is added to the caller's bytes.
    Plaintext,
    /// Mutual TLS with those endpoints that speak it.
    Automatic,
    /// As a DestinationRule says.
    Settings(&'a ClientTlsSettings),
}

/// What a client sends to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spoken {
    /// Mutual TLS with the mesh's own certificates.
    Mutual,
    /// TLS as a DestinationRule says, which is nothing to a sidecar.
    Tls,
    /// What the caller said, as it was.
    Plaintext,
}

/// Who calls whom: the clients that a rule is in force for, and a port of a service, or a subset of it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The mesh.
    pub snapshot: &'a Snapshot,
    /// The rule in force for the clients.
    pub rule: Option<&'a DestinationRule>,
    /// Whom they call.
    pub service: &'a Service,
    /// On which port.
    pub port: u16,
    /// Which part of it.
    pub subset: Option<&'a Subset>,
}

impl Call<'_> {
    /// What is sent to an endpoint by clients with a certificate of their own, or without; `None` if a rule demands one
    /// that they do not have, so that they do not call.
    ///
    /// Source: `crates/translate/src/tls/upstream.rs` says the same in Envoy's words.
    pub fn spoken(&self, endpoint: &Endpoint, has_certificate: bool) -> Option<Spoken> {
        let Call { snapshot, rule, service, port, subset } = *self;
        let policy = Policy::of(rule, subset, port);
        match ClientTls::of(snapshot, service, port, &policy) {
            ClientTls::Plaintext => Some(Spoken::Plaintext),
            ClientTls::Automatic => {
                let is_able = passes_through(service, &policy)
                    || endpoint_has_mtls(snapshot, endpoint, rule, subset, port);
                Some(if has_certificate && is_able { Spoken::Mutual } else { Spoken::Plaintext })
            }
            ClientTls::Settings(settings) if settings.mode == Some(ClientTlsMode::IstioMutual) => {
                has_certificate.then_some(Spoken::Mutual)
            }
            ClientTls::Settings(_) => Some(Spoken::Tls),
        }
    }

    /// Whether the rule says what is spoken, and not the endpoint.
    pub fn is_ruled(&self) -> bool {
        Policy::of(self.rule, self.subset, self.port).tls.is_some()
    }
}

impl MtlsMode {
    /// Whether a port in this mode lets it in.
    pub fn lets_in(self, spoken: Spoken) -> bool {
        match self {
            MtlsMode::Disable => spoken != Spoken::Mutual,
            MtlsMode::Permissive => true,
            MtlsMode::Strict => spoken == Spoken::Mutual,
        }
    }
}

impl<'a> ClientTls<'a> {
    /// What is in force for a port of a service under a policy.
    pub fn of(snapshot: &Snapshot, service: &Service, port: u16, policy: &Policy<'a>) -> ClientTls<'a> {
        if let Some(settings) = policy.tls {
            return match settings.mode.unwrap_or_default() {
                ClientTlsMode::Disable => ClientTls::Plaintext,
                _ => ClientTls::Settings(settings),
            };
        }
        let is_off = service.external
            || !snapshot.config.mesh.auto_mtls
            || goes_to_plaintext(snapshot, service, port, policy)
            || snapshot.config.peer_authentications.of_namespace(&service.namespace) == MtlsMode::Disable;
        if is_off { ClientTls::Plaintext } else { ClientTls::Automatic }
    }
}

/// Where the address that was asked for is dialled, nothing tells one endpoint from the other: either all of them
/// speak mutual TLS, or it is not spoken.
fn goes_to_plaintext(snapshot: &Snapshot, service: &Service, port: u16, policy: &Policy<'_>) -> bool {
    let endpoints = snapshot.endpoints.of(service, port);
    passes_through(service, policy)
        && (endpoints.is_empty() || !endpoints.iter().all(|endpoint| endpoint.has_mtls))
}

fn passes_through(service: &Service, policy: &Policy<'_>) -> bool {
    service.resolution == Resolution::Passthrough
        || policy.load_balancer.and_then(|lb| lb.simple) == Some(SimpleLb::Passthrough)
}

/// Whether mutual TLS is spoken with an endpoint under automatic mutual TLS: its sidecar can, and a DestinationRule,
/// or else PeerAuthentication, wants it.
pub fn endpoint_has_mtls(
    snapshot: &Snapshot,
    endpoint: &Endpoint,
    rule: Option<&DestinationRule>,
    subset: Option<&Subset>,
    port: u16,
) -> bool {
    let is_wanted = match rule.and_then(|rule| mode_of_rule(rule, subset, port)) {
        Some(mode) => mode == ClientTlsMode::IstioMutual,
        None => {
            let policies = &snapshot.config.peer_authentications;
            let of_workload = policies.of_workload(&endpoint.namespace, &endpoint.labels);
            of_workload.at_port(endpoint.port) != MtlsMode::Disable
        }
    };
    endpoint.has_mtls && is_wanted
}

/// Unlike in [`Policy`], the settings of a port take TLS from their level when they say nothing about it.
fn mode_of_rule(rule: &DestinationRule, subset: Option<&Subset>, port: u16) -> Option<ClientTlsMode> {
    let of_subset = subset.and_then(|subset| mode_of_policy(subset.traffic_policy.as_ref()?, port));
    of_subset.or_else(|| mode_of_policy(rule.traffic_policy()?, port))
}

fn mode_of_policy(policy: &TrafficPolicy, port: u16) -> Option<ClientTlsMode> {
    let settings = policy.port_level_settings.iter().filter(|s| s.port.number == u32::from(port));
    let tls = settings.filter_map(|s| s.tls.as_ref()).next().or(policy.tls.as_ref())?;
    Some(tls.mode.unwrap_or_default())
}
