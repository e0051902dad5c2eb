//! Named tasks. A task that panics says so with its name, once; dropping its [`Task`] stops it, so that no
//! task outlives its owner unless [`Task::detach`]ed.

use std::any::Any;
use std::future::{self, Future};
use std::panic::{self, AssertUnwindSafe};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::task::JoinHandle;

/// Why a task gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The task panicked; the panic was logged.
    #[error("task {0} panicked")]
    Panicked(&'static str),
    /// The runtime shut down, or the task was aborted.
    #[error("task {0} was cancelled")]
    Cancelled(&'static str),
}

/// A running task; a future of its result. Dropping it aborts the task.
#[derive(Debug)]
#[must_use = "dropping a Task aborts it; call detach() to let it run"]
pub struct Task<T> {
    name: &'static str,
    handle: Option<JoinHandle<Option<T>>>,
}

/// Spawns a task that may move between threads. Panics outside a tokio runtime.
pub fn spawn<F>(name: &'static str, work: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Task { name, handle: Some(tokio::spawn(guarded(name, work))) }
}

/// Spawns a task on the current thread; panics outside a `LocalSet` or local runtime.
pub fn spawn_local<F>(name: &'static str, work: F) -> Task<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    Task { name, handle: Some(tokio::task::spawn_local(guarded(name, work))) }
}

/// Runs work that computes or blocks on a thread of its own. Cancel safe in that the work runs on and its
/// result is lost.
///
/// # Errors
/// If the work panicked (the panic is logged) or the runtime shuts down.
pub async fn blocking<T, F>(name: &'static str, work: F) -> Result<T, Failure>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(payload) => {
            tracing::error!(task = name, error = message(&*payload), "task panicked");
            Failure::Panicked(name)
        }
        Err(_) => Failure::Cancelled(name),
    })
}

impl<T> Task<T> {
    /// The name that logs use.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops the task at its next suspension.
    pub fn abort(&self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }

    /// Lets the task run on without an owner.
    pub fn detach(mut self) {
        self.handle = None;
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.abort();
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let name = self.name;
        let Some(handle) = self.handle.as_mut() else {
            return Poll::Ready(Err(Failure::Cancelled(name)));
        };
        Pin::new(handle).poll(cx).map(|joined| match joined {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(Failure::Panicked(name)),
            Err(_) => Err(Failure::Cancelled(name)),
        })
    }
}

/// Runs `work`; `None` if it panicked.
async fn guarded<F: Future>(name: &'static str, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    future::poll_fn(|cx| match panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(payload) => {
            tracing::error!(task = name, error = message(&*payload), "task panicked");
            Poll::Ready(None)
        }
    })
    .await
}

fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return text;
    }
    payload.downcast_ref::<String>().map_or("no message", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn gives_the_result_or_names_the_panic() {
        assert_eq!(spawn("sum", async { 1 + 1 }).await, Ok(2));
        let failed: Task<()> = spawn("broken", async { panic!("on purpose") });
        assert_eq!(failed.await, Err(Failure::Panicked("broken")));
    }

    #[tokio::test]
    async fn blocking_work_gives_its_result_or_names_the_panic() {
        assert_eq!(blocking("sum", || 1 + 1).await, Ok(2));
        assert_eq!(
            blocking::<(), _>("broken", || panic!("on purpose")).await,
            Err(Failure::Panicked("broken"))
        );
    }

    #[tokio::test]
    async fn dropping_stops_it() {
        let (sender, receiver) = oneshot::channel::<()>();
        let task = spawn("waiting", async move {
            let _held = sender;
            future::pending::<()>().await;
        });
        drop(task);
        assert!(receiver.await.is_err(), "the task's state was dropped");
    }

    #[tokio::test]
    async fn detached_runs_on() {
        let (sender, receiver) = oneshot::channel();
        spawn("detached", async move { sender.send(7) }).detach();
        assert_eq!(receiver.await, Ok(7));
    }
}
