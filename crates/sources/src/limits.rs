//! The bounds of a file source.

use std::time::Duration;

/// Most files read. A directory with more is probably not one of manifests.
pub(crate) const MAX_FILES: usize = 10_000;
/// Deepest directory below a watched one.
pub(crate) const MAX_DEPTH: usize = 16;
/// Longest file read; the parser refuses longer texts anyway.
pub(crate) const MAX_FILE_BYTES: u64 = 16 << 20;
/// Batches that may wait for the reader; with more, the source waits before it looks again, and merges.
pub(crate) const QUEUE_BATCHES: usize = 4;
/// Quiet time after which a change counts as complete: editors write a file in several steps within a few ms.
pub(crate) const SETTLE: Duration = Duration::from_millis(30);
/// Longest wait for quiet, so that a directory that is never quiet is read all the same.
pub(crate) const SETTLE_AT_MOST: Duration = Duration::from_millis(90);
/// Time between looks where the system cannot watch (inotify's limits used up, a file system without events).
pub(crate) const POLL: Duration = Duration::from_millis(500);
