//! Checks over TCP: connect, maybe send something and look for something in what comes back.

use std::io;
use std::net::SocketAddr;

use meltemi_compile::health_check::holds;
use meltemi_compile::program::TcpHealthCheck;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Target;
use crate::health::judge::{Failure, Outcome};
use crate::upstream::transport::{Established, own_header};

/// Bytes of an answer that are looked at; Envoy has no limit, but whoever talks that long without saying the word will
/// not say it.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// See the module.
pub(in crate::health) struct TcpProbe<'c> {
    check: &'c TcpHealthCheck,
    target: Target,
    reuse: bool,
    kept: Option<Established>,
}

impl<'c> TcpProbe<'c> {
    pub(super) fn new(check: &'c TcpHealthCheck, target: Target, reuse: bool) -> TcpProbe<'c> {
        TcpProbe { check, target, reuse, kept: None }
    }

    pub(super) async fn check(&mut self) -> Outcome {
        match self.exchange().await {
            Ok(()) => Outcome::Passed { degraded: false },
            Err(error) => {
                tracing::debug!(host = %self.target.address, %error, "health check failed");
                Outcome::Failed(Failure::NETWORK)
            }
        }
    }

    async fn exchange(&mut self) -> io::Result<()> {
        let mut connection = match self.kept.take() {
            Some(connection) => connection,
            None => self.target.connect(&[]).await?,
        };
        if self.check.receive.is_empty() {
            // Connecting is all that is asked for; nothing is sent, as in Envoy.
            return Ok(());
        }
        let local = connection.local.unwrap_or(self.target.address);
        let stream = &mut connection.io;
        stream.write_all(&self.opening(local)).await?;
        let mut answer = Vec::new();
        while !holds(&answer, &self.check.receive) {
            if answer.len() > MAX_ANSWER_BYTES {
                return Err(io::Error::other("the answer does not hold what is expected"));
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.kept = self.reuse.then_some(connection);
        Ok(())
    }

    /// What is sent: maybe a header of the PROXY protocol, then what the check says.
    fn opening(&self, local: SocketAddr) -> Vec<u8> {
        let mut opening = Vec::new();
        if let Some(is_v2) = self.check.proxy_v2 {
            own_header(is_v2, local, self.target.address, &mut opening);
        }
        opening.extend_from_slice(&self.check.send);
        opening
    }

    /// Completes when the kept connection ends. What else comes is read and forgotten.
    pub(super) async fn closed(&mut self) {
        let Some(connection) = &mut self.kept else { return std::future::pending().await };
        let mut buffer = [0; 512];
        while matches!(connection.io.read(&mut buffer).await, Ok(1..)) {}
    }

    pub(super) fn close(&mut self) {
        self.kept = None;
    }
}
