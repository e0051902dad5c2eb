//! A simulated proxy: it subscribes as Envoy does, acknowledges everything at once, and notes when.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use bytes::{Buf, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use meltemi_envoy::config::core::v3::Node;
use meltemi_envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use meltemi_envoy::type_url;
use prost::Message;
use tokio::net::TcpStream;

use crate::wire::{self, Envelope, PREFIX};
use crate::world;

/// The flow control windows of a client, as Envoy's own are far larger than the defaults.
const WINDOW: u32 = 16 << 20;

/// The types, in the order of the counters.
pub(crate) const TYPES: [&str; 4] =
    [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER, type_url::ROUTE];

/// What a client has seen, shared with who measures.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Updates by type.
    updates: [AtomicU64; 4],
    /// When the latest update of each type was acknowledged, in microseconds since the start of the run.
    acked_at: [AtomicU64; 4],
    bytes: AtomicU64,
}

impl Seen {
    pub(crate) fn updates(&self, kind: usize) -> u64 {
        self.updates[kind].load(Ordering::Acquire)
    }

    pub(crate) fn acked_at(&self, kind: usize) -> u64 {
        self.acked_at[kind].load(Ordering::Acquire)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Which client.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) index: usize,
    pub(crate) is_delta: bool,
    /// The service that it is a replica of.
    pub(crate) service: usize,
    pub(crate) began: Instant,
}

impl Identity {
    fn node(&self) -> Node {
        let text = |text: &str| prost_types::Value {
            kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
        };
        let (namespace, index) = (world::namespace(self.service), self.index);
        let app = prost_types::Struct {
            fields: [("app".to_owned(), text(&format!("service-{}", self.service)))].into(),
        };
        let labels = prost_types::Value { kind: Some(prost_types::value::Kind::StructValue(app)) };
        let facts = [("NAMESPACE", text(&namespace)), ("LABELS", labels)];
        let fields = facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let (high, low) = (index / 250, index % 250);
        Node {
            id: format!("sidecar~10.200.{high}.{}~client-{index}.{namespace}~cluster.local", low + 1),
            metadata: Some(prost_types::Struct { fields }),
            ..Default::default()
        }
    }
}

/// Connects and serves the stream until it ends.
pub(crate) async fn run(address: SocketAddr, identity: Identity, seen: Arc<Seen>) -> anyhow::Result<()> {
    let tcp = TcpStream::connect(address).await.context("connect")?;
    tcp.set_nodelay(true)?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let (sender, connection) = builder.handshake::<_, Bytes>(tcp).await?;
    let connection = tokio::spawn(connection);
    let (requests, responses) = open(sender, identity.is_delta).await?;
    let mut client = Client { identity, seen, requests, asked: BTreeSet::new(), routes: BTreeSet::new() };
    let outcome = client.converse(responses).await;
    connection.abort();
    outcome
}

async fn open(
    sender: SendRequest<Bytes>,
    is_delta: bool,
) -> anyhow::Result<(SendStream<Bytes>, h2::client::ResponseFuture)> {
    let mut sender = sender.ready().await?;
    let verb = if is_delta { "Delta" } else { "Stream" };
    let path = format!("/envoy.service.discovery.v3.AggregatedDiscoveryService/{verb}AggregatedResources");
    let request = http::Request::post(format!("http://control-plane{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, stream) = sender.send_request(request, false)?;
    Ok((stream, response))
}

struct Client {
    identity: Identity,
    seen: Arc<Seen>,
    requests: SendStream<Bytes>,
    /// Clusters whose endpoints were asked for.
    asked: BTreeSet<String>,
    routes: BTreeSet<String>,
}

impl Client {
    async fn converse(&mut self, responses: h2::client::ResponseFuture) -> anyhow::Result<()> {
        self.ask(type_url::CLUSTER, &BTreeSet::new(), None)?;
        self.ask(type_url::LISTENER, &BTreeSet::new(), None)?;
        let response = responses.await?;
        anyhow::ensure!(response.status() == 200, "status {}", response.status());
        let mut body = response.into_body();
        let mut buffer = BytesMut::new();
        while let Some(message) = next(&mut body, &mut buffer).await? {
            self.take(message)?;
        }
        anyhow::bail!("the stream has ended")
    }

    fn take(&mut self, message: Bytes) -> anyhow::Result<()> {
        let length = message.len() + PREFIX;
        let envelope = Envelope::decode(message.clone())?;
        let kind = TYPES.iter().position(|kind| *kind == envelope.type_url).context("a known type")?;
        self.answer(kind, &envelope, message)?;
        self.seen.bytes.fetch_add(u64::try_from(length)?, Ordering::Relaxed);
        let now = u64::try_from(self.identity.began.elapsed().as_micros())?;
        self.seen.acked_at[kind].store(now, Ordering::Release);
        self.seen.updates[kind].fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn answer(&mut self, kind: usize, envelope: &Envelope, message: Bytes) -> anyhow::Result<()> {
        let is_delta = self.identity.is_delta;
        match TYPES[kind] {
            type_url::CLUSTER => {
                self.acknowledge(type_url::CLUSTER, envelope, &BTreeSet::new())?;
                let names = wire::names(message, is_delta, type_url::CLUSTER)?;
                let names = names.into_iter().filter(|name| name.starts_with("outbound|"));
                let news: BTreeSet<String> = names.filter(|name| !self.asked.contains(name)).collect();
                if !news.is_empty() {
                    self.asked.extend(news.iter().cloned());
                    let wanted = if is_delta { &news } else { &self.asked.clone() };
                    self.ask(type_url::ENDPOINT, wanted, None)?;
                }
            }
            type_url::LISTENER => {
                self.acknowledge(type_url::LISTENER, envelope, &BTreeSet::new())?;
                let names = wire::names(message, is_delta, type_url::LISTENER)?;
                if !names.is_subset(&self.routes) {
                    self.routes.extend(names);
                    self.ask(type_url::ROUTE, &self.routes.clone(), None)?;
                }
            }
            type_url::ENDPOINT => self.acknowledge(type_url::ENDPOINT, envelope, &self.asked.clone())?,
            other => self.acknowledge(other, envelope, &self.routes.clone())?,
        }
        Ok(())
    }

    fn acknowledge(
        &mut self,
        kind: &str,
        envelope: &Envelope,
        names: &BTreeSet<String>,
    ) -> anyhow::Result<()> {
        let names = if self.identity.is_delta { &BTreeSet::new() } else { names };
        self.ask(kind, names, Some(envelope))
    }

    /// A request; with an update it answers that one.
    fn ask(&mut self, kind: &str, names: &BTreeSet<String>, of: Option<&Envelope>) -> anyhow::Result<()> {
        let node = (kind == type_url::CLUSTER && of.is_none()).then(|| self.identity.node());
        let (nonce, version) = of.map_or_else(Default::default, |e| (e.nonce.clone(), e.version.clone()));
        let names = names.iter().cloned().collect();
        let type_url = kind.to_owned();
        let bytes = if self.identity.is_delta {
            wire::framed(&DeltaDiscoveryRequest {
                node,
                type_url,
                resource_names_subscribe: names,
                response_nonce: nonce,
                ..Default::default()
            })
        } else {
            wire::framed(&DiscoveryRequest {
                version_info: version,
                node,
                resource_names: names,
                type_url,
                response_nonce: nonce,
                ..Default::default()
            })
        };
        self.requests.send_data(bytes, false).context("send a request")
    }
}

/// The next message of a stream.
async fn next(body: &mut RecvStream, buffer: &mut BytesMut) -> anyhow::Result<Option<Bytes>> {
    loop {
        if buffer.len() >= PREFIX {
            let length = (&buffer[1..PREFIX]).get_u32() as usize;
            if buffer.len() >= PREFIX + length {
                buffer.advance(PREFIX);
                return Ok(Some(buffer.split_to(length).freeze()));
            }
        }
        let Some(chunk) = body.data().await else { return Ok(None) };
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        buffer.extend_from_slice(&chunk);
    }
}
