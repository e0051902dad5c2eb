//! What only clients have: the name that is asked for, and the sessions that are kept.
//!
//! Source: `envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext`. What the HTTP options of a cluster add
//! (`auto_sni`) is [`crate::program::AutoSni`].

use std::sync::Arc;

use meltemi_envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use meltemi_envoy::extensions::transport_sockets::tls::v3::{CommonTlsContext, UpstreamTlsContext};
use meltemi_identity::verify::{NameKind, NameRule};

use super::{CommonTls, SecretRef, Versions, common, validation};
use crate::ledger::{At, harmless};
use crate::scalar::digest;

/// `max_session_keys` when it is not set.
const MAX_SESSION_KEYS: u32 = 1;

/// Bytes of a server name at most.
const SNI_MAX_BYTES: usize = 255;

/// `UpstreamTlsContext`.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    /// `common_tls_context`.
    pub common: CommonTls,
    /// `sni`; empty asks for no name.
    pub sni: Box<str>,
    /// `auto_host_sni`: the `hostname` of the host, where it has one.
    pub auto_host_sni: bool,
    /// `auto_sni_san_validation`: the certificate must be for the name that is asked for, whatever the rules say.
    pub auto_sni_san_validation: bool,
    /// `max_session_keys`.
    pub max_session_keys: u32,
    /// Digest of the encoded message.
    digest: u64,
}

/// As far as the messages say.
impl PartialEq for UpstreamTls {
    fn eq(&self, other: &UpstreamTls) -> bool {
        self.digest == other.digest
    }
}

impl UpstreamTls {
    /// The secrets that it waits for.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        self.common.secrets()
    }
}

/// Compiles the context of a cluster.
pub(crate) fn compile(at: &At<'_>, message: &UpstreamTlsContext) -> Option<UpstreamTls> {
    let UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys,
        enforce_rsa_key_usage,
    } = message;
    if *allow_renegotiation {
        at.field("allow_renegotiation").reject("renegotiation is not offered");
    }
    harmless!(NoEffectInEnvoy; enforce_rsa_key_usage);
    if sni.len() > SNI_MAX_BYTES || sni.contains('\0') {
        at.field("sni").reject("must have 255 bytes at most and no NUL");
    }
    let at_common = at.field("common_tls_context");
    let mut common = common(&at_common, &common_tls_context.clone().unwrap_or_default())?;
    common.params.versions = versions(&at_common, common_tls_context.as_ref(), common.params.versions)?;
    if common.certificates.len() > 1 {
        at_common
            .field("tls_certificates")
            .reject("Multiple TLS certificates are not supported for client contexts");
    }
    if *auto_sni_san_validation && common.believed.is_none() {
        at.field("auto_sni_san_validation").reject("was configured without a validation context");
    }
    Some(UpstreamTls {
        common,
        sni: sni.as_str().into(),
        auto_host_sni: *auto_host_sni,
        auto_sni_san_validation: *auto_sni_san_validation,
        max_session_keys: max_session_keys.unwrap_or(MAX_SESSION_KEYS),
        digest: digest(message),
    })
}

/// A client's highest version, where it is not set, is 1.2, as in Envoy.
fn versions(at: &At<'_>, message: Option<&CommonTlsContext>, versions: Versions) -> Option<Versions> {
    let params = message.and_then(|message| message.tls_params.as_ref());
    let highest = params.map_or(TlsProtocol::TlsAuto as i32, |params| params.tls_maximum_protocol_version);
    match versions {
        _ if highest != TlsProtocol::TlsAuto as i32 => Some(versions),
        Versions::Only13 => at
            .field("tls_params")
            .field("tls_minimum_protocol_version")
            .none("is above the maximum, which is TLS 1.2 for clients where it is not set"),
        Versions::Only12 | Versions::Both => Some(Versions::Only12),
    }
}

/// Rules by which a certificate must have one of these names, of whatever kind.
pub fn any_of_names(names: &[Box<str>]) -> Vec<NameRule> {
    let of_kind = |name: &str, kind| {
        let name: Box<str> = name.into();
        NameRule {
            kind,
            matches: match kind {
                NameKind::Dns => Arc::new(move |found| validation::is_host(&name, found)),
                _ => Arc::new(move |found| *name == *found),
            },
        }
    };
    let kinds = [NameKind::Dns, NameKind::Uri, NameKind::Email, NameKind::Ip];
    names.iter().flat_map(|name| kinds.map(|kind| of_kind(name, kind))).collect()
}
