//! The certificate authority of the mesh: what it signs with, for whom, and the gRPC service that asks.
//!
//! Owns: the files of the authority and their reloading, who may have which id, that a credential is used once. Leaves out
//! what a certificate looks like (`meltemi-identity`) and TLS (`secure.rs`).
//! Source: Istio's `security/pkg/server/ca` and `pilot/pkg/bootstrap/istio_ca.go`.

mod authenticate;
mod directory;
mod oidc;
mod rotation;
mod service;
mod used;
mod xfcc;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use meltemi_envoy::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use meltemi_identity::{Authority, Csr, Issued, Serial, SpiffeId, TrustDomain, Ttl};
use tokio::sync::watch;

use crate::args::CaArgs;
use crate::limits::{AUTHORITY_POLL, MAX_CSR_MESSAGE};
use crate::trust::Trust;
use authenticate::Authenticators;
use service::CertificateService;
use used::UsedCredentials;

pub use oidc::JwtRule;

pub(crate) use directory::{Directory, read_secret};
pub(crate) use rotation::{Progress, Rotation};

/// The authority of one mesh. Cheap to share; what signs may change while it runs.
pub(crate) struct Ca {
    authority: watch::Sender<Arc<Authority>>,
    directory: Directory,
    ttl: Ttl,
    /// Whose ids are ours: the trust domain itself first, then its aliases.
    trust_domains: Vec<TrustDomain>,
}

impl Ca {
    /// Reads the authority's files, or makes a root in an empty directory.
    ///
    /// # Errors
    /// If they cannot be read, do not belong together, or others may read the key.
    pub(crate) fn open(
        args: &CaArgs,
        trust: &Trust,
        path: &std::path::Path,
        now: SystemTime,
    ) -> anyhow::Result<Ca> {
        let directory = Directory::new(path.to_owned(), trust.domain.clone(), args.ca_key_kind);
        let authority = directory
            .open_or_create(now)
            .with_context(|| format!("the certificate authority in {}", path.display()))?;
        let ttl = Ttl { default: args.workload_cert_ttl, max: args.max_workload_cert_ttl };
        let (authority, _) = watch::channel(Arc::new(authority));
        Ok(Ca { authority, directory, ttl, trust_domains: trust.all() })
    }

    /// What signs, now and whenever that changes.
    pub(crate) fn authority(&self) -> watch::Receiver<Arc<Authority>> {
        self.authority.subscribe()
    }

    /// The trust domain, then its aliases.
    pub(crate) fn trust_domains(&self) -> &[TrustDomain] {
        &self.trust_domains
    }

    /// Signs. An id of an alias is signed as one of the trust domain itself.
    pub(crate) fn sign(
        &self,
        csr: &Csr,
        id: &SpiffeId,
        asked: Duration,
        now: SystemTime,
    ) -> Result<Issued, meltemi_identity::Error> {
        let authority = Arc::clone(&self.authority.borrow());
        let id = match self.trust_domains.contains(id.trust_domain()) {
            true => id.within(authority.trust_domain()),
            false => id.clone(),
        };
        let serial = Serial::new(meltemi_identity::random()?);
        authority.sign(csr, &id, self.ttl.granted(asked), now, serial)
    }

    /// Looks at the files for ever, and signs with what they say once it is whole. Files that cannot be used leave what
    /// was in force.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut seen = self.directory.stamp();
        let mut ticks = tokio::time::interval(AUTHORITY_POLL);
        loop {
            ticks.tick().await;
            let stamp = self.directory.stamp();
            if stamp == seen {
                continue;
            }
            seen = stamp;
            match self.directory.load(SystemTime::now()) {
                Ok(authority) => {
                    tracing::info!(roots = authority.roots().len(), "the certificate authority has changed");
                    self.authority.send_replace(Arc::new(authority));
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(%error, "the files of the certificate authority cannot be used; the last ones stay");
                }
            }
        }
    }
}

/// The gRPC service.
///
/// # Errors
/// If the key of credentials cannot be read.
pub(crate) fn service(
    ca: Arc<Ca>,
    args: &CaArgs,
) -> anyhow::Result<IstioCertificateServiceServer<CertificateService>> {
    let authenticators = Authenticators::new(args, ca.trust_domains())?;
    let remembered = args.credential_key.as_ref().map(|path| path.with_extension("used"));
    let used = UsedCredentials::open(remembered, SystemTime::now()).context("read the used credentials")?;
    let service = CertificateService::new(ca, authenticators, used);
    Ok(IstioCertificateServiceServer::new(service).max_decoding_message_size(MAX_CSR_MESSAGE))
}
