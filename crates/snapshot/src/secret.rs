//! Secrets: the keys, certificates and CA certificates that servers and clients name.
//!
//! Source: Istio `pilot/pkg/credentials/kube/secrets.go` (which keys of a Secret are what) and
//! `pilot/pkg/model/credentials/resource.go` (names). Who may read one is for its reader to ask
//! ([`CredentialName::namespace`]): a proxy reads the Secrets of its own namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::kubernetes::Secret;
use meltemi_api::{Object, Spec};

/// At the end of a name: the Secret that holds the CA certificate for client certificates.
pub const CA_SUFFIX: &str = "-cacert";

/// In front of a name: it is a Secret, of the proxy's own namespace or of the one that follows.
pub const SCHEME: &str = "kubernetes://";

/// The Secrets of the mesh.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Secrets(BTreeMap<(Arc<str>, Arc<str>), Arc<Object>>);

/// A private key and its certificates, PEM.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyPair<'a> {
    /// The certificate and those between it and a root.
    pub certificate_chain: &'a [u8],
    /// The private key.
    pub private_key: &'a [u8],
    /// An OCSP response, DER.
    pub ocsp_staple: Option<&'a [u8]>,
}

/// Certificates of CAs, PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaCertificates<'a> {
    /// The certificates.
    pub certificates: &'a [u8],
    /// What they have revoked.
    pub revocation_list: Option<&'a [u8]>,
}

/// What a `credentialName` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CredentialName<'a> {
    /// The namespace, when the name has one.
    pub namespace: Option<&'a str>,
    /// The name of the Secret.
    pub name: &'a str,
}

impl<'a> CredentialName<'a> {
    /// Reads `NAME`, `kubernetes://NAME` or `kubernetes://NAMESPACE/NAME`.
    pub fn parse(text: &'a str) -> CredentialName<'a> {
        let place = text.strip_prefix(SCHEME);
        match place.and_then(|place| place.split_once('/')) {
            Some((namespace, name)) => CredentialName { namespace: Some(namespace), name },
            None => CredentialName { namespace: None, name: place.unwrap_or(text) },
        }
    }

    /// Whether a proxy of this namespace may read it.
    pub fn is_readable_from(&self, namespace: &str) -> bool {
        self.namespace.is_none_or(|own| own == namespace)
    }
}

impl Secrets {
    pub(crate) fn build<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> Secrets {
        let secrets = objects.filter(|object| matches!(object.spec, Spec::Secret(_)));
        let key = |object: &Arc<Object>| (Arc::clone(&object.id.namespace), Arc::clone(&object.id.name));
        Secrets(secrets.map(|object| (key(object), Arc::clone(object))).collect())
    }

    /// The Secret of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Secret> {
        match &self.0.get(&(namespace.into(), name.into()))?.spec {
            Spec::Secret(secret) => Some(secret),
            _ => None,
        }
    }

    /// The key and certificate of a Secret.
    pub fn key_pair(&self, namespace: &str, name: &str) -> Option<KeyPair<'_>> {
        let secret = self.get(namespace, name)?;
        let pair = |certificate: &str, key: &str, staple: &str| {
            Some(KeyPair {
                certificate_chain: secret.value(certificate)?,
                private_key: secret.value(key)?,
                ocsp_staple: secret.value(staple),
            })
        };
        pair("cert", "key", "").or_else(|| pair("tls.crt", "tls.key", "tls.ocsp-staple"))
    }

    /// The CA certificates of a name that ends in [`CA_SUFFIX`]: of the Secret of that name, else of the one without
    /// the suffix.
    pub fn ca_certificates(&self, namespace: &str, name: &str) -> Option<CaCertificates<'_>> {
        let stripped = name.strip_suffix(CA_SUFFIX).unwrap_or(name);
        let secret = self.get(namespace, name).or_else(|| self.get(namespace, stripped))?;
        let of = |certificates: &str, list: &str| {
            Some(CaCertificates {
                certificates: secret.value(certificates)?,
                revocation_list: secret.value(list),
            })
        };
        of("cacert", "crl").or_else(|| of("ca.crt", "ca.crl"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Inputs, Snapshot};

    fn secrets(text: &str) -> Arc<Secrets> {
        let (objects, broken) = meltemi_api::parse(text, &"secrets.yaml".into());
        assert!(broken.is_empty(), "{broken:#?}");
        let inputs = Inputs { objects: objects.into_iter().map(Arc::new).collect() };
        Snapshot::build(&inputs).0.secrets
    }

    #[test]
    fn both_spellings_of_the_keys() {
        let secrets = secrets(
            "{apiVersion: v1, kind: Secret, metadata: {name: tls}, stringData: {tls.crt: a, tls.key: b, tls.ocsp-staple: c, ca.crt: d, ca.crl: e}}
---
{apiVersion: v1, kind: Secret, metadata: {name: generic}, stringData: {cert: a, key: b, cacert: d, crl: e}}
---
{apiVersion: v1, kind: Secret, metadata: {name: half}, stringData: {tls.crt: a, tls.key: ''}}
---
{apiVersion: v1, kind: Secret, metadata: {name: half-cacert}, stringData: {cacert: f}}
",
        );
        let pair = |name| secrets.key_pair("default", name).map(|p| (p.certificate_chain, p.private_key));
        assert_eq!(pair("tls"), Some((&b"a"[..], &b"b"[..])));
        assert_eq!(pair("generic"), pair("tls"));
        assert_eq!(pair("half"), None);
        assert_eq!(secrets.key_pair("default", "tls").and_then(|p| p.ocsp_staple), Some(&b"c"[..]));
        let ca =
            |name| secrets.ca_certificates("default", name).map(|ca| (ca.certificates, ca.revocation_list));
        assert_eq!(ca("tls-cacert"), Some((&b"d"[..], Some(&b"e"[..]))));
        assert_eq!(ca("generic-cacert"), ca("tls-cacert"));
        assert_eq!(ca("half-cacert"), Some((&b"f"[..], None)));
        assert_eq!(ca("nobody-cacert"), None);
        assert_eq!(secrets.key_pair("other", "tls").map(|p| p.private_key), None);
    }

    #[test]
    fn names() {
        let plain = CredentialName::parse("a");
        assert_eq!(plain, CredentialName::parse("kubernetes://a"));
        assert!(plain.is_readable_from("any"));
        let elsewhere = CredentialName::parse("kubernetes://ns/a");
        assert_eq!(elsewhere, CredentialName { namespace: Some("ns"), name: "a" });
        assert!(elsewhere.is_readable_from("ns") && !elsewhere.is_readable_from("default"));
    }
}
