//! The thread that writes access logs.
//!
//! Files are opened to append when the first line comes and again after [`LogSink::reopen`]. A file that cannot be
//! opened or written loses its lines, with one message in the process log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use super::FlushPolicy;

/// Chunks that may wait for the writer, over all workers. At 64 KiB each this bounds the memory to 16 MiB.
const MAX_QUEUED_CHUNKS: usize = 256;

enum Message {
    Write { path: Arc<str>, bytes: Vec<u8> },
    Reopen,
    End,
}

/// The handle by which workers hand over chunks. Clone one per worker.
#[derive(Debug, Clone)]
pub struct LogSink {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    policy: FlushPolicy,
}

/// The writer thread.
#[derive(Debug)]
pub struct LogWriter {
    queue: SyncSender<Message>,
    thread: JoinHandle<()>,
}

impl LogWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn spawn(policy: FlushPolicy) -> std::io::Result<(LogWriter, LogSink)> {
        let (queue, messages) = sync_channel(MAX_QUEUED_CHUNKS);
        let dropped = Arc::<AtomicU64>::default();
        let sink = LogSink { queue: queue.clone(), dropped: Arc::clone(&dropped), policy };
        let run = move || Writer { files: BTreeMap::new(), dropped }.run(&messages);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(run)?;
        Ok((LogWriter { queue, thread }, sink))
    }

    /// Waits until everything is written that was handed over so far; what comes later is lost.
    pub fn finish(self) {
        // It fails only when the thread is gone, which joining tells.
        let _ = self.queue.send(Message::End);
        if self.thread.join().is_err() {
            tracing::error!("the access log writer panicked");
        }
    }
}

impl LogSink {
    /// When lines are to be handed over.
    pub fn policy(&self) -> &FlushPolicy {
        &self.policy
    }

    /// Queues whole lines for a file, or drops them when the writer is too far behind.
    pub(crate) fn write(&self, path: &Arc<str>, bytes: Vec<u8>) {
        let message = Message::Write { path: Arc::clone(path), bytes };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(message) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets the writer open every file anew before it writes on, as log rotation needs it. Does nothing when the
    /// queue is full.
    pub fn reopen(&self) {
        if self.queue.try_send(Message::Reopen).is_err() {
            tracing::warn!("access logs are not reopened: the writer is too far behind");
        }
    }

    /// Chunks of lines that were lost since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

struct Writer {
    /// `None`: could not be opened; said once, until the next reopening.
    files: BTreeMap<Arc<str>, Option<File>>,
    dropped: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Write { path, bytes } => self.write(&path, &bytes),
                Message::Reopen => self.files.clear(),
                Message::End => return,
            }
        }
    }

    fn write(&mut self, path: &Arc<str>, bytes: &[u8]) {
        let written = match &**path {
            "/dev/stdout" => write_stream(std::io::stdout().lock(), bytes),
            "/dev/stderr" => write_stream(std::io::stderr().lock(), bytes),
            _ => self.write_file(path, bytes),
        };
        if !written {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write_file(&mut self, path: &Arc<str>, bytes: &[u8]) -> bool {
        let file = self.files.entry(Arc::clone(path)).or_insert_with(|| open(path));
        let Some(open) = file else { return false };
        if let Err(error) = open.write_all(bytes) {
            tracing::warn!(%path, %error, "access log: write failed; no more lines until it is reopened");
            *file = None;
            return false;
        }
        true
    }
}

/// Whether lines could be written there.
///
/// # Errors
/// If the file can be neither opened nor made.
pub(crate) fn check(path: &str) -> std::io::Result<()> {
    match path {
        "/dev/stdout" | "/dev/stderr" => Ok(()),
        _ => open_to_append(path).map(drop),
    }
}

fn open_to_append(path: &str) -> std::io::Result<File> {
    File::options().append(true).create(true).open(path)
}

fn open(path: &str) -> Option<File> {
    match open_to_append(path) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::warn!(%path, %error, "access log: cannot open");
            None
        }
    }
}

/// Errors of the standard streams have nowhere to be told.
fn write_stream(mut stream: impl Write, bytes: &[u8]) -> bool {
    stream.write_all(bytes).and_then(|()| stream.flush()).is_ok()
}
