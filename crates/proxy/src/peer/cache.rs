//! What headers said lately: a worker reads the metadata of a peer once, not with every request.

use std::cell::RefCell;
use std::collections::HashMap;

use http::HeaderName;
use meltemi_http::Headers;

use super::{Interned, Peer, metadata};

/// Header with the metadata of whoever sent the message.
static METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");
/// Header with its name.
static ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");

/// The most peers that a worker remembers: as many as Istio's filter. A proxy with more of them reads some anew.
pub(super) const MAX_PEERS: usize = 500;

/// The peers of a worker, by what they said. Istio's filter knows them by their names and so takes the word of whoever
/// uses a name first; their names make no label, so here they are not looked at.
#[derive(Debug, Default)]
pub(crate) struct Peers(RefCell<HashMap<Box<[u8]>, Peer, foldhash::fast::RandomState>>);

/// Which of the two headers a message had: it is answered with the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) id: bool,
    pub(crate) metadata: bool,
}

impl Peers {
    /// Reads what a message says of its sender, and takes it away.
    pub(crate) fn take(&self, headers: &mut Headers) -> (Option<Peer>, Told) {
        let peer = headers.get(&METADATA).and_then(|value| self.of_header(value.as_bytes()));
        let told = Told { metadata: headers.remove(&METADATA), id: headers.remove(&ID) };
        (peer, told)
    }

    pub(super) fn of_header(&self, value: &[u8]) -> Option<Peer> {
        if let Some(peer) = self.0.borrow().get(value) {
            return Some(peer.clone());
        }
        let peer = Interned::new(metadata::of_header(value)?);
        let mut known = self.0.borrow_mut();
        if known.len() >= MAX_PEERS {
            let mut left = MAX_PEERS / 4 * 3;
            known.retain(|_, _| {
                left = left.saturating_sub(1);
                left > 0
            });
        }
        known.insert(value.into(), peer.clone());
        Some(peer)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

impl super::NodeFacts {
    /// Says in a message who we are, in place of what stands there; `which` of the two headers.
    pub(crate) fn tell(&self, headers: &mut Headers, which: Told) {
        for (name, value, is_wanted) in
            [(&ID, self.id(), which.id), (&METADATA, self.metadata(), which.metadata)]
        {
            if let Some(value) = value.filter(|_| is_wanted) {
                headers.set(name.clone(), value.clone());
            }
        }
    }
}

/// Takes away who a message says that its sender is.
pub(crate) fn forget(headers: &mut Headers) {
    headers.remove(&METADATA);
    headers.remove(&ID);
}
