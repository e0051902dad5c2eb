//! The services of single types beside the aggregated one: `StreamRoutes`, `DeltaRoutes` and so on. The protocol is the same;
//! a stream carries one type, and its requests need not name it.
//!
//! No stubs are generated for them: they differ in nothing but their names.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::StreamExt;
use meltemi_envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use meltemi_envoy::type_url;
use tonic::body::Body;
use tonic::codegen::Service as Handler;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::Provider;
use super::serve::{Outgoing, Service, delta, sotw};
use crate::message::Request;
use crate::{Mode, limits};

/// The service of one type.
pub(super) struct ByType<P, const KIND: usize> {
    service: Service<P>,
}

/// The types that have a service, in the order of `KIND`.
const TYPES: [&str; 4] = [type_url::LISTENER, type_url::ROUTE, type_url::CLUSTER, type_url::ENDPOINT];

impl<P> NamedService for ByType<P, 0> {
    const NAME: &'static str = "envoy.service.listener.v3.ListenerDiscoveryService";
}

impl<P> NamedService for ByType<P, 1> {
    const NAME: &'static str = "envoy.service.route.v3.RouteDiscoveryService";
}

impl<P> NamedService for ByType<P, 2> {
    const NAME: &'static str = "envoy.service.cluster.v3.ClusterDiscoveryService";
}

impl<P> NamedService for ByType<P, 3> {
    const NAME: &'static str = "envoy.service.endpoint.v3.EndpointDiscoveryService";
}

impl<P, const KIND: usize> ByType<P, KIND> {
    pub(super) fn new(service: Service<P>) -> ByType<P, KIND> {
        ByType { service }
    }
}

impl<P, const KIND: usize> Clone for ByType<P, KIND> {
    fn clone(&self) -> ByType<P, KIND> {
        ByType { service: self.service.clone() }
    }
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

impl<P: Provider, const KIND: usize> Handler<http::Request<Body>> for ByType<P, KIND> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let handler = Streams { service: self.service.clone(), type_url: TYPES[KIND] };
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            if method.starts_with("Stream") {
                let codec = ProstCodec::<DiscoveryResponse, DiscoveryRequest>::default();
                return Ok(bounded(Grpc::new(codec)).streaming(handler, request).await);
            }
            if method.starts_with("Delta") {
                let codec = ProstCodec::<DeltaDiscoveryResponse, DeltaDiscoveryRequest>::default();
                return Ok(bounded(Grpc::new(codec)).streaming(handler, request).await);
            }
            Ok(Status::unimplemented("resources are streamed, so that their changes reach the client")
                .into_http())
        })
    }
}

fn bounded<T: tonic::codec::Codec>(grpc: Grpc<T>) -> Grpc<T> {
    grpc.max_decoding_message_size(limits::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(limits::MAX_MESSAGE_BYTES)
}

/// What both variants of a call do.
struct Streams<P> {
    service: Service<P>,
    type_url: &'static str,
}

impl<P> Streams<P> {
    /// A request of the stream's type, which it may leave out.
    fn typed(own: &'static str, of_request: &mut String) -> Result<(), Status> {
        if of_request.is_empty() {
            own.clone_into(of_request);
        }
        match of_request == own {
            true => Ok(()),
            false => Err(Status::invalid_argument(format!("this stream carries {own}"))),
        }
    }
}

impl<P: Provider> StreamingService<DiscoveryRequest> for Streams<P> {
    type Response = DiscoveryResponse;
    type ResponseStream = Outgoing<DiscoveryResponse>;
    type Future = Answer<tonic::Response<Self::ResponseStream>>;

    fn call(&mut self, request: tonic::Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let (service, own) = (self.service.clone(), self.type_url);
        Box::pin(async move {
            let responses = service.start(Mode::Sotw, request, move |mut request: DiscoveryRequest| {
                Streams::<P>::typed(own, &mut request.type_url)?;
                Ok(Request::Sotw(request))
            })?;
            Ok(tonic::Response::new(Box::pin(responses.map(sotw)) as Outgoing<_>))
        })
    }
}

impl<P: Provider> StreamingService<DeltaDiscoveryRequest> for Streams<P> {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = Outgoing<DeltaDiscoveryResponse>;
    type Future = Answer<tonic::Response<Self::ResponseStream>>;

    fn call(&mut self, request: tonic::Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let (service, own) = (self.service.clone(), self.type_url);
        Box::pin(async move {
            let responses =
                service.start(Mode::Delta, request, move |mut request: DeltaDiscoveryRequest| {
                    Streams::<P>::typed(own, &mut request.type_url)?;
                    Ok(Request::Delta(request))
                })?;
            Ok(tonic::Response::new(Box::pin(responses.map(delta)) as Outgoing<_>))
        })
    }
}
