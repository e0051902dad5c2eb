use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use std::time::Duration;

use super::*;

/// Noon of a day of 2026, in the middle of what the certificates here are good for.
const NOW_S: u64 = 1_780_000_000;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn time(seconds: u64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap()
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    (params.not_before, params.not_after) = (time(NOW_S - 1000), time(NOW_S + 1000));
    params
}

fn authority(name: &str, by: Option<&Authority>) -> Authority {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let made = match by {
        Some(by) => params.signed_by(&key, &by.issuer),
        None => params.self_signed(&key),
    };
    let der = made.unwrap().der().clone();
    Authority { issuer: Issuer::new(params, key), der }
}

fn leaf(by: &Authority, name: &str, serial: u64) -> CertificateDer<'static> {
    let mut params = params("leaf");
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    params.serial_number = Some(SerialNumber::from(serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.signed_by(&KeyPair::generate().unwrap(), &by.issuer).unwrap().der().clone()
}

fn trusting(roots: &[&Authority]) -> Rules {
    let certificates = roots.iter().map(|root| root.der.clone()).collect();
    Rules { trust: Trust::Roots(Anchors::new(certificates).unwrap()), ..Rules::default() }
}

fn named(text: &'static str) -> NameRule {
    NameRule { kind: NameKind::Uri, matches: Arc::new(move |name| name == text) }
}

const ID: &str = "spiffe://td/ns/a/sa/b";

#[test]
fn a_chain_must_lead_to_an_anchor() {
    let (root, other) = (authority("root", None), authority("other", None));
    let middle = authority("middle", Some(&root));
    let peer = leaf(&middle, ID, 1);
    let rules = trusting(&[&root]);
    let sent = [middle.der.clone()];
    assert_eq!(rules.check(&peer, &sent, Role::Client, at(NOW_S)), Ok(()));
    let unknown = Err(Refusal::Chain(webpki::Error::UnknownIssuer));
    assert_eq!(rules.check(&peer, &[], Role::Client, at(NOW_S)), unknown);
    assert_eq!(trusting(&[&other]).check(&peer, &sent, Role::Client, at(NOW_S)), unknown);
    // An intermediate may be an anchor, and so may the certificate itself.
    assert_eq!(trusting(&[&middle]).check(&peer, &[], Role::Client, at(NOW_S)), Ok(()));
    let own = Rules { trust: Trust::Roots(Anchors::new(vec![peer.clone()]).unwrap()), ..Rules::default() };
    assert_eq!(own.check(&peer, &[], Role::Client, at(NOW_S)), Ok(()));
}

#[test]
fn time_counts_for_anchors_too_unless_it_does_not_count() {
    let root = authority("root", None);
    let peer = leaf(&root, ID, 1);
    let rules = trusting(&[&root]);
    for late in [at(NOW_S + 2000), at(NOW_S - 2000)] {
        assert!(matches!(rules.check(&peer, &[], Role::Client, late), Err(Refusal::Chain(_))));
        let lenient = Rules { allows_expired: true, ..rules.clone() };
        assert_eq!(lenient.check(&peer, &[], Role::Client, late), Ok(()));
    }
    let mut long = params("leaf");
    long.not_after = time(NOW_S + 100_000);
    let key = KeyPair::generate().unwrap();
    let outlives = long.signed_by(&key, &root.issuer).unwrap().der().clone();
    let expired = rules.check(&outlives, &[], Role::Client, at(NOW_S + 2000));
    assert!(matches!(expired, Err(Refusal::Chain(webpki::Error::CertExpired { .. }))), "{expired:?}");
}

#[test]
fn depth_counts_the_anchor() {
    let root = authority("root", None);
    let middle = authority("middle", Some(&root));
    let peer = leaf(&middle, ID, 1);
    let sent = [middle.der.clone()];
    let deep = |depth| Rules { max_depth: Some(depth), ..trusting(&[&root]) };
    assert_eq!(deep(2).check(&peer, &sent, Role::Client, at(NOW_S)), Ok(()));
    assert!(deep(1).check(&peer, &sent, Role::Client, at(NOW_S)).is_err());
}

#[test]
fn names_and_pins_narrow_whom_the_chain_lets_in() {
    let root = authority("root", None);
    let peer = leaf(&root, ID, 1);
    let check = |rules: Rules| rules.check(&peer, &[], Role::Client, at(NOW_S));
    assert_eq!(check(Rules { names: vec![named(ID)], ..trusting(&[&root]) }), Ok(()));
    let refused = Err(Refusal::Names(vec![ID.to_owned()]));
    assert_eq!(check(Rules { names: vec![named("spiffe://td/x")], ..trusting(&[&root]) }), refused);
    let hash = <[u8; 32]>::try_from(digest(&SHA256, &peer).as_ref()).unwrap();
    assert_eq!(check(Rules { hashes: vec![[0; 32], hash], ..trusting(&[&root]) }), Ok(()));
    assert_eq!(check(Rules { key_hashes: vec![[0; 32]], ..trusting(&[&root]) }), Err(Refusal::Pins));
}

#[test]
fn a_trust_domain_has_its_own_anchors() {
    let (ours, theirs) = (authority("ours", None), authority("theirs", None));
    let anchors = |root: &Authority| Anchors::new(vec![root.der.clone()]).unwrap();
    let domains = [(Box::from("td"), anchors(&ours)), (Box::from("friend"), anchors(&theirs))];
    let rules = Rules { trust: Trust::Domains(domains.into()), ..Rules::default() };
    let check = |peer: CertificateDer<'_>| rules.check(&peer, &[], Role::Client, at(NOW_S));
    assert_eq!(check(leaf(&ours, ID, 1)), Ok(()));
    assert_eq!(check(leaf(&theirs, "spiffe://friend/ns/a/sa/b", 1)), Ok(()));
    // The other's authority cannot speak for our domain.
    assert!(check(leaf(&theirs, ID, 1)).is_err());
    assert_eq!(check(leaf(&ours, "spiffe://stranger/a", 1)), Err(Refusal::TrustDomain));
    assert_eq!(check(leaf(&ours, "https://td/a", 1)), Err(Refusal::TrustDomain));
}

#[test]
fn a_revoked_certificate_is_refused_and_so_is_one_without_a_list() {
    let (root, other) = (authority("root", None), authority("other", None));
    let list = CertificateRevocationListParams {
        this_update: time(NOW_S - 100),
        next_update: time(NOW_S + 100),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(7),
            revocation_time: time(NOW_S - 50),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&root.issuer).unwrap();
    let revocations = vec![Revocations::from_der(list.der()).unwrap()];
    let rules = Rules { revocations, ..trusting(&[&root, &other]) };
    let check = |peer: CertificateDer<'_>| rules.check(&peer, &[], Role::Client, at(NOW_S));
    assert_eq!(check(leaf(&root, ID, 1)), Ok(()));
    assert_eq!(check(leaf(&root, ID, 7)), Err(Refusal::Chain(webpki::Error::CertRevoked)));
    let unknown = Err(Refusal::Chain(webpki::Error::UnknownRevocationStatus));
    assert_eq!(check(leaf(&other, ID, 1)), unknown);
}

#[test]
fn who_must_show_a_certificate() {
    let root = authority("root", None);
    let plain = Rules::default();
    assert_eq!(plain.presence(true), Presence::Unasked);
    assert_eq!(trusting(&[&root]).presence(false), Presence::Optional);
    assert_eq!(trusting(&[&root]).presence(true), Presence::Required);
    assert_eq!(Rules { hashes: vec![[0; 32]], ..plain.clone() }.presence(false), Presence::Required);
    assert_eq!(Rules { accepts_untrusted: true, ..plain }.presence(true), Presence::Optional);
}
