//! Secrets as they come by SDS or stand in the bootstrap.
//!
//! Source: `envoy.extensions.transport_sockets.tls.v3.Secret`. Leaves out generic secrets, which filters read.

use std::sync::Arc;

use meltemi_envoy::extensions::transport_sockets::tls::v3::{
    self as proto, CertificateValidationContext, TlsSessionTicketKeys, secret as kinds,
};
use meltemi_identity::ServedCertificate;
use prost::Message as _;

use super::{Validation, certificate, validation};
use crate::data_source::{DataSources, NoSources, data};
use crate::ledger::{At, Ledger};
use crate::program::Name;
use crate::rejection::Rejection;

/// Bytes of a ticket key: name, key of the authentication code, key of the cipher.
const TICKET_KEY_BYTES: usize = 16 + 32 + 32;

/// A secret, ready to be used.
#[derive(Debug, Clone)]
pub struct Secret {
    /// `name`.
    pub name: Name,
    /// What it is.
    pub kind: SecretKind,
}

/// What a secret is.
#[derive(Debug, Clone)]
pub enum SecretKind {
    /// `tls_certificate`.
    Certificate(Arc<ServedCertificate>),
    /// `validation_context`: on its own, and for merging.
    Validation(Arc<Validation>, Arc<CertificateValidationContext>),
    /// `session_ticket_keys`.
    TicketKeys(Arc<TicketKeys>),
}

/// `TlsSessionTicketKeys`: the first encrypts, all decrypt.
#[derive(Clone)]
pub struct TicketKeys(pub Vec<TicketKey>);

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketKeys({})", self.0.len())
    }
}

/// One of them.
#[derive(Clone)]
pub struct TicketKey {
    /// What it is found by.
    pub name: [u8; 16],
    /// The rest, of which keys are made.
    pub material: [u8; 64],
}

/// Compiles a secret whose data is in it.
///
/// # Errors
/// All fields that are invalid or not supported.
pub fn secret(message: &proto::Secret) -> Result<Secret, Vec<Rejection>> {
    secret_with(message, &NoSources)
}

/// Compiles a secret whose data may be in files or in the environment.
///
/// # Errors
/// All fields that are invalid or not supported.
pub fn secret_with(message: &proto::Secret, sources: &dyn DataSources) -> Result<Secret, Vec<Rejection>> {
    Ledger::run_with(&message.name, sources, |at| compile(at, message))
}

/// Merges a validation secret over what a context says (`combined_validation_context`).
///
/// # Errors
/// All fields that are invalid or not supported.
pub fn combined(
    default: &CertificateValidationContext,
    secret: &CertificateValidationContext,
) -> Result<Validation, Vec<Rejection>> {
    let mut merged = default.clone();
    let bytes = secret.encode_to_vec();
    Ledger::run("", |at| match merged.merge(bytes.as_slice()) {
        Ok(()) => validation::validation(at, &merged),
        Err(error) => at.none(error),
    })
}

fn compile(at: &At<'_>, message: &proto::Secret) -> Option<Secret> {
    let proto::Secret { name, r#type } = message;
    let kind = match r#type {
        Some(kinds::Type::TlsCertificate(message)) => {
            let certificate = certificate::certificate(&at.field("tls_certificate"), message)?;
            SecretKind::Certificate(Arc::new(certificate))
        }
        Some(kinds::Type::ValidationContext(message)) => {
            let at = at.field("validation_context");
            let message = validation::with_data(&at, message)?;
            SecretKind::Validation(Arc::new(validation::validation(&at, &message)?), Arc::new(message))
        }
        Some(kinds::Type::SessionTicketKeys(message)) => {
            let keys = ticket_keys(&at.field("session_ticket_keys"), message)?;
            SecretKind::TicketKeys(Arc::new(keys))
        }
        Some(kinds::Type::GenericSecret(_)) => return at.field("generic_secret").none("not supported yet"),
        None => return at.none("a kind of secret must be set"),
    };
    Some(Secret { name: name.as_str().into(), kind })
}

pub(super) fn ticket_keys(at: &At<'_>, message: &TlsSessionTicketKeys) -> Option<TicketKeys> {
    let TlsSessionTicketKeys { keys } = message;
    if keys.is_empty() {
        return at.field("keys").none("must not be empty");
    }
    let keys = at.each("keys", keys, |at, source| {
        let key = data(at, source)?;
        let (Some(name), Some(material)) = (key.first_chunk::<16>(), key.last_chunk::<64>()) else {
            return at.none("must have 80 bytes");
        };
        if key.len() != TICKET_KEY_BYTES {
            return at.none(format_args!("must have 80 bytes, not {}", key.len()));
        }
        Some(TicketKey { name: *name, material: *material })
    });
    Some(TicketKeys(keys))
}
