//! Looking again when something has changed. A thread of its own, because reading files blocks. Leaves out what a look
//! finds (`state.rs`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Instant;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::state::State;
use super::{Batch, scan};
use crate::limits::{POLL, QUEUE_BATCHES, SETTLE, SETTLE_AT_MOST};

/// Keeps a watch going; dropping it ends the watch and closes the feed.
#[derive(Debug)]
#[must_use = "dropping a Watch ends it"]
pub struct Watch {
    /// Dropping the sender wakes and ends the thread.
    _alive: SyncSender<()>,
    _watcher: Option<RecommendedWatcher>,
}

/// Reads files and directories, and again whenever one changes. The first batch comes at once and has everything; the
/// next ones come within about 100 ms of the edit, one for each settled change. A file may appear later; a directory that
/// does not exist yet is taken for one.
///
/// The receiver's `recv` is cancel safe. When the reader is slow, changes merge.
///
/// # Errors
/// When the thread cannot be started.
pub fn watch(paths: Vec<PathBuf>) -> io::Result<(mpsc::Receiver<Batch>, Watch)> {
    let (wake, woken) = sync_channel(1);
    let watcher = start_watcher(&paths, wake.clone());
    let polls = watcher.is_none();
    let (feed, batches) = mpsc::channel(QUEUE_BATCHES);
    let follower = Follower { paths, woken, feed, polls, state: State::default() };
    thread::Builder::new().name("file-source".to_owned()).spawn(move || follower.run())?;
    Ok((batches, Watch { _alive: wake, _watcher: watcher }))
}

/// Asks the system to tell of changes; `None` when it cannot, and looking from time to time has to do.
fn start_watcher(paths: &[PathBuf], wake: SyncSender<()>) -> Option<RecommendedWatcher> {
    let roots: Vec<_> =
        paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).collect();
    let result = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let matters = event.as_ref().map_or(true, |event| is_change(event, &roots));
        // A full channel means that a look is due already; a closed one that the watch has ended.
        if matters && let Err(TrySendError::Full(()) | TrySendError::Disconnected(())) = wake.try_send(()) {}
    });
    let watched = result.and_then(|mut watcher| {
        for (path, mode) in places(paths) {
            watcher.watch(&path, mode)?;
        }
        Ok(watcher)
    });
    match watched {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(error = %error, "cannot watch files; looking every {POLL:?} instead");
            None
        }
    }
}

/// Whether an event may mean new content. Our own reading makes events too, which must not make us read again; and
/// neither must logs that somebody writes beside the files.
fn is_change(event: &Event, roots: &[PathBuf]) -> bool {
    let content = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Modify(ModifyKind::Data(_)) => {
            true
        }
        EventKind::Access(_) => false,
        _ => return event.need_rescan() || event.paths.iter().any(|path| concerns(path, roots)),
    };
    content
        && event
            .paths
            .iter()
            .any(|path| concerns(path, roots) && (scan::is_manifest(path) || roots.contains(path)))
}

/// Whether a path is one of the roots, below one, or a symbolic link beside one that may lead to it (a Kubernetes
/// volume swaps `..data`).
fn concerns(path: &Path, roots: &[PathBuf]) -> bool {
    let link = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
    link || roots.iter().any(|root| path.starts_with(root))
}

/// What to watch: directories as they are, files by their directory, since a file that is replaced is a new file.
fn places(paths: &[PathBuf]) -> BTreeSet<(PathBuf, RecursiveMode)> {
    let place = |path: &PathBuf| {
        if path.is_dir() {
            return (path.clone(), RecursiveMode::Recursive);
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        (parent.unwrap_or(Path::new(".")).to_owned(), RecursiveMode::NonRecursive)
    };
    paths.iter().map(place).collect()
}

/// The thread's state.
struct Follower {
    paths: Vec<PathBuf>,
    woken: Receiver<()>,
    feed: mpsc::Sender<Batch>,
    polls: bool,
    state: State,
}

impl Follower {
    fn run(mut self) {
        loop {
            let batch = self.state.update(scan::read(&self.paths));
            if let Some(batch) = batch
                && self.feed.blocking_send(batch).is_err()
            {
                return;
            }
            if !self.wait() || self.feed.is_closed() {
                return;
            }
        }
    }

    /// Waits for the next settled change; `false` when the watch has ended.
    fn wait(&self) -> bool {
        if self.polls {
            return !matches!(self.woken.recv_timeout(POLL), Err(RecvTimeoutError::Disconnected));
        }
        if self.woken.recv().is_err() {
            return false;
        }
        let deadline = Instant::now() + SETTLE_AT_MOST;
        loop {
            let patience = SETTLE.min(deadline.saturating_duration_since(Instant::now()));
            match self.woken.recv_timeout(patience) {
                Ok(()) if Instant::now() < deadline => {}
                Ok(()) | Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}
