//! What somebody may ask of the running mesh: to show the generations that are kept, and to serve one of them. The admin
//! interface asks, the mesh's own task does it, one after the other.

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::limits::ORDER_QUEUE;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Which generations are kept, and what is in force.
    List,
    /// One of them, with its objects.
    Show(u64),
    /// Serve it until the files change.
    Serve(u64),
    /// Serve the files again.
    ServeFiles,
}

/// An order, and who waits for its answer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) order: Order,
    pub(crate) answer: oneshot::Sender<anyhow::Result<Value>>,
}

/// Where orders are given.
#[derive(Debug, Clone)]
pub(crate) struct Orders(mpsc::Sender<Request>);

impl Orders {
    /// Both ends.
    pub(crate) fn channel() -> (Orders, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(ORDER_QUEUE);
        (Orders(sender), receiver)
    }

    /// Gives an order and waits until it is done.
    ///
    /// # Errors
    /// If it cannot be done, or the mesh has ended.
    pub(crate) async fn give(&self, order: Order) -> anyhow::Result<Value> {
        let (answer, done) = oneshot::channel();
        let ended = || anyhow::anyhow!("the control plane is ending");
        self.0.send(Request { order, answer }).await.map_err(|_| ended())?;
        done.await.map_err(|_| ended())?
    }
}
