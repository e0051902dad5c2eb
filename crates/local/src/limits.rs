//! Every bound of `meltemi up`, with its reason.

use std::time::Duration;

/// Most replicas and gateways together: the host numbers of a /24, without .0, .1 (control plane) and .255.
pub(crate) const MAX_INSTANCES: usize = 253;
/// Blocks tried before giving up: far more meshes than one machine carries.
pub(crate) const MAX_BLOCK_ATTEMPTS: u16 = 256;
/// Most bytes of one manifest file; the parser has the same bound.
pub(crate) const MAX_FILE_BYTES: u64 = 16 << 20;
/// Most manifest files of one directory: a wrong directory (a home, a checkout) should fail, not hang.
pub(crate) const MAX_FILES: usize = 4096;
/// Deepest directory below the one given.
pub(crate) const MAX_DIRECTORY_DEPTH: usize = 16;
/// A log file larger than this becomes its own `.1`.
pub(crate) const MAX_LOG_BYTES: u64 = 16 << 20;
/// How often log sizes are looked at. Bounds what a log can exceed its limit by.
pub(crate) const LOG_CHECK_PERIOD: Duration = Duration::from_secs(2);
/// How often the directory is looked at for changed Deployments.
pub(crate) const SCAN_PERIOD: Duration = Duration::from_millis(500);
/// Readiness changes that come within this time share one write of the state file.
pub(crate) const STATE_DEBOUNCE: Duration = Duration::from_millis(30);
/// First pause after a crash.
pub(crate) const RESTART_BASE: Duration = Duration::from_millis(100);
/// Longest pause after a crash.
pub(crate) const RESTART_MAX: Duration = Duration::from_secs(10);
/// A process that ran this long was stable: its next crash is a first one.
pub(crate) const STABLE_RUN: Duration = Duration::from_secs(30);
/// How long proxies wait for the control plane's first readiness; they retry by themselves after that.
pub(crate) const CONTROL_PLANE_START: Duration = Duration::from_secs(10);
/// Everything that `up` started has ended this long after the request to stop.
pub(crate) const SHUTDOWN: Duration = Duration::from_secs(5);
/// The share of one group (gateways, workloads, proxies, control plane) in [`SHUTDOWN`].
pub(crate) const SHUTDOWN_STEP: Duration = Duration::from_millis(1200);
/// How long a replica that is scaled away may take, when its pod template does not say.
pub(crate) const TERMINATION_GRACE: Duration = Duration::from_secs(30);
/// From the write of the state file until every proxy has it: between taking a replica out of the endpoints and asking it
/// to stop, and between the last replica's readiness and telling people that the mesh runs.
pub(crate) const ENDPOINT_PROPAGATION: Duration = Duration::from_millis(500);
/// Events between the tasks of `up` and its loop; a full queue makes the tasks wait.
pub(crate) const EVENT_QUEUE: usize = 1024;
/// Longest line passed on from the control plane, in bytes; the rest of the line is dropped.
pub(crate) const MAX_LINE_BYTES: u64 = 64 << 10;
/// Most bytes of a probe's answer that are read: the status line is at the front.
pub(crate) const MAX_PROBE_BYTES: usize = 1024;
/// How long the control plane may take to say who speaks mutual TLS: the table waits for it.
pub(crate) const SECURITY_TIMEOUT: Duration = Duration::from_secs(1);
/// Most bytes of its answer: a few hundred for every port of [`MAX_INSTANCES`] replicas.
pub(crate) const MAX_SECURITY_BYTES: u64 = 4 << 20;
/// Passes over the process table before giving up on processes that keep forking.
pub(crate) const MAX_REAP_PASSES: usize = 100;

/// How long a first credential is good: a proxy asks within a second of its start, unless the control plane is away.
pub(crate) const CREDENTIAL_LIFETIME: Duration = Duration::from_secs(10 * 60);
