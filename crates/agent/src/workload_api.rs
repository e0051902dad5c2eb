//! The SPIFFE Workload API, X.509 half, for programs that want the workload's identity themselves: every caller of the
//! socket gets the certificate, and each later one on the same stream.
//!
//! Source: the SPIFFE Workload API standard, sections 4 and 5. JWT-SVIDs are not offered: those calls end with
//! `UNIMPLEMENTED`.

use std::sync::Arc;

use futures::stream::BoxStream;
use meltemi_envoy::spiffe::spiffe_workload_api_server::SpiffeWorkloadApi;
use meltemi_envoy::spiffe::{
    X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse,
};
use meltemi_runtime::task;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::limits::WORKLOAD_QUEUE;
use crate::svid::{Current, Svid};

/// The header that every call must have, so that a request forged through another protocol does not get an answer.
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// The service.
pub(crate) struct WorkloadApi {
    current: Current,
}

impl WorkloadApi {
    pub(crate) fn new(current: Current) -> WorkloadApi {
        WorkloadApi { current }
    }

    /// What `message` makes of the certificate, now and whenever there is a new one.
    fn stream<T, M: Send + 'static>(
        &self,
        request: &Request<T>,
        message: fn(&Svid) -> M,
    ) -> Result<Response<BoxStream<'static, Result<M, Status>>>, Status> {
        if request.metadata().get(SECURITY_HEADER).is_none_or(|value| value != "true") {
            return Err(Status::invalid_argument(format!("the call has no `{SECURITY_HEADER}: true`")));
        }
        let mut current = self.current.clone();
        let (updates, receiver) = mpsc::channel(WORKLOAD_QUEUE);
        let work = async move {
            let mut is_first = true;
            loop {
                if !is_first && current.changed().await.is_err() {
                    return;
                }
                is_first = false;
                let svid: Option<Arc<Svid>> = current.borrow_and_update().clone();
                let Some(svid) = svid else { continue };
                if updates.send(Ok(message(&svid))).await.is_err() {
                    return;
                }
            }
        };
        task::spawn("workload api", work).detach();
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509BundlesStream = BoxStream<'static, Result<X509BundlesResponse, Status>>;
    type FetchX509SVIDStream = BoxStream<'static, Result<X509svidResponse, Status>>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.stream(&request, svids)
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.stream(&request, bundles)
    }
}

fn svids(svid: &Svid) -> X509svidResponse {
    let key = svid.key.to_der();
    X509svidResponse {
        svids: vec![X509svid {
            spiffe_id: svid.id.to_string(),
            x509_svid: joined(&svid.chain),
            x509_svid_key: key.secret_der().to_vec().into(),
            bundle: joined(&svid.roots),
            hint: String::new(),
        }],
        ..Default::default()
    }
}

fn bundles(svid: &Svid) -> X509BundlesResponse {
    let domain = format!("spiffe://{}", svid.id.trust_domain());
    X509BundlesResponse { bundles: [(domain, joined(&svid.roots))].into(), ..Default::default() }
}

/// Certificates one after the other, as the standard has them.
fn joined(certificates: &[CertificateDer<'_>]) -> bytes::Bytes {
    certificates.iter().flat_map(|der| der.iter().copied()).collect()
}
