//! Certificates with their keys.
//!
//! Source: `envoy.extensions.transport_sockets.tls.v3.TlsCertificate`. Leaves out PKCS #12, encrypted keys and keys outside
//! of the process, all refused by name.

use meltemi_envoy::config::core::v3::DataSource;
use meltemi_envoy::config::core::v3::data_source::Specifier;
use meltemi_envoy::extensions::transport_sockets::tls::v3::TlsCertificate;
use meltemi_identity::{ServedCertificate, Unservable};

use crate::data_source::{data, path};
use crate::ledger::{At, harmless, refuse};

pub(super) fn certificate(at: &At<'_>, message: &TlsCertificate) -> Option<ServedCertificate> {
    let TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = message;
    refuse!(at; pkcs12, private_key_provider, password, tls_params);
    harmless!(NoEffectInEnvoy; signed_certificate_timestamp);
    harmless!(ReadOnce; watched_directory);
    let (chain_at, key_at) = (at.field("certificate_chain"), at.field("private_key"));
    let chain = match certificate_chain {
        Some(source) => data(&chain_at, source),
        None => chain_at.none("must be set"),
    };
    let key = match private_key {
        Some(source) => data(&key_at, source),
        None => key_at.none("must be set"),
    };
    let certificate = match ServedCertificate::from_pem(&chain?, &key?) {
        Ok(certificate) => {
            let path = certificate_chain.as_ref().map_or_else(Box::default, path);
            ServedCertificate { path, ..certificate }
        }
        Err(Unservable::Chain(error)) => return chain_at.none(error),
        Err(Unservable::Key(error)) => return key_at.none(error),
    };
    match ocsp_staple {
        Some(source) => stapled(&at.field("ocsp_staple"), source, certificate),
        None if certificate.must_staple => {
            chain_at.none("an OCSP response is required for a must-staple certificate")
        }
        None => Some(certificate),
    }
}

fn stapled(at: &At<'_>, source: &DataSource, certificate: ServedCertificate) -> Option<ServedCertificate> {
    if matches!(source.specifier, Some(Specifier::InlineString(_))) {
        return at.none("OCSP staple cannot be provided via inline_string");
    }
    let response = data(at, source)?;
    if response.is_empty() {
        return Some(certificate);
    }
    match certificate.stapled(&response) {
        Ok(stapled) => Some(stapled),
        Err(error) => at.none(error),
    }
}
