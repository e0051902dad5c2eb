//! What a listener serves at one moment, and the connections on it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meltemi_compile::program;
use meltemi_http::{Drain, DrainSignal, DrainStage};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::Destinations;
use super::chain::Chain;
use super::connection;
use super::sniff::Filters;
use crate::access_log::Logger;
use crate::admission::Place;
use crate::departure::{Asking, Departure, DrainPolicy};
use crate::shared::Shared;
use crate::stats::ListenerStats;

/// How long connections that outlived the drain time may take to finish their last request.
const CLOSING_TIME: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) config: Arc<program::Listener>,
    pub(super) worker: Rc<Shared>,
    pub(super) destinations: Rc<Destinations>,
    /// By index of the configuration's chains.
    pub(super) chains: Vec<Rc<Chain>>,
    pub(super) filters: Filters,
    pub(super) stats: Arc<ListenerStats>,
    pub(super) loggers: Vec<Logger>,
    /// Connections that have no chain yet.
    arriving: Connections,
}

/// Connections that end together.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) departure: Rc<Departure>,
    drain: Drain,
    signal: DrainSignal,
    /// By id, to end them when the drain time is over.
    tasks: RefCell<HashMap<u64, AbortHandle>>,
}

impl Serving {
    /// Serves `config`, with the chains of `old` that did not change.
    pub(super) fn new(
        config: &Arc<program::Listener>,
        worker: &Rc<Shared>,
        destinations: &Rc<Destinations>,
        old: Option<&Serving>,
    ) -> Serving {
        let known = |digest: u64| old?.chains.iter().find(|chain| chain.digest == digest).cloned();
        let chain = |chain: &Arc<program::FilterChain>| {
            known(chain.digest).unwrap_or_else(|| Rc::new(Chain::new(chain, config, worker)))
        };
        Serving {
            chains: config.chains.iter().map(chain).collect(),
            filters: Filters::new(&config.listener_filters, &worker.stats),
            stats: worker.stats.listener(config),
            loggers: config.access_log.iter().map(|log| worker.logs.logger(log)).collect(),
            config: config.clone(),
            worker: worker.clone(),
            destinations: destinations.clone(),
            arriving: Connections::new(true),
        }
    }

    /// Lets the connections of chains that `next` does not have drain.
    pub(super) fn retire(&self, next: Option<&Serving>, drain: DrainPolicy) {
        let asking = drain.begin();
        let stays = |chain: &Rc<Chain>| {
            next.is_some_and(|next| next.chains.iter().any(|other| Rc::ptr_eq(chain, other)))
        };
        for chain in self.chains.iter().filter(|chain| !stays(chain)) {
            let chain = chain.clone();
            tokio::task::spawn_local(async move { chain.connections.retire(asking, drain.time).await });
        }
    }

    /// Asks clients to go.
    pub(super) fn drain(&self, asking: Asking) {
        self.each(|connections| connections.drain(asking));
    }

    /// Closes the connections that wait for a request.
    pub(super) fn close_idle(&self) {
        self.each(|connections| connections.drain.advance(DrainStage::Closing));
    }

    fn each(&self, act: impl Fn(&Connections)) {
        act(&self.arriving);
        self.chains.iter().for_each(|chain| act(&chain.connections));
    }

    pub(super) fn is_draining(&self) -> bool {
        self.arriving.signal.is_draining()
    }

    /// A place under the limit of the process, when there is one that counts for this listener.
    fn admit(&self) -> Result<Option<Place>, Full> {
        let admission = self.worker.admission.as_ref().filter(|_| !self.config.ignore_global_conn_limit);
        let Some(admission) = admission else { return Ok(None) };
        admission.admit().map(Some).ok_or_else(|| {
            self.stats.counts.downstream_global_cx_overflow.inc();
            Full
        })
    }

    /// Takes a connection from a socket; it is closed at once when the process has too many.
    pub(super) fn start(serving: Rc<Serving>, stream: TcpStream, peer: SocketAddr) {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let Ok(place) = serving.admit() else { return };
        let mut open = Open::new(serving.clone(), id, place);
        let task = tokio::task::spawn_local(async move {
            connection::serve(&mut open, stream, peer).await;
        });
        serving.arriving.tasks.borrow_mut().insert(id, task.abort_handle());
    }
}

impl Connections {
    pub(super) fn new(ignores_health: bool) -> Connections {
        let (drain, signal) = meltemi_http::drain();
        Connections { departure: Departure::new(ignores_health), drain, signal, tasks: RefCell::default() }
    }

    /// When all have to go, HTTP/2 clients learn it without a response, too.
    fn drain(&self, asking: Asking) {
        self.departure.begin(asking);
        if matches!(asking, Asking::Always) {
            self.drain.advance(DrainStage::Draining);
        }
    }

    /// Tells a connection when to end.
    pub(super) fn signal(&self) -> DrainSignal {
        self.drain.signal()
    }

    /// Lets connections drain, and ends those that do not within the time.
    async fn retire(&self, asking: Asking, drain_time: Duration) {
        self.drain(asking);
        tokio::time::sleep(drain_time).await;
        self.drain.advance(DrainStage::Closing);
        tokio::time::sleep(CLOSING_TIME).await;
        self.drain.advance(DrainStage::Ended);
        // Whoever watches ends by itself and leaves a record.
        tokio::task::yield_now().await;
        self.tasks.borrow().values().for_each(AbortHandle::abort);
    }
}

/// The process has as many connections as it may.
struct Full;

/// An open connection, as it is counted; until dropped.
pub(super) struct Open {
    pub(super) serving: Rc<Serving>,
    pub(super) id: u64,
    chain: Option<Rc<Chain>>,
    _place: Option<Place>,
}

impl Open {
    fn new(serving: Rc<Serving>, id: u64, place: Option<Place>) -> Open {
        serving.worker.connections.fetch_add(1, Ordering::Relaxed);
        Open { serving, id, chain: None, _place: place }
    }

    /// The connection lives and ends with a chain from now on.
    pub(super) fn join(&mut self, chain: &Rc<Chain>) {
        if let Some(task) = self.serving.arriving.tasks.borrow_mut().remove(&self.id) {
            chain.connections.tasks.borrow_mut().insert(self.id, task);
        }
        let counts = &self.serving.stats.counts;
        counts.downstream_cx_total.inc();
        counts.downstream_cx_active.inc();
        self.chain = Some(chain.clone());
    }

    /// Another listener serves the connection from now on.
    pub(super) fn hand_on(&mut self, to: Rc<Serving>) {
        let task = self.serving.arriving.tasks.borrow_mut().remove(&self.id);
        to.arriving.tasks.borrow_mut().extend(task.map(|task| (self.id, task)));
        self.serving = to;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let serving = &self.serving;
        if self.chain.is_some() {
            serving.stats.counts.downstream_cx_active.dec();
            serving.stats.counts.downstream_cx_destroy.inc();
        }
        serving.worker.connections.fetch_sub(1, Ordering::Relaxed);
        let connections = self.chain.as_ref().map_or(&serving.arriving, |chain| &chain.connections);
        connections.tasks.borrow_mut().remove(&self.id);
    }
}
