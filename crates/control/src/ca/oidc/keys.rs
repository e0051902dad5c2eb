//! The keys of an OpenID provider: written into the rule, or fetched when a token asks for one that is not there.
//!
//! Source: RFC 7517 (JWK), OpenID Connect Discovery 1.0.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::Header;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::limits::{KEYS_MAX_AGE, KEYS_PAUSE, KEYS_REFRESH, KEYS_TIMEOUT, MAX_KEYS_BYTES};

/// Where a provider tells where its keys are.
const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// Where keys come from.
#[derive(Debug, Clone)]
pub(super) enum Location {
    Inline(Arc<JwkSet>),
    Keys(Uri),
    /// The provider's own description of itself, which must name this issuer.
    Discovery {
        at: Uri,
        issuer: String,
    },
}

impl Location {
    pub(super) fn keys(uri: &str) -> Result<Location, String> {
        trustworthy(uri).map(Location::Keys)
    }

    pub(super) fn discovery(issuer: &str) -> Result<Location, String> {
        let at = trustworthy(&format!("{}{DISCOVERY_PATH}", issuer.trim_end_matches('/')))?;
        Ok(Location::Discovery { at, issuer: issuer.to_owned() })
    }
}

/// Keys that came in plaintext over a network would make whoever stands in between the issuer.
fn trustworthy(uri: &str) -> Result<Uri, String> {
    let uri: Uri = uri.parse().map_err(|error| format!("{uri:?} is no URL: {error}"))?;
    let host = uri.host().ok_or_else(|| format!("{uri} names no host"))?;
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    let is_local = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_local => Ok(uri),
        Some("http") => Err(format!("{uri}: keys come by https; http is taken from loopback only")),
        _ => Err(format!("{uri} is no https URL")),
    }
}

/// The keys of one provider.
pub(super) enum Keys {
    Inline(Arc<JwkSet>),
    Remote(Box<Remote>),
}

pub(super) struct Remote {
    location: Location,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    state: Mutex<State>,
    /// Held while keys are fetched: whoever else needs new ones waits for the same answer.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    keys: Arc<JwkSet>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
    error: Option<String>,
}

impl Keys {
    /// # Errors
    /// If they are fetched and the system's roots cannot be read.
    pub(super) fn new(location: Location) -> anyhow::Result<Keys> {
        if let Location::Inline(keys) = location {
            return Ok(Keys::Inline(keys));
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)?
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(https);
        Ok(Keys::Remote(Box::new(Remote {
            location,
            client,
            state: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        })))
    }

    /// The keys that a token with this header may be signed with: the one that it names, or all if it names none.
    pub(super) async fn of(&self, header: &Header) -> Result<Vec<Jwk>, String> {
        match self {
            Keys::Inline(keys) => Ok(named(keys, header)),
            Keys::Remote(remote) => remote.of(header).await,
        }
    }
}

fn named(keys: &JwkSet, header: &Header) -> Vec<Jwk> {
    match &header.kid {
        Some(kid) => keys.find(kid).cloned().into_iter().collect(),
        None => keys.keys.clone(),
    }
}

impl Remote {
    async fn of(&self, header: &Header) -> Result<Vec<Jwk>, String> {
        if let Some(known) = self.fresh(header) {
            return Ok(known);
        }
        let _one = self.fetching.lock().await;
        if let Some(known) = self.fresh(header) {
            return Ok(known);
        }
        // Strangers with invented keys must not make us ask the provider again and again.
        if !is_within(self.state().tried, KEYS_PAUSE) {
            self.state().tried = Some(Instant::now());
            let fetched = timeout(KEYS_TIMEOUT, self.fetch()).await;
            self.keep(fetched.unwrap_or_else(|_| Err("timed out".to_owned())));
        }
        let state = self.state();
        match &state.error {
            Some(error) if !is_within(state.fetched, KEYS_MAX_AGE) => {
                Err(format!("the provider's keys cannot be fetched: {error}"))
            }
            _ => Ok(named(&state.keys, header)),
        }
    }

    /// Known keys that need not be fetched again. Waits for nobody: a provider that hangs holds up new keys only.
    fn fresh(&self, header: &Header) -> Option<Vec<Jwk>> {
        let state = self.state();
        let known = named(&state.keys, header);
        (!known.is_empty() && is_within(state.fetched, KEYS_REFRESH)).then_some(known)
    }

    fn keep(&self, fetched: Result<JwkSet, String>) {
        let mut state = self.state();
        match fetched {
            Ok(keys) => {
                state.keys = Arc::new(keys);
                state.fetched = Some(Instant::now());
                state.error = None;
            }
            Err(error) => {
                tracing::warn!(%error, "the keys of the OIDC provider cannot be fetched");
                state.error = Some(error);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> Result<JwkSet, String> {
        #[derive(Deserialize)]
        struct Description {
            issuer: String,
            jwks_uri: String,
        }
        match &self.location {
            Location::Inline(keys) => Ok((**keys).clone()),
            Location::Keys(uri) => self.get(uri).await,
            Location::Discovery { at, issuer } => {
                let description: Description = self.get(at).await?;
                if description.issuer != *issuer {
                    return Err(format!("{at} describes another issuer, {:?}", description.issuer));
                }
                self.get(&trustworthy(&description.jwks_uri)?).await
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, uri: &Uri) -> Result<T, String> {
        let response =
            self.client.get(uri.clone()).await.map_err(|error| format!("{uri}: {}", cause(&error)))?;
        let status = response.status();
        if status != http::StatusCode::OK {
            return Err(format!("{uri}: status {status}"));
        }
        let body = Limited::new(response.into_body(), MAX_KEYS_BYTES).collect().await;
        let body = body.map_err(|error| format!("{uri}: {error}"))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| format!("{uri}: {error}"))
    }
}

fn is_within(since: Option<Instant>, time: Duration) -> bool {
    since.is_some_and(|since| since.elapsed() < time)
}

/// The last reason, which is the one that says something.
fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
