//! The mark that every process of a mesh carries in its environment, and the search for marked processes. This is how
//! a program's grandchildren are found that left its process group.
//!
//! Leaves out processes that clear their environment *and* leave their group; nothing without privileges can follow
//! those. Source: `proc_pid_environ(5)`.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::limits::MAX_REAP_PASSES;

/// The variable.
pub(crate) const VARIABLE: &str = "MELTEMI_UP";

/// A mark of this process that no other run has: process numbers come back, with the time they do not.
pub(crate) fn fresh() -> String {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", std::process::id(), since_epoch.as_nanos())
}

/// The mark of one process group of a mesh.
pub(crate) fn of_unit(mesh: &str, unit: &str) -> String {
    format!("{mesh}/{unit}/")
}

/// Kills every process whose mark starts with `mark`, until a pass over the process table finds none.
pub(crate) fn kill_all(mark: &str) {
    for _ in 0..MAX_REAP_PASSES {
        let found = marked(mark);
        if found.is_empty() {
            return;
        }
        for pid in found {
            // An error means that it is gone already, or was never ours to kill.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::yield_now();
    }
}

/// The living processes whose mark starts with `mark`, without the caller itself.
fn marked(mark: &str) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid) != Ok(std::process::id()))
        .filter(|pid| carries(*pid, mark))
        .filter_map(Pid::from_raw)
        .collect()
}

/// A process that ended but was not waited for has an empty environment, so it does not count as living.
fn carries(pid: i32, mark: &str) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    environment.split(|byte| *byte == 0).any(|entry| {
        let value = entry.strip_prefix(VARIABLE.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
        value.is_some_and(|value| value.starts_with(mark.as_bytes()))
    })
}
