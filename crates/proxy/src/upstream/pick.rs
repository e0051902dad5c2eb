//! What a request or connection brings to the choice of its host (Envoy's `LoadBalancerContext`).

use std::net::SocketAddr;

use meltemi_compile::metadata_match::MetadataMatch;
use meltemi_http::Headers;

/// Everything that a balancer may ask; the default asks for nothing in particular.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct PickContext<'a> {
    /// Key for ring hash and Maglev, from the hash policies; without one the key is random.
    pub(crate) hash: Option<u64>,
    /// What the metadata of the host must hold, for subsets.
    pub(crate) metadata: Option<&'a MetadataMatch>,
    /// Hosts that `previous_hosts` rejects.
    pub(crate) avoid: &'a [SocketAddr],
    /// `omit_canary_hosts`: hosts on trial are rejected too.
    pub(crate) omit_canary: bool,
    /// `host_selection_retry_max_attempts`: further draws that avoiding may cost.
    pub(crate) attempts: u32,
    /// Priorities of the hosts tried so far, in order, when `previous_priorities` is in force.
    pub(crate) tried_priorities: &'a [u32],
    /// `update_frequency` of `previous_priorities`: how many attempts it takes to leave priorities out.
    pub(crate) priority_update_frequency: usize,
    /// Of the request, for clusters that read the host from them.
    pub(crate) headers: Option<&'a Headers>,
    /// Where the client wanted to go, for `ORIGINAL_DST` clusters.
    pub(crate) original_destination: Option<SocketAddr>,
}
