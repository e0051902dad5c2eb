//! A filter chain, ready to run: the network filters before the last, and the last.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meltemi_compile::filter::set_filter_state::ObjectValue;
use meltemi_compile::log_filter::LogType;
use meltemi_compile::program::{
    self, ConnectionFilter, ConnectionLimit, Direction, FilterChain, NetworkFilter, Reporter, Slot,
    TCP_PROXY_CLUSTER,
};
use meltemi_http::Io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::serving::Connections;
use crate::filter::filter_object;
use crate::http;
use crate::peer::exchange;
use crate::random;
use crate::record::{ConnectionInfo, FilterObject, RequestRecord, Sharing};
use crate::shared::Shared;
use crate::stats::ConnectionLimitCounts;
use crate::stream::Manager;
use crate::tcp;
use crate::tls::ServerContext;

/// Bytes that are read at once only to be thrown away.
const DISCARD_BYTES: usize = 4 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) digest: u64,
    pub(super) connections: Connections,
    /// `None` is plaintext.
    pub(super) tls: Option<Arc<ServerContext>>,
    /// `transport_socket_connect_timeout`.
    pub(super) handshake_timeout: Option<Duration>,
    before: Vec<Before>,
    last: Last,
}

/// A network filter before the last.
#[derive(Debug)]
enum Before {
    SniCluster,
    ConnectionLimit(Arc<ConnectionLimit>, Arc<ConnectionLimitCounts>),
    SetFilterState(Arc<[ObjectValue]>),
    /// The protocol under which both ends say who they are, and what we say.
    PeerExchange(Arc<str>, Bytes),
}

/// The filter that consumes the connection.
#[derive(Debug)]
enum Last {
    Http(Rc<Manager>),
    Tcp(Rc<tcp::Proxy>),
    DirectResponse(Bytes),
}

/// A connection that counts towards a limit.
struct Counted {
    counts: Arc<ConnectionLimitCounts>,
    _slot: Option<Slot>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.active_connections.dec();
    }
}

impl Chain {
    pub(super) fn new(chain: &FilterChain, listener: &program::Listener, worker: &Rc<Shared>) -> Chain {
        let limit = listener.per_connection_buffer_limit_bytes;
        let connections = Connections::new(!listener.heeds_health);
        let last = match &chain.filter {
            NetworkFilter::Http(settings) => {
                Last::Http(Rc::new(Manager::new(settings, worker, &connections.departure, limit)))
            }
            NetworkFilter::Tcp(settings) => {
                let reporter = match listener.direction {
                    Direction::Inbound => Reporter::Destination,
                    Direction::Outbound | Direction::Unspecified => Reporter::Source,
                };
                Last::Tcp(Rc::new(tcp::Proxy::new(settings, worker, reporter, limit)))
            }
            NetworkFilter::DirectResponse(bytes) => Last::DirectResponse(bytes.clone()),
        };
        let before = |filter: &ConnectionFilter| match filter {
            ConnectionFilter::SniCluster => Before::SniCluster,
            ConnectionFilter::ConnectionLimit(limit) => {
                Before::ConnectionLimit(limit.clone(), worker.stats.connection_limit(&limit.stat_prefix))
            }
            ConnectionFilter::SetFilterState(objects) => Before::SetFilterState(objects.clone()),
            ConnectionFilter::PeerExchange(protocol) => {
                Before::PeerExchange(protocol.clone(), worker.node.frame().clone())
            }
        };
        Chain {
            digest: chain.digest,
            connections,
            tls: chain.tls.as_ref().map(|tls| worker.tls.server(tls)),
            handshake_timeout: chain.transport_socket_connect_timeout,
            before: chain.before.iter().map(before).collect(),
            last,
        }
    }

    /// Serves a connection to its end, and tells what is known of it then if `is_logged`.
    pub(super) async fn serve(
        &self,
        mut io: Io,
        mut connection: ConnectionInfo,
        is_logged: bool,
    ) -> Option<Box<RequestRecord>> {
        let mut counted = Vec::new();
        for filter in &self.before {
            match filter {
                Before::SniCluster => name_cluster(&mut connection),
                Before::SetFilterState(objects) => connection = with_objects(connection, objects),
                Before::PeerExchange(protocol, frame) => match exchange(io, protocol, frame).await {
                    Ok((stream, peer)) => {
                        io = stream;
                        connection.exchange = peer;
                    }
                    // The client is gone.
                    Err(_) => return is_logged.then(|| record(Rc::new(connection))),
                },
                Before::ConnectionLimit(limit, _) if !limit.is_enabled => {}
                Before::ConnectionLimit(limit, counts) => {
                    let slot = limit.admit();
                    let is_refused = slot.is_none();
                    counts.active_connections.inc();
                    counted.push(Counted { counts: counts.clone(), _slot: slot });
                    if is_refused {
                        counts.limited_connections.inc();
                        // On the heap: its buffer would make the task of every connection larger.
                        Box::pin(hold(&mut io, limit)).await;
                        return is_logged.then(|| record(Rc::new(connection)));
                    }
                }
            }
        }
        let connection = Rc::new(connection);
        let signal = self.connections.signal();
        match &self.last {
            Last::Http(manager) => http::serve(manager.clone(), io, connection, signal, is_logged).await,
            Last::Tcp(proxy) => {
                let record = proxy.clone().serve(io, connection, signal).await;
                is_logged.then(|| Box::new(record))
            }
            Last::DirectResponse(bytes) => {
                respond(&mut io, bytes).await;
                is_logged.then(|| {
                    let mut record = record(connection);
                    record.bytes_sent = bytes.len() as u64;
                    record.details = Some("direct_response".into());
                    record
                })
            }
        }
    }
}

/// A connection that nothing happened to.
fn record(connection: Rc<ConnectionInfo>) -> Box<RequestRecord> {
    Box::new(RequestRecord::new(connection, random::next(), None))
}

/// The connection with objects of filter state; those of which nothing can be made are left out.
fn with_objects(connection: ConnectionInfo, objects: &[ObjectValue]) -> ConnectionInfo {
    let mut record = *record(Rc::new(connection));
    for value in objects {
        let object = filter_object(value, &record.connection_view(LogType::NotSet));
        if let Some(object) = object {
            let state = &mut Rc::make_mut(&mut record.connection).state;
            state.set_object(value.key.clone(), object);
        }
    }
    Rc::unwrap_or_clone(record.connection)
}

/// The TCP proxy takes the cluster that the client named by SNI.
fn name_cluster(connection: &mut ConnectionInfo) {
    let Some(name) = connection.server_name.as_deref().filter(|name| !name.is_empty()) else { return };
    let object = FilterObject { text: name.into(), is_hashable: false, sharing: Sharing::None };
    connection.state.set_object(TCP_PROXY_CLUSTER.into(), object);
}

/// Keeps a refused connection for the `delay`, so that clients do not come again at once.
async fn hold(io: &mut Io, limit: &ConnectionLimit) {
    let Some(delay) = limit.delay else { return };
    let discard = async {
        let mut buffer = [0; DISCARD_BYTES];
        while matches!(io.read(&mut buffer).await, Ok(1..)) {}
    };
    // Whether the client was there to the end makes no difference.
    let _gone = tokio::time::timeout(delay, discard).await;
}

async fn respond(io: &mut Io, bytes: &[u8]) {
    if io.write_all(bytes).await.is_err() || io.shutdown().await.is_err() {
        return;
    }
    // What came is taken: closing with bytes that nobody read would reset the connection, and its answer with it.
    let mut buffer = [0; DISCARD_BYTES];
    while let Some(Ok(1..)) = futures::FutureExt::now_or_never(io.read(&mut buffer)) {}
}
