//! TLS contexts, and where their certificates come from: the workload's own from its agent (`sds-grpc`), files from
//! the agent too or read by the proxy itself, credentials from this control plane.
//!
//! Source: Istio `pilot/pkg/security/model/authentication.go`, `pkg/model/authentication.go` and
//! `pilot/pkg/networking/core/listener.go` (`BuildListenerTLSContext`).

pub(crate) mod downstream;
pub(crate) mod secret;
pub(crate) mod upstream;

use meltemi_envoy::Any;
use meltemi_envoy::config::core::v3::{
    AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, DataSource, GrpcService,
    TransportSocket, api_config_source::ApiType, config_source::ConfigSourceSpecifier,
    data_source::Specifier, grpc_service, transport_socket,
};
use meltemi_envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use meltemi_envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use meltemi_envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, TlsCertificate,
};
use meltemi_envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use meltemi_snapshot::{CredentialName, SECRET_SCHEME};

use crate::message::{UNLIMITED, packed};

/// The secret with the workload's own key and certificate.
const OWN_CERTIFICATE: &str = "default";
/// The secret with the certificates of the mesh's CAs.
const MESH_ROOTS: &str = "ROOTCA";
/// The cluster of the agent's SDS server.
const SDS_CLUSTER: &str = "sds-grpc";
/// A root that stands for those of the system.
const SYSTEM_ROOTS: &str = "system";
/// Where they are on most systems; an agent knows better.
const SYSTEM_ROOTS_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// ALPN of what carries mutual TLS of the mesh, whatever is in it.
pub(crate) const MESH_ALPN: [&str; 5] =
    ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// A secret that the workload's agent serves.
fn of_agent(name: &str) -> SdsSecretConfig {
    let grpc = GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc_service::EnvoyGrpc {
            cluster_name: SDS_CLUSTER.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let source = ApiConfigSource {
        api_type: ApiType::Grpc as i32,
        transport_api_version: ApiVersion::V3 as i32,
        grpc_services: vec![grpc],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    // A workload is nothing without its identity; a file may well be missing.
    let waits = matches!(name, OWN_CERTIFICATE | MESH_ROOTS);
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(ConfigSource {
            config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(source)),
            initial_fetch_timeout: waits.then_some(UNLIMITED),
            resource_api_version: ApiVersion::V3 as i32,
            ..Default::default()
        }),
    }
}

/// The resource that a `credentialName` stands for.
pub(crate) fn credential_resource(name: &str) -> String {
    let CredentialName { namespace, name } = CredentialName::parse(name);
    match namespace {
        Some(namespace) => format!("{SECRET_SCHEME}{namespace}/{name}"),
        None => format!("{SECRET_SCHEME}{name}"),
    }
}

/// A secret that this control plane serves. Nothing waits for it: the Secret may not exist.
fn of_credential(name: &str) -> SdsSecretConfig {
    SdsSecretConfig {
        name: credential_resource(name),
        sds_config: Some(ConfigSource {
            config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
            resource_api_version: ApiVersion::V3 as i32,
            ..Default::default()
        }),
    }
}

/// Where the certificates of the CAs come from that the other side is verified by.
enum Trust<'a> {
    /// The mesh.
    Mesh,
    /// A credential by its name.
    Credential(&'a str),
    /// A file on the proxy's side; `None` for the roots of the system.
    File(Option<&'a str>),
}

/// Files are served by the agent where there is one: it notices when they change.
#[derive(Clone, Copy)]
struct Files {
    by_agent: bool,
}

impl Files {
    fn certificate(self, chain: &str, key: &str, common: &mut CommonTlsContext) {
        if self.by_agent {
            let name = format!("file-cert:{chain}~{key}");
            common.tls_certificate_sds_secret_configs.push(of_agent(&name));
            return;
        }
        common.tls_certificates.push(TlsCertificate {
            certificate_chain: Some(file(chain)),
            private_key: Some(file(key)),
            ..Default::default()
        });
    }

    /// Verifies the other side by `trust` and what `rules` ask for besides.
    fn validate(
        self,
        trust: Trust<'_>,
        mut rules: CertificateValidationContext,
        common: &mut CommonTlsContext,
    ) {
        let secret = match trust {
            Trust::Mesh => of_agent(MESH_ROOTS),
            Trust::Credential(name) => of_credential(name),
            Trust::File(path) if self.by_agent => {
                of_agent(&format!("file-root:{}", path.unwrap_or(SYSTEM_ROOTS)))
            }
            Trust::File(path) => {
                let path = path.filter(|path| *path != SYSTEM_ROOTS).unwrap_or(SYSTEM_ROOTS_FILE);
                rules.trusted_ca = Some(file(path));
                common.validation_context_type = Some(ValidationContextType::ValidationContext(rules));
                return;
            }
        };
        let combined = CombinedCertificateValidationContext {
            default_validation_context: Some(rules),
            validation_context_sds_secret_config: Some(secret),
            ..Default::default()
        };
        common.validation_context_type = Some(ValidationContextType::CombinedValidationContext(combined));
    }
}

fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..Default::default() }
}

/// What certificates must carry one of: names, or beginnings of them.
#[expect(deprecated, reason = "as Istio sends it: a name of any type")]
pub(crate) fn names(exact: &[String], prefixes: &[String]) -> CertificateValidationContext {
    let matcher = |pattern| StringMatcher { match_pattern: Some(pattern), ..Default::default() };
    let exact = exact.iter().cloned().map(MatchPattern::Exact);
    let patterns = exact.chain(prefixes.iter().cloned().map(MatchPattern::Prefix));
    CertificateValidationContext {
        match_subject_alt_names: patterns.map(matcher).collect(),
        ..Default::default()
    }
}

fn protocols(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// `envoy.transport_sockets.tls` with a context.
pub(crate) fn transport_socket(context: Any) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(context)),
    }
}

/// Plaintext.
pub(crate) fn raw_buffer() -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.raw_buffer".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(packed::<RawBuffer>())),
    }
}
