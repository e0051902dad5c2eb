//! A `SecretsConfigDump` as lines, one for each certificate: what it says, whether it is good now, and which CAs of the
//! same proxy it leads to. Leaves out how that is shown.
//!
//! Source: `envoy.admin.v3.SecretsConfigDump`.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meltemi_identity::verify::{Anchors, Role, Rules, Trust};
use meltemi_identity::{Certificate, PeerCertificate, certificates_from_pem};
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::inspect::{moment, name, validity};

/// One certificate, or a secret that has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    /// The secret's.
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) status: Status,
    /// Whether it is good now; nothing when that cannot be told.
    pub(super) valid: Option<bool>,
    /// Why not, or why it cannot be told.
    pub(super) reason: Option<String>,
    pub(super) serial_number: Option<String>,
    pub(super) not_after: Option<String>,
    pub(super) not_before: Option<String>,
    /// Subject alternative names.
    pub(super) san: Vec<String>,
    pub(super) trust_domain: Option<String>,
    /// Secrets with CAs of this proxy that its chain leads to; only of the proxy's own certificates.
    pub(super) trusted_by: Vec<String>,
}

/// Whether a secret is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Status {
    #[default]
    Active,
    /// The proxy waits for it.
    Warming,
}

const CHAIN: &str = "Cert Chain";
const ISSUER: &str = "Issuer";
const CA: &str = "CA";
const TICKET_KEYS: &str = "Ticket Keys";
const GENERIC: &str = "Generic";
const UNKNOWN: &str = "-";

/// The lines of a dump, in its order.
pub(super) fn rows(section: &Map<String, Value>, now: SystemTime) -> Vec<Row> {
    let secrets = secrets(section);
    let trusted: Vec<(String, Anchors)> = secrets.iter().filter_map(anchors).collect();
    secrets.iter().flat_map(|secret| secret.rows(&trusted, now)).collect()
}

/// One entry of the dump.
struct Secret<'d> {
    name: &'d str,
    status: Status,
    kind: &'static str,
    /// The data of its certificates, if it is of a kind that has any.
    data: Option<&'d Value>,
}

fn secrets(section: &Map<String, Value>) -> Vec<Secret<'_>> {
    let parts = [
        ("dynamic_active_secrets", Status::Active),
        ("static_secrets", Status::Active),
        ("dynamic_warming_secrets", Status::Warming),
    ];
    let entries = parts.iter().flat_map(|(part, status)| {
        let entries = section.get(*part).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        entries.iter().map(|entry| secret(entry, *status))
    });
    entries.collect()
}

fn secret(entry: &Value, status: Status) -> Secret<'_> {
    let body = &entry["secret"];
    let name = entry["name"].as_str().or_else(|| body["name"].as_str()).unwrap_or_default();
    let (kind, data) = if let Some(certificate) = body.get("tls_certificate") {
        (CHAIN, certificate.get("certificate_chain"))
    } else if let Some(context) = body.get("validation_context") {
        (CA, context.get("trusted_ca"))
    } else if body.get("session_ticket_keys").is_some() {
        (TICKET_KEYS, None)
    } else if body.get("generic_secret").is_some() {
        (GENERIC, None)
    } else {
        (UNKNOWN, None)
    };
    Secret { name, status, kind, data }
}

/// Whom a secret trusts, if it is one that says so.
fn anchors(secret: &Secret<'_>) -> Option<(String, Anchors)> {
    let is_trust = secret.kind == CA && secret.status == Status::Active;
    let certificates = certificates(secret.data.filter(|_| is_trust)?).ok()?;
    Some((secret.name.to_owned(), Anchors::new(certificates).ok()?))
}

/// Certificates of a `DataSource`.
fn certificates(data: &Value) -> Result<Vec<CertificateDer<'static>>, Unreadable> {
    let text = |name: &str| data.get(name).and_then(Value::as_str);
    let broken = |reason: String| Unreadable { reason, is_broken: true };
    let elsewhere = |reason: String| Unreadable { reason, is_broken: false };
    if let Some(pem) = text("inline_string") {
        return certificates_from_pem(pem.as_bytes()).map_err(|error| broken(error.to_string()));
    }
    if let Some(bytes) = text("inline_bytes") {
        let pem =
            STANDARD.decode(bytes).map_err(|error| broken(format!("its data is no base64: {error}")))?;
        return certificates_from_pem(&pem).map_err(|error| broken(error.to_string()));
    }
    if let Some(path) = text("filename") {
        let hint =
            format!("the proxy has it from {path}: `meltemi cert inspect {path}` where the proxy runs");
        return Err(elsewhere(hint));
    }
    match text("environment_variable") {
        Some(name) => Err(elsewhere(format!("the proxy has it from its environment, ${name}"))),
        None => Err(broken("the dump has no data of it".to_owned())),
    }
}

/// Why there is nothing to be told of certificates.
struct Unreadable {
    reason: String,
    is_broken: bool,
}

impl Secret<'_> {
    fn rows(&self, trusted: &[(String, Anchors)], now: SystemTime) -> Vec<Row> {
        let Some(data) = self.data else {
            let reason = (self.status == Status::Warming).then(|| {
                "it has not come: its SDS server has not sent it, or not such that it can be used".to_owned()
            });
            return vec![Row { reason, ..self.row() }];
        };
        let certificates = match certificates(data) {
            Ok(certificates) => certificates,
            Err(Unreadable { reason, is_broken }) => {
                return vec![Row { valid: is_broken.then_some(false), reason: Some(reason), ..self.row() }];
            }
        };
        let mut rows: Vec<Row> = certificates.iter().map(|der| self.described(der, now)).collect();
        if self.kind == CHAIN
            && let Some((leaf, intermediates)) = certificates.split_first()
        {
            rows.iter_mut().skip(1).for_each(|row| row.kind = ISSUER);
            rows[0].trusted_by = trusted_by(leaf, intermediates, trusted, now);
        }
        rows
    }

    fn row(&self) -> Row {
        Row { name: self.name.to_owned(), kind: self.kind, status: self.status, ..Row::default() }
    }

    fn described(&self, der: &CertificateDer<'_>, now: SystemTime) -> Row {
        let read = Certificate::from_der(der).and_then(|facts| Ok((facts, PeerCertificate::from_der(der)?)));
        let (facts, peer) = match read {
            Ok(read) => read,
            Err(error) => {
                return Row { valid: Some(false), reason: Some(error.to_string()), ..self.row() };
            }
        };
        let time = facts.check_time(now);
        Row {
            valid: Some(time.is_ok()),
            reason: time.err().map(|_| validity(&facts, now)),
            serial_number: Some(peer.serial),
            not_after: Some(moment(facts.not_after)),
            not_before: Some(moment(facts.not_before)),
            trust_domain: facts.spiffe_id().ok().map(|id| id.trust_domain().to_string()),
            san: facts.names.iter().map(name).collect(),
            ..self.row()
        }
    }
}

/// Whether it is in its time is told apart from whom it leads to.
fn trusted_by(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trusted: &[(String, Anchors)],
    now: SystemTime,
) -> Vec<String> {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let leads_to = |anchors: &Anchors| {
        let rules = Rules { trust: Trust::Roots(anchors.clone()), allows_expired: true, ..Rules::default() };
        let now = UnixTime::since_unix_epoch(since_epoch);
        [Role::Server, Role::Client]
            .into_iter()
            .any(|role| rules.check(leaf, intermediates, role, now).is_ok())
    };
    trusted.iter().filter(|(_, anchors)| leads_to(anchors)).map(|(name, _)| name.clone()).collect()
}
