//! Listeners of a worker: accept, sniff, choose_chain, handshake, and the tasks of open connections.
//!
//! A [`Listener`] is its sockets and what is served on them now, a [`Serving`]. A connection keeps the chain that it was
//! accepted on when the configuration changes: for as long as it likes when the chain is in the new configuration too,
//! else until the drain time is over.

mod chain;
pub(crate) mod client_hello;
mod connection;
mod destinations;
mod request_line;
mod serving;
mod sniff;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use meltemi_compile::program::{self, Direction};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

pub(crate) use self::destinations::Destinations;
use self::serving::Serving;
use crate::departure::{Asking, DrainPolicy};
use crate::shared::Shared;

/// How long clients of a closed listener may still send a request that was under way, before idle connections close.
const LAST_REQUESTS: Duration = Duration::from_millis(100);

/// Connections that are taken from the kernel's queue when a listener closes; more than a backlog holds.
const MAX_LAST_CONNECTIONS: usize = 8192;

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener serves now; connections are given what it is when they come.
type Slot = Rc<RefCell<Rc<Serving>>>;

/// A listener of the program on this worker.
#[derive(Debug)]
pub(crate) struct Listener {
    serving: Slot,
    destinations: Rc<Destinations>,
    /// Each ends an accepting task when it is sent or dropped.
    accepting: Vec<oneshot::Sender<Clients>>,
}

/// What becomes of connections that wait for a request when their listener closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clients {
    /// They go on; who retires the listener gives them a time.
    Stay,
    /// The process is ending: they are closed after [`LAST_REQUESTS`].
    Go,
}

impl Listener {
    /// Begins to serve `config` on `sockets`; on none when it is not bound. Needs a local task set.
    pub(crate) fn open(
        config: &Arc<program::Listener>,
        sockets: Vec<std::net::TcpListener>,
        worker: &Rc<Shared>,
        destinations: &Rc<Destinations>,
    ) -> io::Result<Listener> {
        let serving = Serving::new(config, worker, destinations, None);
        let serving = Rc::new(RefCell::new(Rc::new(serving)));
        let mut listener = Listener { serving, destinations: destinations.clone(), accepting: Vec::new() };
        listener.listen(config, sockets)?;
        Ok(listener)
    }

    /// Whether nothing changed.
    pub(crate) fn serves(&self, config: &program::Listener) -> bool {
        self.serving.borrow().config.digest == config.digest
    }

    /// Serves another configuration from now on. When it differs in its chains only, connections of chains that are in
    /// both go on; the others drain.
    pub(crate) fn replace(
        &mut self,
        config: &Arc<program::Listener>,
        sockets: Vec<std::net::TcpListener>,
        worker: &Rc<Shared>,
        drain: DrainPolicy,
    ) -> io::Result<()> {
        let old = self.serving.borrow().clone();
        let keeps = old.config.frame_digest == config.frame_digest;
        let next = Serving::new(config, worker, &self.destinations, keeps.then_some(&*old));
        let next = Rc::new(next);
        self.serving.replace(next.clone());
        old.retire(Some(&next), drain);
        if sockets.is_empty() && config.sockets.is_bound {
            return Ok(());
        }
        self.listen(config, sockets)
    }

    /// Stops accepting and lets connections drain.
    pub(crate) fn remove(mut self, drain: DrainPolicy) {
        self.stop_accepting();
        self.serving.borrow().retire(None, drain);
    }

    /// Closes the sockets.
    pub(crate) fn stop_accepting(&mut self) {
        self.destinations.remove(&self.serving);
        let clients = if self.serving.borrow().is_draining() { Clients::Go } else { Clients::Stay };
        for accepting in self.accepting.drain(..) {
            // A task that is gone has closed its socket.
            let _gone = accepting.send(clients);
        }
    }

    /// Asks clients to go.
    pub(crate) fn drain(&self, asking: Asking) {
        self.serving.borrow().drain(asking);
    }

    pub(crate) fn direction(&self) -> Direction {
        self.serving.borrow().config.direction
    }

    /// Takes connections from other sockets than before, and from other listeners.
    fn listen(&mut self, config: &program::Listener, sockets: Vec<std::net::TcpListener>) -> io::Result<()> {
        // The old tasks, if there are any, end because their senders are dropped.
        self.accepting.clear();
        self.destinations.remove(&self.serving);
        if !config.sockets.is_bound {
            config.addresses.iter().for_each(|at| self.destinations.insert(at.address, &self.serving));
        }
        for socket in sockets {
            socket.set_nonblocking(true)?;
            let socket = TcpListener::from_std(socket)?;
            self.destinations.insert(socket.local_addr()?, &self.serving);
            let (stop, stopped) = oneshot::channel();
            tokio::task::spawn_local(accept(socket, self.serving.clone(), stopped));
            self.accepting.push(stop);
        }
        Ok(())
    }
}

/// Accepts connections until it is told to stop; each becomes a task.
async fn accept(socket: TcpListener, serving: Slot, mut stopped: oneshot::Receiver<Clients>) {
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
        serving.close_idle();
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
