//! What filters do with the bytes of a response: counting gRPC messages, holding a rate, changing trailers.
//!
//! Source: Envoy's `StreamRateLimiter`: what a rate gives in 50 ms can be sent at once, and then every 50 ms.

use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use meltemi_http::{Headers, Responder};
use tokio::time::Instant;

use super::effect::{self, Gone};
use super::grpc::GrpcRun;
use super::mutation::TrailerEdits;

/// How often a rate gives something.
const FILL_INTERVAL: Duration = Duration::from_millis(50);

/// Between the upstream's body and the client; only there when a filter asks for it.
#[derive(Debug, Default)]
pub(crate) struct BodyTap {
    pub(super) grpc: Option<Rc<GrpcRun>>,
    pub(super) pace: Option<Pace>,
    pub(super) trailer_edits: Vec<TrailerEdits>,
}

impl BodyTap {
    /// Whether nobody asks for anything.
    pub(super) fn is_idle(&self) -> bool {
        self.grpc.is_none() && self.pace.is_none() && self.trailer_edits.is_empty()
    }

    /// Passes bytes on. `touch` is called for every piece.
    pub(crate) async fn send(
        &mut self,
        respond: &mut Responder<'_>,
        bytes: Bytes,
        end: bool,
        touch: &impl Fn(),
    ) -> Result<(), Gone> {
        if let Some(grpc) = &self.grpc {
            grpc.response_bytes(&bytes);
        }
        match &mut self.pace {
            Some(pace) => pace.send(respond, bytes, end, touch).await,
            None => respond.data(bytes, end).await.map_err(|_| Gone),
        }
    }

    /// The trailers, before they go on or are dropped because the client's connection has none.
    pub(crate) fn trailers(&mut self, trailers: &mut Headers) {
        if let Some(grpc) = &self.grpc {
            grpc.ended(trailers);
        }
        self.trailer_edits.iter().for_each(|edits| edits.apply(trailers));
    }
}

/// A bucket of bytes that may be sent.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    available: u64,
    filled: Instant,
}

impl Pace {
    pub(super) fn new(kib_per_second: NonZeroU64) -> Pace {
        let bytes_per_second = kib_per_second.get().saturating_mul(1024);
        Pace { bytes_per_second, available: bytes_per_second / 20, filled: Instant::now() }
    }

    /// Takes up to so many bytes.
    fn take(&mut self, wanted: u64, now: Instant) -> u64 {
        let gained = u128::from(self.bytes_per_second) * now.duration_since(self.filled).as_millis() / 1000;
        if gained > 0 {
            self.filled = now;
            let gained = u64::try_from(gained).unwrap_or(u64::MAX);
            self.available = self.available.saturating_add(gained).min(self.bytes_per_second);
        }
        let taken = wanted.min(self.available);
        self.available -= taken;
        taken
    }

    async fn send(
        &mut self,
        respond: &mut Responder<'_>,
        mut bytes: Bytes,
        end: bool,
        touch: &impl Fn(),
    ) -> Result<(), Gone> {
        loop {
            let taken = self.take(bytes.len() as u64, Instant::now());
            let piece = bytes.split_to(usize::try_from(taken).unwrap_or(usize::MAX));
            let is_last = bytes.is_empty();
            if is_last || !piece.is_empty() {
                respond.data(piece, end && is_last).await.map_err(|_| Gone)?;
                touch();
            }
            if is_last {
                return Ok(());
            }
            respond.flush().await.map_err(|_| Gone)?;
            effect::pause(respond, FILL_INTERVAL).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_gives_what_its_rate_allows() {
        let mut pace = Pace::new(NonZeroU64::new(20).unwrap());
        let start = pace.filled;
        assert_eq!(pace.take(5000, start), 1024);
        assert_eq!(pace.take(5000, start), 0);
        assert_eq!(pace.take(5000, start + FILL_INTERVAL), 1024);
        assert_eq!(pace.take(100, start + 3 * FILL_INTERVAL), 100);
        assert_eq!(pace.take(5000, start + 3 * FILL_INTERVAL), 1948);
        assert_eq!(pace.take(u64::MAX, start + Duration::from_secs(100)), 20 * 1024);
    }
}
