//! Looking again when something has changed. A thread of its own, because reading files blocks. Leaves out what a look
//! finds (`state.rs`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
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
    ended: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        wake(&self.wake);
    }
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
    let ended = Arc::new(AtomicBool::new(false));
    let (feed, batches) = mpsc::channel(QUEUE_BATCHES);
    let follower = Follower {
        directories: paths.iter().filter(|path| path.is_dir()).cloned().collect(),
        paths,
        watcher: None,
        wake: wake.clone(),
        woken,
        ended: Arc::clone(&ended),
        feed,
        state: State::default(),
    };
    thread::Builder::new().name("file-source".to_owned()).spawn(move || follower.run())?;
    Ok((batches, Watch { ended, wake }))
}

/// Asks for a look. A full channel means that one is due already, a closed one that nobody looks any more.
fn wake(channel: &SyncSender<()>) {
    if let Err(TrySendError::Full(()) | TrySendError::Disconnected(())) = channel.try_send(()) {}
}

/// Asks the system to tell of changes; `None` when it cannot, and looking from time to time has to do.
fn start_watcher(paths: &[PathBuf], channel: SyncSender<()>) -> Option<RecommendedWatcher> {
    let roots: Vec<_> =
        paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).collect();
    let result = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let matters = event.as_ref().map_or(true, |event| is_change(event, &roots));
        if matters {
            wake(&channel);
        }
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
    /// The paths that are directories. When one goes, its files have not been deleted one by one; they are out of sight.
    directories: Vec<PathBuf>,
    /// Tells of changes; without it, looking from time to time has to do.
    watcher: Option<RecommendedWatcher>,
    wake: SyncSender<()>,
    woken: Receiver<()>,
    ended: Arc<AtomicBool>,
    feed: mpsc::Sender<Batch>,
    state: State,
}

impl Follower {
    fn run(mut self) {
        self.watcher = start_watcher(&self.paths, self.wake.clone());
        loop {
            let batch = self.look();
            if let Some(batch) = batch
                && self.feed.blocking_send(batch).is_err()
            {
                return;
            }
            self.wait();
            if self.ended.load(Ordering::Acquire) || self.feed.is_closed() {
                return;
            }
        }
    }

    fn look(&mut self) -> Option<Batch> {
        if let Some(gone) = self.directories.iter().find(|path| !path.is_dir()) {
            // The system watches a directory, not its name: one that comes back is found by looking.
            self.watcher = None;
            return self.state.lose(format!("the directory {} is gone", gone.display()));
        }
        if self.state.is_lost() {
            self.watcher = start_watcher(&self.paths, self.wake.clone());
        }
        self.state.update(scan::read(&self.paths))
    }

    /// Waits for the next settled change.
    fn wait(&self) {
        // The thread holds a sender itself, so the channel does not close; a timeout is the only error.
        if self.watcher.is_none() {
            let _ = self.woken.recv_timeout(POLL);
            return;
        }
        if self.woken.recv().is_err() {
            return;
        }
        let deadline = Instant::now() + SETTLE_AT_MOST;
        while Instant::now() < deadline && !self.ended.load(Ordering::Acquire) {
            if self.woken.recv_timeout(SETTLE).is_err() {
                return;
            }
        }
    }
}
