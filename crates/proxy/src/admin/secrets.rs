//! What the interface says of secrets: `SecretsConfigDump`, redaction, and `/certs`.
//!
//! Keys never leave the process: whatever a dump holds of them is replaced, as Envoy does with the fields that its API
//! marks as sensitive.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use meltemi_compile::tls::{self as compiled, Believed, CommonTls, Held, SecretKind, Validation};
use meltemi_envoy::Any;
use meltemi_envoy::admin::v3 as dump;
use meltemi_envoy::config::core::v3::DataSource;
use meltemi_envoy::config::core::v3::data_source::Specifier;
use meltemi_envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use meltemi_identity::PeerCertificate;
use meltemi_identity::verify::Trust;
use serde_json::{Value, json};

use super::config_dump::timestamp;
use super::{Admin, Params, Reply};
use crate::config::{Loaded, Store};

/// The fields of secrets and certificates whose texts are not told.
const SENSITIVE: &[&str] = &["private_key", "password", "pkcs12", "session_ticket_keys", "generic_secret"];

const REDACTED: &str = "[redacted]";

/// [`REDACTED`] as JSON has bytes.
const REDACTED_BYTES: &str = "W3JlZGFjdGVkXQ==";

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Everything of secrets.
pub(super) fn dump(store: &Store, wanted: &dyn Fn(&str) -> bool) -> dump::SecretsConfigDump {
    use dump::secrets_config_dump::{DynamicSecret, StaticSecret};
    let fixed = store.secrets(true).filter(|(name, _)| wanted(name));
    let fixed = fixed.map(|(name, loaded)| StaticSecret {
        name: name.to_string(),
        last_updated: None,
        secret: Some(loaded.message.clone()),
    });
    let active = store.secrets(false).filter(|(name, _)| wanted(name));
    let active = active.map(|(name, loaded)| DynamicSecret {
        name: name.to_string(),
        version_info: loaded.version.clone(),
        last_updated: timestamp(loaded.updated),
        secret: Some(with_data(loaded)),
        ..DynamicSecret::default()
    });
    let missing = store.missing_secrets().filter(|name| wanted(name));
    let warming = missing.map(|name| DynamicSecret {
        name: name.to_string(),
        version_info: "uninitialized".to_owned(),
        last_updated: timestamp(SystemTime::now()),
        secret: Some(Any::pack(&Secret { name: name.to_string(), r#type: None })),
        ..DynamicSecret::default()
    });
    dump::SecretsConfigDump {
        static_secrets: fixed.collect(),
        dynamic_active_secrets: active.collect(),
        dynamic_warming_secrets: warming.collect(),
    }
}

/// The message of a secret that came by SDS, with the data of its files in their place as they are in force, as Envoy
/// tells it: the files may have others meanwhile.
fn with_data(loaded: &Loaded<compiled::Secret>) -> Any {
    let Ok(mut message) = loaded.message.unpack::<Secret>() else { return loaded.message.clone() };
    match (&mut message.r#type, &loaded.value.kind) {
        (Some(secret::Type::TlsCertificate(told)), SecretKind::Certificate(served)) => {
            let chain = || meltemi_identity::certificates_to_pem(&served.certified.cert).into_bytes();
            put_data(&mut told.certificate_chain, chain);
            // Of the key only its form is told.
            put_data(&mut told.private_key, Vec::new);
        }
        (Some(secret::Type::ValidationContext(told)), SecretKind::Validation(_, whole)) => {
            let data = |source: &Option<DataSource>| match source.as_ref().map(|source| &source.specifier) {
                Some(Some(Specifier::InlineBytes(bytes))) => bytes.to_vec(),
                _ => Vec::new(),
            };
            put_data(&mut told.trusted_ca, || data(&whole.trusted_ca));
            put_data(&mut told.crl, || data(&whole.crl));
        }
        _ => return loaded.message.clone(),
    }
    Any::pack(&message)
}

fn put_data(source: &mut Option<DataSource>, data: impl FnOnce() -> Vec<u8>) {
    if let Some(source) = source
        && let Some(Specifier::Filename(_)) = source.specifier
    {
        source.specifier = Some(Specifier::InlineBytes(data().into()));
    }
}

/// Replaces what is sensitive, wherever in a dump it stands.
pub(super) fn redact(json: &mut Value) {
    match json {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => {
            for (name, value) in fields {
                match SENSITIVE.contains(&name.as_str()) {
                    true => blank(name, value),
                    false => redact(value),
                }
            }
        }
        _ => {}
    }
}

fn blank(name: &str, value: &mut Value) {
    match value {
        Value::String(text) => {
            *text = if name == "inline_bytes" { REDACTED_BYTES } else { REDACTED }.to_owned();
        }
        Value::Array(items) => items.iter_mut().for_each(|item| blank(name, item)),
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| blank(name, value)),
        _ => {}
    }
}

/// `/certs`: the certificates that listeners and clusters show.
pub(super) fn certs(admin: &Admin, _: &Params) -> Reply {
    let store = admin.store();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let listeners = store.listeners().values().filter_map(|entry| entry.active.as_ref());
    let servers = listeners.flat_map(|loaded| &loaded.value.chains).filter_map(|chain| chain.tls.as_ref());
    let clusters = store.clusters().values().filter_map(|entry| entry.active.as_ref());
    let sockets = clusters.flat_map(|loaded| loaded.value.cluster.transport_sockets.all());
    let clients = sockets.filter_map(|socket| socket.tls());
    let contexts = servers.map(|tls| &tls.common).chain(clients.map(|tls| &tls.common));
    let mut seen = BTreeSet::new();
    let contexts = contexts.filter(move |tls| seen.insert(std::ptr::from_ref(*tls).addr()));
    let certificates: Vec<Value> = contexts.map(|tls| context(&store, tls, now)).collect();
    Reply::json(&json!({ "certificates": certificates }))
}

/// What a context shows, and the first whom it believes.
fn context(store: &Store, tls: &CommonTls, now: i64) -> Value {
    let shown = tls.certificates.iter().filter_map(|held| match held {
        Held::Inline(certificate) => Some(Arc::clone(certificate)),
        Held::Secret(secret) => match &store.secret(secret)?.kind {
            SecretKind::Certificate(certificate) => Some(Arc::clone(certificate)),
            SecretKind::Validation(..) | SecretKind::TicketKeys(_) => None,
        },
    });
    let chain: Vec<Value> =
        shown.map(|certificate| described(&certificate.facts, &certificate.path, now)).collect();
    let believed = tls.believed.as_ref().and_then(|believed| validation(store, believed));
    let anchor = believed.as_ref().and_then(|validation| {
        let Trust::Roots(anchors) = &validation.rules.trust else { return None };
        let facts = PeerCertificate::from_der(anchors.certificates().first()?).ok()?;
        Some(described(&facts, &validation.path, now))
    });
    json!({"ca_cert": Vec::from_iter(anchor), "cert_chain": chain})
}

fn validation(store: &Store, believed: &Believed) -> Option<Arc<Validation>> {
    match believed {
        Believed::Rules(Held::Inline(validation)) => Some(Arc::clone(validation)),
        Believed::Rules(Held::Secret(secret)) | Believed::Combined(_, secret) => {
            match &store.secret(secret)?.kind {
                SecretKind::Validation(validation, _) => Some(Arc::clone(validation)),
                SecretKind::Certificate(_) | SecretKind::TicketKeys(_) => None,
            }
        }
    }
}

/// The details of one certificate, as `envoy.admin.v3.CertificateDetails`.
fn described(facts: &PeerCertificate, path: &str, now: i64) -> Value {
    let named = |kind: &'static str, names: &[String]| -> Vec<Value> {
        names.iter().map(|name| json!({ kind: name })).collect()
    };
    let names =
        [named("dns", &facts.dns), named("uri", &facts.uris), named("ip_address", &facts.ips)].concat();
    let days = (facts.not_after - now).max(0) / DAY_SECONDS;
    json!({
        "path": path,
        "serial_number": facts.serial,
        "subject_alt_names": names,
        "days_until_expiration": days.to_string(),
        "valid_from": moment(facts.not_before),
        "expiration_time": moment(facts.not_after),
    })
}

fn moment(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default()
}
