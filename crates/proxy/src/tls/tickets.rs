//! Session tickets: what a client keeps for us, sealed.
//!
//! A ticket is `name | nonce | sealed time and session`; the name finds the key. Keys of the context itself are made at
//! random and live in it; `session_ticket_keys` may be shared by several proxies, and by contexts that let in other
//! clients, so a ticket is sealed for its [`ContextId`] too. The form of tickets is our own: a session of Envoy's under
//! the same keys is not resumed here, nor the other way round.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use meltemi_compile::tls::{DownstreamTls, TicketKey, TicketKeys, Validation};
use meltemi_identity::{ServedCertificate, sha256};
use rustls::server::ProducesTickets;

/// How long a session may be resumed without `session_timeout`, as in BoringSSL.
const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

const NAME_BYTES: usize = 16;
const TIME_BYTES: usize = 8;

/// Whom a context lets in, and as whom it answers: tickets are good where this is the same. Source: Envoy's
/// `ServerContextImpl::generateHashForSessionContextId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContextId([u8; 32]);

impl ContextId {
    /// Of certificates their names and issuer count, so that renewed ones open old tickets.
    pub(super) fn new(
        tls: &DownstreamTls,
        certificates: &[Arc<ServedCertificate>],
        validation: &Validation,
    ) -> ContextId {
        let mut parts = vec![u8::from(tls.requires_client_certificate)];
        parts.extend(validation.digest);
        let mut add = |text: &str| parts.extend(sha256(text.as_bytes()));
        for name in &tls.server_names {
            add(name);
        }
        // A digest is no name: it ends the list.
        add("");
        for certificate in certificates {
            let facts = &certificate.facts;
            let names = facts.dns.iter().chain(&facts.uris).chain(&facts.ips).chain(&facts.emails);
            for text in [&facts.subject, &facts.issuer].into_iter().chain(names) {
                add(text);
            }
            add("");
        }
        ContextId(sha256(&parts))
    }
}

/// Seals tickets. The first key seals, all open.
pub(super) struct Tickets {
    keys: Vec<([u8; NAME_BYTES], LessSafeKey)>,
    context: ContextId,
    lifetime: Duration,
}

impl Tickets {
    /// Under keys of its own.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub(super) fn own(
        context: ContextId,
        lifetime: Option<Duration>,
    ) -> Result<Tickets, meltemi_identity::Error> {
        let key = TicketKey { name: meltemi_identity::random()?, material: meltemi_identity::random()? };
        Ok(Tickets::new(&TicketKeys(vec![key]), context, lifetime))
    }

    /// Under these keys.
    pub(super) fn new(keys: &TicketKeys, context: ContextId, lifetime: Option<Duration>) -> Tickets {
        let key = |key: &TicketKey| {
            let sealing = UnboundKey::new(&AES_256_GCM, digest(&SHA256, &key.material).as_ref());
            (key.name, LessSafeKey::new(sealing.expect("invariant: a digest has the length of a key")))
        };
        Tickets { keys: keys.0.iter().map(key).collect(), context, lifetime: lifetime.unwrap_or(LIFETIME) }
    }

    /// What a ticket is good for beside its key.
    fn aad(&self, name: &[u8; NAME_BYTES]) -> Aad<[u8; NAME_BYTES + 32]> {
        let mut aad = [0; NAME_BYTES + 32];
        aad[..NAME_BYTES].copy_from_slice(name);
        aad[NAME_BYTES..].copy_from_slice(&self.context.0);
        Aad::from(aad)
    }

    fn seal(&self, session: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, key) = self.keys.first()?;
        let nonce: [u8; NONCE_LEN] = meltemi_identity::random().ok()?;
        let mut sealed = [&now.to_be_bytes()[..], session].concat();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), self.aad(name), &mut sealed)
            .ok()?;
        Some([&name[..], &nonce, &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (_, key) = self.keys.iter().find(|(known, _)| known == name)?;
        let mut sealed = sealed.to_vec();
        let opened =
            key.open_in_place(Nonce::assume_unique_for_key(*nonce), self.aad(name), &mut sealed).ok()?;
        let (time, session) = opened.split_first_chunk::<TIME_BYTES>()?;
        let age = now.checked_sub(u64::from_be_bytes(*time))?;
        (age < self.lifetime.as_secs()).then(|| session.to_vec())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tickets({} keys)", self.keys.len())
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ContextId = ContextId([1; 32]);

    fn key(name: u8) -> TicketKey {
        TicketKey { name: [name; 16], material: [name; 64] }
    }

    #[test]
    fn a_ticket_opens_under_every_key_that_is_there_within_its_time() {
        let old = Tickets::new(&TicketKeys(vec![key(1)]), HERE, None);
        let ticket = old.seal(b"session", 1000).unwrap();
        let rotated = Tickets::new(&TicketKeys(vec![key(2), key(1)]), HERE, Some(Duration::from_secs(60)));
        assert_eq!(rotated.open(&ticket, 1059).as_deref(), Some(&b"session"[..]));
        assert_eq!(rotated.open(&ticket, 1060), None);
        assert_eq!(rotated.open(&ticket, 999), None);
        assert_eq!(Tickets::new(&TicketKeys(vec![key(2)]), HERE, None).open(&ticket, 1000), None);
    }

    #[test]
    fn a_ticket_that_was_touched_does_not_open() {
        let tickets = Tickets::own(HERE, None).unwrap();
        let ticket = tickets.seal(b"session", 1000).unwrap();
        for at in 0..ticket.len() {
            let mut touched = ticket.clone();
            touched[at] ^= 1;
            assert_eq!(tickets.open(&touched, 1000), None, "{at}");
            assert_eq!(tickets.open(&ticket[..at], 1000), None, "{at}");
        }
        assert_eq!(Tickets::own(HERE, None).unwrap().open(&ticket, 1000), None);
    }

    #[test]
    fn a_ticket_of_another_context_does_not_open_under_the_same_keys() {
        let keys = TicketKeys(vec![key(1)]);
        let ticket = Tickets::new(&keys, HERE, None).seal(b"session", 1000).unwrap();
        assert!(Tickets::new(&keys, HERE, None).open(&ticket, 1000).is_some());
        assert_eq!(Tickets::new(&keys, ContextId([2; 32]), None).open(&ticket, 1000), None);
    }
}
