//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Largest message either end accepts. Envoy has no limit of its own; 5,000 clusters of 2 KiB are 10 MiB.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// gRPC streams per connection that a server accepts; a proxy opens one.
pub const MAX_STREAMS_PER_CONNECTION: u32 = 16;

/// Streams that a server serves at once; more are refused with `RESOURCE_EXHAUSTED`. One control plane of the
/// size of istiod serves some thousands of proxies.
pub const MAX_CLIENTS: usize = 10_000;

/// Resource names that one stream may subscribe to per type. With more the stream ends.
pub const MAX_NAMES_PER_TYPE: usize = 100_000;

/// Types that one stream may subscribe to. With more it ends.
pub const MAX_TYPES_PER_STREAM: usize = 64;

/// Removed resources that a server keeps serving to one client per type until the client has taken what
/// replaces them. When there are more (a client that refuses every route update), removals go out at once.
pub const MAX_RETAINED_PER_TYPE: usize = 4_096;

/// Resources that may have changed between two sets for the server to go by the difference; with more, comparing everything
/// costs no more.
pub const MAX_STEP_NAMES: usize = 1_024;

/// Sets back to which differences are known. A client that is busy for longer is compared as a whole once.
pub const MAX_STEPS: usize = 8;

/// How long listeners and routes wait for the clusters and endpoints sent before them to be answered. Envoy
/// answers clusters when they are warm; a cluster that never warms must not hold up routes for ever.
pub const MAX_PHASE_WAIT: Duration = Duration::from_secs(5);

/// HTTP/2 PING period of both ends, so that a peer that vanished is noticed.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long a PING may stay unanswered. Istio's default.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client waits for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// First and longest pause between a client's connection attempts. Envoy's are 0.5 s and 30 s; shorter here
/// because a new control plane should find its proxies at once, and jitter spreads them.
pub const RECONNECT_BASE: Duration = Duration::from_millis(100);
/// See [`RECONNECT_BASE`].
pub const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// Messages waiting between a core and its gRPC stream. Small: the protocol itself allows one update in
/// flight per type.
pub const STREAM_QUEUE: usize = 8;

/// Events or commands waiting between the client and its owner; more makes the sender wait.
pub const OWNER_QUEUE: usize = 64;

/// Requests that a client holds back while its stream is busy; beyond it no further commands are read.
pub const MAX_OUTBOX: usize = 64;

/// Bytes of a NACK's reason that are kept.
pub const MAX_REASON_BYTES: usize = 16 << 10;
