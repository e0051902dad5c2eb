//! SDS as a service of its own, as agents offer it on a Unix socket: the same protocol as on the aggregated stream.

use futures::stream::StreamExt;
use meltemi_envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use meltemi_envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use tonic::{Request, Response, Status, Streaming};

use super::Provider;
use super::serve::{Outgoing, Service, delta, sotw};
use crate::{Mode, message};

#[tonic::async_trait]
impl<P: Provider> SecretDiscoveryService for Service<P> {
    type DeltaSecretsStream = Outgoing<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Outgoing<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        let responses = self.start(Mode::Delta, request, |request| Ok(message::Request::Delta(request)))?;
        Ok(Response::new(Box::pin(responses.map(delta))))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let responses = self.start(Mode::Sotw, request, |request| Ok(message::Request::Sotw(request)))?;
        Ok(Response::new(Box::pin(responses.map(sotw))))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("secrets are streamed, so that their rotation reaches the client"))
    }
}
