//! When requests leave.
//!
//! Owns the schedule: slot n is due at n / rate. Uses a timer of the kernel (`timerfd`), since the runtime's own timers
//! have a resolution of a millisecond, which would show in every latency.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The schedule, shared by the workers of a run.
pub(super) struct Pace {
    started: Instant,
    duration: Duration,
    /// Slots per second; 0: closed loop.
    rate: f64,
    next: Cell<u64>,
    stopped: Cell<bool>,
    timer: Timer,
    /// Workers ahead of their slot, in the order of the slots.
    waiting: RefCell<VecDeque<(Instant, oneshot::Sender<()>)>>,
}

impl Pace {
    /// A schedule that starts now.
    pub(super) fn new(rate: f64, duration: Duration) -> anyhow::Result<Rc<Pace>> {
        Ok(Rc::new(Pace {
            started: Instant::now(),
            duration,
            rate,
            next: Cell::new(0),
            stopped: Cell::new(false),
            timer: Timer::new()?,
            waiting: RefCell::default(),
        }))
    }

    /// Takes the next slot and waits for its time, which is the result. `None`: the run is over.
    pub(super) async fn next(&self) -> Option<Instant> {
        if self.stopped.get() {
            return None;
        }
        let now = Instant::now();
        if self.rate == 0.0 {
            return (now < self.started + self.duration).then_some(now);
        }
        // Past the end nothing more is sent, however many slots are left over.
        if now >= self.started + self.duration {
            return None;
        }
        let slot = self.next.get();
        let due = self.due(slot)?;
        self.next.set(slot + 1);
        if due > now {
            self.wait(due).await;
        }
        (!self.stopped.get()).then_some(due)
    }

    /// Wakes the workers at their times. Runs until it is dropped.
    pub(super) async fn run(self: Rc<Pace>) {
        while self.timer.fired().await.is_ok() {
            self.wake();
        }
    }

    /// Ends the run: nobody gets a slot any more.
    pub(super) fn stop(&self) {
        self.stopped.set(true);
        self.waiting.borrow_mut().clear();
    }

    /// Slots whose time has come and that nobody took: the generator or the server was too slow.
    pub(super) fn unsent(&self, elapsed: Duration) -> u64 {
        if self.rate == 0.0 || self.stopped.get() {
            return 0;
        }
        let due = (elapsed.min(self.duration).as_secs_f64() * self.rate).ceil() as u64;
        due.saturating_sub(self.next.get())
    }

    /// The time of a slot, if it is within the run.
    fn due(&self, slot: u64) -> Option<Instant> {
        let offset = Duration::from_secs_f64(slot as f64 / self.rate);
        (offset < self.duration).then(|| self.started + offset)
    }

    async fn wait(&self, due: Instant) {
        let (wake, woken) = oneshot::channel();
        let is_first = self.waiting.borrow().is_empty();
        self.waiting.borrow_mut().push_back((due, wake));
        if is_first {
            self.timer.arm(due);
        }
        // An error means that the run was stopped.
        let _ = woken.await;
    }

    fn wake(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let now = Instant::now();
        while let Some((due, _)) = waiting.front() {
            if *due > now {
                return self.timer.arm(*due);
            }
            if let Some((_, wake)) = waiting.pop_front() {
                // A worker that is gone needs no waking.
                let _ = wake.send(());
            }
        }
    }
}

/// A timer of the kernel that the reactor watches.
///
/// Held as a pipe: that is the one safe way that tokio has to wait for any readable descriptor, and a timer is read like
/// one.
struct Timer(pipe::Receiver);

impl Timer {
    fn new() -> anyhow::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).context("creating a timer")?;
        Ok(Timer(pipe::Receiver::from_owned_fd_unchecked(timer).context("watching a timer")?))
    }

    fn arm(&self, due: Instant) {
        // Zero would disarm the timer.
        let left = due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        let armed = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once);
        armed.expect("invariant: the time is valid and the descriptor is a timer");
    }

    /// Completes when the timer has expired.
    async fn fired(&self) -> io::Result<()> {
        loop {
            self.0.readable().await?;
            let mut expirations = [0; 8];
            match self.0.try_read(&mut expirations) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn slots_are_due_at_even_intervals_whoever_takes_them() {
        run(async {
            let pace = Pace::new(1000.0, Duration::from_millis(20)).unwrap();
            let pacing = meltemi_runtime::task::spawn_local("pace", Rc::clone(&pace).run());
            let worker = || async {
                let mut taken = Vec::new();
                while let Some(due) = pace.next().await {
                    assert!(Instant::now() >= due);
                    taken.push(due - pace.started);
                }
                taken
            };
            let (one, two) = tokio::join!(worker(), worker());
            drop(pacing);
            let mut taken = [one, two].concat();
            taken.sort_unstable();
            let expected: Vec<Duration> = (0..taken.len() as u64).map(Duration::from_millis).collect();
            assert_eq!(taken, expected);
            assert_eq!(taken.len() as u64 + pace.unsent(pace.started.elapsed()), 20);
        });
    }

    #[test]
    fn a_stopped_schedule_lets_everyone_go() {
        run(async {
            let pace = Pace::new(0.001, Duration::from_secs(3600)).unwrap();
            assert!(pace.next().await.is_some());
            let (waited, ()) = tokio::join!(pace.next(), async { pace.stop() });
            assert!(waited.is_none());
            assert!(pace.next().await.is_none());
        });
    }
}
