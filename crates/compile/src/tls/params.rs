//! Versions, cipher suites and groups.
//!
//! Source: `envoy.extensions.transport_sockets.tls.v3.TlsParameters`. Of the suites and groups that Envoy knows and rustls
//! does not have (CBC, RSA key exchange, P-521), lists may name some beside others: whoever needs one of them does not
//! get a connection. A list of nothing else is refused, and so are TLS 1.0 and 1.1.

use meltemi_envoy::extensions::transport_sockets::tls::v3::TlsParameters;
use meltemi_envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;

use crate::ledger::{At, refuse};

/// Which versions are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// TLS 1.2.
    Only12,
    /// TLS 1.3.
    Only13,
    /// Both.
    Both,
}

/// A cipher suite of TLS 1.2. Those of TLS 1.3 are not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in OpenSSL")]
pub enum Suite {
    EcdheEcdsaAes128Gcm,
    EcdheEcdsaAes256Gcm,
    EcdheEcdsaChaCha20,
    EcdheRsaAes128Gcm,
    EcdheRsaAes256Gcm,
    EcdheRsaChaCha20,
}

/// A group for the exchange of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in BoringSSL")]
pub enum Group {
    X25519MlKem768,
    X25519,
    P256,
    P384,
}

/// `TlsParameters`; an empty list is the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsParams {
    /// `tls_minimum_protocol_version` to `tls_maximum_protocol_version`.
    pub versions: Versions,
    /// `cipher_suites`, best first.
    pub suites: Vec<Suite>,
    /// `ecdh_curves`, best first.
    pub groups: Vec<Group>,
}

impl Default for TlsParams {
    fn default() -> TlsParams {
        TlsParams { versions: Versions::Both, suites: Vec::new(), groups: Vec::new() }
    }
}

pub(super) fn params(at: &At<'_>, message: Option<&TlsParameters>) -> Option<TlsParams> {
    let Some(message) = message else { return Some(TlsParams::default()) };
    let TlsParameters {
        tls_minimum_protocol_version,
        tls_maximum_protocol_version,
        cipher_suites,
        ecdh_curves,
        signature_algorithms,
        compliance_policies,
    } = message;
    refuse!(at; signature_algorithms, compliance_policies);
    Some(TlsParams {
        versions: versions(at, *tls_minimum_protocol_version, *tls_maximum_protocol_version)?,
        suites: offered(&at.field("cipher_suites"), cipher_suites, suite),
        groups: offered(&at.field("ecdh_curves"), ecdh_curves, group),
    })
}

fn versions(at: &At<'_>, lowest: i32, highest: i32) -> Option<Versions> {
    let (low, high) = ("tls_minimum_protocol_version", "tls_maximum_protocol_version");
    let lowest = at.choice::<TlsProtocol>(low, lowest)?;
    let highest = at.choice::<TlsProtocol>(high, highest)?;
    let is_old = |version| matches!(version, TlsProtocol::TlSv10 | TlsProtocol::TlSv11);
    for (field, _) in [(low, lowest), (high, highest)].into_iter().filter(|(_, version)| is_old(*version)) {
        at.field(field).reject("TLS 1.0 and 1.1 are not offered");
    }
    match (lowest, highest) {
        (TlsProtocol::TlSv13, TlsProtocol::TlSv12) => at.field(low).none("is above the maximum"),
        (TlsProtocol::TlSv13, _) => Some(Versions::Only13),
        (_, TlsProtocol::TlSv12) => Some(Versions::Only12),
        _ => Some(Versions::Both),
    }
}

/// What of a list we have. Names stand alone or, with equal rights, as `[A|B]`.
fn offered<T: Copy + PartialEq>(at: &At<'_>, list: &[String], find: fn(&str) -> Option<Option<T>>) -> Vec<T> {
    let mut found: Vec<T> = Vec::new();
    for name in list.iter().flat_map(|entry| entry.split([':', '[', ']', '|'])) {
        match find(name.trim()) {
            Some(Some(known)) if !found.contains(&known) => found.push(known),
            Some(_) => {}
            None if name.trim().is_empty() => {}
            None => at.reject(format_args!("{name:?} is not known")),
        }
    }
    if found.is_empty() && !list.is_empty() {
        at.reject("none of them is offered: no CBC, no key exchange by RSA, no P-224 and P-521");
    }
    found
}

/// `None` is a name that Envoy does not know either; inside, what we have of it.
fn suite(name: &str) -> Option<Option<Suite>> {
    Some(match name {
        "ECDHE-ECDSA-AES128-GCM-SHA256" | "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => {
            Some(Suite::EcdheEcdsaAes128Gcm)
        }
        "ECDHE-ECDSA-AES256-GCM-SHA384" | "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => {
            Some(Suite::EcdheEcdsaAes256Gcm)
        }
        "ECDHE-ECDSA-CHACHA20-POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            Some(Suite::EcdheEcdsaChaCha20)
        }
        "ECDHE-RSA-AES128-GCM-SHA256" | "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => {
            Some(Suite::EcdheRsaAes128Gcm)
        }
        "ECDHE-RSA-AES256-GCM-SHA384" | "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => {
            Some(Suite::EcdheRsaAes256Gcm)
        }
        "ECDHE-RSA-CHACHA20-POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            Some(Suite::EcdheRsaChaCha20)
        }
        "ECDHE-ECDSA-AES128-SHA"
        | "ECDHE-RSA-AES128-SHA"
        | "ECDHE-ECDSA-AES256-SHA"
        | "ECDHE-RSA-AES256-SHA"
        | "AES128-GCM-SHA256"
        | "AES256-GCM-SHA384"
        | "AES128-SHA"
        | "AES256-SHA"
        | "DES-CBC3-SHA"
        | "ECDHE-RSA-AES128-SHA256"
        | "ECDHE-PSK-AES128-CBC-SHA"
        | "ECDHE-PSK-AES256-CBC-SHA"
        | "ECDHE-PSK-CHACHA20-POLY1305"
        | "PSK-AES128-CBC-SHA"
        | "PSK-AES256-CBC-SHA" => None,
        _ => return None,
    })
}

fn group(name: &str) -> Option<Option<Group>> {
    Some(match name {
        "X25519MLKEM768" => Some(Group::X25519MlKem768),
        "X25519" => Some(Group::X25519),
        "P-256" | "prime256v1" => Some(Group::P256),
        "P-384" | "secp384r1" => Some(Group::P384),
        "P-224" | "P-521" | "secp224r1" | "secp521r1" | "X25519Kyber768Draft00" => None,
        _ => return None,
    })
}
