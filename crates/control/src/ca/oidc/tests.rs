use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{EncodingKey, encode, get_current_timestamp};
use meltemi_identity::{Key, KeyKind};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

/// What PKCS#8 puts before the PKCS#1 key of RSA 2048.
const PKCS8_RSA_HEAD: usize = 26;

/// Somebody who signs tokens.
struct Issuer {
    key: EncodingKey,
    algorithm: Algorithm,
    kid: &'static str,
}

impl Issuer {
    fn new(kind: KeyKind, algorithm: Algorithm, kid: &'static str) -> Issuer {
        let key = Key::generate(kind).unwrap().to_der();
        let der = key.secret_der();
        let key = match algorithm.family() {
            jsonwebtoken::AlgorithmFamily::Rsa => EncodingKey::from_rsa_der(&der[PKCS8_RSA_HEAD..]),
            _ => EncodingKey::from_ec_der(der),
        };
        Issuer { key, algorithm, kid }
    }

    fn ecdsa(kid: &'static str) -> Issuer {
        Issuer::new(KeyKind::EcdsaP256, Algorithm::ES256, kid)
    }

    fn jwk(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.kid.to_owned());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).unwrap()
    }
}

fn jwks(issuers: &[&Issuer]) -> Value {
    json!({"keys": issuers.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>()})
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example",
        "aud": ["istio-ca", "other"],
        "sub": "system:serviceaccount:shop:cart",
        "exp": get_current_timestamp() + 600,
    })
}

/// The claims with some of them replaced; null removes one.
fn claims_but(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn rule(fields: Value) -> Result<JwtRule, String> {
    let mut rule = json!({"issuer": "https://issuer.example", "audiences": ["istio-ca"]});
    rule.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    rule.to_string().parse()
}

fn provider(fields: Value) -> Provider {
    Provider::new(&rule(fields).unwrap(), "td".parse().unwrap()).unwrap()
}

fn with_keys(issuers: &[&Issuer]) -> Provider {
    provider(json!({"jwks": jwks(issuers).to_string()}))
}

#[tokio::test]
async fn a_token_of_the_provider_names_a_service_account() {
    for (kind, algorithm) in [
        (KeyKind::EcdsaP256, Algorithm::ES256),
        (KeyKind::EcdsaP384, Algorithm::ES384),
        (KeyKind::Rsa2048, Algorithm::RS256),
        (KeyKind::Rsa2048, Algorithm::PS512),
    ] {
        let issuer = Issuer::new(kind, algorithm, "a");
        let known = with_keys(&[&issuer]).identify(&issuer.sign(&claims())).await;
        assert_eq!(known.unwrap().as_str(), "spiffe://td/ns/shop/sa/cart", "{algorithm:?}");
    }
}

#[tokio::test]
async fn what_a_token_must_say() {
    let issuer = Issuer::ecdsa("a");
    let provider = with_keys(&[&issuer]);
    for changes in [
        json!({"iss": "https://other.example"}),
        json!({"iss": null}),
        json!({"aud": "somebody-else"}),
        json!({"aud": null}),
        json!({"exp": get_current_timestamp() - 600}),
        json!({"exp": null}),
        json!({"nbf": get_current_timestamp() + 600}),
        json!({"sub": null}),
        json!({"sub": "jane"}),
        json!({"sub": "system:serviceaccount:shop"}),
        json!({"sub": "system:serviceaccount::cart"}),
        json!({"sub": "system:serviceaccount:shop:cart:extra"}),
        json!({"sub": "system:serviceaccount:shop/sa/admin:cart"}),
    ] {
        let refused = provider.identify(&issuer.sign(&claims_but(changes.clone()))).await;
        assert!(refused.is_err(), "{changes}: {refused:?}");
    }
}

#[tokio::test]
async fn another_key_no_key_and_a_secret_are_refused() {
    let (issuer, stranger) = (Issuer::ecdsa("a"), Issuer::ecdsa("a"));
    let provider = with_keys(&[&issuer]);
    assert!(provider.identify(&stranger.sign(&claims())).await.is_err());
    // The public key as a secret that both sides know.
    let public = serde_json::to_vec(&issuer.jwk()).unwrap();
    let header = Header { kid: Some("a".to_owned()), ..Header::new(Algorithm::HS256) };
    let confused = encode(&header, &claims(), &EncodingKey::from_secret(&public).unwrap()).unwrap();
    assert!(provider.identify(&confused).await.unwrap_err().contains("HS256"));
    // {"alg":"none","kid":"a"}
    let claims_part = issuer.sign(&claims()).split('.').nth(1).unwrap().to_owned();
    assert!(provider.identify(&format!("eyJhbGciOiJub25lIiwia2lkIjoiYSJ9.{claims_part}.")).await.is_err());
    assert!(provider.identify(&"x".repeat(MAX_TOKEN_BYTES + 1)).await.unwrap_err().contains("bytes"));
}

/// An OpenID provider whose keys may change.
struct Server {
    url: String,
    keys: Arc<Mutex<Value>>,
    asked: Arc<AtomicU32>,
}

async fn serve(keys: Value) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (keys, asked) = (Arc::new(Mutex::new(keys)), Arc::new(AtomicU32::new(0)));
    let description = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
    let (served, counted) = (Arc::clone(&keys), Arc::clone(&asked));
    let answer = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let text = served.lock().unwrap().to_string();
        async move { text }
    };
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(move || async move { description }))
        .route("/keys", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Server { url, keys, asked }
}

#[tokio::test]
async fn keys_are_found_by_discovery_and_kept() {
    let issuer = Issuer::ecdsa("a");
    let server = serve(jwks(&[&issuer])).await;
    let provider = provider(json!({"issuer": server.url}));
    for _ in 0..3 {
        let token = issuer.sign(&claims_but(json!({"iss": server.url})));
        provider.identify(&token).await.unwrap();
    }
    assert_eq!(server.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_provider_that_describes_another_issuer_is_not_believed() {
    let issuer = Issuer::ecdsa("a");
    let server = serve(jwks(&[&issuer])).await;
    let named = server.url.replace("127.0.0.1", "localhost");
    let provider = provider(json!({"issuer": named}));
    let refused = provider.identify(&issuer.sign(&claims_but(json!({"iss": named})))).await.unwrap_err();
    assert!(refused.contains("describes another issuer"), "{refused}");
}

#[tokio::test]
async fn a_new_key_is_fetched_once_and_invented_ones_are_not_asked_for_again() {
    let (old, new, invented) = (Issuer::ecdsa("old"), Issuer::ecdsa("new"), Issuer::ecdsa("invented"));
    let server = serve(jwks(&[&old])).await;
    let provider = provider(json!({"jwksUri": format!("{}/keys", server.url)}));
    provider.identify(&old.sign(&claims())).await.unwrap();
    *server.keys.lock().unwrap() = jwks(&[&old, &new]);
    tokio::time::pause();
    tokio::time::advance(crate::limits::KEYS_PAUSE).await;
    tokio::time::resume();
    provider.identify(&new.sign(&claims())).await.unwrap();
    for _ in 0..5 {
        provider.identify(&invented.sign(&claims())).await.unwrap_err();
    }
    assert_eq!(server.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn keys_of_a_provider_that_is_gone_are_used_for_a_while() {
    let issuer = Issuer::ecdsa("a");
    let server = serve(jwks(&[&issuer])).await;
    let provider = provider(json!({"jwksUri": format!("{}/keys", server.url)}));
    let token = issuer.sign(&claims());
    provider.identify(&token).await.unwrap();
    *server.keys.lock().unwrap() = json!("no keys");
    tokio::time::pause();
    tokio::time::advance(crate::limits::KEYS_REFRESH).await;
    tokio::time::resume();
    provider.identify(&token).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(crate::limits::KEYS_MAX_AGE).await;
    tokio::time::resume();
    assert!(provider.identify(&token).await.unwrap_err().contains("cannot be fetched"));
}

#[tokio::test]
async fn a_provider_that_says_too_much_or_nothing_is_refused() {
    let issuer = Issuer::ecdsa("a");
    let server = serve(json!("x".repeat(crate::limits::MAX_KEYS_BYTES))).await;
    let token = issuer.sign(&claims());
    let much = provider(json!({"jwksUri": format!("{}/keys", server.url)}));
    assert!(much.identify(&token).await.unwrap_err().contains("length limit"));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", silent.local_addr().unwrap());
    let nothing = provider(json!({"jwksUri": url}));
    tokio::time::pause();
    assert!(nothing.identify(&token).await.unwrap_err().contains("timed out"));
}

#[test]
fn a_rule_says_whose_tokens_and_where_the_keys_are() {
    for (fields, expected) in [
        (json!({"audiences": []}), "audiences"),
        (json!({"issuer": ""}), "issuer"),
        (json!({"jwks": "{}", "jwksUri": "https://a.example"}), "only one"),
        (json!({"jwks": "no keys"}), "jwks"),
        (json!({"jwks_uri": "http://issuer.example/keys"}), "https"),
        (json!({"jwksUri": "ftp://issuer.example/keys"}), "https"),
        (json!({"jwksUri": "file:///keys"}), "no URL"),
        (json!({"issuer": "issuer.example"}), "issuer"),
        (json!({"fromHeaders": []}), "unknown field"),
    ] {
        let error = rule(fields.clone()).unwrap_err();
        assert!(error.contains(expected), "{fields}: {error}");
    }
    assert!(rule(json!({})).is_ok());
    assert!(rule(json!({"jwks_uri": "https://issuer.example/keys"})).is_ok());
    assert!(rule(json!({"jwksUri": "http://[::1]:8080/keys"})).is_ok());
}
