//! The client side: settings of rustls for a context of a cluster, and the handshakes under them.
//!
//! Sessions are kept per context and, where a connection asks for names of its own, per those: rustls does not verify
//! again what it resumes, so a session must never serve another expectation. What comes back with a session is looked at
//! again all the same, for its time and for revocation. Source: Envoy's `ClientContextImpl` and `SslSocket`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use meltemi_compile::tls::{Secret, UpstreamTls, any_of_names};
use meltemi_http::{Session, TlsStream};
use meltemi_identity::ServedCertificate;
use meltemi_identity::verify::{PeerVerifier, Refusal, Role, Rules};
use rustls::client::danger::DangerousClientConfigBuilder;
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::SupportedKxGroup;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, HandshakeKind};
use tokio::net::TcpStream;

use super::Failure;
use super::current::Current;
use super::facts::{TlsFacts, cipher_name, group_name, version_name};
use super::secrets::Secrets;
use super::server::{asks_something, certificates, crypto, validation, versions};

/// Most different expectations that a context keeps sessions for; with more it begins anew.
const MAX_EXPECTATIONS: usize = 256;

/// Most servers whose sessions a context keeps, whatever `max_session_keys` says.
const MAX_SESSIONS: usize = 4096;

/// Stands for "no name": it is never sent.
const NO_NAME: &str = "none.invalid";

/// What a connection asks for beside its context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Expected {
    /// The server name, if not the context's.
    pub(crate) server_name: Option<Box<str>>,
    /// One of these the certificate must have, in place of what the context says.
    pub(crate) names: Box<[Box<str>]>,
    /// The protocols to offer, if not the context's.
    pub(crate) alpn: Box<[Box<str>]>,
    /// The protocols to offer if neither says any.
    pub(crate) default_alpn: &'static [&'static str],
}

impl Expected {
    /// A failure for want of the names that were asked for says so.
    fn told(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Refused(Refusal::Names(found)) if !self.names.is_empty() => {
                Failure::Unexpected { wanted: self.names.iter().map(ToString::to_string).collect(), found }
            }
            other => other,
        }
    }
}

/// What asks in the name of a context.
#[derive(Debug)]
pub(crate) struct ClientContext {
    tls: Arc<UpstreamTls>,
    built: Current<Built>,
}

/// Settings of rustls, made of the secrets of a moment.
#[derive(Debug)]
struct Built {
    certificate: Option<Arc<ServedCertificate>>,
    rules: Arc<Rules>,
    configs: Mutex<Configs>,
}

/// Settings of rustls that were needed so far.
#[derive(Debug, Default)]
struct Configs {
    /// By all that a connection asks for.
    settings: HashMap<Expected, Settings>,
    /// By the names that the certificate must have: they share sessions, whatever protocols are offered.
    bases: HashMap<Box<[Box<str>]>, Base>,
}

/// Settings without the protocols to offer.
#[derive(Debug, Clone)]
struct Base {
    config: ClientConfig,
    rules: Arc<Rules>,
}

/// Settings of rustls for one expectation.
#[derive(Debug, Clone)]
struct Settings {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    rules: Arc<Rules>,
}

impl ClientContext {
    pub(super) fn new(tls: &Arc<UpstreamTls>, secrets: &Secrets) -> ClientContext {
        ClientContext { built: Current::new(tls.secrets(), secrets), tls: Arc::clone(tls) }
    }

    /// The settings of now; `None` while a secret is missing.
    fn current(&self) -> Option<Arc<Built>> {
        self.built.get(|secrets| Built::new(&self.tls, secrets))
    }

    /// Does the handshake. `hostname` is the host's.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        expected: &Expected,
        hostname: &str,
    ) -> Result<(TlsStream, TlsFacts), Failure> {
        let built = self.current().ok_or(Failure::NoSecret)?;
        let settings = built.settings(&self.tls, expected, hostname)?;
        let session = UnbufferedClientConnection::new(Arc::clone(&settings.config), settings.name.clone())
            .map_err(Failure::Protocol)?;
        let mut stream = TlsStream::new(stream, Session::Client(Box::new(session)), BytesMut::new());
        let shaken = stream.handshake().await.map_err(Failure::of);
        let facts = shaken.and_then(|()| facts(&stream, &built, &settings.rules));
        let facts = facts.map_err(|failure| expected.told(failure))?;
        Ok((stream, facts))
    }
}

impl Built {
    fn new(tls: &UpstreamTls, secrets: &[Arc<Secret>]) -> anyhow::Result<Built> {
        let mut secrets = secrets.iter();
        let certificate = certificates(&tls.common, &mut secrets)?.into_iter().next();
        let rules = Arc::clone(&validation(tls.common.believed.as_ref(), &mut secrets)?.rules);
        Ok(Built { certificate, rules, configs: Mutex::default() })
    }

    /// The settings for an expectation, made when it is new.
    fn settings(&self, tls: &UpstreamTls, expected: &Expected, hostname: &str) -> Result<Settings, Failure> {
        let mut expected = expected.clone();
        if expected.server_name.is_none() {
            let own = if tls.auto_host_sni && !hostname.is_empty() { hostname } else { &tls.sni };
            expected.server_name = Some(own.into());
        }
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(settings) = configs.settings.get(&expected) {
            return Ok(settings.clone());
        }
        if configs.settings.len() >= MAX_EXPECTATIONS {
            *configs = Configs::default();
        }
        let wanted = expected.server_name.as_deref().unwrap_or_default();
        let names: Box<[Box<str>]> = match tls.auto_sni_san_validation && !wanted.is_empty() {
            true => [wanted.into()].into(),
            false => expected.names.clone(),
        };
        let base = match configs.bases.get(&names) {
            Some(base) => base.clone(),
            None => {
                let base = self.base(tls, &names).map_err(Failure::Protocol)?;
                configs.bases.insert(names, base.clone());
                base
            }
        };
        let settings = base.settings(tls, &expected).map_err(Failure::Protocol)?;
        configs.settings.insert(expected, settings.clone());
        Ok(settings)
    }

    fn base(&self, tls: &UpstreamTls, names: &[Box<str>]) -> Result<Base, rustls::Error> {
        let rules = match names.is_empty() {
            true => Arc::clone(&self.rules),
            false => Arc::new(Rules { names: any_of_names(names), ..(*self.rules).clone() }),
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(crypto(&tls.common.params)))
            .with_protocol_versions(versions(tls.common.params.versions))?;
        let verifier = PeerVerifier::of_servers(Arc::clone(&rules));
        let builder = DangerousClientConfigBuilder { cfg: builder }
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.certificate {
            Some(own) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from((*own.certified).clone())))
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = match usize::try_from(tls.max_session_keys) {
            Ok(0) => Resumption::disabled(),
            Ok(keys) => Resumption::in_memory_sessions(keys.min(MAX_SESSIONS)),
            Err(_) => Resumption::in_memory_sessions(MAX_SESSIONS),
        };
        Ok(Base { config, rules })
    }
}

impl Base {
    fn settings(mut self, tls: &UpstreamTls, expected: &Expected) -> Result<Settings, rustls::Error> {
        self.config.alpn_protocols = alpn(tls, expected);
        let wanted = expected.server_name.as_deref().unwrap_or_default();
        let name = ServerName::try_from(wanted.to_owned());
        self.config.enable_sni = name.is_ok();
        let name = match name {
            Ok(name) => name,
            Err(_) => {
                ServerName::try_from(NO_NAME).map_err(|error| rustls::Error::General(error.to_string()))?
            }
        };
        Ok(Settings { config: Arc::new(self.config), name, rules: self.rules })
    }
}

/// What a connection asks for wins over its context, and that over what its protocol implies.
fn alpn(tls: &UpstreamTls, expected: &Expected) -> Vec<Vec<u8>> {
    if !expected.alpn.is_empty() {
        return expected.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    }
    match tls.common.alpn.is_empty() {
        false => tls.common.alpn.clone(),
        true => expected.default_alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
    }
}

fn facts(stream: &TlsStream, built: &Built, rules: &Rules) -> Result<TlsFacts, Failure> {
    let state = stream.session().state();
    let chain: Box<[_]> =
        state.peer_certificates().unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
    let is_resumed = state.handshake_kind() == Some(HandshakeKind::Resumed);
    if let (true, Some((leaf, intermediates))) = (is_resumed, chain.split_first())
        && !rules.accepts_untrusted
    {
        rules.check(leaf, intermediates, Role::Server, UnixTime::now()).map_err(Failure::Refused)?;
    }
    Ok(TlsFacts {
        version: version_name(state.protocol_version()),
        cipher: cipher_name(state.negotiated_cipher_suite().map(|suite| suite.suite())),
        group: group_name(state.negotiated_key_exchange_group().map(SupportedKxGroup::name)),
        is_resumed,
        is_validated: asks_something(rules) && !rules.accepts_untrusted,
        peer_chain: chain,
        local: built.certificate.as_ref().map(|certificate| Arc::clone(&certificate.facts)),
        ..TlsFacts::default()
    })
}
