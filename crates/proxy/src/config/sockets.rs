//! Listening sockets: one per worker and listener, sharing the address by `SO_REUSEPORT`.
//!
//! The kernel spreads connections over them, so workers accept without sharing anything. Sockets are bound when
//! a listener comes, so that an address that is taken is refused at once, and handed out when it is in force.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};

use meltemi_compile::Rejection;
use meltemi_compile::program::{Keepalive, ListenAddress, Listener, Name, Program, SocketSettings};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::references;
use crate::access_log;
use crate::worker::ListenerSocket;

#[derive(Debug)]
struct Bound {
    /// As configured, maybe with port 0.
    requested: (Vec<ListenAddress>, SocketSettings),
    /// As the kernel gave them, in the same order.
    local: Vec<SocketAddr>,
    /// For each worker, until the listener is in force.
    waiting: Vec<Vec<TcpListener>>,
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
        let requested = (listener.addresses.clone(), listener.sockets);
        if self.bound.get(&listener.name).is_some_and(|bound| bound.requested == requested) {
            return Ok(());
        }
        let mut bound =
            Bound { requested, local: Vec::new(), waiting: (0..self.workers).map(|_| Vec::new()).collect() };
        if listener.sockets.is_bound {
            for address in &listener.addresses {
                self.open(address, &listener.sockets, &mut bound)
                    .map_err(|error| format!("cannot bind '{}': {error}", address.address))?;
            }
        }
        self.bound.insert(listener.name.clone(), bound);
        Ok(())
    }

    fn open(&self, at: &ListenAddress, settings: &SocketSettings, bound: &mut Bound) -> io::Result<()> {
        let port = at.address.port();
        let ours = self.bound.values().any(|bound| bound.local.iter().any(|local| local.port() == port));
        if port != 0 && !ours {
            // SO_REUSEPORT lets any process of this user share the address; another proxy there is a mistake.
            drop(socket(at, at.address, settings, false)?);
        }
        let mut local = at.address;
        for waiting in &mut bound.waiting {
            let socket = socket(at, local, settings, true)?;
            local = socket.local_addr()?;
            waiting.push(socket);
        }
        bound.local.push(local);
        Ok(())
    }

    /// The sockets that each worker needs for a program, the first worker first.
    pub(super) fn hand_out(&mut self, program: &Program) -> Vec<Vec<ListenerSocket>> {
        let mut shares: Vec<Vec<ListenerSocket>> = (0..self.workers).map(|_| Vec::new()).collect();
        for (name, listener) in &program.listeners {
            let is_asked = |bound: &&mut Bound| {
                bound.requested.0 == listener.addresses && bound.requested.1 == listener.sockets
            };
            let Some(bound) = self.bound.get_mut(name).filter(is_asked) else { continue };
            for (share, sockets) in shares.iter_mut().zip(&mut bound.waiting) {
                let sockets = sockets.drain(..);
                share.extend(sockets.map(|socket| ListenerSocket { listener: name.clone(), socket }));
            }
        }
        shares
    }

    /// Forgets the addresses of listeners that are gone.
    pub(super) fn retain(&mut self, keep: impl Fn(&Name) -> bool) {
        self.bound.retain(|name, _| keep(name));
    }

    /// Where listeners really listen first.
    pub(super) fn addresses(&self) -> BTreeMap<Name, SocketAddr> {
        let first = |(name, bound): (&Name, &Bound)| Some((name.clone(), *bound.local.first()?));
        self.bound.iter().filter_map(first).collect()
    }
}

fn socket(
    at: &ListenAddress,
    address: SocketAddr,
    settings: &SocketSettings,
    share: bool,
) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!at.ipv4_compat)?;
    }
    if share {
        socket.set_reuse_port(true)?;
    }
    if let Some(keepalive) = &at.keepalive {
        // Accepted sockets inherit it.
        socket.set_tcp_keepalive(&tcp_keepalive(keepalive))?;
    }
    set_routing(&socket, address, settings)?;
    socket.bind(&address.into())?;
    // Listening is what fails on Linux when another socket without SO_REUSEPORT listens there.
    socket.listen(i32::try_from(settings.backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// `transparent` and `freebind`: addresses that are not this machine's.
fn set_routing(socket: &Socket, address: SocketAddr, settings: &SocketSettings) -> io::Result<()> {
    if settings.is_transparent {
        match address {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
    }
    if settings.is_freebind {
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    Ok(())
}

fn tcp_keepalive(settings: &Keepalive) -> TcpKeepalive {
    let mut keepalive = TcpKeepalive::new();
    if let Some(time) = settings.time {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = settings.interval {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(probes) = settings.probes {
        keepalive = keepalive.with_retries(probes);
    }
    keepalive
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(sockets: &Sockets, address: SocketAddr) -> io::Result<Bound> {
        let at = ListenAddress { address, ipv4_compat: false, keepalive: None };
        let settings =
            SocketSettings { is_bound: true, backlog: 16, is_transparent: false, is_freebind: false };
        let waiting = (0..sockets.workers).map(|_| Vec::new()).collect();
        let mut bound = Bound { requested: (vec![at.clone()], settings), local: Vec::new(), waiting };
        sockets.open(&at, &settings, &mut bound)?;
        Ok(bound)
    }

    #[test]
    fn an_address_in_use_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
        let error = open(&Sockets::new(2), taken.local_addr().expect("address")).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_address_that_another_proxy_shares_is_told() {
        let other = open(&Sockets::new(2), "127.0.0.1:0".parse().expect("address")).expect("bind");
        let error = open(&Sockets::new(2), other.local[0]).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn every_worker_gets_a_socket_on_the_same_port() {
        let bound = open(&Sockets::new(3), "127.0.0.1:0".parse().expect("address")).expect("bind");
        let ports: Vec<_> =
            bound.waiting.iter().map(|sockets| sockets[0].local_addr().expect("address")).collect();
        assert_eq!(ports, vec![bound.local[0]; 3]);
    }
}
