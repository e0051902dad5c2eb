//! What only servers have.
//!
//! Source: `envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext`.

use std::sync::Arc;
use std::time::Duration;

use meltemi_envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use meltemi_envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::{
    OcspStaplePolicy, SessionTicketKeysType,
};

use super::{CommonTls, Held, SecretRef, TicketKeys, common, secret, secret_ref};
use crate::ledger::{At, harmless};

/// `DownstreamTlsContext`.
#[derive(Debug, Clone)]
pub struct DownstreamTls {
    /// `common_tls_context`.
    pub common: CommonTls,
    /// `require_client_certificate`.
    pub requires_client_certificate: bool,
    /// `session_ticket_keys_type`.
    pub tickets: Tickets,
    /// `disable_stateful_session_resumption` is off: sessions of clients without tickets are kept.
    pub keeps_sessions: bool,
    /// `session_timeout`.
    pub session_timeout: Option<Duration>,
    /// `full_scan_certs_on_sni_mismatch`.
    pub full_scan_certs_on_sni_mismatch: bool,
    /// `prefer_client_ciphers`.
    pub prefers_client_ciphers: bool,
}

/// `session_ticket_keys_type`.
#[derive(Debug, Clone)]
pub enum Tickets {
    /// Under keys that the context makes for itself.
    Own,
    /// Under these, which other proxies may have too.
    Keys(Held<TicketKeys>),
    /// None.
    Disabled,
}

impl DownstreamTls {
    /// The secrets that it waits for.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        let tickets = match &self.tickets {
            Tickets::Keys(Held::Secret(secret)) => Some(secret),
            _ => None,
        };
        self.common.secrets().chain(tickets)
    }
}

pub(super) fn compile(at: &At<'_>, message: &DownstreamTlsContext) -> Option<DownstreamTls> {
    let DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption,
        session_timeout,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = message;
    harmless!(NoEffectInEnvoy; require_sni);
    // Without responses, lenient and strict are the same.
    let staple_policy = at.choice::<OcspStaplePolicy>("ocsp_staple_policy", *ocsp_staple_policy);
    if staple_policy == Some(OcspStaplePolicy::MustStaple) {
        at.field("ocsp_staple_policy").reject("a required OCSP response is missing from the TLS context");
    }
    let at_common = at.field("common_tls_context");
    let common = common(&at_common, &common_tls_context.clone().unwrap_or_default())?;
    if common.certificates.is_empty() {
        at_common.field("tls_certificates").reject("no TLS certificates found for server context");
    }
    let session_timeout = at.duration("session_timeout", session_timeout);
    if session_timeout.is_some_and(|timeout| timeout.as_secs() > u64::from(u32::MAX)) {
        at.field("session_timeout").reject("must be at most 4294967295 s");
    }
    Some(DownstreamTls {
        common,
        requires_client_certificate: require_client_certificate.unwrap_or(false),
        tickets: tickets(at, session_ticket_keys_type.as_ref())?,
        keeps_sessions: !disable_stateful_session_resumption,
        session_timeout,
        full_scan_certs_on_sni_mismatch: full_scan_certs_on_sni_mismatch.unwrap_or(false),
        prefers_client_ciphers: *prefer_client_ciphers,
    })
}

fn tickets(at: &At<'_>, kind: Option<&SessionTicketKeysType>) -> Option<Tickets> {
    Some(match kind {
        None | Some(SessionTicketKeysType::DisableStatelessSessionResumption(false)) => Tickets::Own,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(true)) => Tickets::Disabled,
        Some(SessionTicketKeysType::SessionTicketKeys(message)) => {
            let keys = secret::ticket_keys(&at.field("session_ticket_keys"), message)?;
            Tickets::Keys(Held::Inline(Arc::new(keys)))
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(message)) => {
            let at = at.field("session_ticket_keys_sds_secret_config");
            Tickets::Keys(Held::Secret(secret_ref(&at, message)?))
        }
    })
}
