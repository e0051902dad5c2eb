//! Rules across the TLS settings of a server, of a client, and of PeerAuthentication.

use super::at_most_one;
use crate::codes::{self, Code};
use crate::decode::Decoder;
use crate::istio::{
    ClientTlsMode, ClientTlsSettings, PeerAuthentication, ServerTlsSettings, TlsMode, TlsProtocol,
};

/// Suites of TLS 1.2 that the proxy offers.
pub(super) const CIPHER_SUITES: &[&str] = &[
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

/// Suites that Istio takes besides: without forward secrecy, or with CBC.
pub(super) const WEAK_CIPHER_SUITES: &[&str] = &[
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

/// Certificates that a server may show, one of each kind of key.
const MAX_CERTIFICATES: usize = 2;

pub(crate) fn peer_authentication(policy: &PeerAuthentication, decoder: &mut Decoder) {
    if policy.labels().is_none() && !policy.port_level_mtls.is_empty() {
        let message = "`portLevelMtls` needs a `selector`".to_owned();
        let help = "ports belong to workloads; select them by their labels";
        decoder.report_below("portLevelMtls", &codes::MISSING_FIELD, message, help);
    }
    for port in policy.port_level_mtls.keys() {
        if matches!(port.parse::<u16>(), Ok(number) if number > 0) {
            continue;
        }
        let mut field = "portLevelMtls".to_owned();
        crate::span::push_key(&mut field, port);
        let message = format!("`{port}` is not the number of a port");
        decoder.report_below(&field, &codes::OUT_OF_RANGE, message, "write the workload's port, 1 to 65535");
    }
}

pub(crate) fn client_tls(tls: &ClientTlsSettings, decoder: &mut Decoder) {
    let mode = tls.mode.unwrap_or_default();
    let is_of_user = matches!(mode, ClientTlsMode::Simple | ClientTlsMode::Mutual);
    if is_of_user && tls.insecure_skip_verify == Some(true) {
        let what = "is not looked at when `insecureSkipVerify` is set";
        refuse(decoder, "caCertificates", tls.ca_certificates.is_some(), what);
        refuse(decoder, "subjectAltNames", !tls.subject_alt_names.is_empty(), what);
        let is_ca_only = mode == ClientTlsMode::Simple;
        refuse(decoder, "credentialName", is_ca_only && tls.credential_name.is_some(), what);
    }
    if is_of_user && tls.credential_name.is_some() {
        let what = "excludes `credentialName`, which brings everything";
        refuse(decoder, "clientCertificate", tls.client_certificate.is_some(), what);
        refuse(decoder, "privateKey", tls.private_key.is_some(), what);
        refuse(decoder, "caCertificates", tls.ca_certificates.is_some(), what);
        refuse(decoder, "caCrl", tls.ca_crl.is_some(), what);
    } else if mode == ClientTlsMode::Mutual {
        demand(decoder, "clientCertificate", tls.client_certificate.is_some(), "mode MUTUAL");
        demand(decoder, "privateKey", tls.private_key.is_some(), "mode MUTUAL");
    }
}

pub(crate) fn server_tls(tls: &ServerTlsSettings, decoder: &mut Decoder) {
    versions(tls, decoder);
    cipher_suites(tls, decoder);
    let mode = tls.mode();
    let reason = format!("mode {} does not look at", mode.as_str());
    match mode {
        TlsMode::IstioMutual => {
            report_set(&certificates(tls), &reason, &codes::CONFLICTING_FIELDS, decoder);
            report_set(&parameters(tls), &reason, &codes::NO_USE, decoder);
            report_set(&pins(tls), &reason, &codes::NO_USE, decoder);
        }
        TlsMode::Passthrough | TlsMode::AutoPassthrough => {
            let crl = [("caCrl", tls.ca_crl.is_some())];
            for fields in [&certificates(tls)[..], &parameters(tls), &pins(tls), &clients(tls), &crl] {
                report_set(fields, &reason, &codes::NO_USE, decoder);
            }
        }
        TlsMode::Simple => {
            report_set(&pins(tls), &reason, &codes::NO_USE, decoder);
            report_set(&clients(tls), &reason, &codes::NO_USE, decoder);
            terminating(tls, mode, decoder);
        }
        TlsMode::Mutual | TlsMode::OptionalMutual => terminating(tls, mode, decoder),
    }
}

/// A field, and whether it is set.
type IsSet = (&'static str, bool);

fn certificates(tls: &ServerTlsSettings) -> [IsSet; 7] {
    [
        ("serverCertificate", tls.server_certificate.is_some()),
        ("privateKey", tls.private_key.is_some()),
        ("caCertificates", tls.ca_certificates.is_some()),
        ("credentialName", tls.credential_name.is_some()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("caCertCredentialName", tls.ca_cert_credential_name.is_some()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ]
}

fn parameters(tls: &ServerTlsSettings) -> [IsSet; 3] {
    [
        ("minProtocolVersion", tls.min_protocol_version.is_some()),
        ("maxProtocolVersion", tls.max_protocol_version.is_some()),
        ("cipherSuites", !tls.cipher_suites.is_empty()),
    ]
}

fn pins(tls: &ServerTlsSettings) -> [IsSet; 2] {
    [
        ("verifyCertificateSpki", !tls.verify_certificate_spki.is_empty()),
        ("verifyCertificateHash", !tls.verify_certificate_hash.is_empty()),
    ]
}

fn clients(tls: &ServerTlsSettings) -> [IsSet; 2] {
    [
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("insecureSkipVerify", tls.insecure_skip_verify == Some(true)),
    ]
}

fn report_set(fields: &[IsSet], reason: &str, code: &'static Code, decoder: &mut Decoder) {
    for (field, _) in fields.iter().filter(|(_, is_set)| *is_set) {
        decoder.report_below(field, code, format!("{reason} `{field}`"), "remove it");
    }
}

fn terminating(tls: &ServerTlsSettings, mode: TlsMode, decoder: &mut Decoder) {
    let files = tls.server_certificate.is_some() || tls.private_key.is_some();
    at_most_one(
        decoder,
        &[
            ("serverCertificate", files),
            ("credentialName", tls.credential_name.is_some()),
            ("credentialNames", !tls.credential_names.is_empty()),
            ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ],
    );
    let lists =
        [("credentialNames", tls.credential_names.len()), ("tlsCertificates", tls.tls_certificates.len())];
    for (field, _) in lists.into_iter().filter(|(_, length)| *length > MAX_CERTIFICATES) {
        let message = "a server has at most two certificates, one for RSA and one for ECDSA".to_owned();
        decoder.report_below(field, &codes::OUT_OF_RANGE, message, "");
    }
    let by_secret = !tls.credentials().is_empty();
    revocation(tls, mode, by_secret, decoder);
    if by_secret {
        return;
    }
    if mode != TlsMode::Simple {
        demand(decoder, "caCertificates", tls.ca_certificates.is_some(), &format!("mode {}", mode.as_str()));
    }
    certificate_files(tls, decoder);
}

fn certificate_files(tls: &ServerTlsSettings, decoder: &mut Decoder) {
    if tls.tls_certificates.is_empty() {
        let what = "a server that terminates TLS by files";
        demand(decoder, "serverCertificate", tls.server_certificate.is_some(), what);
        demand(decoder, "privateKey", tls.private_key.is_some(), what);
    }
    for (index, certificate) in tls.tls_certificates.iter().enumerate() {
        let field = |name: &str| format!("tlsCertificates[{index}].{name}");
        demand(
            decoder,
            &field("serverCertificate"),
            certificate.server_certificate.is_some(),
            "a certificate",
        );
        demand(decoder, &field("privateKey"), certificate.private_key.is_some(), "a certificate");
    }
}

fn revocation(tls: &ServerTlsSettings, mode: TlsMode, by_secret: bool, decoder: &mut Decoder) {
    if tls.ca_crl.is_none() {
        return;
    }
    let reason = match mode {
        _ if by_secret => "the revocation list of a secret is its key `ca.crl`",
        TlsMode::Simple => "mode SIMPLE asks for no client certificate that could be revoked",
        _ => return,
    };
    decoder.report_below("caCrl", &codes::CONFLICTING_FIELDS, reason.to_owned(), "remove `caCrl`");
}

fn versions(tls: &ServerTlsSettings, decoder: &mut Decoder) {
    let versions =
        [("minProtocolVersion", tls.min_protocol_version), ("maxProtocolVersion", tls.max_protocol_version)];
    for (field, version) in versions {
        let Some(version @ (TlsProtocol::V1_0 | TlsProtocol::V1_1)) = version else { continue };
        let message = format!("{} is not spoken: it is broken (RFC 8996)", version.as_str());
        decoder.report_below(field, &codes::UNSUPPORTED_VALUE, message, "use TLSV1_2 or TLSV1_3");
    }
    let min = tls.min_protocol_version.unwrap_or_default();
    let max = tls.max_protocol_version.unwrap_or_default();
    if max != TlsProtocol::Auto && min > max {
        let message = format!("no version is left between {} and {}", min.as_str(), max.as_str());
        decoder.report_below("maxProtocolVersion", &codes::CONFLICTING_FIELDS, message, "");
    }
}

/// Suites that are not offered may stand beside others: who needs one of them gets no connection.
fn cipher_suites(tls: &ServerTlsSettings, decoder: &mut Decoder) {
    let is_offered = |suite: &String| CIPHER_SUITES.contains(&suite.as_str());
    let others_are_left = tls.cipher_suites.iter().any(is_offered);
    for (index, suite) in tls.cipher_suites.iter().enumerate() {
        if CIPHER_SUITES.contains(&suite.as_str()) {
            continue;
        }
        let field = format!("cipherSuites[{index}]");
        if WEAK_CIPHER_SUITES.contains(&suite.as_str()) {
            let message =
                format!("the cipher suite {suite} is not offered: it has CBC, or no forward secrecy");
            let help = "remove it; every client of the last ten years has a better one";
            match others_are_left {
                true => decoder.warn_below(&field, &codes::UNSUPPORTED_VALUE, message, help),
                false => decoder.report_below(&field, &codes::UNSUPPORTED_VALUE, message, help),
            }
            continue;
        }
        let help = crate::syntax::did_you_mean(suite, CIPHER_SUITES.iter().copied());
        decoder.report_below(&field, &codes::BAD_ENUM, format!("`{suite}` is not a cipher suite"), &help);
    }
    super::unique(decoder, tls.cipher_suites.iter().enumerate(), |index| format!("cipherSuites[{index}]"));
}

/// Reports a field that must not be there.
fn refuse(decoder: &mut Decoder, field: &str, is_set: bool, reason: &str) {
    if is_set {
        let message = format!("`{field}` {reason}");
        decoder.report_below(field, &codes::CONFLICTING_FIELDS, message, "keep one of them");
    }
}

/// Reports a field that is missing.
fn demand(decoder: &mut Decoder, field: &str, is_set: bool, by: &str) {
    if !is_set {
        let name = field.rsplit('.').next().unwrap_or(field);
        decoder.report_below(field, &codes::MISSING_FIELD, format!("{by} needs `{name}`"), "");
    }
}
