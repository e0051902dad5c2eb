//! Who sends what: `istio.metadata_exchange` on the heads of a request and its response.
//!
//! The filter acts where istiod puts it, before all others on a request and after all others on a response, wherever it
//! stands in the chain.

use meltemi_compile::program::PeerTold;
use meltemi_http::Headers;

use super::Stream;
use crate::peer::{Told, forget};

impl Stream<'_, '_> {
    /// Reads who the client says it is, once, and takes it out of the request.
    pub(crate) fn meet_client(&mut self) {
        if self.manager.settings.peer_metadata.reads_requests {
            let peers = &self.manager.worker.peers;
            (self.record.downstream_peer, self.told) = peers.take(&mut self.request.headers);
        }
    }

    /// Says in the request who we are. Where that is not to be known, nobody else says it for us either.
    pub(crate) fn tell_upstream(&mut self, told: PeerTold) {
        self.peer_told = told;
        let Some(how) = self.manager.settings.peer_metadata.writes_requests else { return };
        forget(&mut self.request.headers);
        if how.reaches(told) {
            let both = Told { id: true, metadata: true };
            self.manager.worker.node.tell(&mut self.request.headers, both);
        }
    }

    /// Reads who the upstream says it is, and takes it out of the response.
    pub(crate) fn meet_upstream(&mut self, headers: &mut Headers) {
        if self.manager.settings.peer_metadata.reads_responses {
            (self.record.upstream_peer, _) = self.manager.worker.peers.take(headers);
        }
    }

    /// Says in the response who we are, to a client that said it too.
    pub(super) fn tell_client(&self, headers: &mut Headers) {
        let how = self.manager.settings.peer_metadata.writes_responses;
        if how.is_some_and(|how| how.reaches(self.peer_told)) {
            self.manager.worker.node.tell(headers, self.told);
        }
    }
}
