//! The life of a connection up to its chain: sniff, hand on, choose_chain, handshake.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use meltemi_compile::log_filter::LogType;
use meltemi_compile::program::ConnectionFacts;
use meltemi_http::Io;
use tokio::net::TcpStream;

use super::chain::Chain;
use super::serving::{Open, Serving};
use super::sniff::{Rejected, Sniffed};
use crate::random;
use crate::record::{ConnectionInfo, RequestRecord, ResponseFlags};
use crate::tls::{Accepted, Failure};

/// Serves a connection to its end.
pub(super) async fn serve(open: &mut Open, stream: TcpStream, peer: SocketAddr) {
    // Without it small writes wait for acknowledgements; a failure only costs speed.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let arrived = (Instant::now(), SystemTime::now());
    let mut sniffed = Sniffed::default();
    let stream = look(open, stream, local, &mut sniffed).await;
    let (connection, chain) = connection_info(open, local, peer, sniffed);
    let is_logged = !open.serving.loggers.is_empty();
    let record = match (stream, chain) {
        (Some(stream), Some(chain)) => {
            open.join(&chain);
            let mut connection = connection;
            match handshake(open, &chain, stream, &mut connection).await {
                Some(io) => chain.serve(io, connection, is_logged).await,
                None => is_logged.then(|| unserved(connection)),
            }
        }
        (Some(_), None) => Some(refuse(&open.serving, connection)),
        (None, _) => is_logged.then(|| unserved(connection)),
    };
    if let Some(record) = record.filter(|_| is_logged) {
        log(&open.serving, *record, arrived);
    }
}

/// Lets the listener filters look, those of another listener too when the connection is handed on. `None`: it is to be
/// closed.
async fn look(
    open: &mut Open,
    stream: TcpStream,
    local: SocketAddr,
    sniffed: &mut Sniffed,
) -> Option<TcpStream> {
    let stream = sniff(open, stream, local, sniffed).await?;
    let Some(other) = next_listener(open, sniffed) else { return Some(stream) };
    open.hand_on(other);
    sniff(open, stream, local, sniffed).await
}

/// The listener of the address that the connection wanted to reach, for listeners that hand on.
fn next_listener(open: &Open, sniffed: &Sniffed) -> Option<Rc<Serving>> {
    let serving = &open.serving;
    let destination = sniffed.original_destination.filter(|_| serving.config.hands_on)?;
    serving.destinations.find(destination).filter(|other| !Rc::ptr_eq(other, serving))
}

/// Lets the listener filters look, within their time. `None`: the connection is to be closed.
async fn sniff(
    open: &Open,
    stream: TcpStream,
    local: SocketAddr,
    sniffed: &mut Sniffed,
) -> Option<TcpStream> {
    let Serving { config, filters, stats, .. } = &*open.serving;
    if config.listener_filters.is_empty() {
        return Some(stream);
    }
    let counts = &stats.counts;
    counts.downstream_pre_cx_active.inc();
    let looking =
        filters.run(&stream, &config.listener_filters, local, config.sockets.is_transparent, sniffed);
    let looked = match config.listener_filters_timeout {
        Some(limit) => tokio::time::timeout(limit, looking).await,
        None => Ok(looking.await),
    };
    counts.downstream_pre_cx_active.dec();
    match looked {
        Ok(Ok(())) => Some(stream),
        Ok(Err(rejected)) => {
            match rejected {
                Rejected::RemoteClose => counts.downstream_listener_filter_remote_close.inc(),
                Rejected::FilterError | Rejected::Broken => counts.downstream_listener_filter_error.inc(),
            }
            None
        }
        Err(_) => {
            counts.downstream_pre_cx_timeout.inc();
            // What was looked at is still there and would not make the socket ready again: it is registered anew.
            let stream = stream.into_std().and_then(TcpStream::from_std);
            stream.ok().filter(|_| config.continue_on_listener_filters_timeout)
        }
    }
}

/// All that is known of the connection, and its chain.
fn connection_info(
    open: &Open,
    local: SocketAddr,
    peer: SocketAddr,
    sniffed: Sniffed,
) -> (ConnectionInfo, Option<Rc<Chain>>) {
    let serving = &open.serving;
    let mut connection = ConnectionInfo::new(open.id, local, peer, serving.config.name.clone());
    connection.local = sniffed.original_destination.unwrap_or(local);
    connection.remote = sniffed.remote.unwrap_or(peer);
    connection.original_destination = sniffed.original_destination;
    connection.proxy = sniffed.proxy;
    connection.server_name = sniffed.server_name;
    for (namespace, key, value) in sniffed.metadata {
        let value = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(value)) };
        connection
            .state
            .merge_metadata(&namespace, prost_types::Struct { fields: [(key.into(), value)].into() });
    }
    let protocols: Vec<&str> = sniffed.application_protocols.iter().map(|protocol| &**protocol).collect();
    let facts = ConnectionFacts {
        destination: connection.local,
        source: connection.remote,
        direct_source: peer.ip(),
        server_name: connection.server_name.as_deref().unwrap_or_default(),
        transport_protocol: match sniffed.transport_protocol {
            "" => "raw_buffer",
            known => known,
        },
        application_protocols: &protocols,
    };
    let chain = serving.config.choose(&facts).and_then(|index| serving.chains.get(index).cloned());
    (connection, chain)
}

/// The transport socket of the chain. `None`: there is no TLS with this client.
async fn handshake(
    open: &Open,
    chain: &Chain,
    stream: TcpStream,
    connection: &mut ConnectionInfo,
) -> Option<Io> {
    let Some(context) = &chain.tls else { return Some(Io::Tcp(stream)) };
    let stats = &open.serving.stats;
    let tls_stats = stats.tls.get_or_init(Box::default);
    // On the heap: the task of every connection would carry room for it.
    match Box::pin(context.accept(stream, chain.handshake_timeout)).await {
        Ok(Accepted { stream, facts }) => {
            facts.count(&tls_stats.ssl);
            connection.tls = Some(Rc::new(facts));
            Some(Io::Tls(Box::new(stream)))
        }
        Err(failure) => {
            failure.count(&tls_stats.ssl);
            match failure {
                Failure::TimedOut => stats.counts.downstream_cx_transport_socket_connect_timeout.inc(),
                Failure::NoSecret => tls_stats.factory.downstream_context_secrets_not_ready.inc(),
                _ => {}
            }
            connection.transport_failure = failure.reason().map(Into::into);
            None
        }
    }
}

/// No chain wants the connection: it is closed.
fn refuse(serving: &Serving, connection: ConnectionInfo) -> Box<RequestRecord> {
    serving.stats.counts.no_filter_chain_match.inc();
    let mut record = unserved(connection);
    record.flags = ResponseFlags::NO_ROUTE_FOUND;
    record.details = Some("filter_chain_not_found".into());
    record
}

fn unserved(connection: ConnectionInfo) -> Box<RequestRecord> {
    Box::new(RequestRecord::new(Rc::new(connection), random::next(), None))
}

/// The line of a connection in the listener's own log, at its end.
fn log(serving: &Serving, mut record: RequestRecord, (start, start_time): (Instant, SystemTime)) {
    record.start = start;
    record.start_time = start_time;
    record.end = Some(Instant::now());
    let view = record.connection_view(LogType::NotSet);
    serving.loggers.iter().for_each(|logger| logger.log(&view));
}
