//! Dumps in, lines and exit codes out.

use std::time::Duration;

use meltemi_identity::{Authority, Csr, Key, KeyKind, Plugged, Serial, certificates_to_pem};

use super::*;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A chain for an hour from now, and the root that signed it.
fn signed() -> (String, String) {
    let domain: meltemi_identity::TrustDomain = "cluster.local".parse().unwrap();
    let (root, key) = Authority::make_root(&domain, KeyKind::EcdsaP256, now(), Serial::new([7; 16])).unwrap();
    let key = key.to_pem();
    let files = Plugged {
        ca_cert: root.as_bytes(),
        ca_key: key.as_bytes(),
        root_cert: root.as_bytes(),
        cert_chain: b"",
    };
    let authority = Authority::plugged(domain, files, now()).unwrap();
    let id = ID.parse().unwrap();
    let csr = Csr::make(&Key::generate(KeyKind::EcdsaP256).unwrap(), &id).unwrap();
    let csr = Csr::from_pem(csr.as_bytes()).unwrap();
    let issued =
        authority.sign(&csr, &id, Duration::from_secs(3600), now(), Serial::new([0x2a; 16])).unwrap();
    (certificates_to_pem(&issued.chain), root)
}

fn secrets(section: &Value, now: SystemTime) -> anyhow::Result<Secrets> {
    let bootstrap = json!({"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump"});
    let mut section = section.clone();
    section["@type"] = json!("type.googleapis.com/envoy.admin.v3.SecretsConfigDump");
    let text = json!({"configs": [bootstrap, section]}).to_string().into_bytes();
    Secrets::read_at(&Dump { from: "cart-0".to_owned(), text }, now)
}

fn mesh() -> Value {
    let (chain, root) = signed();
    let (_, stranger) = signed();
    let bytes = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    json!({
        "dynamic_active_secrets": [
            {"name": "default", "version_info": "1", "secret": {"name": "default", "tls_certificate": {
                "certificate_chain": {"inline_bytes": bytes(&chain)}, "private_key": {"inline_bytes": "W3JlZGFjdGVkXQ=="}}}},
            {"name": "ROOTCA", "secret": {"name": "ROOTCA", "validation_context": {"trusted_ca": {"inline_string": root}}}},
            {"name": "other", "secret": {"name": "other", "validation_context": {"trusted_ca": {"inline_string": stranger}}}},
        ],
    })
}

#[test]
fn a_sidecar_that_is_well_has_a_line_for_each_certificate() {
    let secrets = secrets(&mesh(), now()).unwrap();
    assert!(secrets.is_good());
    let text = table::text("cart-0", &secrets.rows, false);
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert!(lines[1][4].len() == 32 && lines[1][4].ends_with("2a2a2a"), "{text}");
    let expected =
        ["default", "Cert Chain", "ACTIVE", "true", lines[1][4], "2027-01-15T09:00:00Z", lines[1][6], ID];
    assert_eq!(lines[1][..8], expected);
    assert_eq!(lines[1][8..], ["cluster.local", "ROOTCA"]);
    assert_eq!(lines[2][..4], ["ROOTCA", "CA", "ACTIVE", "true"], "{text}");
    assert_eq!(lines.len(), 4);
    assert!(!text.contains('\x1b') && table::text("cart-0", &secrets.rows, true).contains("\x1b["));
}

#[test]
fn what_is_not_good_is_told_below_and_by_the_exit_code() {
    let late = now() + Duration::from_secs(3661);
    let expired = secrets(&mesh(), late).unwrap();
    assert!(!expired.is_good());
    let text = table::text("cart-0", &expired.rows, false);
    assert!(text.contains("\ndefault (Cert Chain): EXPIRED 1m 1s ago\n"), "{text}");
    assert_eq!(expired.rows[0].trusted_by, ["ROOTCA"], "whom it leads to is another question");

    let warming = json!({"dynamic_warming_secrets": [{"name": "kubernetes://web", "version_info": "uninitialized",
        "secret": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "name": "kubernetes://web"}}]});
    let warming = secrets(&warming, now()).unwrap();
    assert!(!warming.is_good());
    let text = table::text("edge", &warming.rows, false);
    assert!(text.contains("WARMING") && text.contains("kubernetes://web (-): it has not come"), "{text}");

    let broken = json!({"static_secrets": [{"name": "web", "secret": {"tls_certificate": {"certificate_chain": {"inline_bytes": "?"}}}}]});
    assert!(!secrets(&broken, now()).unwrap().is_good());
}

#[test]
fn what_a_dump_does_not_hold_is_said_and_not_held_against_the_proxy() {
    let section = json!({"static_secrets": [
        {"name": "web", "secret": {"tls_certificate": {"certificate_chain": {"filename": "/etc/web.pem"}}}},
        {"name": "tickets", "secret": {"session_ticket_keys": {"keys": [{"inline_bytes": "W3JlZGFjdGVkXQ=="}]}}},
    ]});
    let secrets = secrets(&section, now()).unwrap();
    assert!(secrets.is_good());
    let text = table::text("edge", &secrets.rows, false);
    assert!(text.contains("meltemi cert inspect /etc/web.pem") && text.contains("Ticket Keys"), "{text}");
}

#[test]
fn machines_get_what_istioctl_prints_and_the_lines() {
    let secrets = secrets(&mesh(), now()).unwrap();
    let whole = secrets.whole();
    let active = &whole["dynamicActiveSecrets"][0];
    assert!(active["secret"]["tlsCertificate"]["certificateChain"]["inlineBytes"].is_string());
    assert_eq!(active["versionInfo"], "1");
    let first = &whole["certificates"][0];
    assert_eq!(
        (&first["type"], &first["status"], &first["valid"]),
        (&json!("Cert Chain"), &json!("ACTIVE"), &json!(true))
    );
    assert_eq!((&first["san"], &first["trustedBy"]), (&json!([ID]), &json!(["ROOTCA"])));
    let again: Value = serde_saphyr::from_str(&serde_saphyr::to_string(&whole).unwrap()).unwrap();
    assert_eq!(again, whole);
}

#[test]
fn what_is_no_dump_is_refused_and_a_proxy_without_secrets_is_not() {
    let read = |text: &str| Secrets::read(&Dump { from: "x.json".into(), text: text.into() });
    for text in ["", "hello", "[]", "{}", r#"{"configs": 1}"#] {
        let refusal = read(text).unwrap_err().to_string();
        assert!(refusal.contains("x.json") && refusal.contains("configuration dump"), "{refusal}");
    }
    let none = read(r#"{"configs": []}"#).unwrap();
    assert!(none.is_good() && table::text("x", &none.rows, false).contains("no secrets"));
}
