//! Every bound of this crate, with its reason.

use std::time::Duration;

/// How long a call to the certificate authority may take, handshake included.
pub(crate) const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection to the control plane may take, handshake included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Shortest and longest pause between attempts to get a certificate. The first is short because nothing of a workload
/// works before it has one; jitter spreads a storm.
pub(crate) const RETRY_BASE: Duration = Duration::from_millis(200);
/// See [`RETRY_BASE`].
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(10);

/// The longest sleep before the clock is looked at again: the clock of a machine that was suspended or set jumps.
pub(crate) const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// The share of a certificate's life after which it is renewed, and how far that is spread. Istio's.
pub(crate) const RENEWAL_RATIO: f64 = 0.5;
/// See [`RENEWAL_RATIO`].
pub(crate) const RENEWAL_JITTER: f64 = 0.01;

/// Connections of the proxy to the control plane at one time. A proxy has one, and for a moment two.
pub(crate) const MAX_RELAYED: usize = 16;

/// Secrets from files that are watched for the proxy.
pub(crate) const MAX_FILE_SECRETS: usize = 256;

/// How often files of secrets are looked at.
pub(crate) const FILE_POLL: Duration = Duration::from_secs(1);

/// Largest file of a secret.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;

/// Names of secrets on their way to the task that reads files.
pub(crate) const NAME_QUEUE: usize = 64;

/// Updates on their way to one caller of the Workload API.
pub(crate) const WORKLOAD_QUEUE: usize = 1;

/// The pause after a connection could not be accepted.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a proxy may take to begin its drain.
pub(crate) const DRAIN_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
