//! Gets a certificate: makes the key, asks Istio's certificate service, and takes the answer apart. Leaves out when.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use meltemi_envoy::istio::v1::auth::IstioCertificateRequest;
use meltemi_envoy::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use meltemi_identity::{Csr, Key, KeyKind, SpiffeId};
use meltemi_runtime::backoff::jitter;
use meltemi_runtime::task;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use crate::limits::CERTIFICATE_TIMEOUT;
use crate::proof::Proof;
use crate::svid::Svid;
use crate::tls::{Connector, ControlPlane};

/// Who asks whom for what.
#[derive(Debug)]
pub(crate) struct CertificateClient {
    pub(crate) control_plane: ControlPlane,
    /// What is expected; the authority decides.
    pub(crate) id: SpiffeId,
    pub(crate) key_kind: KeyKind,
    /// Zero leaves it to the authority.
    pub(crate) ttl: Duration,
    pub(crate) proof: Option<Proof>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The control plane does not know the caller; without another proof it never will.
    #[error("refused: {0}")]
    Refused(String),
    /// Anything else, which may pass.
    #[error("{0}")]
    Passing(String),
}

impl CertificateClient {
    /// One attempt, with the current certificate as proof or else what there was before it.
    pub(crate) async fn get(&self, current: Option<Arc<Svid>>, attempt: &Attempt) -> Result<Svid, Failure> {
        let passing = |e: &dyn std::fmt::Display| Failure::Passing(e.to_string());
        let request = self.request(attempt, current.as_deref())?;
        let uri = format!("https://{}:{}", self.control_plane.host, self.control_plane.address.port());
        let endpoint = Endpoint::from_shared(uri).map_err(|e| passing(&e))?;
        let connector = Connector { control_plane: self.control_plane.clone(), svid: current };
        let call = async {
            let channel = endpoint
                .connect_with_connector(connector)
                .await
                .map_err(|error| Failure::Passing(with_causes(&error)))?;
            let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await;
            answer.map_err(|status| self.failure(&status))
        };
        let answer = timeout(CERTIFICATE_TIMEOUT, call).await;
        let answer =
            answer.map_err(|_| Failure::Passing("the control plane does not answer".to_owned()))??;
        let key = Key::from_pem(attempt.key.to_pem().as_bytes()).map_err(|e| passing(&e))?;
        let texts = answer.into_inner().cert_chain;
        let svid = Svid::from_answer(key, &texts, SystemTime::now(), jitter()).map_err(|e| passing(&e))?;
        if svid.id != self.id {
            tracing::warn!(asked = %self.id, given = %svid.id, "the control plane knows this workload by another identity");
        }
        Ok(svid)
    }

    fn request(
        &self,
        attempt: &Attempt,
        current: Option<&Svid>,
    ) -> Result<Request<IstioCertificateRequest>, Failure> {
        let mut request = Request::new(IstioCertificateRequest {
            csr: attempt.csr.clone(),
            validity_duration: self.ttl.as_secs().try_into().unwrap_or(i64::MAX),
            metadata: None,
        });
        let has_certificate = current.is_some_and(|svid| svid.is_good(SystemTime::now()));
        if let Some(proof) = self.proof.as_ref().filter(|_| !has_certificate) {
            let authorization = proof.authorization().map_err(|reason| self.refused(reason))?;
            request.metadata_mut().insert("authorization", authorization);
        }
        Ok(request)
    }

    /// Not known to the control plane with what there is; a token may be replaced, anything else stays as it is.
    fn refused(&self, reason: String) -> Failure {
        match self.proof.as_ref().is_some_and(Proof::may_be_renewed) {
            true => Failure::Passing(reason),
            false => Failure::Refused(reason),
        }
    }

    fn failure(&self, status: &Status) -> Failure {
        let text = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => self.refused(text),
            _ => Failure::Passing(text),
        }
    }

    /// A key and the request for it. It is kept until it succeeds: a credential is good for one key only, and the answer
    /// to an earlier attempt may have been lost.
    pub(crate) async fn attempt(&self) -> Result<Attempt, Failure> {
        let (kind, id) = (self.key_kind, self.id.clone());
        let made = task::blocking("make key", move || {
            let key = Key::generate(kind)?;
            let csr = Csr::make(&key, &id)?;
            Ok::<_, meltemi_identity::Error>(Attempt { key, csr })
        });
        let made = made.await.map_err(|failure| Failure::Passing(failure.to_string()))?;
        made.map_err(|error| Failure::Passing(error.to_string()))
    }
}

/// A key that has no certificate yet.
#[derive(Debug)]
pub(crate) struct Attempt {
    key: Key,
    csr: String,
}

/// The error with its causes; tonic's own text is only "transport error".
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
