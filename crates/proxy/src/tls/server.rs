//! The server side: settings of rustls for a context, and the handshakes under them.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use meltemi_compile::tls::{
    self, Believed, CommonTls, DownstreamTls, Group, Held, Secret, SecretKind, StaplePolicy, Suite,
    TlsParams, Validation, Versions,
};
use meltemi_http::{Session, TlsStream};
use meltemi_identity::ServedCertificate;
use meltemi_identity::verify::{PeerVerifier, Presence, Role, Rules, Trust};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs as provider};
use rustls::pki_types::UnixTime;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, UnbufferedServerConnection};
use rustls::{HandshakeKind, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Failure;
use super::current::Current;
use super::facts::{TlsFacts, cipher_name, group_name, version_name};
use super::resolver::{Certificates, Choice, Only, Stapling};
use super::secrets::Secrets;
use super::tickets::{ContextId, Tickets};
use crate::listener::client_hello::{self, ClientHello};

/// A first record is not longer than this.
const HELLO_MAX_BYTES: usize = 5 + (16 << 10);

/// Room for the hello of most clients.
const HELLO_BYTES: usize = 2 << 10;

/// Sessions of clients without tickets that a context keeps.
const MAX_SESSIONS: usize = 4096;

/// A handshake takes no longer than this, with or without `transport_socket_connect_timeout`.
const HANDSHAKE_MAX: Duration = Duration::from_secs(60);

/// An alert, before there is a session that could send it.
const HANDSHAKE_FAILURE: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// What serves a context.
#[derive(Debug)]
pub(crate) struct ServerContext {
    tls: Arc<DownstreamTls>,
    built: Current<Built>,
}

/// Settings of rustls, made of the secrets of a moment.
#[derive(Debug)]
struct Built {
    /// For all handshakes, where there is one certificate; else each of them gets settings of its own, with a resolver
    /// that remembers.
    variants: Variants,
    certificates: Arc<Certificates>,
    rules: Arc<Rules>,
    presence: Presence,
    staple_policy: StaplePolicy,
    speaks_tls13: bool,
}

/// The settings that clients get by their hello.
#[derive(Debug)]
struct Variants {
    alpn: Vec<Vec<u8>>,
    /// By [`Variant::index`].
    all: Vec<Arc<ServerConfig>>,
}

/// What of the settings depends on the hello.
#[derive(Debug, Clone, Copy)]
struct Variant {
    /// A protocol is ours too. A client whose protocols are all unknown is served without one, as in Envoy; rustls would
    /// refuse it.
    has_common: bool,
    /// It is TLS 1.3, where the order of suites is the client's, as in BoringSSL.
    is_tls13: bool,
    is_stapled: bool,
}

impl Variant {
    const COUNT: usize = 8;

    fn index(self) -> usize {
        usize::from(self.has_common) | usize::from(self.is_tls13) << 1 | usize::from(self.is_stapled) << 2
    }

    fn at(index: usize) -> Variant {
        Variant { has_common: index & 1 > 0, is_tls13: index & 2 > 0, is_stapled: index & 4 > 0 }
    }
}

impl Variants {
    fn new(base: &ServerConfig, certificates: &Certificates) -> Variants {
        let only = certificates.all.first();
        let variant = |index: usize| {
            let variant = Variant::at(index);
            let mut config = base.clone();
            if !variant.has_common {
                config.alpn_protocols.clear();
            }
            config.ignore_client_order &= !variant.is_tls13;
            if let Some(only) = only {
                let stapled = only.staple.as_ref().filter(|_| variant.is_stapled);
                let certified = stapled.map_or(&only.certified, |staple| &staple.certified);
                config.cert_resolver = Arc::new(Only(Arc::clone(certified)));
            }
            Arc::new(config)
        };
        Variants { alpn: base.alpn_protocols.clone(), all: (0..Variant::COUNT).map(variant).collect() }
    }
}

/// What of a hello counts here.
#[derive(Debug, Default)]
struct Asked {
    protocols: Vec<Box<str>>,
    offers_tls13: bool,
    asks_for_status: bool,
}

impl Asked {
    fn new(hello: ClientHello) -> Asked {
        match hello {
            ClientHello::Whole { protocols, offers_tls13, asks_for_status, .. } => {
                Asked { protocols, offers_tls13, asks_for_status }
            }
            // rustls has the right alert for it.
            _ => Asked::default(),
        }
    }
}

/// A connection after its handshake.
pub(crate) struct Accepted {
    pub(crate) stream: TlsStream,
    pub(crate) facts: TlsFacts,
}

impl ServerContext {
    pub(super) fn new(tls: &Arc<DownstreamTls>, secrets: &Secrets) -> ServerContext {
        ServerContext { built: Current::new(tls.secrets(), secrets), tls: Arc::clone(tls) }
    }

    /// The settings of now; `None` while a secret is missing.
    fn current(&self) -> Option<Arc<Built>> {
        self.built.get(|secrets| Built::new(&self.tls, secrets))
    }

    /// Does the handshake.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        limit: Option<Duration>,
    ) -> Result<Accepted, Failure> {
        let built = self.current().ok_or(Failure::NoSecret)?;
        let limit = limit.unwrap_or(HANDSHAKE_MAX).min(HANDSHAKE_MAX);
        match tokio::time::timeout(limit, built.accept(stream)).await {
            Ok(accepted) => accepted,
            Err(_) => Err(Failure::TimedOut),
        }
    }
}

impl Built {
    fn new(tls: &DownstreamTls, secrets: &[Arc<Secret>]) -> anyhow::Result<Built> {
        let mut secrets = secrets.iter();
        let certificates = certificates(&tls.common, &mut secrets)?;
        let validation = validation(tls.common.believed.as_ref(), &mut secrets)?;
        let rules = Arc::clone(&validation.rules);
        let presence = rules.presence(tls.requires_client_certificate);
        let verifier = PeerVerifier::of_clients(Arc::clone(&rules), presence, !validation.hides_authorities);
        let first =
            certificates.first().cloned().ok_or_else(|| anyhow::anyhow!("there is no certificate"))?;
        let is_bare = |certificate: &Arc<ServedCertificate>| certificate.staple.is_none();
        if tls.staple_policy == StaplePolicy::Must && certificates.iter().any(is_bare) {
            anyhow::bail!("a required OCSP response is missing from the TLS context");
        }
        let context = ContextId::new(tls, &certificates, &validation);
        let certificates = Arc::new(Certificates::new(certificates, tls.full_scan_certs_on_sni_mismatch));
        let mut config = ServerConfig::builder_with_provider(Arc::new(crypto(&tls.common.params)))
            .with_protocol_versions(versions(tls.common.params.versions))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(Only(Arc::clone(&first.certified))));
        config.alpn_protocols = tls.common.alpn.clone();
        config.ignore_client_order = !tls.prefers_client_ciphers;
        sessions(&mut config, tls, context, &mut secrets)?;
        let speaks_tls13 = tls.common.params.versions != Versions::Only12;
        let variants = Variants::new(&config, &certificates);
        let staple_policy = tls.staple_policy;
        Ok(Built { variants, certificates, rules, presence, staple_policy, speaks_tls13 })
    }

    async fn accept(&self, mut stream: TcpStream) -> Result<Accepted, Failure> {
        let (hello, read) = first_record(&mut stream).await.map_err(|_| Failure::Closed)?;
        let asked = Asked::new(hello);
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        let stapling = self.certificates.all.iter();
        let stapling: Box<[Stapling]> = stapling
            .map(|certificate| Stapling::of(certificate, self.staple_policy, asked.asks_for_status, now))
            .collect();
        if stapling.iter().all(|stapling| *stapling == Stapling::Refused) {
            // Gone or not: the client is.
            let _sent = stream.write_all(&HANDSHAKE_FAILURE).await;
            return Err(Failure::NoStaple);
        }
        let chosen = Arc::new(OnceLock::new());
        let config = self.config(&asked, &stapling, &chosen);
        let session = UnbufferedServerConnection::new(config).map_err(Failure::Protocol)?;
        let mut stream = TlsStream::new(stream, Session::Server(Box::new(session)), read);
        stream.handshake().await.map_err(Failure::of)?;
        let chosen = chosen.get().copied().unwrap_or(0);
        let facts = self.facts(&stream, self.certificates.all.get(chosen))?;
        let stapling = stapling.get(chosen).copied().unwrap_or_default();
        Ok(Accepted { stream, facts: TlsFacts { stapling, ..facts } })
    }

    /// The settings for a client.
    fn config(
        &self,
        asked: &Asked,
        stapling: &[Stapling],
        chosen: &Arc<OnceLock<usize>>,
    ) -> Arc<ServerConfig> {
        let is_ours = |theirs: &str| self.variants.alpn.iter().any(|ours| theirs.as_bytes() == ours);
        let variant = Variant {
            has_common: asked.protocols.iter().any(|theirs| is_ours(theirs)),
            is_tls13: asked.offers_tls13 && self.speaks_tls13,
            is_stapled: stapling == [Stapling::Staple],
        };
        let config = &self.variants.all[variant.index()];
        if stapling.len() == 1 {
            return Arc::clone(config);
        }
        let mut config = (**config).clone();
        config.cert_resolver = Arc::new(Choice {
            certificates: Arc::clone(&self.certificates),
            stapling: stapling.into(),
            chosen: Arc::clone(chosen),
        });
        Arc::new(config)
    }

    fn facts(&self, stream: &TlsStream, local: Option<&Arc<ServedCertificate>>) -> Result<TlsFacts, Failure> {
        let state = stream.session().state();
        let chain: Box<[_]> = state
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|der| der.clone().into_owned())
            .collect();
        let is_resumed = state.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok(TlsFacts {
            version: version_name(state.protocol_version()),
            cipher: cipher_name(state.negotiated_cipher_suite().map(|suite| suite.suite())),
            group: group_name(state.negotiated_key_exchange_group().map(SupportedKxGroup::name)),
            is_resumed,
            is_validated: self.is_validated(&chain, is_resumed)?,
            peer_chain: chain,
            local: local.map(|certificate| Arc::clone(&certificate.facts)),
            ..TlsFacts::default()
        })
    }

    /// Whether the certificate was believed. What a ticket brings back is looked at again: its time may be over, and a
    /// list may have come since then.
    fn is_validated(
        &self,
        chain: &[rustls::pki_types::CertificateDer<'static>],
        is_resumed: bool,
    ) -> Result<bool, Failure> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            // rustls asks nobody who resumes: a session must not have begun where no certificate was demanded.
            return if self.presence == Presence::Required { Err(Failure::NoCertificate) } else { Ok(false) };
        };
        let asks = self.presence != Presence::Unasked;
        if !(is_resumed || self.rules.accepts_untrusted) {
            return Ok(asks);
        }
        match self.rules.check(leaf, intermediates, Role::Client, UnixTime::now()) {
            Ok(()) => Ok(asks_something(&self.rules)),
            Err(_) if self.rules.accepts_untrusted => Ok(false),
            Err(refusal) => Err(Failure::Refused(refusal)),
        }
    }
}

/// Whether a certificate that was let in is believed for something.
pub(super) fn asks_something(rules: &Rules) -> bool {
    let Rules { trust, names, hashes, key_hashes, .. } = rules;
    !(matches!(trust, Trust::NoChain) && names.is_empty() && hashes.is_empty() && key_hashes.is_empty())
}

/// Reads until the first record tells what it is. Waits without a buffer.
async fn first_record(stream: &mut TcpStream) -> io::Result<(ClientHello, BytesMut)> {
    stream.readable().await?;
    let mut read = BytesMut::with_capacity(HELLO_BYTES);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match client_hello::parse(&read, HELLO_MAX_BYTES) {
            ClientHello::Partial => read.reserve(HELLO_BYTES),
            hello => return Ok((hello, read)),
        }
    }
}

pub(super) type Taken<'s> = std::slice::Iter<'s, Arc<Secret>>;

/// The next secret of those that the context names, in the order of [`DownstreamTls::secrets`].
fn next<'s>(secrets: &mut Taken<'s>) -> anyhow::Result<&'s Secret> {
    secrets.next().map(|secret| &**secret).ok_or_else(|| anyhow::anyhow!("a secret is missing"))
}

pub(super) fn certificates(
    tls: &CommonTls,
    secrets: &mut Taken<'_>,
) -> anyhow::Result<Vec<Arc<ServedCertificate>>> {
    let mut all = Vec::new();
    for held in &tls.certificates {
        all.push(match held {
            Held::Inline(certificate) => Arc::clone(certificate),
            Held::Secret(_) => match &next(secrets)?.kind {
                SecretKind::Certificate(certificate) => Arc::clone(certificate),
                _ => anyhow::bail!("a secret is no certificate"),
            },
        });
    }
    Ok(all)
}

pub(super) fn validation(
    believed: Option<&Believed>,
    secrets: &mut Taken<'_>,
) -> anyhow::Result<Arc<Validation>> {
    let Some(believed) = believed else { return Ok(Arc::default()) };
    let default = match believed {
        Believed::Rules(Held::Inline(validation)) => return Ok(Arc::clone(validation)),
        Believed::Rules(Held::Secret(_)) => None,
        Believed::Combined(default, _) => Some(default),
    };
    match (&next(secrets)?.kind, default) {
        (SecretKind::Validation(validation, _), None) => Ok(Arc::clone(validation)),
        (SecretKind::Validation(_, message), Some(default)) => {
            let merged = tls::combined(default, message);
            merged.map(Arc::new).map_err(|rejections| match rejections.first() {
                Some(rejection) => anyhow::anyhow!("{rejection}"),
                None => anyhow::anyhow!("the validation context cannot be merged"),
            })
        }
        _ => anyhow::bail!("a secret is no validation context"),
    }
}

fn sessions(
    config: &mut ServerConfig,
    tls: &DownstreamTls,
    context: ContextId,
    secrets: &mut Taken<'_>,
) -> anyhow::Result<()> {
    let keys = match &tls.tickets {
        tls::Tickets::Own => {
            config.ticketer = Arc::new(Tickets::own(context, tls.session_timeout)?);
            config.session_storage = Arc::new(NoServerSessionStorage {});
            return Ok(());
        }
        tls::Tickets::Disabled => {
            // Without tickets, TLS 1.3 resumes nothing, as in BoringSSL.
            config.send_tls13_tickets = 0;
            config.session_storage = match tls.keeps_sessions {
                true => ServerSessionMemoryCache::new(MAX_SESSIONS),
                false => Arc::new(NoServerSessionStorage {}),
            };
            return Ok(());
        }
        tls::Tickets::Keys(Held::Inline(keys)) => Arc::clone(keys),
        tls::Tickets::Keys(Held::Secret(_)) => match &next(secrets)?.kind {
            SecretKind::TicketKeys(keys) => Arc::clone(keys),
            _ => anyhow::bail!("a secret is no set of ticket keys"),
        },
    };
    config.ticketer = Arc::new(Tickets::new(&keys, context, tls.session_timeout));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(())
}

pub(super) fn versions(versions: Versions) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    match versions {
        Versions::Only12 => &BOTH[1..],
        Versions::Only13 => &BOTH[..1],
        Versions::Both => &BOTH,
    }
}

/// Suites and groups. What is not said is BoringSSL's order, as far as we have it.
pub(super) fn crypto(params: &TlsParams) -> CryptoProvider {
    const SUITES: [Suite; 6] = [
        Suite::EcdheEcdsaAes128Gcm,
        Suite::EcdheEcdsaChaCha20,
        Suite::EcdheRsaAes128Gcm,
        Suite::EcdheRsaChaCha20,
        Suite::EcdheEcdsaAes256Gcm,
        Suite::EcdheRsaAes256Gcm,
    ];
    const GROUPS: [Group; 2] = [Group::X25519, Group::P256];
    let suites = if params.suites.is_empty() { &SUITES[..] } else { &params.suites };
    let groups = if params.groups.is_empty() { &GROUPS[..] } else { &params.groups };
    let tls13 = [
        provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
        provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
        provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    CryptoProvider {
        cipher_suites: tls13.into_iter().chain(suites.iter().map(|suite| rustls_suite(*suite))).collect(),
        kx_groups: groups.iter().map(|group| rustls_group(*group)).collect(),
        ..provider::default_provider()
    }
}

fn rustls_suite(suite: Suite) -> SupportedCipherSuite {
    use provider::cipher_suite as known;
    match suite {
        Suite::EcdheEcdsaAes128Gcm => known::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Suite::EcdheEcdsaAes256Gcm => known::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Suite::EcdheEcdsaChaCha20 => known::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        Suite::EcdheRsaAes128Gcm => known::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        Suite::EcdheRsaAes256Gcm => known::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Suite::EcdheRsaChaCha20 => known::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn rustls_group(group: Group) -> &'static dyn SupportedKxGroup {
    match group {
        Group::X25519MlKem768 => provider::kx_group::X25519MLKEM768,
        Group::X25519 => provider::kx_group::X25519,
        Group::P256 => provider::kx_group::SECP256R1,
        Group::P384 => provider::kx_group::SECP384R1,
    }
}
