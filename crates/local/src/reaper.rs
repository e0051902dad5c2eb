//! The process that ends whatever `up` started when `up` itself can no longer do it (SIGKILL, a crash, an OOM kill).
//!
//! It is a child of `up` in a session of its own, so neither Ctrl-C nor a kill of `up`'s process group reaches it.
//! Its standard input is a pipe whose other end only `up` holds: numbers of process groups come through it, and its
//! end means that `up` is gone. Direct children die by `PR_SET_PDEATHSIG` too; this catches what they started.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader};
use std::process::{ExitCode, Stdio};

use meltemi_runtime::task::{self, Task};
use rustix::process::{Pid, Signal, kill_process_group, setsid};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use crate::args::ReaperArgs;
use crate::limits::EVENT_QUEUE;
use crate::mark;

/// Waits for the end of standard input, then kills the mesh. The body of the hidden command that [`Reaper`] starts.
pub fn reap(args: &ReaperArgs) -> ExitCode {
    // It fails only for a group leader, and then a terminal's signals do not come here anyway.
    let _ = setsid();
    let mut groups = BTreeSet::new();
    for line in BufReader::new(io::stdin().lock()).lines() {
        let Ok(line) = line else { break };
        note(&mut groups, &line);
    }
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    mark::kill_all(&format!("{}/", args.mesh));
    ExitCode::SUCCESS
}

/// `+PID` is a group that started, `-PID` one that ended.
fn note(groups: &mut BTreeSet<i32>, line: &str) {
    if let Some(started) = line.strip_prefix('+').and_then(|pid| pid.parse().ok()) {
        groups.insert(started);
    } else if let Some(ended) = line.strip_prefix('-').and_then(|pid| pid.parse::<i32>().ok()) {
        groups.remove(&ended);
    }
}

/// Tells the reaper of process groups. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Registrar(mpsc::Sender<String>);

impl Registrar {
    pub(crate) async fn started(&self, pid: u32) {
        // The reaper task lives as long as `up`.
        let _ = self.0.send(format!("+{pid}\n")).await;
    }

    pub(crate) async fn ended(&self, pid: u32) {
        let _ = self.0.send(format!("-{pid}\n")).await;
    }

    #[cfg(test)]
    pub(crate) fn to_nobody() -> Registrar {
        Registrar(mpsc::channel(1).0)
    }
}

/// The running reaper, restarted should somebody kill it alone. Dropping it ends the pipe.
#[derive(Debug)]
pub(crate) struct Reaper {
    _task: Task<()>,
}

impl Reaper {
    /// Starts it; `command` runs [`reap`] with the mesh's mark.
    pub(crate) fn start(command: impl Fn() -> Command + Send + 'static) -> io::Result<(Reaper, Registrar)> {
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        let first = spawn(command())?;
        let task = task::spawn("reaper", keep(command, first, receiver));
        Ok((Reaper { _task: task }, Registrar(sender)))
    }
}

fn spawn(mut command: Command) -> io::Result<(Child, ChildStdin)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let stdin = child.stdin.take().ok_or_else(|| io::Error::other("the reaper has no standard input"))?;
    Ok((child, stdin))
}

async fn keep(command: impl Fn() -> Command, first: (Child, ChildStdin), mut lines: mpsc::Receiver<String>) {
    let (mut child, mut stdin) = first;
    let mut groups = BTreeSet::new();
    loop {
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else { return };
                note(&mut groups, line.trim_end());
                // A broken pipe shows as the reaper's exit below.
                let _ = stdin.write_all(line.as_bytes()).await;
            }
            _ = child.wait() => {
                let Ok(next) = spawn(command()) else { return };
                (child, stdin) = next;
                for group in &groups {
                    let _ = stdin.write_all(format!("+{group}\n").as_bytes()).await;
                }
            }
        }
    }
}
