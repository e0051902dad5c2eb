//! What a listener terminates TLS with.
//!
//! Source: Istio `pilot/pkg/security/authn/utils/utils.go` (`BuildInboundTLS`) and
//! `pilot/pkg/networking/core/listener.go` (`BuildListenerTLSContext`, `applyServerTLSSettings`).

use meltemi_api::istio::{ServerTlsSettings, TlsMode, TlsProtocol};
use meltemi_envoy::Any;
use meltemi_envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use meltemi_envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol as EnvoyTlsProtocol;
use meltemi_envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsParameters,
};
use meltemi_snapshot::{CA_SUFFIX, MinVersion, TlsParameters as Wanted};

use super::{Files, OWN_CERTIFICATE, Trust, file, names, of_agent, of_credential, protocols};
use crate::context::Context;
use crate::peer_metadata::spoken;
use crate::{MeshIdentity, ProxyShape};

/// What a server says of the protocols in it: HTTP of either version.
const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];

/// As [`HTTP_ALPN`], and that it would tell who it is first.
const TCP_ALPN: [&str; 3] = ["istio-peer-exchange", "h2", "http/1.1"];

/// Suites of TLS 1.2 between workloads.
const MESH_SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// Mutual TLS of the mesh, as the side that is called. `carries_http` says what is in it.
pub(crate) fn of_mesh(
    (shape, identity): (&ProxyShape, &MeshIdentity),
    wanted: &Wanted,
    carries_http: bool,
) -> Any {
    let mut common = CommonTlsContext {
        alpn_protocols: protocols(&spoken(shape, if carries_http { &HTTP_ALPN } else { &TCP_ALPN })),
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: min_version(wanted, EnvoyTlsProtocol::TlSv12) as i32,
            tls_maximum_protocol_version: EnvoyTlsProtocol::TlSv13 as i32,
            cipher_suites: match wanted.cipher_suites.as_slice() {
                [] => protocols(&MESH_SUITES),
                own => own.to_vec(),
            },
            ..Default::default()
        }),
        ..Default::default()
    };
    own_certificate(names(&[], &identity.prefixes()), &mut common);
    downstream(common, true)
}

/// A TLS server of a Gateway, or of a sidecar's ingress. `is_http` is false for a server that forwards bytes.
pub(crate) fn of_server(context: &Context<'_>, tls: &ServerTlsSettings, is_http: bool) -> Any {
    let mode = tls.mode();
    let tells_itself = mode.is_of_mesh() && !is_http;
    let alpn_protocols = protocols(&spoken(context.shape, if tells_itself { &TCP_ALPN } else { &HTTP_ALPN }));
    let mut common = CommonTlsContext { alpn_protocols, ..Default::default() };
    if mode.is_of_mesh() {
        own_certificate(rules(tls), &mut common);
    } else {
        certificates(context.shape, tls, &mut common);
        common.tls_params = parameters(tls, &context.snapshot.config.mesh.tls_defaults);
    }
    downstream(common, matches!(mode, TlsMode::Mutual | TlsMode::IstioMutual))
}

fn downstream(common: CommonTlsContext, require_client_certificate: bool) -> Any {
    Any::pack(&DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(require_client_certificate),
        ..Default::default()
    })
}

fn own_certificate(rules: CertificateValidationContext, common: &mut CommonTlsContext) {
    common.tls_certificate_sds_secret_configs.push(of_agent(OWN_CERTIFICATE));
    Files { by_agent: true }.validate(Trust::Mesh, rules, common);
}

fn certificates(shape: &ProxyShape, tls: &ServerTlsSettings, common: &mut CommonTlsContext) {
    let files = Files { by_agent: shape.has_sds };
    let credentials = tls.credentials();
    common.tls_certificate_sds_secret_configs.extend(credentials.iter().map(|name| of_credential(name)));
    for certificate in &tls.tls_certificates {
        let path = |path: &Option<String>| path.clone().unwrap_or_default();
        files.certificate(&path(&certificate.server_certificate), &path(&certificate.private_key), common);
    }
    if let (Some(chain), Some(key)) = (&tls.server_certificate, &tls.private_key) {
        files.certificate(chain, key, common);
    }
    if !tls.mode().asks_for_client_certificate() {
        return;
    }
    let credential = ca_credential(tls);
    let trust = match &credential {
        Some(name) => Trust::Credential(name),
        None => Trust::File(tls.ca_certificates.as_deref()),
    };
    files.validate(trust, rules(tls), common);
}

/// The credential that clients of the server are verified by, if it is one.
pub(crate) fn ca_credential(tls: &ServerTlsSettings) -> Option<String> {
    match &tls.ca_cert_credential_name {
        Some(name) => Some(name.clone()),
        None => tls.credentials().first().map(|name| format!("{name}{CA_SUFFIX}")),
    }
}

fn rules(tls: &ServerTlsSettings) -> CertificateValidationContext {
    let mut rules = names(&tls.subject_alt_names, &[]);
    rules.verify_certificate_spki.clone_from(&tls.verify_certificate_spki);
    rules.verify_certificate_hash.clone_from(&tls.verify_certificate_hash);
    rules.crl = tls.ca_crl.as_deref().map(file);
    if tls.insecure_skip_verify == Some(true) {
        rules.trust_chain_verification = TrustChainVerification::AcceptUntrusted as i32;
    }
    rules
}

/// What the server says, else the mesh; `None` where nothing is said: the proxy's own limits hold.
fn parameters(tls: &ServerTlsSettings, defaults: &Wanted) -> Option<TlsParameters> {
    let least = match version(tls.min_protocol_version) {
        EnvoyTlsProtocol::TlsAuto => min_version(defaults, EnvoyTlsProtocol::TlsAuto),
        own => own,
    };
    let suites = if tls.cipher_suites.is_empty() { &defaults.cipher_suites } else { &tls.cipher_suites };
    let parameters = TlsParameters {
        tls_minimum_protocol_version: least as i32,
        tls_maximum_protocol_version: version(tls.max_protocol_version) as i32,
        cipher_suites: suites.clone(),
        ecdh_curves: defaults.ecdh_curves.clone(),
        ..Default::default()
    };
    (parameters != TlsParameters::default()).then_some(parameters)
}

fn min_version(wanted: &Wanted, otherwise: EnvoyTlsProtocol) -> EnvoyTlsProtocol {
    match wanted.min_version {
        None => otherwise,
        Some(MinVersion::V1_2) => EnvoyTlsProtocol::TlSv12,
        Some(MinVersion::V1_3) => EnvoyTlsProtocol::TlSv13,
    }
}

fn version(version: Option<TlsProtocol>) -> EnvoyTlsProtocol {
    match version.unwrap_or_default() {
        TlsProtocol::Auto => EnvoyTlsProtocol::TlsAuto,
        TlsProtocol::V1_0 => EnvoyTlsProtocol::TlSv10,
        TlsProtocol::V1_1 => EnvoyTlsProtocol::TlSv11,
        TlsProtocol::V1_2 => EnvoyTlsProtocol::TlSv12,
        TlsProtocol::V1_3 => EnvoyTlsProtocol::TlSv13,
    }
}
