//! Clusters of gRPC programs without a proxy: what gRPC understands of a cluster.
//!
//! Source: Istio `pilot/pkg/networking/grpcgen/cds.go`; gRPC proposals A27, A29, A32, A37.
//! Differs: Istio leaves plaintext until a DestinationRule says ISTIO_MUTUAL. Here mutual TLS is also spoken by itself
//! where all endpoints demand it, since nothing else would reach them. A PERMISSIVE one is called in plaintext: it knows
//! mutual TLS of the mesh by an ALPN that gRPC does not send.

use meltemi_api::istio::{ClientTlsMode, ClientTlsSettings};
use meltemi_envoy::Any;
use meltemi_envoy::config::cluster::v3::cluster::{DiscoveryType, LbPolicy};
use meltemi_envoy::config::core::v3::TransportSocket;
use meltemi_envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use meltemi_envoy::extensions::transport_sockets::tls::v3::{
    CertificateProviderPluginInstance, CommonTlsContext, UpstreamTlsContext,
};
use meltemi_snapshot::{ClientTls, Endpoint, MtlsMode, Protocol, Service};

use super::{Built, Outbound, base, policy};
use crate::context::Context;
use crate::names::outbound_cluster;
use crate::tls::{names, transport_socket};

/// The entry of `certificate_providers` in the program's bootstrap, and what it has.
const PROVIDER: &str = "default";
const CERTIFICATE: &str = "default";
const ROOTS: &str = "ROOTCA";

/// The clusters of every visible service, whole and by subset.
pub(crate) fn build(context: &Context<'_>) -> Vec<Built> {
    context.scope.services().flat_map(|service| of_service(context, service)).collect()
}

fn of_service(context: &Context<'_>, service: &Service) -> Vec<Built> {
    let rule = context.scope.destination_rule(service).map(|rule| &**rule);
    let subsets = rule.map_or(Vec::new(), |rule| rule.subsets());
    let subsets: Vec<_> = std::iter::once(None).chain(subsets.into_iter().map(Some)).collect();
    let mut clusters = Vec::new();
    for port in service.ports.iter().filter(|p| p.protocol.is_http() || p.protocol == Protocol::Unsupported) {
        clusters.extend(subsets.iter().filter_map(|subset| {
            let policy = context.policy(rule, subset.map(|(_, _, subset)| subset), port.number);
            Outbound { context, service, port, subset: *subset, policy }.proxyless()
        }));
    }
    clusters
}

impl Outbound<'_> {
    /// `None` for a cluster of DNS without a name, and for one that asks for TLS that a program cannot have.
    fn proxyless(&self) -> Option<Built> {
        let subset = self.subset.map_or("", |(_, _, s)| s.name.as_str());
        let name = outbound_cluster(self.port.number, subset, &self.service.host);
        let discovery = match self.discovery() {
            // The only one by name that gRPC has.
            DiscoveryType::StrictDns => DiscoveryType::LogicalDns,
            DiscoveryType::OriginalDst => DiscoveryType::Eds,
            other => other,
        };
        let members = self.members(discovery);
        let mut cluster = base(&self.context.snapshot.config.mesh, &name, discovery);
        policy::limits(&self.policy, &mut cluster);
        // Whatever else a rule says, a cluster with a policy that gRPC does not know is refused.
        cluster.lb_policy = LbPolicy::RoundRobin as i32;
        cluster.transport_socket = match self.proxyless_tls(&members) {
            Secured::Plaintext => None,
            Secured::Mutual(socket) => Some(*socket),
            Secured::Impossible => return None,
        };
        let members = members.into_iter().map(|endpoint| (endpoint, false)).collect();
        self.with_members(name, cluster, discovery, members)
    }

    fn proxyless_tls(&self, members: &[&Endpoint]) -> Secured {
        match ClientTls::of(self.context.snapshot, self.service, self.port.number, &self.policy) {
            ClientTls::Plaintext => Secured::Plaintext,
            ClientTls::Automatic if self.context.identity().is_some() && self.is_demanded_by(members) => {
                Secured::Mutual(Box::new(self.mutual(None)))
            }
            ClientTls::Automatic => Secured::Plaintext,
            ClientTls::Settings(settings)
                if settings.mode == Some(ClientTlsMode::IstioMutual) && self.context.identity().is_some() =>
            {
                Secured::Mutual(Box::new(self.mutual(Some(settings))))
            }
            ClientTls::Settings(_) => Secured::Impossible,
        }
    }

    /// Whether every endpoint lets in nothing else: gRPC has one transport socket for all of them.
    fn is_demanded_by(&self, members: &[&Endpoint]) -> bool {
        let policies = &self.context.snapshot.config.peer_authentications;
        let demands =
            |e: &Endpoint| policies.of_workload(&e.namespace, &e.labels).at_port(e.port) == MtlsMode::Strict;
        !members.is_empty() && members.iter().all(|endpoint| self.has_mtls(endpoint) && demands(endpoint))
    }

    fn mutual(&self, settings: Option<&ClientTlsSettings>) -> TransportSocket {
        let instance = |name: &str| CertificateProviderPluginInstance {
            instance_name: PROVIDER.to_owned(),
            certificate_name: name.to_owned(),
        };
        let own = settings.map_or(&[][..], |settings| &settings.subject_alt_names);
        let identities = self.identities();
        let mut rules = names(if own.is_empty() { &identities } else { own }, &[]);
        rules.ca_certificate_provider_instance = Some(instance(ROOTS));
        let common = CommonTlsContext {
            tls_certificate_provider_instance: Some(instance(CERTIFICATE)),
            validation_context_type: Some(ValidationContextType::CombinedValidationContext(
                CombinedCertificateValidationContext {
                    default_validation_context: Some(rules),
                    ..Default::default()
                },
            )),
            ..Default::default()
        };
        let context = UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
        transport_socket(Any::pack(&context))
    }
}

/// How a program reaches a cluster.
enum Secured {
    Plaintext,
    Mutual(Box<TransportSocket>),
    Impossible,
}
