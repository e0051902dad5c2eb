//! Listening sockets: one per worker and listener, sharing the address by `SO_REUSEPORT`.
//!
//! The kernel spreads connections over them, so workers accept without sharing anything. Sockets are bound when
//! a listener comes, so that an address that is taken is refused at once, and handed out when it is in force.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};

use meltemi_compile::Rejection;
use meltemi_compile::program::{Listener, Name, Program};
use socket2::{Domain, Protocol, Socket, Type};

use super::references;
use crate::access_log;
use crate::worker::ListenerSocket;

/// Connections that the kernel holds for a worker that is busy; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

#[derive(Debug)]
struct Bound {
    /// As configured, maybe with port 0.
    requested: SocketAddr,
    /// As the kernel gave it.
    local: SocketAddr,
    /// For the workers, until the listener is in force.
    waiting: Vec<TcpListener>,
}

/// The sockets of all listeners.
#[derive(Debug)]
pub(super) struct Sockets {
    workers: usize,
    bound: BTreeMap<Name, Bound>,
}

impl Sockets {
    pub(super) fn new(workers: usize) -> Sockets {
        Sockets { workers, bound: BTreeMap::new() }
    }

    /// Binds the address of a listener unless it has it already, and sees that its logs can be written.
    pub(super) fn prepare(&mut self, listener: &Listener) -> Result<(), Rejection> {
        for path in references::log_paths(listener) {
            access_log::check(path).map_err(|error| {
                Rejection::new(
                    &*listener.name,
                    "access_log",
                    format!("unable to open file '{path}': {error}"),
                )
            })?;
        }
        self.bind(listener).map_err(|reason| Rejection::new(&*listener.name, "address", reason))
    }

    fn bind(&mut self, listener: &Listener) -> Result<(), String> {
        if self.bound.get(&listener.name).is_some_and(|bound| bound.requested == listener.address) {
            return Ok(());
        }
        let bound = self
            .open(listener.address)
            .map_err(|error| format!("cannot bind '{}': {error}", listener.address))?;
        self.bound.insert(listener.name.clone(), bound);
        Ok(())
    }

    fn open(&self, address: SocketAddr) -> io::Result<Bound> {
        let ours = self.bound.values().any(|bound| bound.local.port() == address.port());
        if address.port() != 0 && !ours {
            // SO_REUSEPORT lets any process of this user share the address; another proxy there is a mistake.
            drop(socket(address, false)?);
        }
        let first = socket(address, true)?;
        let local = first.local_addr()?;
        let mut waiting = vec![first];
        for _ in 1..self.workers {
            waiting.push(socket(local, true)?);
        }
        Ok(Bound { requested: address, local, waiting })
    }

    /// The sockets that each worker needs for a program, the first worker first.
    pub(super) fn hand_out(&mut self, program: &Program) -> Vec<Vec<ListenerSocket>> {
        let mut shares: Vec<Vec<ListenerSocket>> = (0..self.workers).map(|_| Vec::new()).collect();
        for (name, listener) in &program.listeners {
            let Some(bound) = self.bound.get_mut(name).filter(|b| b.requested == listener.address) else {
                continue;
            };
            for (share, socket) in shares.iter_mut().zip(bound.waiting.drain(..)) {
                share.push(ListenerSocket { listener: name.clone(), socket });
            }
        }
        shares
    }

    /// Forgets the addresses of listeners that are gone.
    pub(super) fn retain(&mut self, keep: impl Fn(&Name) -> bool) {
        self.bound.retain(|name, _| keep(name));
    }

    /// Where listeners really listen.
    pub(super) fn addresses(&self) -> BTreeMap<Name, SocketAddr> {
        self.bound.iter().map(|(name, bound)| (name.clone(), bound.local)).collect()
    }
}

fn socket(address: SocketAddr, share: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    // Listening is what fails on Linux when another socket without SO_REUSEPORT listens there.
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = taken.local_addr().expect("address");
        let error = Sockets::new(2).open(address).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_address_that_another_proxy_shares_is_told() {
        let other = Sockets::new(2).open("127.0.0.1:0".parse().expect("address")).expect("bind");
        let error = Sockets::new(2).open(other.local).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn every_worker_gets_a_socket_on_the_same_port() {
        let bound = Sockets::new(3).open("127.0.0.1:0".parse().expect("address")).expect("bind");
        let ports: Vec<_> =
            bound.waiting.iter().map(|socket| socket.local_addr().expect("address")).collect();
        assert_eq!(ports, vec![bound.local; 3]);
    }
}
