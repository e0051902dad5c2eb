use super::*;
use crate::AlternativeName;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

fn id() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

fn serial(n: u8) -> Serial {
    Serial::new([n; 16])
}

fn root(kind: KeyKind) -> (String, Key) {
    Authority::make_root(&domain(), kind, now(), serial(7)).unwrap()
}

fn own(root: &(String, Key)) -> Result<Authority, Error> {
    let key = root.1.to_pem();
    let files = Plugged {
        ca_cert: root.0.as_bytes(),
        ca_key: key.as_bytes(),
        root_cert: root.0.as_bytes(),
        cert_chain: b"",
    };
    Authority::plugged(domain(), files, now())
}

fn request(asked: &SpiffeId) -> Csr {
    let key = Key::generate(KeyKind::EcdsaP256).unwrap();
    Csr::from_pem(Csr::make(&key, asked).unwrap().as_bytes()).unwrap()
}

/// An intermediate below `root` with its key.
fn intermediate(root: &(String, Key), constraints: BasicConstraints) -> (String, Key) {
    let key = Key::generate(KeyKind::EcdsaP384).unwrap();
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::from(now() - Duration::from_secs(3600));
    params.not_after = OffsetDateTime::from(now() + Duration::from_secs(3600));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "intermediate");
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = Issuer::from_ca_cert_pem(&root.0, &root.1).unwrap();
    (certificates_to_pem([params.signed_by(&key, &root).unwrap().der()]), key)
}

#[test]
fn the_id_comes_from_the_caller_and_never_from_the_request() {
    let authority = own(&root(KeyKind::EcdsaP256)).unwrap();
    let csr = request(&"spiffe://cluster.local/ns/kube-system/sa/admin".parse().unwrap());
    let issued = authority.sign(&csr, &id(), Duration::from_secs(600), now(), serial(9)).unwrap();
    let facts = Certificate::from_der(&issued.chain[0]).unwrap();
    assert_eq!(facts.names, [AlternativeName::Uri(id().as_str().to_owned())]);
    assert_eq!(facts.spiffe_id().unwrap(), id());
    assert_eq!(facts.public_key, csr.public_key());
    assert_eq!((facts.not_before, facts.not_after), (now() - CLOCK_SKEW, now() + Duration::from_secs(600)));
    assert!(!facts.is_authority);
    assert_eq!(issued.not_after, facts.not_after);
    assert_eq!(facts.serial, "49:09:09:09:09:09:09:09:09:09:09:09:09:09:09:09");
    verify(&issued, now()).unwrap();
}

#[test]
fn what_is_signed_is_good_in_its_time_only() {
    let authority = own(&root(KeyKind::EcdsaP256)).unwrap();
    let issued = authority.sign(&request(&id()), &id(), Duration::from_secs(10), now(), serial(9)).unwrap();
    assert!(verify(&issued, now() + Duration::from_secs(11)).is_err());
    assert!(verify(&issued, now() - Duration::from_secs(121)).is_err());
    verify(&issued, now() - Duration::from_secs(119)).unwrap();
}

#[test]
fn another_authority_of_the_same_name_is_not_believed() {
    let (one, two) = (root(KeyKind::EcdsaP256), root(KeyKind::EcdsaP256));
    let mut issued =
        own(&one).unwrap().sign(&request(&id()), &id(), Duration::from_secs(10), now(), serial(9)).unwrap();
    issued.roots = own(&two).unwrap().roots().to_vec();
    assert!(verify(&issued, now()).is_err());
}

#[test]
fn an_id_of_another_trust_domain_is_not_signed() {
    let authority = own(&root(KeyKind::EcdsaP256)).unwrap();
    let foreign = id().within(&"other.example".parse().unwrap());
    let refused = authority.sign(&request(&id()), &foreign, Duration::from_secs(10), now(), serial(9));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Mismatch);
}

#[test]
fn every_kind_of_root_signs() {
    for kind in KeyKind::ALL {
        own(&root(kind)).unwrap_or_else(|e| panic!("{}: {e}", kind.as_str()));
    }
}

#[test]
fn a_plugged_intermediate_signs_and_shows_the_way_to_its_root() {
    let root = root(KeyKind::Rsa2048);
    let (certificate, key) = intermediate(&root, BasicConstraints::Constrained(0));
    let chain = format!("{certificate}{}", root.0);
    let key = key.to_pem();
    let files = |cert_chain| Plugged {
        ca_cert: certificate.as_bytes(),
        ca_key: key.as_bytes(),
        root_cert: root.0.as_bytes(),
        cert_chain,
    };
    for cert_chain in [chain.as_bytes(), certificate.as_bytes(), b""] {
        let authority = Authority::plugged(domain(), files(cert_chain), now()).unwrap();
        let issued =
            authority.sign(&request(&id()), &id(), Duration::from_secs(9000), now(), serial(3)).unwrap();
        assert_eq!(issued.chain.len(), 2, "the leaf and the intermediate");
        assert_eq!(
            issued.not_after,
            now() + Duration::from_secs(3600),
            "never longer than the authority itself"
        );
        assert_eq!(issued.to_texts().len(), 3);
        assert_eq!(issued.to_texts()[2], root.0);
    }
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let (one, two) = (root(KeyKind::EcdsaP256), root(KeyKind::EcdsaP256));
    let (key_one, key_two) = (one.1.to_pem(), two.1.to_pem());
    let refusal = |ca_cert: &str, ca_key: &str, root_cert: &str| {
        let files = Plugged {
            ca_cert: ca_cert.as_bytes(),
            ca_key: ca_key.as_bytes(),
            root_cert: root_cert.as_bytes(),
            cert_chain: b"",
        };
        Authority::plugged(domain(), files, now()).unwrap_err().to_string()
    };
    assert!(refusal(&one.0, &key_two, &one.0).starts_with("ca-key.pem: "));
    assert!(refusal(&one.0, &key_one, &two.0).contains("is not accepted by root-cert.pem"));
    assert!(refusal("", &key_one, &one.0).starts_with("ca-cert.pem: "));
    assert!(refusal(&one.0, "", &one.0).starts_with("ca-key.pem: "));
    assert!(refusal(&one.0, &key_one, "").starts_with("root-cert.pem: "));
    let leaf_key = Key::generate(KeyKind::EcdsaP256).unwrap();
    let csr = Csr::from_pem(Csr::make(&leaf_key, &id()).unwrap().as_bytes()).unwrap();
    let issued = own(&one).unwrap().sign(&csr, &id(), Duration::from_secs(99), now(), serial(3)).unwrap();
    let leaf = certificates_to_pem([&issued.chain[0]]);
    assert!(refusal(&leaf, &leaf_key.to_pem(), &one.0).contains("not that of an authority"));
}

#[test]
fn an_authority_that_has_ended_is_refused() {
    let root = root(KeyKind::EcdsaP256);
    let (certificate, key) = intermediate(&root, BasicConstraints::Unconstrained);
    let key = key.to_pem();
    let files = Plugged {
        ca_cert: certificate.as_bytes(),
        ca_key: key.as_bytes(),
        root_cert: root.0.as_bytes(),
        cert_chain: b"",
    };
    let late = now() + Duration::from_secs(3600);
    assert_eq!(Authority::plugged(domain(), files, late).unwrap_err().kind(), ErrorKind::Expired);
}

#[test]
fn while_roots_change_both_are_trusted_and_either_signs() {
    let (old, new) = (root(KeyKind::EcdsaP256), root(KeyKind::EcdsaP384));
    let both = format!("{}{}", old.0, new.0);
    for signer in [&old, &new] {
        let key = signer.1.to_pem();
        let files = Plugged {
            ca_cert: signer.0.as_bytes(),
            ca_key: key.as_bytes(),
            root_cert: both.as_bytes(),
            cert_chain: b"",
        };
        let authority = Authority::plugged(domain(), files, now()).unwrap();
        let issued =
            authority.sign(&request(&id()), &id(), Duration::from_secs(9), now(), serial(3)).unwrap();
        assert_eq!(issued.roots.len(), 2);
        assert_eq!(issued.to_texts().last(), Some(&both));
    }
}

#[test]
fn a_time_to_live_is_capped_and_has_a_default() {
    let ttl = Ttl::default();
    assert_eq!(ttl.granted(Duration::ZERO), Duration::from_secs(24 * 3600));
    assert_eq!(ttl.granted(Duration::from_secs(10)), Duration::from_secs(10));
    assert_eq!(ttl.granted(Duration::MAX), Duration::from_secs(90 * 24 * 3600));
}
