//! A shutdown that is announced once and seen by everyone: the owner keeps the [`Trigger`], the workers
//! hold clones of the [`Signal`].

use tokio::sync::watch;

/// Starts the drain. Dropping it without [`Trigger::fire`] starts it as well: an owner that is gone cannot
/// want its workers to stay.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Sees the drain start. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Signal(watch::Receiver<bool>);

/// A trigger and the signal that follows it.
pub fn channel() -> (Trigger, Signal) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Signal(receiver))
}

impl Trigger {
    /// Starts the drain; a second call changes nothing.
    pub fn fire(&self) {
        self.0.send_replace(true);
    }

    /// Another signal of this drain.
    pub fn signal(&self) -> Signal {
        Signal(self.0.subscribe())
    }

    /// Waits until every [`Signal`] is dropped, that is until every worker has finished. Cancel safe.
    pub async fn finished(&self) {
        self.0.closed().await;
    }
}

impl Signal {
    /// Whether the drain has started.
    pub fn is_draining(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Completes when the drain starts, at once if it has. Cancel safe.
    pub async fn started(&mut self) {
        // An error means that the trigger is gone, which starts the drain too.
        let _ = self.0.wait_for(|draining| *draining).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fire_reaches_every_signal_and_finished_waits_for_them() {
        let (trigger, signal) = channel();
        let mut late = trigger.signal();
        assert!(!signal.is_draining());
        trigger.fire();
        late.started().await;
        assert!(signal.is_draining() && late.is_draining());
        let worker = tokio::spawn(async move { drop((signal, late)) });
        trigger.finished().await;
        worker.await.expect("worker ends");
    }

    #[tokio::test]
    async fn a_lost_trigger_drains() {
        let (trigger, mut signal) = channel();
        drop(trigger);
        signal.started().await;
        assert!(signal.is_draining());
    }
}
