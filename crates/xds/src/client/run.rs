//! The gRPC shell of the client: connects, moves messages, comes back with back-off.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use http::uri::PathAndQuery;
use meltemi_envoy::type_url;
use meltemi_runtime::backoff::{Backoff, jitter};
use meltemi_runtime::task;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::session::{Received, Session};
use super::{Command, Event, Options};
use crate::message::{Request, Response};
use crate::{Mode, limits};

/// Starts the client on the current tokio runtime (a current-thread one will do). It ends when the sender of
/// commands is dropped.
///
/// The owner must keep receiving events; it may send commands from the same task, because the client never
/// waits for the owner while commands wait for it.
pub fn run(options: Options) -> (mpsc::Sender<Command>, mpsc::Receiver<Event>) {
    let (commands, command_receiver) = mpsc::channel(limits::OWNER_QUEUE);
    let (event_sender, events) = mpsc::channel(limits::OWNER_QUEUE);
    let runner = Runner {
        session: Session::new(options.mode, options.node.clone()),
        backoff: {
            let (base, longest) = options.back_off.unwrap_or((limits::RECONNECT_BASE, limits::RECONNECT_MAX));
            Backoff::new(base, longest)
        },
        options,
        commands: command_receiver,
        events: event_sender,
        inbox: VecDeque::new(),
        outbox: VecDeque::new(),
    };
    task::spawn("xds client", runner.run()).detach();
    (commands, events)
}

/// The owner is gone.
struct Ended;

type Responses = Pin<Box<dyn Stream<Item = Result<Response, Status>> + Send>>;

/// What the stream loop does next.
enum Step {
    Command(Option<Command>),
    Post,
    Deliver,
    Response(Option<Result<Response, Status>>),
    Closed,
}

impl Step {
    fn mail(is_open: bool, step: Step) -> Step {
        if is_open { step } else { Step::Closed }
    }
}

/// Moves the first message; the caller has seen that there is room, and is the only sender.
fn post<T>(queue: &mut VecDeque<T>, channel: &mpsc::Sender<T>) {
    if let (Some(message), Ok(permit)) = (queue.pop_front(), channel.try_reserve()) {
        permit.send(message);
    }
}

struct Runner {
    session: Session,
    options: Options,
    backoff: Backoff,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    /// Events that the owner has no room for yet. No response is read while there are any.
    inbox: VecDeque<Event>,
    outbox: VecDeque<Request>,
}

impl Runner {
    async fn run(mut self) {
        loop {
            let Ok(reason) = self.connect_and_stream().await else { return };
            self.session.disconnected();
            self.outbox.clear();
            let retry_in = self.backoff.next_pause(jitter());
            // The owner is told, and logs it as it sees fit.
            tracing::debug!(server = %self.options.uri, error = %reason, ?retry_in, "xDS stream lost");
            self.inbox.push_back(Event::Disconnected { reason, retry_in });
            if self.attend(tokio::time::sleep(retry_in)).await.is_err() {
                return;
            }
        }
    }

    /// Serves one connection until it is lost; gives the reason.
    async fn connect_and_stream(&mut self) -> Result<String, Ended> {
        let endpoint = match endpoint(&self.options) {
            Ok(endpoint) => endpoint,
            Err(e) => return Ok(reason(&e)),
        };
        let connector = self.options.connector.clone();
        let connect = async move {
            match connector {
                Some(connector) => endpoint.connect_with_connector(connector).await,
                None => endpoint.connect().await,
            }
        };
        let channel = match self.attend(connect).await? {
            Ok(channel) => channel,
            Err(e) => return Ok(reason(&e)),
        };
        tracing::info!(server = %self.options.uri, mode = %self.options.mode, "xDS stream open");
        let (requests, receiver) = mpsc::channel(limits::STREAM_QUEUE);
        let responses = match open(channel, &self.options, receiver) {
            Ok(responses) => responses,
            Err(reason) => return Ok(reason),
        };
        self.inbox.push_back(Event::Connected);
        self.outbox.extend(self.session.connected());
        self.stream(requests, responses).await
    }

    async fn stream(
        &mut self,
        requests: mpsc::Sender<Request>,
        mut responses: Responses,
    ) -> Result<String, Ended> {
        loop {
            let (has_mail, may_command) = (!self.inbox.is_empty(), self.outbox.len() < limits::MAX_OUTBOX);
            let step = tokio::select! {
                command = self.commands.recv(), if may_command => Step::Command(command),
                room = requests.reserve(), if !self.outbox.is_empty() => Step::mail(room.is_ok(), Step::Post),
                room = self.events.reserve(), if has_mail => Step::mail(room.is_ok(), Step::Deliver),
                response = responses.next(), if !has_mail => Step::Response(response),
            };
            match step {
                Step::Command(command) => {
                    let request = self.command(command.ok_or(Ended)?);
                    self.outbox.extend(request);
                }
                Step::Post => post(&mut self.outbox, &requests),
                Step::Deliver => post(&mut self.inbox, &self.events),
                Step::Response(Some(Ok(response))) => {
                    if let Err(reason) = self.response(response) {
                        return Ok(reason);
                    }
                }
                Step::Response(Some(Err(status))) => return Ok(status_text(&status)),
                Step::Response(None) => return Ok("the server ended the stream".to_owned()),
                Step::Closed if self.events.is_closed() => return Err(Ended),
                // The call has failed: its response says why.
                Step::Closed => self.outbox.clear(),
            }
        }
    }

    /// Runs `work` while commands are taken and events delivered.
    async fn attend<F: Future>(&mut self, work: F) -> Result<F::Output, Ended> {
        tokio::pin!(work);
        loop {
            let has_mail = !self.inbox.is_empty();
            let command = tokio::select! {
                output = &mut work => return Ok(output),
                command = self.commands.recv() => Some(command.ok_or(Ended)?),
                room = self.events.reserve(), if has_mail => room.map(|_| None).map_err(|_| Ended)?,
            };
            match command {
                // Not connected, so the session only notes it.
                Some(command) => drop(self.command(command)),
                None => post(&mut self.inbox, &self.events),
            }
        }
    }

    fn command(&mut self, command: Command) -> Option<Request> {
        match command {
            Command::Subscribe { type_url, interest } => self.session.subscribe(&type_url, interest),
            Command::Ack { type_url, nonce } => self.session.ack(&type_url, &nonce),
            Command::Nack { type_url, nonce, reason } => self.session.nack(&type_url, &nonce, &reason),
        }
    }

    fn response(&mut self, response: Response) -> Result<(), String> {
        self.backoff.reset();
        match self.session.on_response(response).map_err(|e| e.to_string())? {
            Received::Update(update) => self.inbox.push_back(Event::Update(update)),
            Received::Refused(request, reason) => {
                tracing::warn!(server = %self.options.uri, error = %reason, "unreadable xDS response refused");
                self.outbox.push_back(request);
            }
        }
        Ok(())
    }
}

fn endpoint(options: &Options) -> Result<Endpoint, tonic::transport::Error> {
    let mut endpoint = Endpoint::from_shared(options.uri.clone())?;
    let scheme = if options.connector.is_some() { "https" } else { "http" };
    let authority = options.authority.as_deref().map(|authority| format!("{scheme}://{authority}"));
    if let Some(origin) = authority.and_then(|uri| uri.parse().ok()) {
        endpoint = endpoint.origin(origin);
    }
    Ok(endpoint
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(limits::KEEPALIVE_INTERVAL))
        .http2_keep_alive_interval(limits::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// The gRPC method for a type, or for all of them.
fn method(only: Option<&str>, mode: Mode) -> Option<PathAndQuery> {
    let (service, noun) = match only {
        None => ("discovery.v3.AggregatedDiscoveryService", "AggregatedResources"),
        Some(type_url::LISTENER) => ("listener.v3.ListenerDiscoveryService", "Listeners"),
        Some(type_url::CLUSTER) => ("cluster.v3.ClusterDiscoveryService", "Clusters"),
        Some(type_url::ROUTE) => ("route.v3.RouteDiscoveryService", "Routes"),
        Some(type_url::ENDPOINT) => ("endpoint.v3.EndpointDiscoveryService", "Endpoints"),
        Some(type_url::SECRET) => ("secret.v3.SecretDiscoveryService", "Secrets"),
        Some(type_url::EXTENSION_CONFIG) => {
            ("extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs")
        }
        Some(_) => return None,
    };
    let verb = match mode {
        Mode::Sotw => "Stream",
        Mode::Delta => "Delta",
    };
    format!("/envoy.service.{service}/{verb}{noun}").parse().ok()
}

/// A call with the configured headers.
fn call<T>(options: &Options, messages: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(messages);
    for (key, value) in &options.metadata {
        let (key, value) = (key.parse::<AsciiMetadataKey>(), value.parse::<AsciiMetadataValue>());
        if let (Ok(key), Ok(value)) = (key, value) {
            request.metadata_mut().append(key, value);
        }
    }
    request
}

/// The responses of a new stream. The call is made when the first response is awaited: many servers answer,
/// headers included, only after the first request.
fn open(channel: Channel, options: &Options, requests: mpsc::Receiver<Request>) -> Result<Responses, String> {
    let method = method(options.only, options.mode).ok_or("this type has no service of its own")?;
    let mut client = tonic::client::Grpc::new(channel)
        .max_decoding_message_size(limits::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(limits::MAX_MESSAGE_BYTES);
    let requests = ReceiverStream::new(requests);
    Ok(match options.mode {
        Mode::Sotw => {
            let requests = requests.filter_map(async |request| match request {
                Request::Sotw(request) => Some(request),
                Request::Delta(_) => None,
            });
            let request = call(options, requests);
            let call = async move {
                ready(&mut client).await?;
                client.streaming(request, method, ProstCodec::default()).await
            };
            Box::pin(
                stream::once(call).map_ok(tonic::Response::into_inner).try_flatten().map_ok(Response::Sotw),
            )
        }
        Mode::Delta => {
            let requests = requests.filter_map(async |request| match request {
                Request::Delta(request) => Some(request),
                Request::Sotw(_) => None,
            });
            let request = call(options, requests);
            let call = async move {
                ready(&mut client).await?;
                client.streaming(request, method, ProstCodec::default()).await
            };
            Box::pin(
                stream::once(call).map_ok(tonic::Response::into_inner).try_flatten().map_ok(Response::Delta),
            )
        }
    })
}

async fn ready(client: &mut tonic::client::Grpc<Channel>) -> Result<(), Status> {
    client.ready().await.map_err(|error| Status::unavailable(reason(&error)))
}

fn status_text(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// The error with its causes; tonic's own text is only "transport error".
fn reason(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
