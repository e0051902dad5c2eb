//! `up` as a whole, with processes that only pretend: this test binary is its own control plane, proxy and workload,
//! as the `meltemi` binary is in reality. What is tested is supervision; no request goes through a mesh here.

#![expect(clippy::unwrap_used, reason = "a test; the lint knows only functions marked as such")]

mod pretenders;
mod up;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("up") => pretenders::up(&arguments[1..]),
        Some("reaper") => pretenders::reaper(&arguments[1..]),
        Some("control-plane") => pretenders::control_plane(&arguments),
        Some("proxy") => pretenders::proxy(&arguments),
        Some("program") if arguments.last().is_some_and(|word| word == "crash") => ExitCode::FAILURE,
        Some("program") => pretenders::program(),
        // `cargo test -- --list` and filters; a filter picks by part of the name.
        Some("--list") => up::list(),
        filter => up::run(filter.filter(|argument| !argument.starts_with('-'))),
    }
}
