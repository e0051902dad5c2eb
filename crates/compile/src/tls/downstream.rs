//! What only servers have.
//!
//! Source: `envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext`.

use std::sync::Arc;
use std::time::Duration;

use meltemi_envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use meltemi_envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::{
    OcspStaplePolicy, SessionTicketKeysType,
};

use meltemi_identity::ServedCertificate;

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
    /// `ocsp_staple_policy`.
    pub staple_policy: StaplePolicy,
    /// `prefer_client_ciphers`.
    pub prefers_client_ciphers: bool,
    /// `filter_chain_match.server_names` of its chain, sorted: sessions belong to them.
    pub server_names: Vec<Box<str>>,
}

/// `ocsp_staple_policy`: what a client gets that asks for an OCSP response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaplePolicy {
    /// A good one if there is one.
    Lenient,
    /// The same, but no connection where the one that is there is over.
    Strict,
    /// A good one, or no connection.
    Must,
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

pub(super) fn compile(
    at: &At<'_>,
    message: &DownstreamTlsContext,
    server_names: &[String],
) -> Option<DownstreamTls> {
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
    let staple_policy = match at.choice::<OcspStaplePolicy>("ocsp_staple_policy", *ocsp_staple_policy)? {
        OcspStaplePolicy::LenientStapling => StaplePolicy::Lenient,
        OcspStaplePolicy::StrictStapling => StaplePolicy::Strict,
        OcspStaplePolicy::MustStaple => StaplePolicy::Must,
    };
    let at_common = at.field("common_tls_context");
    let common = common(&at_common, &common_tls_context.clone().unwrap_or_default())?;
    if common.certificates.is_empty() {
        at_common.field("tls_certificates").reject("no TLS certificates found for server context");
    }
    let is_bare = |held: &Held<_>| matches!(held, Held::Inline(certificate) if !has_staple(certificate));
    if staple_policy == StaplePolicy::Must && common.certificates.iter().any(is_bare) {
        at.field("ocsp_staple_policy").reject("a required OCSP response is missing from the TLS context");
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
        staple_policy,
        full_scan_certs_on_sni_mismatch: full_scan_certs_on_sni_mismatch.unwrap_or(false),
        prefers_client_ciphers: *prefer_client_ciphers,
        server_names: sorted(server_names),
    })
}

fn has_staple(certificate: &ServedCertificate) -> bool {
    certificate.staple.is_some()
}

fn sorted(names: &[String]) -> Vec<Box<str>> {
    let mut sorted: Vec<Box<str>> = names.iter().map(|name| name.as_str().into()).collect();
    sorted.sort_unstable();
    sorted
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
