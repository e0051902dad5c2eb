//! What a cluster speaks TLS with.
//!
//! Source: Istio `pilot/pkg/networking/core/cluster_tls.go`.
//! Differs: where a proxy cannot have the certificate that is asked for, the cluster is left out and requests get 503;
//! Istio lets a sidecar speak plaintext if a DestinationRule without `workloadSelector` has a `credentialName`.

use meltemi_api::istio::{ClientTlsMode, ClientTlsSettings};
use meltemi_envoy::Any;
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, TransportSocketMatch,
};
use meltemi_envoy::config::core::v3::{TransportSocket, UpstreamHttpProtocolOptions};
use meltemi_envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use meltemi_envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use meltemi_envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, TlsParameters, UpstreamTlsContext,
};
use meltemi_snapshot::{CA_SUFFIX, ClientTls};

use super::{
    Files, OWN_CERTIFICATE, Trust, file, names, of_agent, of_credential, protocols, raw_buffer,
    transport_socket,
};
use crate::context::Context;
use crate::message::{fields, text};
use crate::peer_metadata::spoken;

/// ALPN of mutual TLS of the mesh.
const ALPN: [&str; 2] = ["istio-peer-exchange", "istio"];
/// As [`ALPN`], for HTTP/2 in it.
const ALPN_HTTP2: [&str; 3] = ["istio-peer-exchange", "istio", "h2"];

/// Key in the metadata of endpoints that speak mutual TLS, and its value.
pub(crate) const TLS_MODE: &str = "tlsMode";
pub(crate) const TLS_MODE_ISTIO: &str = "istio";

/// A cluster whose connections are to be secured.
pub(crate) struct Upstream<'a> {
    pub(crate) context: &'a Context<'a>,
    /// The server name of mutual TLS of the mesh.
    pub(crate) server_name: String,
    /// The identities of the endpoints.
    pub(crate) identities: Vec<String>,
    /// Names that certificates of endpoints outside the mesh carry.
    pub(crate) subject_alt_names: &'a [String],
    /// Whether the cluster speaks HTTP/2.
    pub(crate) is_http2: bool,
    /// The rule is for this proxy and its like, so that they may have credentials.
    pub(crate) has_selector: bool,
}

/// What a cluster gets besides its transport socket.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secured {
    /// The server name is the request's host (`auto_sni`).
    pub(crate) sni_of_request: bool,
    /// The certificate must carry it (`auto_san_validation`).
    pub(crate) checks_sni: bool,
    /// The endpoints are told apart by their metadata.
    pub(crate) by_endpoint: bool,
    /// ALPN is not to be changed per request.
    pub(crate) keeps_alpn: bool,
}

impl Upstream<'_> {
    /// Writes the transport sockets into the cluster; `None` if the proxy cannot have the certificate for them.
    pub(crate) fn secure(&self, tls: ClientTls<'_>, cluster: &mut Cluster) -> Option<Secured> {
        match tls {
            ClientTls::Plaintext => Some(Secured::default()),
            ClientTls::Automatic if self.context.identity().is_none() => Some(Secured::default()),
            ClientTls::Automatic => Some(self.automatic(cluster)),
            ClientTls::Settings(settings) if settings.mode == Some(ClientTlsMode::IstioMutual) => {
                self.context.identity()?;
                cluster.transport_socket = Some(self.of_mesh(Some(settings)));
                Some(Secured::default())
            }
            ClientTls::Settings(settings) => self.of_user(settings, cluster),
        }
    }

    fn automatic(&self, cluster: &mut Cluster) -> Secured {
        let mutual = self.of_mesh(None);
        let original = ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32);
        if cluster.cluster_discovery_type == Some(original) {
            // Whom the address belongs to is not known; all endpoints of the service speak it.
            cluster.transport_socket = Some(mutual);
            return Secured::default();
        }
        let with_mesh = TransportSocketMatch {
            name: format!("{TLS_MODE}-{TLS_MODE_ISTIO}"),
            r#match: Some(fields([(TLS_MODE, text(TLS_MODE_ISTIO))])),
            transport_socket: Some(mutual),
        };
        let others = TransportSocketMatch {
            name: format!("{TLS_MODE}-disabled"),
            r#match: Some(fields([])),
            transport_socket: Some(raw_buffer()),
        };
        cluster.transport_socket_matches = vec![with_mesh, others];
        Secured { by_endpoint: true, ..Secured::default() }
    }

    /// Mutual TLS with the mesh's own certificates. A rule may ask for other names, and towards a gateway of another
    /// mesh for another server name.
    fn of_mesh(&self, settings: Option<&ClientTlsSettings>) -> TransportSocket {
        let alpn: &[&str] = if self.is_http2 { &ALPN_HTTP2 } else { &ALPN };
        let mut common = self.common(&spoken(self.context.shape, alpn));
        common.tls_certificate_sds_secret_configs.push(of_agent(OWN_CERTIFICATE));
        let own = settings.map_or(&[][..], |s| &s.subject_alt_names);
        let rules = names(if own.is_empty() { &self.identities } else { own }, &[]);
        Files { by_agent: true }.validate(Trust::Mesh, rules, &mut common);
        let sni = settings.and_then(|s| s.sni.clone()).unwrap_or_else(|| self.server_name.clone());
        socket(common, sni)
    }

    fn of_user(&self, settings: &ClientTlsSettings, cluster: &mut Cluster) -> Option<Secured> {
        let mut common = self.common(if self.is_http2 { &["h2"] } else { &[] });
        let defaults = &self.context.snapshot.config.mesh.tls_defaults;
        let parameters = common.tls_params.get_or_insert_default();
        parameters.cipher_suites.clone_from(&defaults.cipher_suites);
        parameters.ecdh_curves.clone_from(&defaults.ecdh_curves);
        let unverified = settings.insecure_skip_verify == Some(true);
        let of_service = if settings.subject_alt_names.is_empty() {
            self.subject_alt_names
        } else {
            &settings.subject_alt_names
        };
        let mut rules = names(of_service, &[]);
        rules.crl = settings.ca_crl.as_deref().map(file);
        match &settings.credential_name {
            Some(_) if !self.context.is_gateway() && !self.has_selector => return None,
            Some(name) => by_credential(name, settings, unverified, rules, &mut common),
            None => self.by_files(settings, unverified, rules, &mut common)?,
        }
        cluster.transport_socket = Some(socket(common, settings.sni.clone().unwrap_or_default()));
        let sni_of_request = settings.sni.is_none();
        let checks_sni = sni_of_request && settings.subject_alt_names.is_empty() && !unverified;
        Some(Secured { sni_of_request, checks_sni, by_endpoint: false, keeps_alpn: true })
    }

    fn by_files(
        &self,
        settings: &ClientTlsSettings,
        unverified: bool,
        rules: CertificateValidationContext,
        common: &mut CommonTlsContext,
    ) -> Option<()> {
        let files = Files { by_agent: self.context.shape.has_sds };
        if settings.mode == Some(ClientTlsMode::Mutual) {
            files.certificate(
                settings.client_certificate.as_deref()?,
                settings.private_key.as_deref()?,
                common,
            );
        }
        if unverified {
            let nothing = ValidationContextType::ValidationContext(CertificateValidationContext::default());
            common.validation_context_type = Some(nothing);
        } else {
            files.validate(Trust::File(settings.ca_certificates.as_deref()), rules, common);
        }
        Some(())
    }

    fn common(&self, alpn: &[&str]) -> CommonTlsContext {
        CommonTlsContext {
            alpn_protocols: protocols(alpn),
            tls_params: Some(TlsParameters {
                tls_minimum_protocol_version: TlsProtocol::TlSv12 as i32,
                tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

fn by_credential(
    name: &str,
    settings: &ClientTlsSettings,
    unverified: bool,
    rules: CertificateValidationContext,
    common: &mut CommonTlsContext,
) {
    if settings.mode == Some(ClientTlsMode::Mutual) {
        common.tls_certificate_sds_secret_configs.push(of_credential(name));
    }
    if !unverified {
        let ca = format!("{name}{CA_SUFFIX}");
        Files { by_agent: true }.validate(Trust::Credential(&ca), rules, common);
    }
}

fn socket(common: CommonTlsContext, sni: String) -> TransportSocket {
    let context = UpstreamTlsContext { common_tls_context: Some(common), sni, ..Default::default() };
    transport_socket(Any::pack(&context))
}

impl Secured {
    /// What HTTP has to say of it.
    pub(crate) fn http_options(self) -> Option<UpstreamHttpProtocolOptions> {
        let says_something = self.sni_of_request || self.checks_sni;
        says_something.then(|| UpstreamHttpProtocolOptions {
            auto_sni: self.sni_of_request,
            auto_san_validation: self.checks_sni,
            ..Default::default()
        })
    }
}
