//! The statistics of TLS handshakes, of a listener or a cluster.
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/listeners/stats#tls-statistics>

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::scope::{Cell, counts};
use super::value::Counter;

counts! {
    /// `ssl.*`.
    SslCounts {
        Counter connection_error "Connections that broke the protocol, or had nothing in common with us.";
        Counter handshake "Handshakes.";
        Counter session_reused "Sessions that were resumed.";
        Counter no_certificate "Handshakes without a certificate of the peer.";
        Counter fail_verify_no_cert "Peers refused because they showed no certificate.";
        Counter fail_verify_error "Peers refused because of their chain.";
        Counter fail_verify_san "Peers refused because of their names.";
        Counter fail_verify_cert_hash "Peers refused because of pins.";
        Counter ocsp_staple_failed "Clients refused for want of a good OCSP response.";
        Counter ocsp_staple_omitted "Clients that asked for an OCSP response and got none.";
        Counter ocsp_staple_responses "Clients that got an OCSP response.";
        Counter ocsp_staple_requests "Clients that asked for an OCSP response.";
    }
}

/// What one worker counts of handshakes.
#[derive(Debug, Default)]
pub struct SslStats {
    /// The numbers.
    pub counts: SslCounts,
    /// `ssl.ciphers.*`, `ssl.versions.*`, `ssl.curves.*`: a handshake costs far more than the lock.
    named: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

impl SslStats {
    /// Counts what was agreed upon; an empty name is none.
    pub fn agreed(&self, kind: &'static str, name: &'static str) {
        if !name.is_empty() {
            *self.named.lock().unwrap_or_else(PoisonError::into_inner).entry((kind, name)).or_default() += 1;
        }
    }

    /// Shows every cell with its name.
    pub fn visit(&self, visit: &mut dyn FnMut(&str, Cell<'_>)) {
        self.counts.visit(&mut |field, cell| visit(field, cell));
        for ((kind, name), count) in &*self.named.lock().unwrap_or_else(PoisonError::into_inner) {
            let counter = Counter::default();
            counter.add(*count);
            visit(&format!("{kind}.{name}"), Cell::Counter(&counter));
        }
    }
}

counts! {
    /// `server_ssl_socket_factory.*`.
    SslFactoryCounts {
        Counter ssl_context_update_by_sds "Secrets that came for a context.";
        Counter upstream_context_secrets_not_ready "Always 0 on listeners.";
        Counter downstream_context_secrets_not_ready "Connections closed for want of a secret.";
    }
}

/// What one worker counts of TLS on a listener.
#[derive(Debug, Default)]
pub struct ListenerTlsStats {
    /// `ssl.*`.
    pub ssl: SslStats,
    /// `server_ssl_socket_factory.*`.
    pub factory: SslFactoryCounts,
}

counts! {
    /// `client_ssl_socket_factory.*`.
    ClientFactoryCounts {
        Counter ssl_context_update_by_sds "Secrets that came for a context.";
        Counter upstream_context_secrets_not_ready "Connections given up for want of a secret.";
        Counter downstream_context_secrets_not_ready "Always 0 on clusters.";
    }
}

/// What one worker counts of TLS towards the hosts of a cluster.
#[derive(Debug, Default)]
pub struct ClusterTlsStats {
    /// `ssl.*`.
    pub ssl: SslStats,
    /// `client_ssl_socket_factory.*`.
    pub factory: ClientFactoryCounts,
}
