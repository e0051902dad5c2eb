//! What filters see of a request, what they decide, and what they ask the proxy to do.

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::matcher::RequestView;

/// A request as filters see it. Counting is the only thing that a filter does by itself.
pub trait FilterView: RequestView {
    /// A new random number at every call, uniform.
    fn draw(&self) -> u64;
    /// Counts something in the statistics of the connection manager.
    fn count(&self, event: Event);
    /// Faults under way under this `stat_prefix`, on all workers.
    fn active_faults(&self) -> u32;
    /// Whether the route forwards (Envoy: it has a route entry).
    fn forwards(&self) -> bool;
    /// Whether the request is no more than its head.
    fn is_head_only(&self) -> bool;
    /// Whether the admin interface says that health checks fail.
    fn fails_health_checks(&self) -> bool;
    /// How many hosts of a cluster are healthy, and how many there are.
    fn cluster_health(&self, cluster: &str) -> Option<(u32, u32)>;
    /// The status that a health check got lately through the filter of this name.
    fn cached_health_check(&self, filter: &str) -> Option<StatusCode>;
    /// The cluster that the route leads to, if it forwards.
    fn target_cluster(&self) -> Option<Cow<'_, str>>;
}

/// What a filter says of a request.
#[derive(Debug)]
pub enum Verdict {
    /// On to the next filter.
    Continue,
    /// The request is answered here.
    Respond(Box<Answer>),
    /// The proxy does this first, then asks again ([`super::HttpFilter::resume`]).
    Await(Effect),
}

/// What the proxy does for a filter while the request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Waits.
    Delay(Duration),
    /// Reads the whole body, and answers 413 when it is larger.
    BufferRequest {
        /// In bytes.
        limit: u32,
    },
    /// Reads the whole body and drops it.
    DiscardRequest,
    /// Does the changes of [`super::header_mutation::HeaderMutation::all`].
    MutateRequest,
    /// Sets the objects of [`super::set_filter_state::SetFilterState::all`].
    SetFilterState,
}

/// An answer of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Body; the proxy says its type and length.
    pub body: Cow<'static, str>,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `grpc-status` for gRPC requests in place of the one that the status maps to.
    pub grpc_status: Option<u32>,
    /// Response flag.
    pub flag: Option<AnswerFlag>,
    /// Sent as it is, also to gRPC clients, and no local reply to Envoy's mapper.
    pub verbatim: bool,
}

impl Answer {
    /// An answer without body, headers or flag.
    pub fn new(status: StatusCode, details: &'static str) -> Answer {
        Answer {
            status,
            body: Cow::Borrowed(""),
            details,
            headers: Vec::new(),
            grpc_status: None,
            flag: None,
            verbatim: false,
        }
    }
}

/// The response flags that filters set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerFlag {
    /// `FI`.
    FaultInjected,
    /// `LH`.
    FailedLocalHealthCheck,
}

/// What a filter does to a response head.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum HeadEdit {
    /// Nothing.
    #[default]
    Nothing,
    /// Each of these becomes the only one of its name.
    Set(Vec<(HeaderName, HeaderValue)>),
    /// Does the changes of [`super::header_mutation::HeaderMutation::all`].
    Mutate,
    /// Says who answered a health check, and remembers the status.
    HealthChecked,
    /// Counts a gRPC call.
    CountGrpc,
    /// Holds the body to so many KiB/s.
    Pace(NonZeroU64),
}

/// What filters count, below `http.<stat_prefix>.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `cors.origin_valid`.
    OriginValid,
    /// `cors.origin_invalid`.
    OriginInvalid,
    /// `fault.delays_injected`, also under the downstream cluster.
    DelayInjected {
        /// Under the downstream cluster too.
        by_downstream_cluster: bool,
    },
    /// `fault.aborts_injected`, also under the downstream cluster.
    AbortInjected {
        /// Under the downstream cluster too.
        by_downstream_cluster: bool,
    },
    /// `fault.response_rl_injected`.
    RateLimitInjected,
    /// `fault.faults_overflow`.
    FaultsOverflow,
}
