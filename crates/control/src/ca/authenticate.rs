//! Who asks for a certificate. Authenticators are asked in Istio's order and the first that knows the caller decides: the
//! client certificate of the connection, an OIDC token, a Kubernetes token, `x-forwarded-client-cert` from a trusted
//! address; after them ours, the one-time credential of a workload that was started on this machine.
//!
//! Source: `security/pkg/server/ca/authenticate`.

use std::net::IpAddr;
use std::time::SystemTime;

use anyhow::Context;
use ipnet::IpNet;
use meltemi_identity::{Claims, CredentialKey, SpiffeId, TrustDomain};
use meltemi_xds::server::{Peer, Proof};
use tonic::metadata::MetadataMap;

use super::oidc::Provider;
use super::{read_secret, xfcc};
use crate::args::CaArgs;

/// The scheme of our one-time credential in `authorization`.
const CREDENTIAL_SCHEME: &str = "Meltemi-Credential ";
/// The scheme of tokens.
const BEARER_SCHEME: &str = "Bearer ";
const AUTHORIZATION: &str = "authorization";

/// Somebody who asks.
pub(super) struct Caller<'a> {
    pub(super) peer: &'a Peer,
    pub(super) metadata: &'a MetadataMap,
    pub(super) now: SystemTime,
}

impl Caller<'_> {
    fn authorization(&self, scheme: &str) -> Option<&str> {
        self.metadata.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix(scheme)
    }
}

/// Somebody known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) id: SpiffeId,
    /// What must be remembered, so that it is not used again.
    pub(super) once: Option<Claims>,
}

impl From<SpiffeId> for Known {
    fn from(id: SpiffeId) -> Known {
        Known { id, once: None }
    }
}

/// One way to know a caller.
#[tonic::async_trait]
trait Authenticator: Send + Sync {
    fn name(&self) -> &'static str;

    /// The caller's id, or why it is not known.
    async fn authenticate(&self, caller: &Caller<'_>) -> Result<Known, String>;
}

/// All ways, in order.
pub(super) struct Authenticators {
    ways: Vec<Box<dyn Authenticator>>,
    trust_domains: Vec<TrustDomain>,
}

impl Authenticators {
    /// `trust_domains`: ours first, then its aliases.
    pub(super) fn new(args: &CaArgs, trust_domains: &[TrustDomain]) -> anyhow::Result<Authenticators> {
        let rule = args.jwt_rule.as_ref().zip(trust_domains.first());
        let provider = rule.map(|(rule, ours)| Provider::new(rule, ours.clone()));
        let provider = provider.transpose().context("the keys of --jwt-rule")?;
        let mut ways: Vec<Box<dyn Authenticator>> = vec![
            Box::new(ClientCertificate),
            Box::new(OidcToken(provider)),
            Box::new(KubernetesToken),
            Box::new(ForwardedCertificate { trusted: args.trusted_xfcc_addresses.clone() }),
        ];
        if let Some(path) = &args.credential_key {
            let key = read_secret(path).context("read the key of credentials")?;
            let key: [u8; 32] = key.try_into().map_err(|_| {
                anyhow::anyhow!("the key of credentials in {} is not of 32 bytes", path.display())
            })?;
            ways.push(Box::new(OneTimeCredential(CredentialKey::new(&key))));
        }
        Ok(Authenticators { ways, trust_domains: trust_domains.to_vec() })
    }

    /// The caller; or, for each way, why it is not known.
    pub(super) async fn authenticate(&self, caller: &Caller<'_>) -> Result<Known, String> {
        let mut reasons = Vec::new();
        for way in &self.ways {
            match way.authenticate(caller).await {
                Ok(known) if self.trust_domains.contains(known.id.trust_domain()) => return Ok(known),
                Ok(known) => {
                    let foreign = known.id.trust_domain();
                    reasons.push(format!("{}: the trust domain {foreign} is not ours", way.name()));
                }
                Err(reason) => reasons.push(format!("{}: {reason}", way.name())),
            }
        }
        Err(reasons.join("; "))
    }
}

struct ClientCertificate;

#[tonic::async_trait]
impl Authenticator for ClientCertificate {
    fn name(&self) -> &'static str {
        "client certificate"
    }

    async fn authenticate(&self, caller: &Caller<'_>) -> Result<Known, String> {
        match &caller.peer.proof {
            Proof::Tls(Some(name)) => name.parse().map(|id: SpiffeId| id.into()).map_err(|e| e.to_string()),
            Proof::Tls(None) => Err("none was shown".to_owned()),
            Proof::Plaintext | Proof::UnixSocket => Err("the connection is not TLS".to_owned()),
        }
    }
}

struct OidcToken(Option<Provider>);

#[tonic::async_trait]
impl Authenticator for OidcToken {
    fn name(&self) -> &'static str {
        "OIDC token"
    }

    async fn authenticate(&self, caller: &Caller<'_>) -> Result<Known, String> {
        let token = caller.authorization(BEARER_SCHEME).ok_or("no bearer token")?;
        if !matches!(caller.peer.proof, Proof::Tls(_)) {
            return Err("the connection is not TLS".to_owned());
        }
        let provider =
            self.0.as_ref().ok_or("this control plane has no OIDC provider configured (--jwt-rule)")?;
        provider.identify(token).await.map(Known::from)
    }
}

/// A seam: a token of Kubernetes is reviewed by its API server, and there is none on one machine.
struct KubernetesToken;

#[tonic::async_trait]
impl Authenticator for KubernetesToken {
    fn name(&self) -> &'static str {
        "Kubernetes token"
    }

    async fn authenticate(&self, caller: &Caller<'_>) -> Result<Known, String> {
        Err(match caller.authorization(BEARER_SCHEME) {
            Some(_) => "this control plane is not connected to a Kubernetes API server".to_owned(),
            None => "no bearer token".to_owned(),
        })
    }
}

/// A proxy in front of the control plane that ends TLS tells whom it has seen.
struct ForwardedCertificate {
    trusted: Vec<IpNet>,
}

#[tonic::async_trait]
impl Authenticator for ForwardedCertificate {
    fn name(&self) -> &'static str {
        "x-forwarded-client-cert"
    }

    async fn authenticate(&self, caller: &Caller<'_>) -> Result<Known, String> {
        let header = caller.metadata.get("x-forwarded-client-cert").ok_or("none was sent")?;
        let address: IpAddr = caller.peer.address.ip();
        if !self.trusted.iter().any(|net| net.contains(&address)) {
            return Err(format!("{address} is not trusted to forward it"));
        }
        let header = header.to_str().map_err(|_| "it is not ASCII")?;
        let uri = xfcc::nearest_uri(header).ok_or("its last element names no URI")?;
        uri.parse().map(|id: SpiffeId| id.into()).map_err(|e| e.to_string())
    }
}

struct OneTimeCredential(CredentialKey);

#[tonic::async_trait]
impl Authenticator for OneTimeCredential {
    fn name(&self) -> &'static str {
        "one-time credential"
    }

    async fn authenticate(&self, caller: &Caller<'_>) -> Result<Known, String> {
        let token = caller.authorization(CREDENTIAL_SCHEME).ok_or("none was sent")?;
        if !matches!(caller.peer.proof, Proof::Tls(_)) {
            return Err("the connection is not TLS".to_owned());
        }
        let claims = self.0.verify(token, caller.now).map_err(|e| e.to_string())?;
        Ok(Known { id: claims.id.clone(), once: Some(claims) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn authenticators() -> (Authenticators, CredentialKey) {
        let ways: Vec<Box<dyn Authenticator>> = vec![
            Box::new(ClientCertificate),
            Box::new(OidcToken(None)),
            Box::new(KubernetesToken),
            Box::new(ForwardedCertificate { trusted: vec!["10.0.0.0/8".parse().unwrap()] }),
            Box::new(OneTimeCredential(CredentialKey::new(&[1; 32]))),
        ];
        let trust_domains = vec!["td".parse().unwrap(), "old".parse().unwrap()];
        (Authenticators { ways, trust_domains }, CredentialKey::new(&[1; 32]))
    }

    async fn ask(from: &str, proof: Proof, headers: &[(&'static str, &str)]) -> Result<Known, String> {
        let mut metadata = MetadataMap::new();
        for (name, value) in headers {
            metadata.insert(*name, value.parse().unwrap());
        }
        let peer = Peer { address: from.parse().unwrap(), proof };
        authenticators().0.authenticate(&Caller { peer: &peer, metadata: &metadata, now: now() }).await
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000)
    }

    fn certificate(name: &str) -> Proof {
        Proof::Tls(Some(Arc::from(name)))
    }

    fn credential() -> (String, Claims) {
        let claims = Claims {
            id: "spiffe://td/ns/a/sa/b".parse().unwrap(),
            expires: now() + Duration::from_secs(60),
            nonce: [3; 16],
        };
        (format!("{CREDENTIAL_SCHEME}{}", authenticators().1.mint(&claims).as_str()), claims)
    }

    #[tokio::test]
    async fn the_certificate_of_the_connection_comes_first() {
        let (token, _) = credential();
        let known =
            ask("1.1.1.1:1", certificate("spiffe://old/ns/x/sa/y"), &[("authorization", &token)]).await;
        assert_eq!(known.unwrap().id.as_str(), "spiffe://old/ns/x/sa/y");
    }

    #[tokio::test]
    async fn another_trust_domain_is_refused() {
        let refused = ask("1.1.1.1:1", certificate("spiffe://evil/ns/x/sa/y"), &[]).await.unwrap_err();
        assert!(refused.starts_with("client certificate: the trust domain evil is not ours; "), "{refused}");
    }

    #[tokio::test]
    async fn a_token_is_refused_with_the_reason() {
        let refused =
            ask("1.1.1.1:1", Proof::Tls(None), &[("authorization", "Bearer x.y.z")]).await.unwrap_err();
        assert!(
            refused.contains("no OIDC provider") && refused.contains("Kubernetes API server"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_forwarded_certificate_is_believed_from_trusted_addresses_only() {
        let header = ("x-forwarded-client-cert", "By=spiffe://td/a;URI=spiffe://td/ns/x/sa/y");
        assert!(ask("192.168.1.1:1", Proof::Tls(None), &[header]).await.is_err());
        let known = ask("10.1.2.3:1", Proof::Tls(None), &[header]).await.unwrap();
        assert_eq!(known, Known::from("spiffe://td/ns/x/sa/y".parse::<SpiffeId>().unwrap()));
    }

    #[tokio::test]
    async fn a_credential_works_over_tls_only() {
        let (token, claims) = credential();
        let known = ask("1.1.1.1:1", Proof::Tls(None), &[("authorization", &token)]).await.unwrap();
        assert_eq!(known, Known { id: claims.id.clone(), once: Some(claims) });
        assert!(ask("1.1.1.1:1", Proof::Plaintext, &[("authorization", &token)]).await.is_err());
    }
}
