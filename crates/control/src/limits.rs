//! Every bound of this crate, with its reason.

use std::time::Duration;

/// After a change, further ones are awaited for this long: an editor's save or a `git checkout` is several.
pub(crate) const DEBOUNCE_QUIET: Duration = Duration::from_millis(20);

/// However many changes come, a generation is made after this long.
pub(crate) const DEBOUNCE_MAX: Duration = Duration::from_millis(200);

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
