//! Tokens of an OpenID provider: what one must say to name a workload.
//!
//! Owns the rule (issuer, audiences, where the keys are) and the judgement of a token. Leaves out how keys are fetched
//! (`keys`). Source: Istio's `JWT_RULE` and `security/pkg/server/ca/authenticate/oidc.go`; RFC 7519, RFC 8725.

mod keys;

use std::str::FromStr;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use meltemi_identity::{SpiffeId, TrustDomain};
use serde::Deserialize;

use crate::limits::{MAX_TOKEN_BYTES, TOKEN_LEEWAY};
use keys::{Keys, Location};

/// What a token may be signed with. A secret that both sides know is no proof of who has signed, and `none` is none.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// How the subject of a workload's token begins: `system:serviceaccount:NAMESPACE:NAME`, as Kubernetes writes it.
const SUBJECT_PREFIX: &str = "system:serviceaccount:";

/// Whose tokens are believed: Istio's `JWT_RULE`.
#[derive(Debug, Clone)]
pub struct JwtRule {
    issuer: String,
    audiences: Vec<String>,
    location: Location,
}

/// The rule as it is written, in the JSON of Istio's `JWTRule`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    issuer: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default, rename = "jwksUri", alias = "jwks_uri")]
    jwks_uri: Option<String>,
    #[serde(default)]
    jwks: Option<String>,
}

impl FromStr for JwtRule {
    type Err = String;

    /// # Errors
    /// If it is no such JSON, names no audience, or its keys are neither inline nor at an address that can be trusted.
    fn from_str(text: &str) -> Result<JwtRule, String> {
        let written: Written = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if written.issuer.is_empty() {
            return Err("issuer: must not be empty".to_owned());
        }
        if written.audiences.is_empty() {
            return Err("audiences: name at least one, or tokens for anybody else would do".to_owned());
        }
        let location = match (&written.jwks, &written.jwks_uri) {
            (Some(_), Some(_)) => return Err("jwks and jwksUri: only one of them".to_owned()),
            (Some(jwks), None) => {
                let set: JwkSet = serde_json::from_str(jwks).map_err(|error| format!("jwks: {error}"))?;
                Location::Inline(set.into())
            }
            (None, Some(uri)) => Location::keys(uri).map_err(|error| format!("jwksUri: {error}"))?,
            (None, None) => {
                Location::discovery(&written.issuer).map_err(|error| format!("issuer: {error}"))?
            }
        };
        Ok(JwtRule { issuer: written.issuer, audiences: written.audiences, location })
    }
}

/// What is read of a token once it is believed.
#[derive(Deserialize)]
struct Claims {
    sub: String,
}

/// Judges the tokens of one provider.
pub(super) struct Provider {
    keys: Keys,
    validation: Validation,
    trust_domain: TrustDomain,
}

impl Provider {
    /// # Errors
    /// If keys are fetched and the system's roots cannot be read.
    pub(super) fn new(rule: &JwtRule, trust_domain: TrustDomain) -> anyhow::Result<Provider> {
        let mut validation = Validation::default();
        validation.set_issuer(&[&rule.issuer]);
        validation.set_audience(&rule.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = TOKEN_LEEWAY.as_secs();
        Ok(Provider { keys: Keys::new(rule.location.clone())?, validation, trust_domain })
    }

    /// The workload that a token names, or why it names none.
    pub(super) async fn identify(&self, token: &str) -> Result<SpiffeId, String> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(format!("the token has more than {MAX_TOKEN_BYTES} bytes"));
        }
        let header = decode_header(token).map_err(|error| error.to_string())?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(format!("tokens signed with {:?} are not taken", header.alg));
        }
        let claims = self.verified(token, &header).await?;
        let (namespace, account) = service_account(&claims.sub)
            .ok_or_else(|| format!("its subject {:?} is no service account", claims.sub))?;
        SpiffeId::of_service_account(&self.trust_domain, namespace, account).map_err(|e| e.to_string())
    }

    async fn verified(&self, token: &str, header: &Header) -> Result<Claims, String> {
        let mut reason = "no key of the provider fits".to_owned();
        for jwk in self.keys.of(header).await? {
            let Ok(key) = DecodingKey::from_jwk(&jwk) else { continue };
            // The key says what may be signed with it, not the token: an RSA key must not become a secret of HMAC.
            let algorithms = ALGORITHMS.into_iter().filter(|algorithm| algorithm.family() == key.family());
            let validation = Validation { algorithms: algorithms.collect(), ..self.validation.clone() };
            match decode(token, &key, &validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }
}

/// Namespace and name.
fn service_account(subject: &str) -> Option<(&str, &str)> {
    let (namespace, account) = subject.strip_prefix(SUBJECT_PREFIX)?.split_once(':')?;
    let is_name = |name: &str| !name.is_empty() && !name.contains(':');
    (is_name(namespace) && is_name(account)).then_some((namespace, account))
}

#[cfg(test)]
mod tests;
