//! When requests leave.
//!
//! Owns the schedule: slot n is due at n / rate. Uses a timer of the kernel (`timerfd`), since the runtime's own timers
//! have a resolution of a millisecond, which would show in every latency.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
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
    timer: AsyncFd<OwnedFd>,
    /// Workers ahead of their slot, in the order of the slots.
    waiting: RefCell<VecDeque<(Instant, oneshot::Sender<()>)>>,
}

impl Pace {
    /// A schedule that starts now.
    pub(super) fn new(rate: f64, duration: Duration) -> anyhow::Result<Rc<Pace>> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).context("creating a timer")?;
        Ok(Rc::new(Pace {
            started: Instant::now(),
            duration,
            rate,
            next: Cell::new(0),
            stopped: Cell::new(false),
            timer: AsyncFd::new(timer).context("watching a timer")?,
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
        loop {
            let Ok(mut fired) = self.timer.readable().await else { return };
            let mut expirations = [0; 8];
            // Spurious readiness gives an error, and the timer is armed as before.
            if rustix::io::read(self.timer.get_ref(), &mut expirations).is_err() {
                fired.clear_ready();
                continue;
            }
            fired.clear_ready();
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
            self.arm(due);
        }
        // An error means that the run was stopped.
        let _ = woken.await;
    }

    fn wake(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let now = Instant::now();
        while let Some((due, _)) = waiting.front() {
            if *due > now {
                return self.arm(*due);
            }
            if let Some((_, wake)) = waiting.pop_front() {
                // A worker that is gone needs no waking.
                let _ = wake.send(());
            }
        }
    }

    fn arm(&self, due: Instant) {
        // Zero would disarm the timer.
        let left = due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        let armed = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once);
        armed.expect("invariant: the time is valid and the descriptor is a timer");
    }
}
