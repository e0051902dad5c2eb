//! Ending a stock Envoy gently: it quits at once when it is asked to, so its listeners are drained before.
//!
//! Source: what pilot-agent does when it ends (`pkg/envoy/agent.go`, `pkg/envoy/admin.go`).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use meltemi_runtime::task;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::DRAIN_REQUEST_TIMEOUT;

/// Which listeners are drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Listeners {
    /// Those before the workload: it may still call others while it ends.
    Inbound,
    /// All, as a gateway's.
    All,
}

/// How a proxy beside an agent is ended.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "End of the proxy")]
pub struct DrainArgs {
    /// The admin interface of an Envoy beside the agent. Its listeners are drained before it is ended: requests that run get
    /// their answers, and clients are asked to go elsewhere. Without this the command is ended at once.
    #[arg(long, value_name = "IP:PORT")]
    pub proxy_admin: Option<SocketAddr>,

    /// Which listeners are drained.
    #[arg(long, value_name = "WHICH", default_value = "inbound", requires = "proxy_admin")]
    pub drain_listeners: Listeners,

    /// How many seconds a drain lasts; a second signal ends it.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, env = "TERMINATION_DRAIN_DURATION_SECONDS")]
    pub termination_drain_duration: u64,
}

impl DrainArgs {
    /// Begins a drain. How long to wait for its end; zero when there is none.
    pub(crate) async fn begin(&self) -> Duration {
        let Some(admin) = self.proxy_admin else { return Duration::ZERO };
        let asked = timeout(DRAIN_REQUEST_TIMEOUT, ask(admin, self.drain_listeners)).await;
        match asked.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer"))) {
            Ok(()) => Duration::from_secs(self.termination_drain_duration),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(%admin, %error, "the proxy cannot be drained; it is ended at once");
                Duration::ZERO
            }
        }
    }
}

async fn ask(admin: SocketAddr, listeners: Listeners) -> anyhow::Result<()> {
    let path = match listeners {
        Listeners::Inbound => "/drain_listeners?inboundonly&graceful&skip_exit",
        Listeners::All => "/drain_listeners?graceful&skip_exit",
    };
    let stream = TcpStream::connect(admin).await.context("connect")?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Whether the connection ended well is told by the answer.
    let _connection = task::spawn("drain request", async move { drop(connection.await) });
    let request = Request::post(path).header("host", admin.to_string()).body(Empty::<Bytes>::new())?;
    let status = sender.send_request(request).await?.status();
    ensure!(status.is_success(), "{path}: status {status}");
    Ok(())
}
