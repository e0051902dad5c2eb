//! The process signals that ask a daemon to stop.

use std::fmt;
use std::io;

use tokio::signal::unix::{self, SignalKind};

/// Which signal asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// `SIGTERM`, what Kubernetes and service managers send.
    Terminate,
    /// `SIGINT`, Ctrl-C.
    Interrupt,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Terminate => "SIGTERM",
            Cause::Interrupt => "SIGINT",
        })
    }
}

/// The stream of requests to stop: the first asks for a graceful end, a second for an immediate one.
#[derive(Debug)]
pub struct Shutdown {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Shutdown {
    /// Takes over `SIGTERM` and `SIGINT` for the rest of the process's life; must run inside a tokio runtime
    /// with its I/O driver on.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn listen() -> io::Result<Shutdown> {
        Ok(Shutdown {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
        })
    }

    /// Completes at the next request to stop. Cancel safe.
    pub async fn requested(&mut self) -> Cause {
        tokio::select! {
            _ = self.terminate.recv() => Cause::Terminate,
            _ = self.interrupt.recv() => Cause::Interrupt,
        }
    }
}
