//! Checks over TCP: connect, maybe send something and look for something in what comes back.

use std::io;
use std::net::SocketAddr;

use meltemi_compile::health_check::holds;
use meltemi_compile::program::TcpHealthCheck;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connect;
use crate::health::judge::{Failure, Outcome};

/// Bytes of an answer that are looked at; Envoy has no limit, but whoever talks that long without saying the word will
/// not say it.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// See the module.
pub(in crate::health) struct TcpProbe<'c> {
    check: &'c TcpHealthCheck,
    target: SocketAddr,
    reuse: bool,
    kept: Option<TcpStream>,
}

impl<'c> TcpProbe<'c> {
    pub(super) fn new(check: &'c TcpHealthCheck, target: SocketAddr, reuse: bool) -> TcpProbe<'c> {
        TcpProbe { check, target, reuse, kept: None }
    }

    pub(super) async fn check(&mut self) -> Outcome {
        match self.exchange().await {
            Ok(()) => Outcome::Passed { degraded: false },
            Err(error) => {
                tracing::debug!(host = %self.target, %error, "health check failed");
                Outcome::Failed(Failure::NETWORK)
            }
        }
    }

    async fn exchange(&mut self) -> io::Result<()> {
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => connect(self.target).await?,
        };
        if self.check.receive.is_empty() {
            // Connecting is all that is asked for; nothing is sent, as in Envoy.
            return Ok(());
        }
        stream.write_all(&self.check.send).await?;
        let mut answer = Vec::new();
        while !holds(&answer, &self.check.receive) {
            if answer.len() > MAX_ANSWER_BYTES {
                return Err(io::Error::other("the answer does not hold what is expected"));
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.kept = self.reuse.then_some(stream);
        Ok(())
    }

    /// Completes when the kept connection ends. What else comes is read and forgotten.
    pub(super) async fn closed(&mut self) {
        let Some(stream) = &mut self.kept else { return std::future::pending().await };
        let mut buffer = [0; 512];
        while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
    }

    pub(super) fn close(&mut self) {
        self.kept = None;
    }
}
