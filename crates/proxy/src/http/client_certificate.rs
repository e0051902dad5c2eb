//! `x-forwarded-client-cert`: what the next hop is told of the client's certificate.
//!
//! Source: `forward_client_cert_details` and `set_current_client_cert_details`, Envoy's `mutateXfccRequestHeader`.

use http::HeaderValue;
use meltemi_compile::program::{CertDetails, ForwardClientCert, Forwarding};
use meltemi_http::Headers;
use meltemi_identity::PeerCertificate;

use crate::record::ConnectionInfo;
use crate::stream::names::X_FORWARDED_CLIENT_CERT;
use crate::tls::TlsFacts;

/// Writes the field, or takes away what the client sent.
pub(super) fn forward(headers: &mut Headers, forwarding: &Forwarding, connection: &ConnectionInfo) {
    let mode = forwarding.client_cert;
    if mode == ForwardClientCert::AlwaysForwardOnly {
        return;
    }
    let tls = connection.tls.as_deref().filter(|tls| !tls.peer_chain.is_empty());
    let (Some(tls), false) = (tls, mode == ForwardClientCert::Sanitize) else {
        headers.remove(&X_FORWARDED_CLIENT_CERT);
        return;
    };
    if mode == ForwardClientCert::ForwardOnly {
        return;
    }
    let own = tls.forwarded.get_or_init(|| element(tls, forwarding.cert_details));
    let Some(own) = own else { return };
    match headers.get(&X_FORWARDED_CLIENT_CERT) {
        Some(before) if mode == ForwardClientCert::AppendForward && !before.is_empty() => {
            let joined = [before.as_bytes(), b",", own.as_bytes()].concat();
            let joined = HeaderValue::from_bytes(&joined).expect("invariant: made of two values");
            headers.set(X_FORWARDED_CLIENT_CERT.clone(), joined);
        }
        _ => headers.set(X_FORWARDED_CLIENT_CERT.clone(), own.clone()),
    }
}

/// What is said of this client; the same for all requests of its connection.
fn element(tls: &TlsFacts, details: CertDetails) -> Option<HeaderValue> {
    let peer = tls.peer()?;
    let mut parts: Vec<String> = Vec::new();
    let local = tls.local.as_deref().map(|local| local.uris.as_slice()).unwrap_or_default();
    parts.extend(local.iter().map(|uri| format!("By={uri}")));
    parts.push(format!("Hash={}", peer.sha256));
    add_details(&mut parts, tls, peer, details);
    HeaderValue::from_str(&parts.join(";")).ok()
}

fn add_details(parts: &mut Vec<String>, tls: &TlsFacts, peer: &PeerCertificate, details: CertDetails) {
    if details.cert {
        parts.extend(tls.peer_pem().map(|pem| format!("Cert=\"{pem}\"")));
    }
    if details.chain {
        parts.push(format!("Chain=\"{}\"", tls.chain_pem()));
    }
    if details.subject {
        parts.push(format!("Subject=\"{}\"", peer.subject));
    }
    if details.issuer {
        parts.push(format!("Issuer=\"{}\"", peer.issuer));
    }
    if details.uri {
        parts.extend(each_or_empty("URI=", &peer.uris));
    }
    if details.dns {
        parts.extend(peer.dns.iter().map(|name| format!("DNS={name}")));
    }
}

/// The key is there without a value, too.
fn each_or_empty(key: &str, values: &[String]) -> Vec<String> {
    match values {
        [] => vec![key.to_owned()],
        values => values.iter().map(|value| format!("{key}{value}")).collect(),
    }
}
