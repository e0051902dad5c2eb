//! One process with its process group, its log and its end. Leaves out restarts.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use meltemi_identity::Credential;
use meltemi_runtime::task::{self, Task};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

use crate::limits::MAX_LINE_BYTES;
use crate::mark;
use crate::unit::{Launch, Notice, Notices};

/// A started process, leader of its own group.
pub(super) struct Child {
    process: tokio::process::Child,
    pid: Pid,
    mark: String,
}

impl Child {
    /// Starts it; a credential is on its standard input, and nothing else ever.
    pub(super) fn spawn(launch: &Launch, mark: &str, credential: Option<Credential>) -> io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&launch.log)?;
        let (program, arguments) = launch.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(&launch.environment)
            .env(mark::VARIABLE, mark)
            .current_dir(&launch.directory)
            .stdin(credential.map_or(Ok(Stdio::null()), |credential| input(&credential))?)
            .stderr(log.try_clone()?)
            .stdout(if launch.returns_lines { Stdio::piped() } else { Stdio::from(log) })
            .process_group(0);
        die_with_parent(&mut command);
        let process = command.spawn()?;
        let pid = process
            .id()
            .and_then(|pid| Pid::from_raw(pid.try_into().ok()?))
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(Child { process, pid, mark: mark.to_owned() })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Completes when the process has ended, and says how. Cancel safe.
    pub(super) async fn ended(&mut self) -> String {
        match self.process.wait().await {
            Ok(status) => describe(status),
            Err(error) => format!("lost: {error}"),
        }
    }

    /// Passes its standard output on, if it comes back; the task ends with the output.
    pub(super) fn lines(&mut self, unit: String, notices: Notices) -> Option<Task<()>> {
        let stdout = self.process.stdout.take()?;
        Some(task::spawn("lines", pass_lines(stdout, unit, notices)))
    }

    /// Asks the group to end, and kills what is left of it after `grace`.
    pub(super) async fn stop(&mut self, grace: Duration) {
        // Errors mean that nothing is left to signal.
        let _ = kill_process_group(self.pid, Signal::TERM);
        let in_time = timeout(grace, self.process.wait()).await.is_ok();
        self.kill_rest();
        if !in_time {
            let _ = self.process.wait().await;
        }
    }

    /// Kills what the process left behind: its group, and what left the group but not its environment.
    pub(super) fn kill_rest(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        mark::kill_all(&self.mark);
    }
}

/// A pipe that holds the credential and whose other end is closed. It is far smaller than what a pipe holds.
fn input(credential: &Credential) -> io::Result<Stdio> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(credential.as_str().as_bytes())?;
    Ok(Stdio::from(reader))
}

/// The process gets SIGKILL when `up` dies. The signal is tied to the thread that forks, which is the main thread: all
/// of `up` runs on it.
#[expect(unsafe_code, reason = "std has no safe way to run code between fork and exec")]
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // Had the parent died before the line above, no signal would come any more.
        match rustix::process::getppid() == Some(parent) {
            true => Ok(()),
            false => Err(io::Error::from(rustix::io::Errno::SRCH)),
        }
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes two direct system calls
    // (prctl, getppid), compares two integers and returns an OS error code; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
}

async fn pass_lines(stdout: ChildStdout, unit: String, notices: Notices) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
        if notices.send((unit.clone(), Notice::Line(text))).await.is_err() {
            return;
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
