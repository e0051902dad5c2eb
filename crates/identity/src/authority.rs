//! A certificate authority: its own root, or an intermediate that somebody else signed, and what it signs. Who may ask
//! for which id is the caller's decision; nothing of a request but its key reaches a certificate.
//!
//! Source: Istio's `security/pkg/pki` for the fields of certificates and for the files of a plugged authority; the
//! X.509-SVID standard for what a verifier may insist on.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;

use crate::{
    Certificate, Csr, Error, ErrorKind, Key, KeyKind, SpiffeId, TrustDomain, certificates_from_pem,
    certificates_to_pem,
};

/// How long a root of our own is good. Istio's.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How far a certificate begins in the past, for clocks that are behind. Istio's.
const CLOCK_SKEW: Duration = Duration::from_secs(2 * 60);

/// How long certificates of workloads are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    /// When the request names no time.
    pub default: Duration,
    /// What a request gets at most.
    pub max: Duration,
}

impl Default for Ttl {
    /// Istio's: 24 hours, 90 days.
    fn default() -> Ttl {
        Ttl { default: Duration::from_secs(24 * 3600), max: Duration::from_secs(90 * 24 * 3600) }
    }
}

impl Ttl {
    /// What a request for `asked` gets; zero asks for the default.
    pub fn granted(&self, asked: Duration) -> Duration {
        let wanted = if asked.is_zero() { self.default } else { asked };
        wanted.min(self.max)
    }
}

/// A serial number, which must never come twice from one authority: 127 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial([u8; 16]);

impl Serial {
    /// Made of random bytes. The first bit is cleared, because serial numbers are positive, and the second set, so that
    /// all have one length.
    pub fn new(mut random: [u8; 16]) -> Serial {
        random[0] = random[0] & 0x7f | 0x40;
        Serial(random)
    }

    fn number(self) -> SerialNumber {
        SerialNumber::from_slice(&self.0)
    }
}

/// The texts of a plugged authority, named after the files that Istio's `cacerts` holds.
#[derive(Clone, Copy)]
pub struct Plugged<'a> {
    /// `ca-cert.pem`: the certificate that signs.
    pub ca_cert: &'a [u8],
    /// `ca-key.pem`: its key.
    pub ca_key: &'a [u8],
    /// `root-cert.pem`: whom the mesh trusts; during a change of roots several.
    pub root_cert: &'a [u8],
    /// `cert-chain.pem`: from `ca-cert.pem` towards the root; empty when the root signs itself.
    pub cert_chain: &'a [u8],
}

/// What an authority gives for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, then what leads from it to a root, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whom to trust.
    pub roots: Vec<CertificateDer<'static>>,
    /// When it ends.
    pub not_after: SystemTime,
}

impl Issued {
    /// The `cert_chain` of an answer: each certificate a text of its own, all roots together as the last one. Istio's
    /// agents take the last text, whole, as what to trust.
    pub fn to_texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.chain.iter().map(|der| certificates_to_pem([der])).collect();
        texts.push(certificates_to_pem(&self.roots));
        texts
    }
}

/// What signs the certificates of one trust domain.
pub struct Authority {
    trust_domain: TrustDomain,
    issuer: Issuer<'static, Key>,
    certificate: CertificateDer<'static>,
    /// From the signing certificate towards the root, without roots: empty when a root signs.
    intermediates: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    not_after: SystemTime,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl Authority {
    /// The texts of a new self-signed root: its certificate and its key, as [`Plugged`] takes them.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn make_root(
        trust_domain: &TrustDomain,
        kind: KeyKind,
        now: SystemTime,
        serial: Serial,
    ) -> Result<(String, Key), Error> {
        let key = Key::generate(kind)?;
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial.number());
        params.not_before = OffsetDateTime::from(now - CLOCK_SKEW);
        params.not_after = OffsetDateTime::from(now + ROOT_LIFETIME);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params
            .self_signed(&key)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("making a root: {e}")))?;
        Ok((certificates_to_pem([certificate.der()]), key))
    }

    /// An authority from its files.
    ///
    /// # Errors
    /// If one of them cannot be read, the key is not that of the certificate, the certificate is none of an authority,
    /// or what it signs would not be accepted by somebody who trusts the roots (at `now`).
    pub fn plugged(
        trust_domain: TrustDomain,
        files: Plugged<'_>,
        now: SystemTime,
    ) -> Result<Authority, Error> {
        let in_file = |file: &'static str| move |e: Error| Error::new(e.kind(), format!("{file}: {e}"));
        let certificate =
            certificates_from_pem(files.ca_cert).map_err(in_file("ca-cert.pem"))?.swap_remove(0);
        let key = Key::from_pem(files.ca_key).map_err(in_file("ca-key.pem"))?;
        let roots = certificates_from_pem(files.root_cert).map_err(in_file("root-cert.pem"))?;
        let chain = match files.cert_chain.trim_ascii() {
            [] => Vec::new(),
            text => certificates_from_pem(text).map_err(in_file("cert-chain.pem"))?,
        };
        let facts = Certificate::from_der(&certificate).map_err(in_file("ca-cert.pem"))?;
        if !facts.is_authority {
            return Err(Error::unsupported(
                "ca-cert.pem: the certificate is not that of an authority (CA: true)",
            ));
        }
        if facts.public_key != key.public_key() {
            return Err(Error::mismatch("ca-key.pem: the key is not the one of ca-cert.pem"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|e| Error::unsupported(format!("ca-cert.pem: {e}")))?;
        let mut intermediates = vec![certificate.clone()];
        intermediates.extend(chain.into_iter().filter(|der| *der != certificate));
        intermediates.retain(|der| !roots.contains(der));
        let not_after = facts.not_after;
        let authority = Authority { trust_domain, issuer, certificate, intermediates, roots, not_after };
        authority.prove(now)?;
        Ok(authority)
    }

    /// Signs something and looks whether it would be accepted.
    fn prove(&self, now: SystemTime) -> Result<(), Error> {
        let id = SpiffeId::of_service_account(&self.trust_domain, "probe", "probe")?;
        let csr = Csr::from_pem(Csr::make(&Key::generate(KeyKind::EcdsaP256)?, &id)?.as_bytes())?;
        let issued = self.sign(&csr, &id, Duration::from_secs(60), now, Serial::new([1; 16]))?;
        verify(&issued, now).map_err(|why| {
            Error::mismatch(format!(
                "what ca-cert.pem signs is not accepted by root-cert.pem with cert-chain.pem: {why}"
            ))
        })
    }

    /// The trust domain that it signs for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The certificate that signs.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Whom the mesh trusts.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Signs a workload's certificate: the key is the request's, the id is the caller's.
    ///
    /// # Errors
    /// If the id is of another trust domain, or the authority's own certificate has ended.
    pub fn sign(
        &self,
        csr: &Csr,
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
        serial: Serial,
    ) -> Result<Issued, Error> {
        self.sign_names(csr, vec![uri(id)?], id.trust_domain(), (ttl, now), serial)
    }

    /// Signs the certificate of a server that clients also know by host names and addresses.
    ///
    /// # Errors
    /// As [`Authority::sign`], or if a host name is not ASCII.
    pub fn sign_server(
        &self,
        csr: &Csr,
        (id, hosts): (&SpiffeId, &[String]),
        ttl: Duration,
        now: SystemTime,
        serial: Serial,
    ) -> Result<Issued, Error> {
        let mut names = vec![uri(id)?];
        for host in hosts {
            names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(
                    host.as_str()
                        .try_into()
                        .map_err(|_| Error::malformed(format!("{host:?} is no host name")))?,
                ),
            });
        }
        self.sign_names(csr, names, id.trust_domain(), (ttl, now), serial)
    }

    fn sign_names(
        &self,
        csr: &Csr,
        names: Vec<SanType>,
        trust_domain: &TrustDomain,
        (ttl, now): (Duration, SystemTime),
        serial: Serial,
    ) -> Result<Issued, Error> {
        if *trust_domain != self.trust_domain {
            let own = &self.trust_domain;
            return Err(Error::mismatch(format!("this authority signs for {own}, not for {trust_domain}")));
        }
        if now >= self.not_after {
            return Err(Error::new(ErrorKind::Expired, "the certificate of the authority has ended"));
        }
        let not_after = whole_seconds((now + ttl).min(self.not_after));
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial.number());
        params.not_before = OffsetDateTime::from(now - CLOCK_SKEW);
        params.not_after = OffsetDateTime::from(not_after);
        // Without a subject the alternative names become critical, as the standard demands.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params
            .signed_by(&csr.public_key, &self.issuer)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("signing: {e}")))?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend(self.intermediates.iter().cloned());
        Ok(Issued { chain, roots: self.roots.clone(), not_after })
    }
}

fn uri(id: &SpiffeId) -> Result<SanType, Error> {
    let text = id.as_str().try_into().map_err(|_| Error::malformed("an id must be ASCII"))?;
    Ok(SanType::URI(text))
}

/// Certificates tell whole seconds.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// Whether somebody who trusts the roots accepts the chain from a client; the text says why not.
fn verify(issued: &Issued, now: SystemTime) -> Result<(), String> {
    let text = |e: webpki::Error| e.to_string();
    let anchors: Result<Vec<_>, _> =
        issued.roots.iter().map(|der| webpki::anchor_from_trusted_cert(der)).collect();
    let anchors = anchors.map_err(text)?;
    let (leaf, intermediates) = issued.chain.split_first().ok_or("the chain is empty")?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(text)?;
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let usage = webpki::KeyUsage::client_auth();
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, intermediates, now, usage, None, None)
        .map(drop)
        .map_err(text)
}

#[cfg(test)]
mod tests;
