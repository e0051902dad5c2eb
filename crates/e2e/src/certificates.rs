//! Certificates of a test, made for each run from what it says of them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use meltemi_identity::{PeerCertificate, certificates_from_pem};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RevokedCertParams, RsaKeySize, SanType,
    SerialNumber,
};
use serde::Deserialize;
use time::{Duration, OffsetDateTime};

/// What a case says of a certificate. By default one on P-256, signed by itself, good for a day.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateSpec {
    /// The name of the certificate that signs it, which stands before it.
    pub issuer: Option<String>,
    /// It may sign others.
    pub ca: bool,
    /// Common name, default the certificate's name; empty is an empty subject.
    pub subject: Option<String>,
    /// Organisation in the subject.
    pub organization: Option<String>,
    /// Host names.
    pub dns: Vec<String>,
    /// URIs.
    pub uri: Vec<String>,
    /// `p256`, `p384` or `rsa`.
    pub key: Option<String>,
    /// Hours from now at which it begins to be good, default -1.
    pub begins_h: Option<i64>,
    /// Hours from now at which it ends, default 24.
    pub ends_h: Option<i64>,
    /// Only for servers, or only for clients.
    pub usage: Option<String>,
    /// The key may be used to encipher others, and not to sign.
    pub enciphers_only: bool,
    /// It promises an OCSP response (RFC 7633).
    pub must_staple: bool,
    /// The names of certificates that it has signed and takes back, in `NAME.crl`.
    pub revokes: Option<Vec<String>>,
}

/// Certificates that were made, by name.
#[derive(Debug, Default)]
pub struct Certificates(BTreeMap<String, Made>);

#[derive(Debug)]
struct Made {
    /// Its own and those above it but the root.
    chain: String,
    key: String,
    params: CertificateParams,
    is_root: bool,
}

impl Certificates {
    /// Makes them, and writes `NAME.pem` and `NAME.key`.
    ///
    /// # Errors
    /// If one names an issuer that is not there, or a file cannot be written.
    pub fn make(specs: &[(String, CertificateSpec)], dir: &Path) -> anyhow::Result<Certificates> {
        let mut made = Certificates::default();
        for (serial, (name, spec)) in specs.iter().enumerate() {
            let one = made.one(name, spec, serial as u64 + 1).with_context(|| name.clone())?;
            std::fs::write(dir.join(format!("{name}.pem")), &one.chain)?;
            std::fs::write(dir.join(format!("{name}.key")), &one.key)?;
            made.0.insert(name.clone(), one);
        }
        for (name, spec) in specs {
            if let Some(revoked) = &spec.revokes {
                std::fs::write(dir.join(format!("{name}.crl")), made.revocations(name, revoked)?)?;
            }
        }
        Ok(made)
    }

    /// SHA-256 of each, in hexadecimal.
    ///
    /// # Errors
    /// If a certificate cannot be read again.
    pub fn hashes(&self) -> anyhow::Result<Vec<(String, String)>> {
        let hash = |(name, made): (&String, &Made)| {
            let leaf = certificates_from_pem(made.chain.as_bytes())?.remove(0);
            Ok((name.clone(), PeerCertificate::from_der(&leaf)?.sha256))
        };
        self.0.iter().map(hash).collect()
    }

    /// The revocation list of an issuer, in PEM.
    fn revocations(&self, name: &str, revoked: &[String]) -> anyhow::Result<String> {
        let made = |name: &str| self.0.get(name).with_context(|| format!("no certificate {name}"));
        let now = OffsetDateTime::now_utc();
        let entry = |name: &String| {
            let serial_number = made(name)?.params.serial_number.clone().context("a serial number")?;
            let revocation_time = now - Duration::hours(1);
            Ok(RevokedCertParams { serial_number, revocation_time, reason_code: None, invalidity_date: None })
        };
        let list = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update: now + Duration::hours(24),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect::<anyhow::Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = made(name)?;
        let issuer = Issuer::new(issuer.params.clone(), KeyPair::from_pem(&issuer.key)?);
        Ok(list.signed_by(&issuer)?.pem()?)
    }

    /// Chain and key of one in PEM.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn pem(&self, name: &str) -> anyhow::Result<(&str, &str)> {
        let made = self.0.get(name).with_context(|| format!("no certificate {name}"))?;
        Ok((&made.chain, &made.key))
    }

    /// What differs from run to run in texts, and what stands for it.
    ///
    /// # Errors
    /// If a certificate cannot be read again.
    pub fn masks(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut masks = Vec::new();
        for (name, made) in &self.0 {
            let leaf = certificates_from_pem(made.chain.as_bytes())?.remove(0);
            let facts = PeerCertificate::from_der(&leaf)?;
            masks.push((escaped(&made.chain), format!("<chain {name}>")));
            let own = meltemi_identity::certificates_to_pem([&leaf]);
            masks.push((escaped(&own), format!("<pem {name}>")));
            for text in [made.chain.clone(), made.chain.replace('\r', "")] {
                masks.push((base64(&text), format!("<base64 {name}>")));
            }
            masks.push((facts.sha256, format!("<sha256 {name}>")));
            masks.push((facts.sha1, format!("<sha1 {name}>")));
        }
        // The longest first: a chain holds its parts.
        masks.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Ok(masks)
    }

    fn one(&self, name: &str, spec: &CertificateSpec, serial: u64) -> anyhow::Result<Made> {
        let params = params(name, spec, serial)?;
        let key = match spec.key.as_deref() {
            None | Some("p256") => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            Some("p384") => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?,
            Some("rsa") => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
            Some(other) => anyhow::bail!("{other} is no kind of key"),
        };
        let chain = match &spec.issuer {
            None => params.self_signed(&key)?.pem(),
            Some(above) => {
                let above = self.0.get(above).with_context(|| format!("no issuer {above}"))?;
                let issuer = Issuer::new(above.params.clone(), KeyPair::from_pem(&above.key)?);
                let own = params.signed_by(&key, &issuer)?.pem();
                if above.is_root { own } else { own + &above.chain }
            }
        };
        Ok(Made { chain, key: key.serialize_pem(), params, is_root: spec.issuer.is_none() })
    }
}

fn params(name: &str, spec: &CertificateSpec, serial: u64) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = &spec.organization {
        params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    let subject = spec.subject.as_deref().unwrap_or(name);
    if !subject.is_empty() {
        params.distinguished_name.push(DnType::CommonName, subject);
    }
    for dns in &spec.dns {
        params.subject_alt_names.push(SanType::DnsName(dns.as_str().try_into()?));
    }
    for uri in &spec.uri {
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
    }
    let now = OffsetDateTime::now_utc();
    params.not_before = now + Duration::hours(spec.begins_h.unwrap_or(-1));
    params.not_after = now + Duration::hours(spec.ends_h.unwrap_or(24));
    params.serial_number = Some(SerialNumber::from(0x1000 + serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if spec.ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    }
    if spec.enciphers_only {
        params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    }
    if spec.must_staple {
        // TLS feature: status_request.
        let feature =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], vec![0x30, 3, 2, 1, 5]);
        params.custom_extensions.push(feature);
    }
    match spec.usage.as_deref() {
        Some("server") => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        Some("client") => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        Some(other) => anyhow::bail!("{other} is no usage"),
        None => {}
    }
    Ok(params)
}

/// As certificates stand in headers.
fn escaped(pem: &str) -> String {
    let with_signs = [("\n", "%0A"), (" ", "%20"), ("+", "%2B"), ("/", "%2F"), ("=", "%3D")];
    with_signs.iter().fold(pem.replace('\r', ""), |text, (from, to)| text.replace(from, to))
}

/// As bytes stand in JSON. The lines of PEM are base64 of whatever bytes they are made of.
fn base64(text: &str) -> String {
    let pem = meltemi_identity::certificates_to_pem([&text.as_bytes().to_vec().into()]);
    pem.lines().filter(|line| !line.starts_with('-')).collect()
}
