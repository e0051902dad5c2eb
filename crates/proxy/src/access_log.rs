//! Access logs: a line per request, rendered by the worker, written by one thread for the whole process.
//!
//! A worker collects lines per file and hands a chunk over when it is large enough or old enough, so that a slow
//! disk or a full pipe never stops a worker; what the writer cannot take is dropped and counted.
//! Source: Envoy's file access log, `--file-flush-interval-msec` and `--file-flush-min-size-kb`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use meltemi_compile::log_filter::LogFilter;
use meltemi_compile::program::{AccessLog, LogFormat};

use crate::record::RecordView;

mod filter;
pub mod format;
mod tls;
mod values;
mod writer;

pub(crate) use writer::check;
pub use writer::{LogSink, LogWriter};

/// When lines leave the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushPolicy {
    /// At the latest after this time; Envoy's default is 10 s, Istio's agent sets 1 s.
    pub interval: Duration,
    /// As soon as so many bytes are there; default 64 KiB.
    pub min_bytes: usize,
}

impl Default for FlushPolicy {
    fn default() -> FlushPolicy {
        FlushPolicy { interval: Duration::from_secs(10), min_bytes: 64 << 10 }
    }
}

/// The access logs of one worker: a buffer per file.
#[derive(Debug)]
pub struct WorkerLogs {
    sink: LogSink,
    buffers: RefCell<BTreeMap<Box<str>, Rc<Buffer>>>,
}

#[derive(Debug)]
struct Buffer {
    path: Arc<str>,
    sink: LogSink,
    bytes: RefCell<Vec<u8>>,
}

/// One access log as one worker writes it. Made at configuration time.
#[derive(Debug, Clone)]
pub struct Logger {
    log: Arc<AccessLog>,
    buffer: Rc<Buffer>,
}

impl WorkerLogs {
    /// No buffers yet.
    pub fn new(sink: LogSink) -> WorkerLogs {
        WorkerLogs { sink, buffers: RefCell::default() }
    }

    /// The logger for a sink of the configuration.
    pub fn logger(&self, log: &Arc<AccessLog>) -> Logger {
        let mut buffers = self.buffers.borrow_mut();
        let buffer = buffers.entry(log.path.clone()).or_insert_with(|| {
            let path = Arc::from(&*log.path);
            Rc::new(Buffer { path, sink: self.sink.clone(), bytes: RefCell::default() })
        });
        Logger { log: Arc::clone(log), buffer: Rc::clone(buffer) }
    }

    /// Hands over what is there. Call it before the worker ends.
    pub fn flush(&self) {
        self.buffers.borrow().values().for_each(|buffer| buffer.flush());
    }

    /// Flushes at the interval, for ever. Cancel safe.
    pub async fn run(&self) {
        let mut interval = tokio::time::interval(self.sink.policy().interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.flush();
        }
    }
}

impl Buffer {
    fn flush(&self) {
        let bytes = std::mem::take(&mut *self.bytes.borrow_mut());
        if !bytes.is_empty() {
            self.sink.write(&self.path, bytes);
        }
    }
}

impl Logger {
    /// Writes the line of a finished request or connection.
    pub fn log(&self, view: &RecordView<'_>) {
        if self.log.filter.as_ref().is_some_and(|filter| !allows(filter, view)) {
            return;
        }
        let missing = if self.log.omit_empty_values { format::Missing::Empty } else { format::Missing::Dash };
        let full = {
            let mut bytes = self.buffer.bytes.borrow_mut();
            match &self.log.format {
                LogFormat::Text(text) => format::render(text, view, missing, &mut bytes),
                LogFormat::Json(json) => format::render_json(json, view, missing, &mut bytes),
            }
            bytes.len() >= self.buffer.sink.policy().min_bytes
        };
        if full {
            self.buffer.flush();
        }
    }
}

/// Whether a filter takes a record; filters of logs choose other things too.
pub(crate) fn allows(filter: &LogFilter, view: &RecordView<'_>) -> bool {
    filter.allows(&filter::Line::new(view))
}

#[cfg(test)]
mod tests;
