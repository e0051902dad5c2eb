//! The exchange at the beginning of a connection (`istio-peer-exchange`), if TLS agreed upon it.

use std::cell::OnceCell;
use std::io;
use std::rc::Rc;

use meltemi_http::Io;
use meltemi_http::peer_exchange::{PeerExchange, PeerFrame};

use super::{Interned, Peer, metadata};

/// Whoever is at the other end of a connection, once it has said so.
#[derive(Debug)]
pub(crate) struct ExchangedPeer {
    frame: Rc<PeerFrame>,
    peer: OnceCell<Option<Peer>>,
}

impl ExchangedPeer {
    /// Whether nothing more is to come.
    pub(crate) fn is_settled(&self) -> bool {
        self.frame.is_settled()
    }

    /// The peer, if it has told.
    pub(crate) fn peer(&self) -> Option<&Peer> {
        if !self.is_settled() {
            return None;
        }
        let read = || self.frame.take().and_then(|body| metadata::of_frame(&body)).map(Interned::new);
        self.peer.get_or_init(read).as_ref()
    }
}

/// Begins the exchange with `frame` if TLS agreed upon `protocol`; else the stream stays as it is.
pub(crate) async fn exchange(
    stream: Io,
    protocol: &str,
    frame: &[u8],
) -> io::Result<(Io, Option<Rc<ExchangedPeer>>)> {
    let Io::Tls(tls) = stream else { return Ok((stream, None)) };
    if tls.session().state().alpn_protocol() != Some(protocol.as_bytes()) {
        return Ok((Io::Tls(tls), None));
    }
    // On the heap: the task of every connection would carry room for it.
    let (stream, frame) = Box::pin(PeerExchange::begin(*tls, frame)).await?;
    let peer = ExchangedPeer { frame, peer: OnceCell::new() };
    Ok((Io::Exchange(Box::new(stream)), Some(Rc::new(peer))))
}
