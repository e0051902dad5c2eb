//! `istio.v1.auth.IstioCertificateService`: authenticates the caller, takes the key of the request and nothing else of it,
//! and answers with the chain, roots last.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use meltemi_envoy::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use meltemi_envoy::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use meltemi_identity::{Csr, ErrorKind};
use meltemi_xds::server::Peer;
use prost_types::Struct;
use prost_types::value::Kind;
use tonic::{Request, Response, Status};

use super::Ca;
use super::authenticate::{Authenticators, Caller, Known};
use super::used::{NotTaken, UsedCredentials};

/// The service of one authority.
pub(crate) struct CertificateService {
    ca: Arc<Ca>,
    authenticators: Authenticators,
    used: Mutex<UsedCredentials>,
}

impl CertificateService {
    pub(super) fn new(
        ca: Arc<Ca>,
        authenticators: Authenticators,
        used: UsedCredentials,
    ) -> CertificateService {
        CertificateService { ca, authenticators, used: Mutex::new(used) }
    }

    /// A credential is spent only on a request that is good otherwise.
    fn spend(&self, known: &Known, csr: &Csr, now: SystemTime) -> Result<(), Status> {
        let Some(claims) = &known.once else { return Ok(()) };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.take(claims, csr.fingerprint(), now).map_err(|why| match why {
            NotTaken::Replayed => {
                tracing::warn!(identity = %known.id, "a one-time credential was replayed");
                Status::unauthenticated("the credential was used before")
            }
            NotTaken::Full => Status::resource_exhausted("no more credentials can be remembered"),
        })
    }

    async fn sign(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<IstioCertificateResponse, Status> {
        let now = SystemTime::now();
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::unauthenticated("certificates are signed over TLS only"))?;
        let caller = Caller { peer: &peer, metadata: request.metadata(), now };
        let known = self.authenticators.authenticate(&caller).await.map_err(|reason| {
            tracing::warn!(peer = %peer.address, error = %reason, "a request for a certificate is refused");
            Status::unauthenticated(format!("the caller is not known: {reason}"))
        })?;
        let request = request.into_inner();
        refuse_metadata(request.metadata.as_ref())?;
        let csr = Csr::from_pem(request.csr.as_bytes())
            .map_err(|e| Status::invalid_argument(format!("csr: {e}")))?;
        self.spend(&known, &csr, now)?;
        let asked = Duration::from_secs(request.validity_duration.try_into().unwrap_or(0));
        let issued = self.ca.sign(&csr, &known.id, asked, now).map_err(|error| {
            tracing::error!(identity = %known.id, %error, "signing failed");
            match error.kind() {
                ErrorKind::Expired => Status::failed_precondition(error.to_string()),
                _ => Status::internal(error.to_string()),
            }
        })?;
        let lifetime = issued.not_after.duration_since(now).unwrap_or_default();
        tracing::info!(identity = %known.id, peer = %peer.address, ?lifetime, "certificate signed");
        Ok(IstioCertificateResponse { cert_chain: issued.to_texts() })
    }
}

/// What a request may ask for beyond a certificate of its own: nothing yet, and to pass over it in silence would give the
/// caller another certificate than it wanted.
fn refuse_metadata(metadata: Option<&Struct>) -> Result<(), Status> {
    for (key, value) in metadata.into_iter().flat_map(|metadata| &metadata.fields) {
        let is_empty = matches!(&value.kind, None | Some(Kind::NullValue(_)))
            || matches!(&value.kind, Some(Kind::StringValue(text)) if text.is_empty());
        if is_empty {
            continue;
        }
        match key.as_str() {
            "ImpersonatedIdentity" => {
                return Err(Status::permission_denied(
                    "metadata.ImpersonatedIdentity: nobody may impersonate here",
                ));
            }
            "CertSigner" => {
                return Err(Status::invalid_argument("metadata.CertSigner: there are no other signers here"));
            }
            _ => {}
        }
    }
    Ok(())
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.sign(request).await.map(Response::new)
    }
}
