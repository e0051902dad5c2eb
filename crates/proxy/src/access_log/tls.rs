//! The operators on the TLS of connections, downstream and upstream.

use std::time::{Duration, SystemTime};

use meltemi_compile::format::TlsOp;
use meltemi_identity::PeerCertificate;

use super::format::{write_text, write_time, write_without_blanks};
use crate::record::{ConnectionInfo, RecordView, RequestRecord};
use crate::tls::TlsFacts;

/// Writes the value of an operator; says whether there was one.
pub(super) fn write(op: &TlsOp, view: &RecordView<'_>, out: &mut Vec<u8>) -> bool {
    let connection: &ConnectionInfo = &view.record.connection;
    if *op == TlsOp::TransportFailureReason {
        return write_without_blanks(connection.transport_failure.as_deref(), out);
    }
    connection.tls.as_deref().is_some_and(|tls| write_fact(op, tls, out))
}

/// The same of the connection to the host.
pub(super) fn write_upstream(op: &TlsOp, record: &RequestRecord, out: &mut Vec<u8>) -> bool {
    record.upstream_tls.as_deref().is_some_and(|tls| write_fact(op, tls, out))
}

fn write_fact(op: &TlsOp, tls: &TlsFacts, out: &mut Vec<u8>) -> bool {
    match op {
        TlsOp::Version => write_some(tls.version, out),
        TlsOp::Cipher => write_some(tls.cipher, out),
        TlsOp::Group => write_some(tls.group, out),
        TlsOp::PeerCert => tls.peer_pem().is_some_and(|pem| write_some(pem, out)),
        TlsOp::PeerChainFingerprints256 => write_chain(tls, |peer| peer.sha256, out),
        TlsOp::PeerChainFingerprints1 => write_chain(tls, |peer| peer.sha1, out),
        TlsOp::PeerChainSerials => write_chain(tls, |peer| peer.serial, out),
        TlsOp::LocalSubject
        | TlsOp::LocalUriSan
        | TlsOp::LocalDnsSan
        | TlsOp::LocalIpSan
        | TlsOp::LocalEmailSan => tls.local.as_deref().is_some_and(|local| write_own(op, local, out)),
        _ => tls.peer().is_some_and(|peer| write_peer(op, peer, out)),
    }
}

fn write_peer(op: &TlsOp, peer: &PeerCertificate, out: &mut Vec<u8>) -> bool {
    match op {
        TlsOp::PeerSubject => write_some(&peer.subject, out),
        TlsOp::PeerIssuer => write_some(&peer.issuer, out),
        TlsOp::PeerSerial => write_some(&peer.serial, out),
        TlsOp::PeerFingerprint256 => write_some(&peer.sha256, out),
        TlsOp::PeerFingerprint1 => write_some(&peer.sha1, out),
        TlsOp::PeerUriSan => write_list(&peer.uris, out),
        TlsOp::PeerDnsSan => write_list(&peer.dns, out),
        TlsOp::PeerIpSan => write_list(&peer.ips, out),
        TlsOp::PeerEmailSan => write_list(&peer.emails, out),
        TlsOp::PeerCertStart(format) => write_time(format, moment(peer.not_before), out),
        TlsOp::PeerCertEnd(format) => write_time(format, moment(peer.not_after), out),
        _ => false,
    }
}

fn write_own(op: &TlsOp, local: &PeerCertificate, out: &mut Vec<u8>) -> bool {
    match op {
        TlsOp::LocalSubject => write_some(&local.subject, out),
        TlsOp::LocalUriSan => write_list(&local.uris, out),
        TlsOp::LocalDnsSan => write_list(&local.dns, out),
        TlsOp::LocalIpSan => write_list(&local.ips, out),
        TlsOp::LocalEmailSan => write_list(&local.emails, out),
        _ => false,
    }
}

/// An empty text counts as none.
fn write_some(text: &str, out: &mut Vec<u8>) -> bool {
    write_text(Some(text).filter(|text| !text.is_empty()), out)
}

fn write_list(texts: &[String], out: &mut Vec<u8>) -> bool {
    write_some(&texts.join(","), out)
}

fn write_chain(tls: &TlsFacts, part: fn(PeerCertificate) -> String, out: &mut Vec<u8>) -> bool {
    let read = |der| PeerCertificate::from_der(der).ok().map(part);
    write_list(&tls.peer_chain.iter().filter_map(read).collect::<Vec<_>>(), out)
}

fn moment(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}
