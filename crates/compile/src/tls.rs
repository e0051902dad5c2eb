//! TLS contexts: what a side shows, whom it believes, which versions and suites it speaks.
//!
//! Source: `envoy.extensions.transport_sockets.tls.v3`. Owns what both sides have in common ([`CommonTls`]) and its
//! parts; `downstream` is what only servers have. Certificates and trust are in the context or are secrets that come
//! later ([`SecretRef`]). Leaves out sessions, and the settings of rustls made of all this (`meltemi-proxy`).

mod certificate;
mod downstream;
mod params;
mod secret;
#[cfg(test)]
mod tests;
pub(crate) mod upstream;
mod validation;

use std::sync::Arc;
use std::time::Duration;

use meltemi_envoy::config::core::v3::{TransportSocket, transport_socket};
use meltemi_envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use meltemi_envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use meltemi_envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
};
use meltemi_identity::ServedCertificate;

pub use self::downstream::{DownstreamTls, StaplePolicy, Tickets};
pub use self::params::{Group, Suite, TlsParams, Versions};
pub use self::secret::{Secret, SecretKind, TicketKey, TicketKeys, combined, secret, secret_with};
pub use self::upstream::{UpstreamTls, any_of_names};
pub use self::validation::Validation;
use crate::config_source::{self, Origin};
use crate::extension::{unknown, unpack};
use crate::ledger::{At, refuse};
use crate::program::Name;

/// Bytes of an ALPN name at most.
const ALPN_MAX_BYTES: usize = 255;

/// A secret by its name and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretRef {
    /// `name`.
    pub name: Name,
    /// `sds_config`; `None` is one of the bootstrap's own.
    pub origin: Option<Origin>,
    /// `sds_config.initial_fetch_timeout`; `None` waits for ever.
    pub initial_fetch_timeout: Option<Duration>,
}

/// In the context, or a secret.
#[derive(Debug, Clone)]
pub enum Held<T> {
    /// In the context.
    Inline(Arc<T>),
    /// A secret that comes from elsewhere.
    Secret(SecretRef),
}

/// Whom a context believes.
#[derive(Debug, Clone)]
pub enum Believed {
    /// By these rules.
    Rules(Held<Validation>),
    /// By a secret merged over what the context says (`combined_validation_context`), see [`combined`].
    Combined(Arc<CertificateValidationContext>, SecretRef),
}

/// What both sides have in common (`CommonTlsContext`).
#[derive(Debug, Clone)]
pub struct CommonTls {
    /// `tls_certificates` or `tls_certificate_sds_secret_configs`.
    pub certificates: Vec<Held<ServedCertificate>>,
    /// `validation_context_type`.
    pub believed: Option<Believed>,
    /// `tls_params`.
    pub params: TlsParams,
    /// `alpn_protocols`.
    pub alpn: Vec<Vec<u8>>,
}

impl CommonTls {
    /// The secrets that it waits for.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        let certificates = self.certificates.iter().filter_map(|held| match held {
            Held::Secret(secret) => Some(secret),
            Held::Inline(_) => None,
        });
        let believed = match &self.believed {
            Some(Believed::Rules(Held::Secret(secret)) | Believed::Combined(_, secret)) => Some(secret),
            _ => None,
        };
        certificates.chain(believed)
    }
}

/// The TLS context of a filter chain, which is for these names; `None` is plaintext.
pub(crate) fn downstream(
    at: &At<'_>,
    socket: Option<&TransportSocket>,
    server_names: &[String],
) -> Option<Arc<DownstreamTls>> {
    let TransportSocket { name, config_type } = socket?;
    let at = &at.field("transport_socket");
    match config_type {
        Some(transport_socket::ConfigType::TypedConfig(any)) if any.is::<RawBuffer>() => None,
        Some(transport_socket::ConfigType::TypedConfig(any)) => {
            let at = at.field("typed_config");
            match any.is::<DownstreamTlsContext>() {
                true => downstream::compile(&at, &unpack(&at, any)?, server_names).map(Arc::new),
                false => unknown(&at, name, any),
            }
        }
        None if name == "envoy.transport_sockets.raw_buffer" => None,
        None => at.none(format_args!("not supported yet: {name}")),
    }
}

/// Compiles what both sides have in common.
pub(crate) fn common(at: &At<'_>, message: &CommonTlsContext) -> Option<CommonTls> {
    let CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        alpn_protocols,
        custom_handshaker,
        key_log,
        validation_context_type,
    } = message;
    refuse!(at; tls_certificate_provider_instance, custom_tls_certificate_selector);
    refuse!(at; tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance);
    refuse!(at; custom_handshaker, key_log);
    let inline = at.each("tls_certificates", tls_certificates, |at, message| {
        certificate::certificate(at, message).map(|certificate| Held::Inline(Arc::new(certificate)))
    });
    let secrets =
        at.each("tls_certificate_sds_secret_configs", tls_certificate_sds_secret_configs, |at, m| {
            secret_ref(at, m).map(Held::Secret)
        });
    Some(CommonTls {
        // As in Envoy: secrets count only where there is no certificate.
        certificates: if inline.is_empty() { secrets } else { inline },
        believed: validation_context_type.as_ref().and_then(|kind| believed(at, kind)),
        params: params::params(&at.field("tls_params"), tls_params.as_ref())?,
        alpn: at.each("alpn_protocols", alpn_protocols, alpn),
    })
}

fn alpn(at: &At<'_>, name: &String) -> Option<Vec<u8>> {
    match name.len() {
        1..=ALPN_MAX_BYTES => Some(name.as_bytes().to_vec()),
        _ => at.none("must have 1 to 255 bytes"),
    }
}

fn believed(at: &At<'_>, kind: &ValidationContextType) -> Option<Believed> {
    match kind {
        ValidationContextType::ValidationContext(message) => {
            let rules = validation::validation(&at.field("validation_context"), message)?;
            Some(Believed::Rules(Held::Inline(Arc::new(rules))))
        }
        ValidationContextType::ValidationContextSdsSecretConfig(message) => {
            let secret = secret_ref(&at.field("validation_context_sds_secret_config"), message)?;
            Some(Believed::Rules(Held::Secret(secret)))
        }
        ValidationContextType::CombinedValidationContext(message) => {
            combined_context(&at.field("combined_validation_context"), message)
        }
        ValidationContextType::ValidationContextCertificateProvider(_) => {
            at.field("validation_context_certificate_provider").none("not supported yet")
        }
        ValidationContextType::ValidationContextCertificateProviderInstance(_) => {
            at.field("validation_context_certificate_provider_instance").none("not supported yet")
        }
    }
}

fn combined_context(at: &At<'_>, message: &CombinedCertificateValidationContext) -> Option<Believed> {
    let CombinedCertificateValidationContext {
        default_validation_context,
        validation_context_sds_secret_config,
        validation_context_certificate_provider,
        validation_context_certificate_provider_instance,
    } = message;
    refuse!(at; validation_context_certificate_provider, validation_context_certificate_provider_instance);
    let Some(default) = default_validation_context else {
        return at.field("default_validation_context").none("must be set");
    };
    let default = validation::with_data(&at.field("default_validation_context"), default)?;
    // What is wrong with it alone is wrong with it merged, too.
    validation::part(&at.field("default_validation_context"), &default)?;
    let field = at.field("validation_context_sds_secret_config");
    let Some(secret) = validation_context_sds_secret_config else { return field.none("must be set") };
    Some(Believed::Combined(Arc::new(default), secret_ref(&field, secret)?))
}

/// A secret and where it comes from.
pub(crate) fn secret_ref(at: &At<'_>, message: &SdsSecretConfig) -> Option<SecretRef> {
    let SdsSecretConfig { name, sds_config } = message;
    at.required("name", name);
    let (origin, initial_fetch_timeout) = match sds_config {
        Some(source) => {
            let (origin, timeout) = config_source::compile(&at.field("sds_config"), source)?;
            (Some(origin), timeout)
        }
        None => (None, None),
    };
    Some(SecretRef { name: name.as_str().into(), origin, initial_fetch_timeout })
}
