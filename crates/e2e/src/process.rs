//! Child processes of tests: logs kept, killed on drop, waited for with a deadline.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal};

/// How long anything in a test may take before it counts as hung.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A running program whose output goes to a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and error in `log`.
    ///
    /// # Errors
    /// If the log cannot be created or the program cannot be started.
    pub fn spawn(command: &mut Command, log: &Path) -> io::Result<Process> {
        let file = File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Process { child: command.spawn()?, log: log.to_path_buf() })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the program has printed so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal; one that comes too late is fine.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _gone = rustix::process::kill_process(pid, signal);
        }
    }

    /// Waits until the program ends.
    ///
    /// # Errors
    /// If it still runs at the deadline.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let child = &mut self.child;
        let ended = until("the process ends", deadline, async || child.try_wait().ok().flatten()).await;
        ended.with_context(|| self.output())
    }

    /// Whether the program has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Asks `probe` again and again until it gives an answer.
///
/// # Errors
/// With `what` when it gave none within the deadline.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = probe().await {
            return Ok(answer);
        }
        anyhow::ensure!(Instant::now() < end, "not within {deadline:?}: {what}");
        tokio::time::sleep(STEP).await;
    }
}

/// The step of a polling loop with a deadline: another process gives no event to wait for.
const STEP: Duration = Duration::from_millis(10);
