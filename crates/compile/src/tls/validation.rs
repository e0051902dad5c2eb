//! Whom to believe.
//!
//! Source: `envoy.extensions.transport_sockets.tls.v3.{CertificateValidationContext, SPIFFECertValidatorConfig}`.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_envoy::Any;
use meltemi_envoy::config::core::v3::{DataSource, data_source};
use meltemi_envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::{
    SystemRootCerts, TrustChainVerification,
};
use meltemi_envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config::TrustDomain;
use meltemi_envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use meltemi_envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, SpiffeCertValidatorConfig, SubjectAltNameMatcher,
};
use meltemi_envoy::r#type::matcher::v3::StringMatcher as StringMatcherMessage;
use meltemi_envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use meltemi_identity::verify::{Anchors, NameKind, NameMatcher, NameRule, Revocations, Rules, Trust};
use meltemi_identity::{certificates_from_pem, sha256};

use prost::Message as _;

use crate::data_source::{data, path};
use crate::extension::{unknown, unpack};
use crate::ledger::{At, harmless, refuse};
use crate::matcher::string_matcher;

/// Bytes of a SHA-256 in hexadecimal with colons.
const COLON_HASH_BYTES: usize = 95;

/// Whom to believe, and how a server asks for it.
#[derive(Debug, Clone, Default)]
pub struct Validation {
    /// The rules.
    pub rules: Arc<Rules>,
    /// Where `trusted_ca` is: a path, or as Envoy says.
    pub path: Box<str>,
    /// `suppress_client_ca_list`.
    pub hides_authorities: bool,
    /// SHA-256 of all that it says, with the data that it names: equal for two contexts that believe the same.
    pub digest: [u8; 32],
}

/// Compiles a validation context.
pub(super) fn validation(at: &At<'_>, message: &CertificateValidationContext) -> Option<Validation> {
    let trusts = message.trusted_ca.is_some() || message.custom_validator_config.is_some();
    if message.crl.is_some() && !trusts {
        at.field("crl").reject("must not be set without trusted_ca");
    }
    part(at, message)
}

/// Compiles a validation context that a secret completes: whom to believe may come with it.
pub(super) fn part(at: &At<'_>, message: &CertificateValidationContext) -> Option<Validation> {
    let path = message.trusted_ca.as_ref().map_or_else(Box::default, path);
    // Read once, so that the rules and their digest are of the same data.
    let message = with_data(at, message)?;
    let rules = Arc::new(rules(at, &message)?);
    let digest = digest(&message, &rules.trust);
    Some(Validation { rules, path, hides_authorities: message.suppress_client_ca_list, digest })
}

/// The data of trust domains is not in the message.
fn digest(message: &CertificateValidationContext, trust: &Trust) -> [u8; 32] {
    let mut bytes = message.encode_length_delimited_to_vec();
    if let Trust::Domains(domains) = trust {
        for (name, anchors) in domains {
            bytes.extend(sha256(name.as_bytes()));
            bytes.extend(anchors.certificates().iter().flat_map(|der| sha256(der)));
        }
    }
    sha256(&bytes)
}

fn rules(at: &At<'_>, message: &CertificateValidationContext) -> Option<Rules> {
    let CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list: _,
    } = message;
    refuse!(at; ca_certificate_provider_instance);
    at.refuse_true("require_signed_certificate_timestamp", *require_signed_certificate_timestamp);
    harmless!(ReadOnce; watched_directory);
    let verification =
        at.choice::<TrustChainVerification>("trust_chain_verification", *trust_chain_verification)?;
    let (roots, mut revocations) = match (trusted_ca, system_root_certs) {
        (Some(source), _) => roots(&at.field("trusted_ca"), source)?,
        (None, Some(SystemRootCerts {})) => {
            // Envoy 1.40 does not look at it, and so believes everybody.
            return at
                .field("system_root_certs")
                .none("not supported, as in Envoy: trusted_ca names the roots");
        }
        (None, None) => (None, Vec::new()),
    };
    if let Some(source) = crl {
        revocations.extend(lists(&at.field("crl"), source)?);
    }
    let mut names = at.each("match_typed_subject_alt_names", match_typed_subject_alt_names, name_rule);
    let of_any_kind = at.each("match_subject_alt_names", match_subject_alt_names, |at, matcher| {
        let kinds = [NameKind::Dns, NameKind::Uri, NameKind::Email, NameKind::Ip];
        Some(kinds.into_iter().filter_map(|kind| rule(at, kind, matcher)).collect::<Vec<_>>())
    });
    names.extend(of_any_kind.into_iter().flatten());
    let trust = match custom_validator_config {
        Some(extension) => {
            let extension_at = at.field("custom_validator_config");
            let at = extension_at.field("typed_config");
            // Other kinds of names are free in SPIFFE, so they prove nothing.
            names.retain(|rule| rule.kind == NameKind::Uri);
            let any = extension.typed_config.as_ref();
            domains(&at, &extension.name, any.or_else(|| at.none("must be set"))?)?
        }
        None => roots.map_or(Trust::NoChain, Trust::Roots),
    };
    Some(Rules {
        trust,
        revocations,
        revokes_leaf_only: *only_verify_leaf_cert_crl,
        names,
        hashes: at.each("verify_certificate_hash", verify_certificate_hash, |at, text| hash(at, text)),
        key_hashes: at
            .each("verify_certificate_spki", verify_certificate_spki, |at, text| key_hash(at, text)),
        allows_expired: *allow_expired_certificate,
        accepts_untrusted: verification == TrustChainVerification::AcceptUntrusted,
        max_depth: *max_verify_depth,
    })
}

/// The message with the data in it that it names.
pub(super) fn with_data(
    at: &At<'_>,
    message: &CertificateValidationContext,
) -> Option<CertificateValidationContext> {
    let mut message = message.clone();
    for (field, source) in [("trusted_ca", &mut message.trusted_ca), ("crl", &mut message.crl)] {
        if let Some(source) = source {
            let bytes = data(&at.field(field), source)?;
            let specifier = data_source::Specifier::InlineBytes(bytes.into());
            *source = DataSource { watched_directory: None, specifier: Some(specifier) };
        }
    }
    Some(message)
}

/// The certificates of a bundle, and the revocation lists in it.
fn roots(at: &At<'_>, source: &DataSource) -> Option<(Option<Anchors>, Vec<Revocations>)> {
    let pem = data(at, source)?;
    let lists = revocations(at, &pem)?;
    anchors(at, &pem).map(|anchors| (Some(anchors), lists))
}

fn anchors(at: &At<'_>, pem: &[u8]) -> Option<Anchors> {
    match certificates_from_pem(pem).and_then(Anchors::new) {
        Ok(anchors) => Some(anchors),
        Err(error) => at.none(format_args!("failed to load trusted CA certificates: {error}")),
    }
}

fn lists(at: &At<'_>, source: &DataSource) -> Option<Vec<Revocations>> {
    let pem = data(at, source)?;
    let lists = revocations(at, &pem)?;
    if lists.is_empty() {
        return at.none("there is no revocation list in it");
    }
    Some(lists)
}

fn revocations(at: &At<'_>, pem: &[u8]) -> Option<Vec<Revocations>> {
    match Revocations::from_pem(pem) {
        Ok(lists) => Some(lists),
        Err(error) => at.none(error),
    }
}

fn domains(at: &At<'_>, name: &str, any: &Any) -> Option<Trust> {
    if !any.is::<SpiffeCertValidatorConfig>() {
        return unknown(at, name, any);
    }
    let SpiffeCertValidatorConfig { trust_domains, trust_bundles } = unpack(at, any)?;
    at.refuse("trust_bundles", &trust_bundles);
    if trust_domains.is_empty() {
        at.field("trust_domains").reject("must not be empty");
    }
    let mut all: BTreeMap<Box<str>, Anchors> = BTreeMap::new();
    for (i, domain) in trust_domains.iter().enumerate() {
        let TrustDomain { name, trust_bundle, workload_trust_domain } = domain;
        let at = at.item("trust_domains", i);
        refuse!(at; workload_trust_domain);
        at.required("name", name);
        let field = at.field("trust_bundle");
        let Some(source) = trust_bundle else { return field.none("must be set") };
        let anchors = anchors(&field, &data(&field, source)?)?;
        if all.insert(name.as_str().into(), anchors).is_some() {
            at.field("name").reject(format_args!("multiple trust bundles are given for {name}"));
        }
    }
    Some(Trust::Domains(all))
}

fn name_rule(at: &At<'_>, message: &SubjectAltNameMatcher) -> Option<NameRule> {
    let SubjectAltNameMatcher { san_type, matcher, oid } = message;
    let kind = match at.choice("san_type", *san_type)? {
        SanType::Email => NameKind::Email,
        SanType::Dns => NameKind::Dns,
        SanType::Uri => NameKind::Uri,
        SanType::IpAddress => NameKind::Ip,
        SanType::OtherName => return at.field("san_type").none("not supported yet: OTHER_NAME"),
        SanType::Unspecified => return at.field("san_type").none("must be set"),
    };
    refuse!(at; oid);
    let Some(matcher) = matcher else { return at.field("matcher").none("must be set") };
    rule(&at.field("matcher"), kind, matcher)
}

fn rule(at: &At<'_>, kind: NameKind, message: &StringMatcherMessage) -> Option<NameRule> {
    let matcher = string_matcher(at, message)?;
    let matches: NameMatcher = match (&message.match_pattern, kind) {
        (Some(MatchPattern::Exact(wanted)), NameKind::Dns) => {
            let wanted = wanted.to_ascii_lowercase();
            Arc::new(move |name| is_host(&wanted, name))
        }
        _ => Arc::new(move |name| matcher.matches(name.as_bytes())),
    };
    Some(NameRule { kind, matches })
}

/// Whether a certificate's host name, whose first label may be `*`, is the wanted one.
pub(super) fn is_host(wanted: &str, name: &str) -> bool {
    if wanted.eq_ignore_ascii_case(name) {
        return true;
    }
    let Some(suffix) = name.strip_prefix("*.") else { return false };
    let rest = wanted.split_once('.').map(|(first, rest)| (!first.is_empty(), rest));
    rest.is_some_and(|(has_label, rest)| has_label && rest.eq_ignore_ascii_case(suffix))
}

fn hash(at: &At<'_>, text: &str) -> Option<[u8; 32]> {
    let digits = match text.len() {
        COLON_HASH_BYTES => text.replace(':', ""),
        _ => text.to_owned(),
    };
    let bytes: Option<Vec<u8>> = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let hash = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    hash.or_else(|| at.none(format_args!("invalid hex-encoded SHA-256 {text}")))
}

/// RFC 4648, section 4.
fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for digit in group {
            let value = ALPHABET.iter().position(|known| known == digit)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        let count = group.len() * 6 / 8;
        bits <<= 24 - 6 * group.len();
        bytes.extend(&bits.to_be_bytes()[1..=count]);
    }
    Some(bytes)
}

fn key_hash(at: &At<'_>, text: &str) -> Option<[u8; 32]> {
    let hash = base64(text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    hash.or_else(|| at.none(format_args!("invalid base64-encoded SHA-256 {text}")))
}
