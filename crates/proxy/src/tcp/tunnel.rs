//! `tunneling_config`: the bytes of a connection go through an HTTP tunnel that is asked for with CONNECT or POST.
//!
//! Owns the request, its answer, and the relay through the stream. Source: Envoy's `HttpUpstream` of the TCP proxy.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;

use bytes::Bytes;
use http::Method;
use meltemi_compile::log_filter::LogType;
use meltemi_compile::metadata_match::MetadataMatch;
use meltemi_compile::program::{TUNNEL_RESPONSE_HEADERS, TUNNEL_RESPONSE_TRAILERS, Tunneling};
use meltemi_http::client::{ClientExchange, RequestSender, ResponseReceiver};
use meltemi_http::{ClientError, DrainSignal, Frame, Headers, Io, RequestHead, ResponseHead, Text, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::flow::{Broken, Side};
use super::relay::{self, Clock, End, Event};
use super::{Proxy, Refusal, attempted, exhausted};
use crate::access_log::format::{Missing, render};
use crate::record::{FilterObject, RequestRecord, ResponseFlags, Sharing};
use crate::stream::edits;
use crate::upstream::Cluster;
use crate::upstream::pool::Lease;
use crate::upstream::transport::TransportOptions;

/// Bytes that are read from the client at once.
const READ_BYTES: usize = 16 << 10;

/// Bytes that went each way.
#[derive(Debug, Default)]
struct Moved {
    received: Cell<u64>,
    sent: Cell<u64>,
    activity: Cell<Option<Instant>>,
}

impl Moved {
    fn add(&self, counter: &Cell<u64>, bytes: usize) {
        counter.set(counter.get() + bytes as u64);
        self.activity.set(Some(Instant::now()));
    }
}

impl Proxy {
    /// Serves a connection through a tunnel to its end.
    pub(super) async fn serve_tunnel(
        &self,
        tunneling: &Tunneling,
        client: &mut Io,
        max_duration: Option<Instant>,
        drain: DrainSignal,
        record: &mut RequestRecord,
    ) {
        let generation = self.worker.generation();
        let Some((cluster, metadata)) = self.cluster(&generation, record) else { return };
        // Nobody says how long an answer may take; the client's patience is that of an idle connection.
        let idle = self.settings.idle_timeout.map(|idle| Instant::now() + idle);
        let limit = [max_duration, idle].into_iter().flatten().min();
        for number in 1..=self.settings.max_connect_attempts {
            let leased = relay::until(limit, self.lease_tunnel(cluster, metadata, record)).await;
            let mut lease = match leased {
                Some(Ok(lease)) => lease,
                Some(Err(Refusal::Final)) => return,
                Some(Err(Refusal::Again)) => {
                    self.pause(number).await;
                    continue;
                }
                None => return self.ended(&End::late(limit, max_duration), record),
            };
            let mut exchange = lease.exchange();
            match relay::until(limit, self.open(tunneling, &mut exchange, record)).await {
                Some(Ok(())) => {
                    return self.relay_tunnel(client, exchange, max_duration, drain, record).await;
                }
                Some(Err(reason)) => {
                    record.upstream_failure = Some(reason.into());
                    record.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                }
                None => return self.ended(&End::late(limit, max_duration), record),
            }
            self.pause(number).await;
        }
        exhausted(cluster, record);
    }

    async fn lease_tunnel(
        &self,
        cluster: &Rc<Cluster>,
        metadata: Option<&MetadataMatch>,
        record: &mut RequestRecord,
    ) -> Result<Lease, Refusal> {
        let host = self.pick(cluster, metadata, record).ok_or(Refusal::Final)?;
        let options = TransportOptions { record: Some(record), request: None };
        let leased = host.pool.lease(Version::Http11, 0, options).await;
        let lease = attempted(cluster, &host, leased, record)?;
        record.upstream_local = lease.local_address();
        Ok(lease)
    }

    /// Asks for the tunnel; an error says why there is none.
    async fn open(
        &self,
        tunneling: &Tunneling,
        exchange: &mut ClientExchange<'_>,
        record: &mut RequestRecord,
    ) -> Result<(), String> {
        let broken = |error: ClientError| error.to_string();
        exchange.send.head(request_head(tunneling, record), false).await.map_err(broken)?;
        exchange.send.flush().await.map_err(broken)?;
        let head = loop {
            let head = exchange.recv.head().await.map_err(broken)?;
            if !head.status.is_informational() {
                break head;
            }
        };
        if tunneling.propagates_headers {
            let status = head.status.as_str();
            leave(record, TUNNEL_RESPONSE_HEADERS, header_map(Some(status), &head.headers));
        }
        accepts(&head).then_some(()).ok_or_else(|| format!("tunnel_response:{}", head.status.as_str()))
    }

    async fn relay_tunnel(
        &self,
        client: &mut Io,
        exchange: ClientExchange<'_>,
        max_duration: Option<Instant>,
        mut drain: DrainSignal,
        record: &mut RequestRecord,
    ) {
        if self.settings.log_options.on_connected {
            self.log(record, LogType::TcpUpstreamConnected);
        }
        let moved = Moved::default();
        let ClientExchange { send, recv } = exchange;
        let mut trailers = None;
        let end = {
            let (from_client, to_client) = tokio::io::split(client);
            let up = ascend(from_client, send, &moved);
            let down = descend(recv, to_client, &moved, &mut trailers);
            let mut both = pin!(async { tokio::try_join!(up, down) });
            let mut clock = Clock::new(self.limits(max_duration, &record.connection));
            loop {
                let event = clock.race(both.as_mut(), &mut drain, || moved.activity.get()).await;
                record.bytes_received = moved.received.get();
                record.bytes_sent = moved.sent.get();
                match event {
                    Ok(Event::Flush) => self.log(record, LogType::TcpPeriodic),
                    // Nobody is awaited: the proxy at the other end of a tunnel speaks HTTP.
                    Ok(Event::PeerKnown) => {}
                    Ok(Event::Ended(end)) => break end,
                    Err(Ok(_)) => break End::Closed,
                    Err(Err(side)) => break End::Broken(Broken { side, is_reset: false }),
                }
            }
        };
        let propagates = self.settings.tunneling.as_ref().is_some_and(|config| config.propagates_trailers);
        if let Some(trailers) = trailers.filter(|_| propagates) {
            leave(record, TUNNEL_RESPONSE_TRAILERS, header_map(None, &trailers));
        }
        self.ended(&end, record);
    }
}

/// 2xx, as RFC 9110 has it for CONNECT.
fn accepts(head: &ResponseHead) -> bool {
    head.status.is_success()
}

fn request_head(tunneling: &Tunneling, record: &RequestRecord) -> RequestHead {
    let mut authority = Vec::new();
    let view = record.connection_view(LogType::NotSet);
    render(&tunneling.hostname, &view, Missing::Dash, &mut authority);
    let (method, path) = match &tunneling.post_path {
        Some(path) => (Method::POST, &**path),
        None => (Method::CONNECT, ""),
    };
    let mut head = RequestHead::new(method, path);
    head.authority = Some(Text::from(String::from_utf8_lossy(&authority).into_owned()));
    if tunneling.post_path.is_some() {
        head.scheme = Some(Text::from("http"));
    }
    edits::add(&mut head.headers, &tunneling.headers, record, None);
    head
}

/// Leaves headers in the filter state, as the JSON of `envoy.config.core.v3.HeaderMap`, which is how they are logged.
fn leave(record: &mut RequestRecord, key: &str, text: String) {
    let object = FilterObject { text: text.into(), is_hashable: false, sharing: Sharing::None };
    record.state.set_object(key.into(), object);
}

fn header_map(status: Option<&str>, headers: &Headers) -> String {
    let status = status.map(|status| serde_json::json!({"key": ":status", "value": status}));
    let fields = headers.iter().map(|(name, value)| {
        serde_json::json!({"key": name.as_str(), "value": String::from_utf8_lossy(value.as_bytes())})
    });
    serde_json::json!({"headers": status.into_iter().chain(fields).collect::<Vec<_>>()}).to_string()
}

/// From the client into the tunnel.
async fn ascend(mut from: ReadHalf<&mut Io>, mut send: RequestSender<'_>, moved: &Moved) -> Result<(), Side> {
    let mut buffer = bytes::BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        let count = from.read_buf(&mut buffer).await.map_err(|_| Side::Client)?;
        moved.add(&moved.received, count);
        let is_end = count == 0;
        let piece = if is_end { Bytes::new() } else { buffer.split().freeze() };
        send.data(piece, is_end).await.map_err(|_| Side::Upstream)?;
        send.flush().await.map_err(|_| Side::Upstream)?;
        if is_end {
            return Ok(());
        }
    }
}

/// From the tunnel to the client.
async fn descend(
    mut recv: ResponseReceiver<'_>,
    mut to: WriteHalf<&mut Io>,
    moved: &Moved,
    trailers: &mut Option<Headers>,
) -> Result<(), Side> {
    loop {
        match recv.next().await.map_err(|_| Side::Upstream)? {
            Some(Frame::Data(bytes)) => {
                moved.add(&moved.sent, bytes.len());
                to.write_all(&bytes).await.map_err(|_| Side::Client)?;
                to.flush().await.map_err(|_| Side::Client)?;
            }
            Some(Frame::Trailers(fields)) => *trailers = Some(fields),
            None => return Pin::new(&mut to).shutdown().await.map_err(|_| Side::Client),
        }
    }
}
