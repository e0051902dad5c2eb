//! Who is at the other end of a call: the workload that metadata tells of, and the principals of certificates.
//!
//! Owns: [`Workload`] and its forms on the wire ([`metadata`]), what this proxy says of itself ([`NodeFacts`]), and
//! [`Peers`], what headers said lately. Leaves out who asks and who is told (`stream`, `upstream`, `listener`) and what it
//! is good for (`istio_stats`). Source: Istio's `peer_metadata` and `metadata_exchange` filters.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher};
use std::rc::Rc;

mod cache;
mod exchange;
mod metadata;
mod node;
#[cfg(test)]
mod tests;

pub(crate) use self::cache::{Peers, Told, forget};
pub(crate) use self::exchange::{ExchangedPeer, exchange};
pub use self::node::NodeFacts;

/// A workload as labels name it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Workload {
    pub(crate) workload: Option<Box<str>>,
    pub(crate) namespace: Option<Box<str>>,
    pub(crate) app: Option<Box<str>>,
    pub(crate) version: Option<Box<str>>,
    pub(crate) canonical_service: Option<Box<str>>,
    pub(crate) canonical_revision: Option<Box<str>>,
    pub(crate) cluster: Option<Box<str>>,
}

impl Workload {
    /// Reads `workload;namespace;canonical service;canonical revision;cluster`, which endpoints carry.
    pub(crate) fn of_endpoint(text: &str) -> Workload {
        let mut parts =
            text.split(';').map(|part| Some(part).filter(|part| !part.is_empty()).map(Into::into));
        let mut next = || parts.next().flatten();
        Workload {
            workload: next(),
            namespace: next(),
            canonical_service: next(),
            canonical_revision: next(),
            cluster: next(),
            app: None,
            version: None,
        }
    }
}

/// The workload at the other end, as it told itself.
pub(crate) type Peer = Interned<Workload>;

/// The first URI of each certificate of a connection. The peer's is there only if its certificate was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Principals {
    pub(crate) peer: Option<Box<str>>,
    pub(crate) local: Option<Box<str>>,
}

/// The most pairs of principals that a thread keeps at hand; with more it begins anew, and only compares more.
const MAX_PRINCIPALS: usize = 500;

thread_local! {
    static STATE: foldhash::fast::RandomState = foldhash::fast::RandomState::default();
    static KNOWN: RefCell<HashSet<Interned<Principals>, foldhash::fast::RandomState>> = RefCell::default();
}

/// A value that is hashed once and mostly compared by its address: part of a key that every request makes.
#[derive(Debug)]
pub(crate) struct Interned<T>(Rc<(u64, T)>);

impl<T: Hash> Interned<T> {
    pub(crate) fn new(value: T) -> Interned<T> {
        let hash = STATE.with(|state| state.hash_one(&value));
        Interned(Rc::new((hash, value)))
    }
}

impl<T> Interned<T> {
    pub(crate) fn value(&self) -> &T {
        &self.0.1
    }
}

impl Interned<Principals> {
    /// The value as another connection of this thread has it, if one does.
    pub(crate) fn of_connection(principals: Principals) -> Interned<Principals> {
        let own = Interned::new(principals);
        KNOWN.with_borrow_mut(|known| {
            if let Some(same) = known.get(&own) {
                return same.clone();
            }
            if known.len() >= MAX_PRINCIPALS {
                known.clear();
            }
            known.insert(own.clone());
            own
        })
    }
}

impl<T> Clone for Interned<T> {
    fn clone(&self) -> Interned<T> {
        Interned(self.0.clone())
    }
}

impl<T: PartialEq> PartialEq for Interned<T> {
    fn eq(&self, other: &Interned<T>) -> bool {
        Rc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl<T: Eq> Eq for Interned<T> {}

impl<T> Hash for Interned<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.0);
    }
}
