//! Every bound of this crate, with its reason.

use std::time::Duration;

/// After a change, further ones are awaited for this long: an editor's save or a `git checkout` is several.
pub(crate) const DEBOUNCE_QUIET: Duration = Duration::from_millis(20);

/// However many changes come, a generation is made after this long.
pub(crate) const DEBOUNCE_MAX: Duration = Duration::from_millis(200);

/// The length of each of two steps when PeerAuthentication makes callers change between mutual TLS and plaintext: first
/// workloads let in both, then callers change, then workloads let in the new alone. In one step every proxy hears of the
/// one before, which takes milliseconds, and on a busy machine a second.
pub(crate) const TRANSITION: Duration = Duration::from_secs(1);

/// Reports waiting to be printed. More are dropped and counted: a terminal that does not read must not hold
/// up the mesh.
pub(crate) const REPORT_QUEUE: usize = 256;

/// How long the end of the process waits for reports to be printed.
pub(crate) const REPORT_FLUSH: Duration = Duration::from_millis(500);

/// How long the end of the process waits for the servers. Streams are ended at once; a connection that lingers
/// after that has nothing more to get.
pub(crate) const SHUTDOWN: Duration = Duration::from_millis(300);

/// Generations whose start is remembered, to tell how long proxies took to take them.
pub(crate) const REMEMBERED_GENERATIONS: usize = 64;

/// Objects that the report of a refusal names.
pub(crate) const MAX_BLAMED: usize = 5;

/// Findings of one moment that are shown on the terminal, and resolved ones: more than a few screens nobody reads,
/// and one wrong name can be thousands.
pub(crate) const MAX_SHOWN: usize = 50;

/// How often the files of the certificate authority are looked at. A change of roots takes hours; a second is at once.
pub(crate) const AUTHORITY_POLL: Duration = Duration::from_secs(1);

/// Largest request for a certificate: one for RSA 4096 has 2 KiB.
pub(crate) const MAX_CSR_MESSAGE: usize = 64 << 10;

/// One-time credentials whose use is remembered. They live for minutes; so many starts in that time are no workloads.
pub(crate) const MAX_USED_CREDENTIALS: usize = 100_000;

/// How long a client may take for its TLS handshake.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS handshakes at one time; more wait in the kernel's queue. A handshake holds some 20 KiB.
pub(crate) const MAX_HANDSHAKES: usize = 512;

/// Connections that wait to be served after their handshake.
pub(crate) const ACCEPTED_QUEUE: usize = 16;

/// The pause after a connection could not be accepted.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long the control plane's own certificate is good; it is renewed at half of it.
pub(crate) const SERVING_CERTIFICATE_TTL: Duration = Duration::from_secs(24 * 3600);

/// Longest token that is read: those of Kubernetes have 1 to 2 KiB.
pub(crate) const MAX_TOKEN_BYTES: usize = 16 << 10;

/// How far the clocks of a token's issuer and ours may be apart.
pub(crate) const TOKEN_LEEWAY: Duration = Duration::from_secs(60);

/// After this long, keys of an OpenID provider are fetched again when a token needs one; Istio's period.
pub(crate) const KEYS_REFRESH: Duration = Duration::from_secs(20 * 60);

/// How long keys are used while the provider cannot be reached; then no token is believed.
pub(crate) const KEYS_MAX_AGE: Duration = Duration::from_secs(3600);

/// The least time between two attempts to fetch them.
pub(crate) const KEYS_PAUSE: Duration = Duration::from_secs(10);

/// How long an attempt may take, both requests of a discovery together.
pub(crate) const KEYS_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer of a provider that is read.
pub(crate) const MAX_KEYS_BYTES: usize = 1 << 20;

/// Orders that wait for the mesh; people give them one by one.
pub(crate) const ORDER_QUEUE: usize = 8;

/// Largest text of the objects of one generation that is kept: what the parser reads.
pub(crate) const MAX_GENERATION_BYTES: usize = 16 << 20;

/// All texts of kept generations together. The oldest ones are let go.
pub(crate) const MAX_GENERATIONS_BYTES: u64 = 64 << 20;

/// Generations that are kept unless the command line says otherwise.
pub(crate) const KEEP_GENERATIONS: usize = 10;

/// Most generations that may be kept.
pub(crate) const MAX_KEEP_GENERATIONS: usize = 1000;

/// Files that are looked at to tell who saved a generation.
pub(crate) const MAX_AUTHOR_FILES: usize = 1000;
