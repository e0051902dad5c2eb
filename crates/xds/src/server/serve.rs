//! The gRPC shell of the server: one task per client between its request stream and its response stream.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{Stream as Responses, StreamExt};
use meltemi_envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use meltemi_envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use meltemi_envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use meltemi_runtime::drain::Signal;
use meltemi_runtime::task;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Status, Streaming};

use super::by_type::ByType;
use super::stream::{Action, Event, Stream};
use super::{Client, Peer, Proof, Provider, Refusal};
use crate::message::{Request, Response};
use crate::{Config, Mode, limits};

/// The server cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("serve xDS")]
pub struct Error(#[from] tonic::transport::Error);

/// Serves ADS, SDS and the services of single types, both variants, in plaintext on the listener until the drain starts; then ends all streams with
/// `UNAVAILABLE`, on which clients reconnect (to a successor, perhaps).
///
/// # Errors
/// If the transport fails as a whole. A failing client never does that.
pub async fn serve<P: Provider>(listener: TcpListener, service: Service<P>) -> Result<(), Error> {
    let connections = TcpListenerStream::new(listener).map(|connection| {
        connection.inspect(|connection| {
            // Refused only on a connection that is already lost.
            let _ = connection.set_nodelay(true);
        })
    });
    serve_on(connections, service, Routes::default()).await
}

/// As [`serve`], on connections that the caller accepts, and with other gRPC services beside. A connection whose
/// information is a [`Peer`] is taken as that; any other as plaintext.
///
/// # Errors
/// If the transport fails as a whole. A failing client never does that.
pub async fn serve_on<P, I, IO>(connections: I, service: Service<P>, others: Routes) -> Result<(), Error>
where
    P: Provider,
    I: Responses<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let mut drain = service.drain.clone();
    let ads = AggregatedDiscoveryServiceServer::new(service.clone())
        .max_decoding_message_size(limits::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(limits::MAX_MESSAGE_BYTES);
    let sds = SecretDiscoveryServiceServer::new(service.clone())
        .max_decoding_message_size(limits::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(limits::MAX_MESSAGE_BYTES);
    Server::builder()
        .max_concurrent_streams(limits::MAX_STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(limits::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(limits::KEEPALIVE_TIMEOUT))
        .add_routes(by_type(others.add_service(ads).add_service(sds), &service))
        .serve_with_incoming_shutdown(connections, async move { drain.started().await })
        .await?;
    Ok(())
}

/// With the services of single types.
fn by_type<P: Provider>(routes: Routes, service: &Service<P>) -> Routes {
    routes
        .add_service(ByType::<P, 0>::new(service.clone()))
        .add_service(ByType::<P, 1>::new(service.clone()))
        .add_service(ByType::<P, 2>::new(service.clone()))
        .add_service(ByType::<P, 3>::new(service.clone()))
}

/// The gRPC services of one provider. Clones count their clients together.
pub struct Service<P> {
    provider: Arc<P>,
    clients: Arc<AtomicU64>,
    places: Arc<Semaphore>,
    drain: Signal,
}

impl<P> Clone for Service<P> {
    fn clone(&self) -> Service<P> {
        Service {
            provider: Arc::clone(&self.provider),
            clients: Arc::clone(&self.clients),
            places: Arc::clone(&self.places),
            drain: self.drain.clone(),
        }
    }
}

pub(super) type Outgoing<T> = Pin<Box<dyn Responses<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl<P: Provider> AggregatedDiscoveryService for Service<P> {
    type StreamAggregatedResourcesStream = Outgoing<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Outgoing<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<DiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::StreamAggregatedResourcesStream>, Status> {
        let responses = self.start(Mode::Sotw, request, |request| Ok(Request::Sotw(request)))?.map(sotw);
        Ok(tonic::Response::new(Box::pin(responses)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let responses = self.start(Mode::Delta, request, |request| Ok(Request::Delta(request)))?.map(delta);
        Ok(tonic::Response::new(Box::pin(responses)))
    }
}

impl<P: Provider> Service<P> {
    /// Serves what the provider gives until the drain starts. All listeners of a provider share one service, so that its
    /// clients have ids of their own.
    pub fn new(provider: Arc<P>, drain: Signal) -> Service<P> {
        let places = Arc::new(Semaphore::new(limits::MAX_CLIENTS));
        Service { provider, clients: Arc::default(), places, drain }
    }

    pub(super) fn start<R: Send + 'static>(
        &self,
        mode: Mode,
        request: tonic::Request<Streaming<R>>,
        wrap: impl Fn(R) -> Result<Request, Status> + Send + 'static,
    ) -> Result<ReceiverStream<Result<Response, Status>>, Status> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{} clients are connected", limits::MAX_CLIENTS))
        })?;
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_else(|| Peer {
            address: request.remote_addr().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))),
            proof: Proof::Plaintext,
        });
        let requests = Box::pin(request.into_inner().map(move |message| message.and_then(&wrap)));
        let (responses, receiver) = mpsc::channel(limits::STREAM_QUEUE);
        let id = self.clients.fetch_add(1, Ordering::Relaxed) + 1;
        let conversation = Conversation {
            provider: Arc::clone(&self.provider),
            requests,
            responses,
            drain: self.drain.clone(),
        };
        let conversation = async move {
            conversation.run(id, peer, mode).await;
            drop(place);
        };
        task::spawn("xds stream", conversation).detach();
        Ok(ReceiverStream::new(receiver))
    }
}

pub(super) fn sotw(response: Result<Response, Status>) -> Result<DiscoveryResponse, Status> {
    match response? {
        Response::Sotw(response) => Ok(response),
        Response::Delta(_) => Err(Status::internal("a delta response on a state-of-the-world stream")),
    }
}

pub(super) fn delta(response: Result<Response, Status>) -> Result<DeltaDiscoveryResponse, Status> {
    match response? {
        Response::Delta(response) => Ok(response),
        Response::Sotw(_) => Err(Status::internal("a state-of-the-world response on a delta stream")),
    }
}

/// Both directions of one client's stream.
struct Conversation<P> {
    provider: Arc<P>,
    requests: Pin<Box<dyn Responses<Item = Result<Request, Status>> + Send>>,
    responses: mpsc::Sender<Result<Response, Status>>,
    drain: Signal,
}

/// Why a conversation ends; a status is sent to the client.
enum End {
    Gone,
    Status(Status),
}

impl<P: Provider> Conversation<P> {
    async fn run(mut self, id: u64, peer: Peer, mode: Mode) {
        let first = tokio::select! {
            first = self.requests.next() => first,
            () = self.drain.started() => None,
        };
        let first = match first {
            Some(Ok(first)) => first,
            Some(Err(status)) => return drop(self.responses.send(Err(status)).await),
            None => return,
        };
        let node = first.node().cloned().unwrap_or_default();
        let Peer { address: peer, proof } = peer;
        let client = Client { id, node, peer, proof, mode };
        tokio::select! {
            () = self.provider.ready() => {}
            () = self.drain.started() => return,
        }
        let configs = match admit(Arc::clone(&self.provider), client.clone()).await {
            Ok(configs) => configs,
            Err(status) => {
                tracing::warn!(node = %client.node.id, %peer, error = status.message(), "xDS client refused");
                let _ = self.responses.send(Err(status)).await;
                return;
            }
        };
        tracing::info!(node = %client.node.id, %peer, %mode, "xDS client connected");
        let end = self.converse(&client, first, configs).await;
        self.provider.disconnected(&client);
        tracing::info!(node = %client.node.id, %peer, "xDS client gone");
        if let End::Status(status) = end {
            let _ = self.responses.send(Err(status)).await;
        }
    }

    async fn converse(
        &mut self,
        client: &Client,
        first: Request,
        mut configs: watch::Receiver<Arc<Config>>,
    ) -> End {
        let mut stream = Stream::new(client.mode, Arc::clone(&configs.borrow_and_update()));
        let mut event = Event::Request(first);
        let mut wait_over: Option<Instant> = None;
        loop {
            if let Event::Request(request) = &event {
                self.provider.requested(client, request);
            }
            for action in stream.on(event) {
                if let Err(end) = self.act(client, action).await {
                    return end;
                }
            }
            wait_over = stream
                .is_waiting()
                .then(|| wait_over.unwrap_or_else(|| Instant::now() + limits::MAX_PHASE_WAIT));
            event = match self.next(&mut configs, wait_over).await {
                Ok(event) => event,
                Err(end) => return end,
            };
            if matches!(event, Event::WaitOver) {
                wait_over = None;
            }
        }
    }

    async fn next(
        &mut self,
        configs: &mut watch::Receiver<Arc<Config>>,
        wait_over: Option<Instant>,
    ) -> Result<Event, End> {
        let timer = async {
            match wait_over {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => pending().await,
            }
        };
        tokio::select! {
            request = self.requests.next() => match request {
                Some(Ok(request)) => Ok(Event::Request(request)),
                // Of a client that broke off nobody hears this; of one whose message cannot be read it does.
                Some(Err(status)) => Err(End::Status(status)),
                None => Err(End::Gone),
            },
            changed = configs.changed() => match changed {
                Ok(()) => Ok(Event::Config(Arc::clone(&configs.borrow_and_update()))),
                Err(_) => Err(End::Status(Status::unavailable("the configuration source is gone"))),
            },
            () = timer => Ok(Event::WaitOver),
            () = self.drain.started() => Err(End::Status(Status::unavailable("the server is shutting down"))),
        }
    }

    /// A client that does not read makes only its own task wait here; the keep-alive ends a dead one.
    async fn act(&mut self, client: &Client, action: Action) -> Result<(), End> {
        let (provider, node) = (&self.provider, &client.node.id);
        match action {
            Action::Send(response, sent) => {
                let (type_url, version, generation) = (&sent.type_url, &sent.version, &sent.generation);
                tracing::debug!(%node, %type_url, %version, %generation, resources = sent.resources, "xDS push");
                provider.sent(client, &sent);
                self.responses.send(Ok(response)).await.map_err(|_| End::Gone)
            }
            Action::Acked(answer) => {
                provider.acked(client, &answer);
                Ok(())
            }
            Action::Rejected(rejection) => {
                let (type_url, version) = (&rejection.answer.type_url, &rejection.answer.version);
                tracing::warn!(%node, %type_url, %version, error = %rejection.reason, "xDS update refused");
                provider.rejected(client, &rejection);
                Ok(())
            }
            Action::Stale(type_url) => {
                provider.stale(client, &type_url);
                Ok(())
            }
            Action::Close(reason) => {
                tracing::warn!(%node, error = %reason, "xDS stream closed");
                Err(End::Status(Status::invalid_argument(reason)))
            }
        }
    }
}

/// Making a configuration for a new kind of client takes its time, which must not be that of others.
async fn admit<P: Provider>(
    provider: Arc<P>,
    client: Client,
) -> Result<watch::Receiver<Arc<Config>>, Status> {
    let admitted = task::blocking("xds connect", move || provider.connect(&client)).await;
    let configs = admitted.map_err(|failure| Status::internal(failure.to_string()))?;
    configs.map_err(|refusal| match refusal {
        Refusal::Invalid(reason) => Status::invalid_argument(reason),
        Refusal::Denied(reason) => Status::permission_denied(reason),
    })
}
