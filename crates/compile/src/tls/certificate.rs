//! Certificates with their keys.
//!
//! Source: `envoy.extensions.transport_sockets.tls.v3.TlsCertificate`. Leaves out PKCS #12, encrypted keys, keys outside of
//! the process and OCSP responses, all refused by name.

use meltemi_envoy::extensions::transport_sockets::tls::v3::TlsCertificate;
use meltemi_identity::{ServedCertificate, Unservable};

use crate::data_source::data;
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
    refuse!(at; pkcs12, private_key_provider, password, ocsp_staple, tls_params);
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
    match ServedCertificate::from_pem(&chain?, &key?) {
        Ok(certificate) if certificate.must_staple => {
            chain_at.none("an OCSP response is required for a must-staple certificate")
        }
        Ok(certificate) => Some(certificate),
        Err(Unservable::Chain(error)) => chain_at.none(error),
        Err(Unservable::Key(error)) => key_at.none(error),
    }
}
