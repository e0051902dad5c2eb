//! Telling connections to finish.
//!
//! Owns the two stages that a graceful end has: first every response says that the connection ends with it, then idle
//! connections are closed too. How long each lasts is the caller's to decide.

use std::sync::Arc;

use tokio::sync::watch;

/// How far the drain has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainStage {
    /// Serving as usual.
    #[default]
    Serving,
    /// HTTP/1 responses carry `connection: close`, HTTP/2 connections send GOAWAY and finish their streams. Idle HTTP/1
    /// connections stay open: their client may be sending at this moment.
    Draining,
    /// Idle connections are closed as well; requests in flight still finish.
    Closing,
    /// The time is over: what is still there is dropped.
    Ended,
}

/// The sending end; dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Drain(Arc<watch::Sender<DrainStage>>);

/// The end that a connection watches. Cheap to clone; works across threads.
#[derive(Clone, Debug)]
pub struct DrainSignal(watch::Receiver<DrainStage>);

/// A connected pair.
pub fn drain() -> (Drain, DrainSignal) {
    let (sender, receiver) = watch::channel(DrainStage::Serving);
    (Drain(Arc::new(sender)), DrainSignal(receiver))
}

impl Drain {
    /// Moves on to `stage`; never back.
    pub fn advance(&self, stage: DrainStage) {
        self.0.send_if_modified(|current| {
            let moves = stage > *current;
            *current = stage.max(*current);
            moves
        });
    }

    /// A further signal of this drain.
    pub fn signal(&self) -> DrainSignal {
        DrainSignal(self.0.subscribe())
    }
}

impl DrainSignal {
    /// The stage now.
    pub fn stage(&self) -> DrainStage {
        *self.0.borrow()
    }

    /// Whether connections should end after what they do now.
    pub fn is_draining(&self) -> bool {
        self.stage() >= DrainStage::Draining
    }

    /// Completes once `stage` is reached; never, when the sender went away before. Cancel safe.
    pub async fn reached(&mut self, stage: DrainStage) {
        if self.0.wait_for(|current| *current >= stage).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
