//! `meltemi echo`: the demo and test server.
//!
//! Owns the command line, the listening socket and the graceful end. What is answered is in [`service`].

mod answer;
mod call;
mod fault;
mod service;

use std::cell::Cell;
use std::net::IpAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use meltemi_http::server::{ServerOptions, serve};
use meltemi_http::{Drain, DrainSignal, DrainStage, Io, drain};
use meltemi_runtime::signal::Shutdown;
use meltemi_runtime::task;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use self::call::Caller;
use self::fault::Faults;
use self::service::{Echo, Identity};
use crate::duration;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;

/// Without a connection for so long, nobody counts on us any more.
const QUIET: Duration = Duration::from_millis(200);

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answer every request with who answers and what arrived.
///
/// The answer is JSON: service, version, instance, the request as it arrived, and the answers of the services called for
/// it. The header `x-echo-versions` names everyone who took part.
///
/// A request can ask for trouble, by header or query: `x-echo-delay: 200ms` or `?delay=200ms`, `x-echo-status: 503` or
/// `?status=503`, `x-echo-fail-every: 2` or `?fail-every=2`, `x-echo-size: 1024` or `?size=1024` (a body of that size
/// instead of the JSON). `/healthz` answers 200; `POST /healthz?fail=true` makes it fail until `POST /healthz?fail=false`.
#[derive(Clone, Debug, clap::Args)]
#[command(disable_version_flag = true)]
pub struct EchoArgs {
    /// Port to listen on; 0 takes any free one and prints it.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Address to listen on.
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    pub host: IpAddr,
    /// Name of the service in answers.
    #[arg(long, default_value = "echo")]
    pub service: String,
    /// Version of the service in answers.
    #[arg(long = "version", value_name = "VERSION", default_value = "v1")]
    pub service_version: String,
    /// Name of this replica in answers.
    #[arg(long, env = "HOSTNAME", default_value = "")]
    pub instance: String,
    /// URL to call for every request before answering; repeat for several. Goes through HTTP_PROXY when that is set.
    #[arg(long = "call", value_name = "URL")]
    pub calls: Vec<String>,
    /// How long to wait for a called service.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration::parse)]
    pub call_timeout: Duration,
    /// Wait before every answer.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub delay: Option<Duration>,
    /// Fail every Nth request: a flaky replica.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub fail_every: Option<u64>,
    /// Status of those failures.
    #[arg(long, value_name = "CODE", default_value_t = 503, value_parser = clap::value_parser!(u16).range(200..600))]
    pub fail_status: u16,
    /// Paths to answer, comma-separated; others get 404. Without it every path is answered.
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    pub routes: Vec<String>,
    /// On SIGTERM: how long clients with open connections get to move away while requests are still answered.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    pub drain_time: Duration,
}

/// Runs until SIGTERM or SIGINT, then finishes the requests in flight. Blocks; builds its own runtime.
pub fn echo(args: &EchoArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(args))
}

async fn run(args: &EchoArgs) -> anyhow::Result<ExitCode> {
    let mut shutdown = Shutdown::listen()?;
    let listener = TcpListener::bind((args.host, args.port))
        .await
        .with_context(|| format!("cannot listen on {}:{}", args.host, args.port))?;
    let echo =
        Rc::new(Echo::new(identity(args), faults(args), Caller::from_env(&args.calls, args.call_timeout)?));
    anstream::println!(
        "{} {} ({}) listens on {}",
        args.service,
        args.service_version,
        args.instance,
        listener.local_addr()?
    );
    let (drain, signal) = drain();
    let connections = Rc::new(Connections::default());
    tokio::select! {
        () = accept(&listener, &echo, &signal, &connections) => {}
        cause = shutdown.requested() => tracing::info!(%cause, "draining"),
    }
    echo.drain();
    tokio::select! {
        () = accept(&listener, &echo, &signal, &connections) => {}
        () = leave(&drain, &connections, args.drain_time) => {}
        // A second signal ends it at once.
        _ = shutdown.requested() => return Ok(ExitCode::SUCCESS),
    }
    drop(listener);
    drain.advance(DrainStage::Closing);
    tokio::select! {
        () = connections.fewer_than(1) => {}
        () = tokio::time::sleep(args.drain_time + args.call_timeout) => tracing::warn!("requests cut off"),
        _ = shutdown.requested() => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn identity(args: &EchoArgs) -> Identity {
    Identity {
        service: args.service.clone(),
        version: args.service_version.clone(),
        instance: args.instance.clone(),
        routes: args.routes.clone(),
    }
}

fn faults(args: &EchoArgs) -> Faults {
    Faults {
        delay: args.delay,
        fail_every: args.fail_every,
        fail_status: args.fail_status,
        ..Faults::default()
    }
}

/// Accepts for ever.
async fn accept(
    listener: &TcpListener,
    echo: &Rc<Echo>,
    signal: &DrainSignal,
    connections: &Rc<Connections>,
) {
    let options = Rc::new(ServerOptions { accept_http_10: true, ..ServerOptions::default() });
    loop {
        connections.fewer_than(CONNECTIONS_MAX).await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, as a rule: waiting for a connection to end is all there is to do.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let open = Connections::open(connections);
        let connection = serve(Io::Tcp(stream), Rc::clone(&options), Rc::clone(echo), signal.clone());
        task::spawn_local("echo connection", async move {
            let end = connection.await;
            tracing::trace!(?end, "connection ended");
            drop(open);
        })
        .detach();
    }
}

/// Gives clients time to move to another replica, but no longer than somebody comes.
async fn leave(drain: &Drain, connections: &Connections, time: Duration) {
    drain.advance(DrainStage::Draining);
    if tokio::time::timeout(time, connections.quiet(QUIET)).await.is_err() {
        tracing::debug!("clients still come at the end of the drain time");
    }
}

/// The open connections.
#[derive(Default)]
struct Connections {
    count: Cell<usize>,
    changed: Notify,
}

/// One of them.
struct Open(Rc<Connections>);

impl Connections {
    fn open(connections: &Rc<Connections>) -> Open {
        connections.count.set(connections.count.get() + 1);
        connections.changed.notify_waiters();
        Open(Rc::clone(connections))
    }

    async fn fewer_than(&self, limit: usize) {
        while self.count.get() >= limit {
            self.changed.notified().await;
        }
    }

    /// Completes when for so long there was no connection.
    async fn quiet(&self, time: Duration) {
        loop {
            self.fewer_than(1).await;
            if tokio::time::timeout(time, self.changed.notified()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
