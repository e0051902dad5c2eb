//! Listeners by address, for connections that are handed on by where they wanted to go.
//!
//! Source: `use_original_dst` and `bind_to_port` of Envoy's listeners.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use super::Slot;
use super::serving::Serving;

/// The listeners of a worker by address.
#[derive(Debug, Default)]
pub(crate) struct Destinations(RefCell<HashMap<SocketAddr, Slot>>);

impl Destinations {
    pub(super) fn insert(&self, address: SocketAddr, listener: &Slot) {
        self.0.borrow_mut().insert(address, listener.clone());
    }

    pub(super) fn remove(&self, listener: &Slot) {
        self.0.borrow_mut().retain(|_, other| !Rc::ptr_eq(other, listener));
    }

    /// What is served at an address: by the listener of exactly this one, else by the one of any address and the port.
    pub(super) fn find(&self, destination: SocketAddr) -> Option<Rc<Serving>> {
        let listeners = self.0.borrow();
        let any: IpAddr = match destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let slot =
            listeners.get(&destination).or_else(|| listeners.get(&SocketAddr::new(any, destination.port())));
        slot.map(|slot| slot.borrow().clone())
    }
}
