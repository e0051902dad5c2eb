//! Listeners of a worker: accept, sniff, choose_chain, handshake, and the tasks of open connections.
//!
//! A [`Listener`] is a socket and what is served on it now; what is served is a [`Serving`], which connections keep
//! when the configuration changes, until they end or the drain time is over.

mod client_hello;
mod sniff;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meltemi_compile::program::{self, ConnectionFacts, Direction, FilterChain, NetworkFilter, Reporter};
use meltemi_http::{Drain, DrainSignal, DrainStage, Io};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use self::sniff::Sniffed;
use crate::access_log::Logger;
use crate::http;
use crate::random;
use crate::record::{ConnectionInfo, RequestRecord, ResponseFlags};
use crate::shared::Shared;
use crate::stats::ListenerStats;
use crate::stream::Manager;
use crate::tcp;

/// How long connections that outlived the drain time may take to finish their last request.
const CLOSING_TIME: Duration = Duration::from_secs(5);

/// How long clients of a closed listener may still send a request that was under way, before idle connections close.
const LAST_REQUESTS: Duration = Duration::from_millis(100);

/// Connections that are taken from the kernel's queue when a listener closes; more than a backlog holds.
const MAX_LAST_CONNECTIONS: usize = 8192;

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener of the program on this worker.
#[derive(Debug)]
pub(crate) struct Listener {
    serving: Rc<RefCell<Rc<Serving>>>,
    /// Ends the accepting task when it is sent or dropped.
    accepting: Option<oneshot::Sender<Clients>>,
}

/// What becomes of connections that wait for a request when their listener closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clients {
    /// They go on; who retires the listener gives them a time.
    Stay,
    /// The process is ending: they are closed after [`LAST_REQUESTS`].
    Go,
}

/// What a listener serves at one moment.
#[derive(Debug)]
struct Serving {
    config: Arc<program::Listener>,
    worker: Rc<Shared>,
    /// By index of the configuration's chains.
    chains: Vec<Chain>,
    stats: Arc<ListenerStats>,
    loggers: Vec<Logger>,
    drain: Drain,
    signal: DrainSignal,
    /// Open connections by id, to end them when the drain time is over.
    tasks: RefCell<HashMap<u64, AbortHandle>>,
}

/// A filter chain, ready to run.
#[derive(Debug, Clone)]
enum Chain {
    Http(Rc<Manager>),
    Tcp(Rc<tcp::Proxy>),
}

impl Listener {
    /// Begins to serve `config` on `socket`. Needs a local task set.
    pub(crate) fn open(
        config: &Arc<program::Listener>,
        socket: std::net::TcpListener,
        worker: &Rc<Shared>,
    ) -> io::Result<Listener> {
        let serving = Rc::new(RefCell::new(Rc::new(Serving::new(config, worker))));
        let mut listener = Listener { serving, accepting: None };
        listener.accept_on(socket)?;
        Ok(listener)
    }

    /// Whether nothing changed.
    pub(crate) fn serves(&self, config: &program::Listener) -> bool {
        self.serving.borrow().config.digest == config.digest
    }

    /// Serves another configuration from now on; connections of the old one drain.
    pub(crate) fn replace(
        &mut self,
        config: &Arc<program::Listener>,
        socket: Option<std::net::TcpListener>,
        worker: &Rc<Shared>,
        drain_time: Duration,
    ) -> io::Result<()> {
        let old = self.serving.replace(Rc::new(Serving::new(config, worker)));
        old.retire(drain_time);
        match socket {
            Some(socket) => self.accept_on(socket),
            None => Ok(()),
        }
    }

    /// Stops accepting and lets connections drain.
    pub(crate) fn remove(mut self, drain_time: Duration) {
        self.stop_accepting();
        self.serving.borrow().retire(drain_time);
    }

    /// Closes the socket.
    pub(crate) fn stop_accepting(&mut self) {
        let is_ending = self.serving.borrow().signal.is_draining();
        if let Some(accepting) = self.accepting.take() {
            // A task that is gone has closed its socket.
            let _gone = accepting.send(if is_ending { Clients::Go } else { Clients::Stay });
        }
    }

    /// Asks clients to go.
    pub(crate) fn drain(&self) {
        self.serving.borrow().drain.advance(DrainStage::Draining);
    }

    pub(crate) fn direction(&self) -> Direction {
        self.serving.borrow().config.direction
    }

    fn accept_on(&mut self, socket: std::net::TcpListener) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(socket)?;
        let (stop, stopped) = oneshot::channel();
        tokio::task::spawn_local(accept(socket, self.serving.clone(), stopped));
        // The old task, if there is one, ends because its sender is dropped.
        self.accepting = Some(stop);
        Ok(())
    }
}

/// Accepts connections until it is told to stop; each becomes a task.
async fn accept(
    socket: TcpListener,
    serving: Rc<RefCell<Rc<Serving>>>,
    mut stopped: oneshot::Receiver<Clients>,
) {
    let clients = loop {
        tokio::select! {
            biased;
            clients = &mut stopped => break clients.unwrap_or(Clients::Stay),
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => Serving::start(serving.borrow().clone(), stream, peer),
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    let serving = serving.borrow().clone();
    close(socket, &serving);
    if clients == Clients::Go {
        tokio::time::sleep(LAST_REQUESTS).await;
        serving.drain.advance(DrainStage::Closing);
    }
}

/// Closes a listening socket without harm: the kernel would reset the connections that it has completed and nobody has
/// taken yet, so they are taken first. Asks the kernel itself, since the runtime learns of them only when it polls.
fn close(socket: TcpListener, serving: &Rc<Serving>) {
    let Ok(socket) = socket.into_std() else { return };
    for _ in 0..MAX_LAST_CONNECTIONS {
        match socket.accept() {
            Ok((stream, peer)) => {
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    Serving::start(serving.clone(), stream, peer);
                }
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(_) => break,
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

impl Serving {
    fn new(config: &Arc<program::Listener>, worker: &Rc<Shared>) -> Serving {
        let (drain, signal) = meltemi_http::drain();
        Serving {
            chains: config.chains.iter().map(|chain| Chain::new(chain, config, worker)).collect(),
            stats: worker.stats.listener(config),
            loggers: config.access_log.iter().map(|log| worker.logs.logger(log)).collect(),
            config: config.clone(),
            worker: worker.clone(),
            drain,
            signal,
            tasks: RefCell::default(),
        }
    }

    /// Lets connections drain, and ends those that do not within the time.
    fn retire(self: &Rc<Serving>, drain_time: Duration) {
        self.drain.advance(DrainStage::Draining);
        let serving = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(drain_time).await;
            serving.drain.advance(DrainStage::Closing);
            tokio::time::sleep(CLOSING_TIME).await;
            serving.tasks.borrow().values().for_each(AbortHandle::abort);
        });
    }

    fn start(serving: Rc<Serving>, stream: TcpStream, peer: SocketAddr) {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let open = Open::new(serving.clone(), id);
        let task = tokio::task::spawn_local(async move {
            serve(&open, stream, peer).await;
        });
        serving.tasks.borrow_mut().insert(id, task.abort_handle());
    }
}

/// An open connection, as it is counted; until dropped.
struct Open {
    serving: Rc<Serving>,
    id: u64,
}

impl Open {
    fn new(serving: Rc<Serving>, id: u64) -> Open {
        serving.stats.counts.downstream_cx_total.inc();
        serving.stats.counts.downstream_cx_active.inc();
        serving.worker.connections.fetch_add(1, Ordering::Relaxed);
        Open { serving, id }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let serving = &self.serving;
        serving.stats.counts.downstream_cx_active.dec();
        serving.stats.counts.downstream_cx_destroy.inc();
        serving.worker.connections.fetch_sub(1, Ordering::Relaxed);
        serving.tasks.borrow_mut().remove(&self.id);
    }
}

impl Chain {
    fn new(chain: &FilterChain, listener: &program::Listener, worker: &Rc<Shared>) -> Chain {
        match &chain.filter {
            NetworkFilter::Http(settings) => Chain::Http(Rc::new(Manager::new(
                settings,
                worker,
                listener.per_connection_buffer_limit_bytes,
            ))),
            NetworkFilter::Tcp(settings) => {
                let reporter = match listener.direction {
                    Direction::Inbound => Reporter::Destination,
                    Direction::Outbound | Direction::Unspecified => Reporter::Source,
                };
                Chain::Tcp(Rc::new(tcp::Proxy::new(settings, worker, reporter)))
            }
        }
    }
}

/// The life of a connection.
async fn serve(open: &Open, stream: TcpStream, peer: SocketAddr) {
    let serving = &open.serving;
    // Without it small writes wait for acknowledgements; a failure only costs speed.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let Some(sniffed) = sniff_in_time(serving, &stream).await else { return };
    let mut connection = ConnectionInfo::new(open.id, local, peer, serving.config.name.clone());
    connection.local = sniffed.original_destination.unwrap_or(local);
    connection.original_destination = sniffed.original_destination;
    connection.server_name.clone_from(&sniffed.server_name);
    let local = connection.local;
    let connection = Rc::new(connection);
    match choose_chain(serving, &sniffed, local, peer) {
        Some(Chain::Http(manager)) => {
            http::serve(manager, handshake(stream), connection, serving.drain.signal()).await;
        }
        Some(Chain::Tcp(proxy)) => proxy.serve(stream, connection).await,
        None => refuse(serving, connection),
    }
}

/// Lets the listener filters look, within their time.
async fn sniff_in_time(serving: &Serving, stream: &TcpStream) -> Option<Sniffed> {
    let config = &serving.config;
    if config.listener_filters.is_empty() {
        return Some(Sniffed::default());
    }
    let looking = sniff::sniff(stream, &config.listener_filters);
    let looked = match config.listener_filters_timeout {
        Some(limit) => tokio::time::timeout(limit, looking).await,
        None => Ok(looking.await),
    };
    match looked {
        Ok(sniffed) => sniffed,
        Err(_) => {
            serving.stats.counts.downstream_pre_cx_timeout.inc();
            config.continue_on_listener_filters_timeout.then(Sniffed::default)
        }
    }
}

fn choose_chain(serving: &Serving, sniffed: &Sniffed, local: SocketAddr, peer: SocketAddr) -> Option<Chain> {
    let protocols: Vec<&str> = sniffed.application_protocols.iter().map(|protocol| &**protocol).collect();
    let facts = ConnectionFacts {
        destination: local,
        source: peer,
        direct_source: peer.ip(),
        server_name: sniffed.server_name.as_deref().unwrap_or_default(),
        transport_protocol: sniffed.transport_protocol,
        application_protocols: &protocols,
    };
    let chosen = serving.config.choose(&facts)?;
    let index = serving.config.chains.iter().position(|chain| Arc::ptr_eq(chain, chosen))?;
    serving.chains.get(index).cloned()
}

/// The transport socket of the chain: plaintext, until chains can hold TLS contexts.
fn handshake(stream: TcpStream) -> Io {
    Io::Tcp(stream)
}

/// No chain wants the connection: it is closed.
fn refuse(serving: &Serving, connection: Rc<ConnectionInfo>) {
    serving.stats.counts.no_filter_chain_match.inc();
    let mut record = RequestRecord::new(connection, random::next(), None);
    record.flags = ResponseFlags::NO_ROUTE_FOUND;
    record.details = Some("filter_chain_not_found".into());
    record.end = Some(std::time::Instant::now());
    let view = record.view(None, None, None);
    serving.loggers.iter().for_each(|logger| logger.log(&view));
}
