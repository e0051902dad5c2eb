use meltemi_envoy::config::listener::v3::Listener;
use meltemi_envoy::extensions::transport_sockets::tls::v3 as proto;
use meltemi_identity::verify::{Presence, Role, Trust};

use super::*;

/// A certificate for `shop.example` and its key, made for these tests and good for ever.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).expect("made");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn listener(tls: &str) -> Result<Arc<DownstreamTls>, String> {
    let yaml = format!(
        "{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, filter_chains: [{{filters: \
         [{{name: d, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config}}}}], \
         transport_socket: {{name: tls, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, {tls}}}}}}}]}}"
    );
    let message: Listener = meltemi_envoy::json::Codec::new().parse(&yaml).expect("YAML");
    let compiled = crate::listener(&message).map_err(|rejections| rejections[0].to_string())?;
    Ok(compiled.chains[0].tls.clone().expect("TLS"))
}

/// A context with a certificate, and more.
fn with_certificate(more: &str, common: &str) -> Result<Arc<DownstreamTls>, String> {
    let (chain, key) = pair();
    let quoted = |text: &str| text.replace('\n', "\\n");
    listener(&format!(
        "common_tls_context: {{tls_certificates: [{{certificate_chain: {{inline_string: \"{}\"}}, private_key: \
         {{inline_string: \"{}\"}}}}] {common}}} {more}",
        quoted(&chain),
        quoted(&key)
    ))
}

const AT: &str = "l: filter_chains[0].transport_socket.typed_config.";

#[test]
fn a_context_with_a_certificate_is_taken() {
    let tls = with_certificate(", prefer_client_ciphers: true", ", alpn_protocols: [h2, http/1.1]").unwrap();
    assert!(tls.prefers_client_ciphers && tls.keeps_sessions && matches!(tls.tickets, Tickets::Own));
    assert_eq!(tls.common.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    let [Held::Inline(certificate)] = tls.common.certificates.as_slice() else { panic!("a certificate") };
    assert_eq!(certificate.server_names, [Box::from("shop.example")]);
    assert_eq!(tls.secrets().count(), 0);
}

#[test]
fn what_is_wrong_is_told_at_its_place() {
    let reason = |result: Result<Arc<DownstreamTls>, String>| result.unwrap_err();
    let common = format!("{AT}common_tls_context.");
    let none = reason(listener("common_tls_context: {}"));
    assert_eq!(none, format!("{common}tls_certificates: no TLS certificates found for server context"));
    let file = "common_tls_context: {tls_certificates: [{certificate_chain: {filename: /x}, private_key: {inline_string: k}}]}";
    let missing = reason(listener(file));
    assert_eq!(
        missing,
        format!("{common}tls_certificates[0].certificate_chain.filename: /x: no files are read here")
    );
    let old = reason(with_certificate("", ", tls_params: {tls_minimum_protocol_version: TLSv1_0}"));
    assert_eq!(
        old,
        format!("{common}tls_params.tls_minimum_protocol_version: TLS 1.0 and 1.1 are not offered")
    );
    let weak = reason(with_certificate("", ", tls_params: {cipher_suites: [AES128-SHA]}"));
    assert!(weak.starts_with(&format!("{common}tls_params.cipher_suites: none of them")), "{weak}");
    let unknown = reason(with_certificate("", ", tls_params: {cipher_suites: [X]}"));
    assert!(unknown.contains("cipher_suites: \"X\" is not known"), "{unknown}");
    let log = reason(with_certificate("", ", key_log: {path: /x}"));
    assert_eq!(log, format!("{common}key_log: not supported yet"));
    let tickets = reason(with_certificate(", session_ticket_keys: {keys: [{inline_string: short}]}", ""));
    assert_eq!(tickets, format!("{AT}session_ticket_keys.keys[0]: must have 80 bytes"));
    let ca = reason(with_certificate("", ", validation_context: {trusted_ca: {inline_string: x}}"));
    assert!(ca.starts_with(&format!("{common}validation_context.trusted_ca: failed to load")), "{ca}");
    let hash = reason(with_certificate("", ", validation_context: {verify_certificate_hash: [00]}"));
    assert!(hash.contains("verify_certificate_hash[0]: invalid hex-encoded SHA-256"), "{hash}");
    let staple = reason(with_certificate(", ocsp_staple_policy: MUST_STAPLE", ""));
    assert!(staple.starts_with(&format!("{AT}ocsp_staple_policy: ")), "{staple}");
}

#[test]
fn weak_suites_beside_others_are_left_out() {
    let suites = "['[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]', AES256-GCM-SHA384]";
    let params = format!(", tls_params: {{cipher_suites: {suites}, tls_maximum_protocol_version: TLSv1_2}}");
    let tls = with_certificate("", &params).unwrap();
    assert_eq!(tls.common.params.suites, [Suite::EcdheEcdsaAes128Gcm, Suite::EcdheEcdsaChaCha20]);
    assert_eq!(tls.common.params.versions, Versions::Only12);
}

#[test]
fn secrets_are_named_with_their_source() {
    let tls = listener(
        "common_tls_context: {tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}], \
         validation_context_sds_secret_config: {name: ROOTCA}}",
    )
    .unwrap();
    let names: Vec<_> = tls.secrets().map(|secret| (&*secret.name, secret.origin.clone())).collect();
    assert_eq!(names, [("default", Some(Origin::Ads)), ("ROOTCA", None)]);
}

#[test]
fn a_secret_of_trust_is_merged_over_the_context() {
    let (chain, _) = pair();
    let matcher = |text: &str| proto::SubjectAltNameMatcher {
        san_type: proto::subject_alt_name_matcher::SanType::Dns.into(),
        matcher: Some(meltemi_envoy::r#type::matcher::v3::StringMatcher {
            match_pattern: Some(meltemi_envoy::r#type::matcher::v3::string_matcher::MatchPattern::Exact(
                text.into(),
            )),
            ..Default::default()
        }),
        ..Default::default()
    };
    let default = CertificateValidationContext {
        match_typed_subject_alt_names: vec![matcher("other.example")],
        ..Default::default()
    };
    let ca = meltemi_envoy::config::core::v3::DataSource {
        specifier: Some(meltemi_envoy::config::core::v3::data_source::Specifier::InlineString(chain.clone())),
        ..Default::default()
    };
    let secret = CertificateValidationContext {
        trusted_ca: Some(ca),
        match_typed_subject_alt_names: vec![matcher("shop.example")],
        ..Default::default()
    };
    let rules = combined(&default, &secret).unwrap().rules;
    assert!(matches!(rules.trust, Trust::Roots(_)));
    assert_eq!((rules.names.len(), rules.presence(true)), (2, Presence::Required));
    let leaf = meltemi_identity::certificates_from_pem(chain.as_bytes()).unwrap().remove(0);
    let now = rustls_pki_types::UnixTime::now();
    assert_eq!(rules.check(&leaf, &[], Role::Server, now), Ok(()));
}

#[test]
fn hosts_of_certificates_may_have_a_wildcard_for_one_label() {
    let wanted = "a.shop.example";
    for (name, is_it) in [
        ("a.shop.example", true),
        ("A.Shop.example", true),
        ("*.shop.example", true),
        ("*.example", false),
        ("shop.example", false),
    ] {
        assert_eq!(validation::is_host(wanted, name), is_it, "{name}");
    }
}
