//! One way of checking per kind of health check, and the connection that it keeps.

mod grpc;
mod http;
mod tcp;

use std::io;
use std::net::SocketAddr;

use meltemi_compile::program::{HealthCheck, HealthCheckKind};
use meltemi_http::client::{Driver, H1, H1Options, H2};
use meltemi_http::{ClientError, H2Options};
use meltemi_runtime::task::{self, Task};
use tokio::net::TcpStream;

use super::judge::Outcome;
use crate::upstream::shared::CheckTotals;
use crate::upstream::transport::{Established, Purpose, Transport};

/// Where to check.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The host, unless its endpoint says otherwise.
    pub(super) address: SocketAddr,
    /// What comes before the protocol.
    pub(super) transport: Transport,
}

impl Target {
    async fn connect(&self, protocols: &'static [&'static str]) -> io::Result<Established> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(self.transport.establish(stream, &Purpose::default(), protocols).await?)
    }
}

/// A way of checking one host.
pub(super) enum Probe<'c> {
    Http(http::HttpProbe<'c>),
    Tcp(tcp::TcpProbe<'c>),
    Grpc(grpc::GrpcProbe),
}

impl<'c> Probe<'c> {
    pub(super) fn new(check: &'c HealthCheck, target: Target, authority: &'c str) -> Probe<'c> {
        let reuse = check.reuse_connection;
        match &check.kind {
            HealthCheckKind::Http(check) => {
                Probe::Http(http::HttpProbe::new(check, target, authority, reuse))
            }
            HealthCheckKind::Tcp(check) => Probe::Tcp(tcp::TcpProbe::new(check, target, reuse)),
            HealthCheckKind::Grpc(grpc) => {
                Probe::Grpc(grpc::GrpcProbe::new(grpc, check.timeout, target, authority, reuse))
            }
        }
    }

    /// Checks once. When it is dropped before its end, [`Probe::close`] must follow.
    pub(super) async fn check(&mut self, totals: &CheckTotals) -> Outcome {
        match self {
            Probe::Http(probe) => probe.check(totals).await,
            Probe::Tcp(probe) => probe.check().await,
            Probe::Grpc(probe) => probe.check().await,
        }
    }

    /// Completes when a connection that is kept between checks is closed by the peer, where that is a failure. An HTTP
    /// connection may be closed at any time between requests.
    pub(super) async fn closed(&mut self) {
        match self {
            Probe::Tcp(probe) => probe.closed().await,
            Probe::Http(_) | Probe::Grpc(_) => std::future::pending().await,
        }
    }

    /// Gives up the connection.
    pub(super) fn close(&mut self) {
        match self {
            Probe::Http(probe) => probe.close(),
            Probe::Tcp(probe) => probe.close(),
            Probe::Grpc(probe) => probe.close(),
        }
    }
}

/// An HTTP/2 connection with the task that moves its bytes.
struct Multiplexed {
    h2: H2,
    _driver: Task<()>,
}

impl Multiplexed {
    async fn connect(target: &Target) -> Result<Multiplexed, ClientError> {
        let io = target.connect(&["h2"]).await.map_err(ClientError::Io)?.io;
        let (h2, driver) = H2::handshake(io, &H2Options::default()).await?;
        Ok(Multiplexed { h2, _driver: task::spawn_local("health-check-http2", drive(driver)) })
    }
}

async fn drive(driver: Driver) {
    if let Err(error) = driver.run().await {
        tracing::debug!(%error, "health check connection ended");
    }
}

async fn connect_h1(target: &Target) -> Result<H1, ClientError> {
    let io = target.connect(&["http/1.1"]).await.map_err(ClientError::Io)?.io;
    Ok(H1::new(io, H1Options::default()))
}
