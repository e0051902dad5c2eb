//! The chain of a certificate to an anchor, by webpki.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, Error, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::prelude::{FromDer, Validity, X509Certificate};

use super::{Refusal, Role, Rules};
use crate::Error as IdentityError;

/// Certificates that end a chain.
#[derive(Debug, Clone)]
pub struct Anchors {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    /// First and last second of each.
    times: Vec<(i64, i64)>,
}

impl Anchors {
    /// These certificates; they need not be self-signed.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Anchors, IdentityError> {
        let unreadable = || IdentityError::malformed("a certificate cannot be read");
        let anchor = |der: &CertificateDer<'static>| {
            webpki::anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned()).map_err(|_| unreadable())
        };
        let time = |der: &CertificateDer<'static>| {
            let (_, parsed) = X509Certificate::from_der(der).map_err(|_| unreadable())?;
            Ok(seconds(parsed.validity()))
        };
        Ok(Anchors {
            anchors: certificates.iter().map(anchor).collect::<Result<_, _>>()?,
            times: certificates.iter().map(time).collect::<Result<_, _>>()?,
            certificates,
        })
    }

    /// The certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

fn seconds(validity: &Validity) -> (i64, i64) {
    (validity.not_before.timestamp(), validity.not_after.timestamp())
}

fn is_within((from, until): (i64, i64), now: UnixTime) -> bool {
    i64::try_from(now.as_secs()).is_ok_and(|now| from <= now && now <= until)
}

/// What a peer shows.
pub(super) struct Shown<'c> {
    pub(super) leaf: &'c CertificateDer<'c>,
    pub(super) parsed: &'c X509Certificate<'c>,
    pub(super) intermediates: &'c [CertificateDer<'c>],
}

impl Rules {
    pub(super) fn check_chain(
        &self,
        anchors: &Anchors,
        shown: &Shown<'_>,
        role: Role,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let Shown { leaf, parsed, intermediates } = *shown;
        if anchors.certificates.iter().any(|anchor| **anchor == **leaf) && self.revocations.is_empty() {
            let is_good = self.allows_expired || is_within(seconds(parsed.validity()), now);
            return if is_good { Ok(()) } else { Err(Refusal::Chain(expired(now))) };
        }
        let at = |time: UnixTime| self.path(anchors, leaf, intermediates, role, time);
        let first = match at(now) {
            Ok(()) => return Ok(()),
            Err(error) if !self.allows_expired => return Err(Refusal::Chain(error)),
            Err(error) => error,
        };
        // Time does not count: some moment at which all of them were good will do.
        let moments = moments(parsed, intermediates);
        if moments.into_iter().any(|time| at(time).is_ok()) { Ok(()) } else { Err(Refusal::Chain(first)) }
    }

    fn path(
        &self,
        anchors: &Anchors,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<(), Error> {
        let end = EndEntityCert::try_from(leaf)?;
        let usage = match role {
            Role::Server => KeyUsage::server_auth(),
            Role::Client => KeyUsage::client_auth(),
        };
        let lists: Vec<_> = self.revocations.iter().map(|list| &*list.0).collect();
        let judge = |path: &VerifiedPath<'_>| self.judge(anchors, path, now);
        end.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors.anchors,
            intermediates,
            now,
            usage,
            self.revocation(&lists),
            Some(&judge),
        )?;
        Ok(())
    }

    /// What webpki leaves to us: the length of the path, and the time of its anchor.
    fn judge(&self, anchors: &Anchors, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), Error> {
        // The depth counts the anchor.
        let allowed = self.max_depth.map(|depth| depth.saturating_sub(1) as usize);
        if allowed.is_some_and(|allowed| path.intermediate_certificates().count() > allowed) {
            return Err(Error::MaximumPathDepthExceeded);
        }
        let time = anchors
            .anchors
            .iter()
            .position(|anchor| std::ptr::eq(anchor, path.anchor()))
            .and_then(|index| anchors.times.get(index));
        match time {
            Some(time) if !self.allows_expired && !is_within(*time, now) => Err(expired(now)),
            _ => Ok(()),
        }
    }

    fn revocation<'l>(
        &self,
        lists: &'l [&'l webpki::CertRevocationList<'static>],
    ) -> Option<RevocationOptions<'l>> {
        let builder = RevocationOptionsBuilder::new(lists).ok()?;
        let depth = match self.revokes_leaf_only {
            true => RevocationCheckDepth::EndEntity,
            false => RevocationCheckDepth::Chain,
        };
        // Without a list of its issuer, a certificate is refused, as in Envoy.
        let strict = builder.with_depth(depth).with_status_policy(UnknownStatusPolicy::Deny);
        Some(strict.with_expiration_policy(ExpirationPolicy::Enforce).build())
    }
}

fn expired(now: UnixTime) -> Error {
    Error::CertExpired { time: now, not_after: now }
}

/// The bounds of every certificate's time.
fn moments(leaf: &X509Certificate<'_>, intermediates: &[CertificateDer<'_>]) -> Vec<UnixTime> {
    let mut bounds = vec![seconds(leaf.validity())];
    for der in intermediates {
        bounds.extend(X509Certificate::from_der(der).ok().map(|(_, parsed)| seconds(parsed.validity())));
    }
    let second =
        |time: i64| u64::try_from(time).ok().map(Duration::from_secs).map(UnixTime::since_unix_epoch);
    bounds.into_iter().flat_map(|(from, until)| [from, until]).filter_map(second).collect()
}

/// What BoringSSL calls an error of webpki, with where in the chain it was.
pub(super) fn explained(error: &Error) -> &'static str {
    match error {
        Error::CertExpired { .. } => "certificate verification error at depth 0: certificate has expired",
        Error::CertNotValidYet { .. } => {
            "certificate verification error at depth 0: certificate is not yet valid"
        }
        Error::CertRevoked => "certificate verification error at depth 0: certificate revoked",
        Error::UnknownIssuer | Error::EndEntityUsedAsCa => {
            "certificate verification error at depth 0: unable to get local issuer certificate"
        }
        Error::UnknownRevocationStatus => {
            "certificate verification error at depth 0: unable to get certificate CRL"
        }
        Error::CrlExpired { .. } => "certificate verification error at depth 0: CRL has expired",
        Error::InvalidSignatureForPublicKey => {
            "certificate verification error at depth 0: certificate signature failure"
        }
        Error::RequiredEkuNotFoundContext(_) => {
            "certificate verification error at depth 0: unsuitable certificate purpose"
        }
        Error::MaximumPathDepthExceeded => {
            "certificate verification error at depth 0: certificate chain too long"
        }
        Error::PathLenConstraintViolated => {
            "certificate verification error at depth 0: path length constraint exceeded"
        }
        Error::NameConstraintViolation => {
            "certificate verification error at depth 0: permitted subtree violation"
        }
        _ => "certificate verification error at depth 0: certificate rejected",
    }
}
