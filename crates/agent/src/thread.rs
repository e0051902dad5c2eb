//! An agent inside the process of a proxy: a thread of its own, so that the proxy's threads never wait for it.

use std::sync::mpsc;
use std::thread;

use anyhow::{Context, anyhow};
use rustix::process::{Signal, getpid, kill_process};

use crate::{Agent, AgentSpec};

/// Starts it; when this returns, its sockets are bound. When no certificate can be had any more, the process is asked to
/// end (`SIGTERM`), so that who has started it starts it anew.
///
/// # Errors
/// If the thread cannot be started or a socket cannot be bound.
pub fn beside(spec: AgentSpec) -> anyhow::Result<()> {
    let (started, outcome) = mpsc::channel();
    thread::Builder::new()
        .name("agent".to_owned())
        .spawn(move || run(spec, &started))
        .context("start the agent")?;
    outcome.recv().map_err(|_| anyhow!("the agent has ended"))?
}

fn run(spec: AgentSpec, started: &mpsc::Sender<anyhow::Result<()>>) {
    // The receiver waits for exactly one message.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(started.send(Err(error.into()))),
    };
    runtime.block_on(async {
        let mut agent = match Agent::start(spec) {
            Ok(agent) => agent,
            Err(error) => return drop(started.send(Err(error))),
        };
        drop(started.send(Ok(())));
        let error = agent.hopeless().await;
        tracing::error!(%error, "no certificate can be had: the process must be started again with a new credential");
        let _ = kill_process(getpid(), Signal::TERM);
        // What has a certificate still may finish on the agent's sockets.
        std::future::pending::<()>().await;
    });
}
