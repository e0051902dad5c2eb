//! Secret resources: the credentials that a proxy's listeners and clusters name, as far as it may read them.
//!
//! Source: Istio `pilot/pkg/xds/sds.go`. A proxy reads the Secrets of its own namespace, and only after it has proved
//! on its stream that it is of that namespace.

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_envoy::config::core::v3::{DataSource, data_source::Specifier};
use meltemi_envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use meltemi_snapshot::{CA_SUFFIX, CaCertificates, CredentialName, KeyPair};

use super::credential_resource;
use crate::context::Context;
use crate::resources::Resource;

/// The secrets of these credentials. What does not exist, or is not for this proxy, is left out.
pub(crate) fn build(context: &Context<'_>, credentials: &BTreeSet<String>) -> Vec<Arc<Resource>> {
    if !context.shape.is_authenticated {
        return Vec::new();
    }
    let secrets = credentials.iter().filter_map(|credential| {
        let name = credential_resource(credential);
        Some(Resource::encode(
            &name,
            &Secret { r#type: Some(content(context, credential)?), name: name.clone() },
        ))
    });
    secrets.collect()
}

fn content(context: &Context<'_>, credential: &str) -> Option<secret::Type> {
    let namespace = &context.shape.namespace;
    let credential = CredentialName::parse(credential);
    if !credential.is_readable_from(namespace) {
        return None;
    }
    let secrets = &context.snapshot.secrets;
    if credential.name.ends_with(CA_SUFFIX) {
        return secrets.ca_certificates(namespace, credential.name).map(ca_certificates);
    }
    secrets.key_pair(namespace, credential.name).map(key_pair)
}

fn key_pair(pair: KeyPair<'_>) -> secret::Type {
    secret::Type::TlsCertificate(TlsCertificate {
        certificate_chain: Some(inline(pair.certificate_chain)),
        private_key: Some(inline(pair.private_key)),
        ocsp_staple: pair.ocsp_staple.map(inline),
        ..Default::default()
    })
}

fn ca_certificates(ca: CaCertificates<'_>) -> secret::Type {
    secret::Type::ValidationContext(CertificateValidationContext {
        trusted_ca: Some(inline(ca.certificates)),
        crl: ca.revocation_list.map(inline),
        ..Default::default()
    })
}

fn inline(bytes: &[u8]) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec().into())), ..Default::default() }
}
