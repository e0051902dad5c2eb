//! What the kernel says: CPU time of processes and of the machine, memory; and pinning.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

/// `taskset -c CPU program`.
pub(crate) fn pinned(cpu: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &cpu.to_string()]).arg(program);
    command
}

/// CPU time of all threads of a process, by the scheduler's own account.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split_whitespace().next().context("schedstat")?.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// CPU time of this process and of its children that have ended, in ticks of 10 ms.
pub(crate) fn own_seconds() -> anyhow::Result<f64> {
    ticks("self", 4)
}

/// CPU time of a process, threads that have ended included, in ticks of 10 ms.
pub(crate) fn process_seconds(pid: u32) -> anyhow::Result<f64> {
    ticks(&pid.to_string(), 2)
}

/// The first `count` of utime, stime, cutime and cstime.
fn ticks(pid: &str, count: usize) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = text.rsplit_once(')').context("stat")?.1;
    // utime, stime, cutime and cstime are the fields 14 to 17; the text after the name begins with field 3.
    let ticks =
        after_name.split_whitespace().skip(11).take(count).filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / 100.0)
}

/// CPU time of the whole machine that was not idle, stolen time included.
pub(crate) fn busy_seconds() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("cpu line")?;
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let idle = fields.get(3).copied().unwrap_or_default() + fields.get(4).copied().unwrap_or_default();
    Ok((fields.iter().take(8).sum::<f64>() - idle) / 100.0)
}

/// A line of `/proc/PID/status` in KiB, such as `VmRSS:`.
pub(crate) fn memory_kib(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field)).context("no such field")?;
    Ok(line.split_whitespace().nth(1).context("no value")?.parse()?)
}

/// As many descriptors as the machine lets us have.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_err() {
        eprintln!("the limit of descriptors cannot be raised");
    }
}
