//! A worker: one thread, one single-threaded runtime, its own listeners, pools and counters.
//!
//! Owns the thread, the command channel towards it and the [`Generation`] it serves. Leaves out how a connection is
//! served (`listener`) and where commands come from (`config`, `admin`). Modelled on Envoy's `WorkerImpl`.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use meltemi_compile::program::{Direction, Name, Program};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use crate::shared::WorkerContext;

use crate::departure::{Asking, DrainPolicy};
use crate::generation::Generation;
use crate::listener::{Destinations, Listener};
use crate::shared::Shared;

/// What the main thread tells a worker. Commands are obeyed in order.
#[derive(Debug)]
pub enum Command {
    /// Serve this from now on. Requests already running keep the program that they began with; connections keep
    /// their filter chain. A listener whose digest did not change is left alone; one that changed or went is
    /// drained as `drain` says, its socket kept open when the address is the same.
    Program {
        /// Everything to serve. `endpoints` holds the hosts of every cluster that has any, those resolved by DNS
        /// too; a cluster without an entry has no hosts.
        program: Arc<Program>,
        /// New sockets (bound, listening, `SO_REUSEPORT`) by listener: for listeners that are new or whose address
        /// changed. A listener that has neither an old nor a new socket is not served.
        sockets: Vec<ListenerSocket>,
        /// How connections of listeners that changed or went may finish.
        drain: DrainPolicy,
        /// Told once new requests see the program.
        applied: oneshot::Sender<()>,
    },
    /// Ask clients to go: `connection: close`, GOAWAY. Keeps accepting until [`Command::StopListeners`].
    Drain {
        /// Only listeners whose direction is inbound.
        inbound_only: bool,
        /// Which responses ask.
        asking: Asking,
    },
    /// Close listening sockets; open connections go on (draining, when told before).
    StopListeners {
        /// Only listeners whose direction is inbound.
        inbound_only: bool,
    },
    /// Drop everything and end the thread.
    Stop,
}

/// A listening socket for a listener.
#[derive(Debug)]
pub struct ListenerSocket {
    /// Name of the listener in the program.
    pub listener: Name,
    /// Bound, listening, non-blocking.
    pub socket: std::net::TcpListener,
}

/// A running worker, as the main thread sees it.
#[derive(Debug)]
pub struct WorkerHandle {
    /// Where commands go. Few and small: one per configuration change.
    pub commands: mpsc::UnboundedSender<Command>,
    /// Downstream connections that are open on this worker now.
    connections: Arc<AtomicUsize>,
    /// Closed by the end of the thread, however it comes.
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl WorkerHandle {
    /// Downstream connections that are open on this worker now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Ready once the thread has ended, be it by a panic.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.ended).poll(cx).map(|_| ())
    }

    /// Waits for the thread, after [`Command::Stop`].
    pub fn join(self) -> std::thread::Result<()> {
        self.thread.join()
    }
}

/// Starts a worker thread.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn spawn(context: WorkerContext) -> io::Result<WorkerHandle> {
    let (commands, inbox) = mpsc::unbounded_channel::<Command>();
    let connections = Arc::new(AtomicUsize::new(0));
    let (started, start) = std::sync::mpsc::sync_channel(1);
    let (alive, ended) = oneshot::channel::<()>();
    let counter = connections.clone();
    let thread = std::thread::Builder::new().name(format!("wrk:worker_{}", context.id)).spawn(move || {
        // Dropped last, by a panic too.
        let _alive = alive;
        let mut builder = tokio::runtime::Builder::new_current_thread();
        match builder.enable_all().build_local(tokio::runtime::LocalOptions::default()) {
            Ok(runtime) => {
                // Whoever spawned the worker waits for this; it cannot be gone.
                let _ = started.send(Ok(()));
                runtime.block_on(run(context, counter, inbox));
            }
            Err(error) => drop(started.send(Err(error))),
        }
    })?;
    start.recv().unwrap_or_else(|_| Err(io::Error::other("the worker thread ended at once")))?;
    Ok(WorkerHandle { commands, connections, ended, thread })
}

/// How often idle upstream connections are looked at.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

async fn run(
    context: WorkerContext,
    connections: Arc<AtomicUsize>,
    mut inbox: mpsc::UnboundedReceiver<Command>,
) {
    let shared = Rc::new(Shared::new(context, connections));
    let mut listeners = Listeners {
        shared: shared.clone(),
        open: BTreeMap::new(),
        destinations: Rc::default(),
        draining: Vec::new(),
    };
    // Part of this task, not tasks of their own: a panic in either ends the worker instead of leaving it half alive.
    let mut upkeep = pin!(async { tokio::join!(shared.logs.run(), reap(&shared)) });
    loop {
        let command = tokio::select! {
            biased;
            command = inbox.recv() => command,
            _ = &mut upkeep => break,
        };
        let Some(command) = command else { break };
        match command {
            Command::Program { program, sockets, drain, applied } => {
                listeners.serve(program, sockets, drain);
                // The main thread may have given up waiting.
                let _ = applied.send(());
            }
            Command::Drain { inbound_only, asking } => listeners.drain(inbound_only, asking),
            Command::StopListeners { inbound_only } => listeners.each(inbound_only, Listener::stop_accepting),
            Command::Stop => break,
        }
    }
    shared.logs.flush();
}

/// Closes idle upstream connections in time.
async fn reap(shared: &Shared) {
    loop {
        tokio::time::sleep(REAP_INTERVAL).await;
        let now = Instant::now();
        let generation = shared.generation();
        generation.clusters().for_each(|cluster| cluster.reap(now));
    }
}

/// The listeners of a worker.
struct Listeners {
    shared: Rc<Shared>,
    open: BTreeMap<Name, Listener>,
    destinations: Rc<Destinations>,
    /// The drains that were asked for, of inbound listeners or of all; they are in force for listeners to come, too.
    draining: Vec<(bool, Asking)>,
}

impl Listeners {
    fn serve(&mut self, program: Arc<Program>, sockets: Vec<ListenerSocket>, drain: DrainPolicy) {
        let old = self.shared.generation();
        let next = Rc::new(Generation::next(&old, program, &self.shared.stats, &self.shared.states));
        // Clusters first: whoever comes in by a new listener finds them.
        self.shared.serve(next.clone());
        let mut by_listener: BTreeMap<Name, Vec<std::net::TcpListener>> = BTreeMap::new();
        for ListenerSocket { listener, socket } in sockets {
            by_listener.entry(listener).or_default().push(socket);
        }
        let gone: Vec<Name> =
            self.open.keys().filter(|name| !next.program.listeners.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(listener) = self.open.remove(&name) {
                listener.remove(drain);
            }
        }
        for (name, config) in &next.program.listeners {
            if let Err(error) = self.update(config, by_listener.remove(name).unwrap_or_default(), drain) {
                tracing::error!(listener = %name, %error, "cannot serve listener");
            }
        }
        for (inbound_only, asking) in self.draining.clone() {
            self.each(inbound_only, |listener| listener.drain(asking));
        }
        drop(old);
        if self.shared.id == 0 {
            self.shared.states.forget_unused();
            next.clusters().for_each(|cluster| cluster.shared.forget_unused());
        }
    }

    fn update(
        &mut self,
        config: &Arc<meltemi_compile::program::Listener>,
        sockets: Vec<std::net::TcpListener>,
        drain: DrainPolicy,
    ) -> io::Result<()> {
        match self.open.get_mut(&config.name) {
            Some(listener) if sockets.is_empty() && listener.serves(config) => Ok(()),
            Some(listener) => listener.replace(config, sockets, &self.shared, drain),
            // Its addresses could not be bound; whoever binds has said so.
            None if sockets.is_empty() && config.sockets.is_bound => Ok(()),
            None => {
                let listener = Listener::open(config, sockets, &self.shared, &self.destinations)?;
                self.open.insert(config.name.clone(), listener);
                Ok(())
            }
        }
    }

    fn drain(&mut self, inbound_only: bool, asking: Asking) {
        // As in Envoy, a drain that is under way goes on as it began.
        let is_known = |known: &(bool, Asking)| known.0 == inbound_only && !matches!(asking, Asking::Always);
        if !self.draining.iter().any(is_known) {
            self.draining.retain(|known| known.0 != inbound_only);
            self.draining.push((inbound_only, asking));
        }
        self.each(inbound_only, |listener| listener.drain(asking));
    }

    fn each(&mut self, inbound_only: bool, act: impl Fn(&mut Listener)) {
        let in_scope = |listener: &Listener| !inbound_only || listener.direction() == Direction::Inbound;
        self.open.values_mut().filter(|listener| in_scope(listener)).for_each(act);
    }
}
