//! Where the process is in its life, as `/ready`, `server.state` and health checks report it.
//!
//! Source: `envoy.admin.v3.ServerInfo.State` and Envoy's start-up order (clusters, then listeners, then live).

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Instant;

/// `ServerInfo.State`; the numbers are those of `server.state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Serving.
    Live = 0,
    /// Serving, but health checks fail so that clients go elsewhere.
    Draining = 1,
    /// Waiting for clusters.
    PreInitializing = 2,
    /// Waiting for listeners.
    Initializing = 3,
}

impl State {
    /// The name of the enum value, as `/ready` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Live => "LIVE",
            State::Draining => "DRAINING",
            State::PreInitializing => "PRE_INITIALIZING",
            State::Initializing => "INITIALIZING",
        }
    }
}

/// The state, shared by those who change it (boot, config, admin) and those who tell it (admin, stats).
#[derive(Debug)]
pub struct Lifecycle {
    started: Instant,
    initialized: AtomicU8,
    draining: AtomicBool,
    health_failed: AtomicBool,
}

impl Default for Lifecycle {
    fn default() -> Lifecycle {
        Lifecycle {
            started: Instant::now(),
            initialized: AtomicU8::new(State::PreInitializing as u8),
            draining: AtomicBool::new(false),
            health_failed: AtomicBool::new(false),
        }
    }
}

impl Lifecycle {
    /// The state now. Failed health checks and draining both show as `DRAINING`, as in Envoy.
    pub fn state(&self) -> State {
        match self.initialized.load(Ordering::Relaxed) {
            2 => State::PreInitializing,
            3 => State::Initializing,
            _ if self.is_draining() || self.health_failed.load(Ordering::Relaxed) => State::Draining,
            _ => State::Live,
        }
    }

    /// Start-up got this far.
    pub fn reached(&self, state: State) {
        self.initialized.store(state as u8, Ordering::Relaxed);
    }

    /// The process was asked to stop.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process was asked to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// `/healthcheck/fail` and `/healthcheck/ok`.
    pub fn set_health_failed(&self, failed: bool) {
        self.health_failed.store(failed, Ordering::Relaxed);
    }

    /// Whether `/healthcheck/fail` was called last.
    pub fn fails_health_checks(&self) -> bool {
        self.health_failed.load(Ordering::Relaxed)
    }

    /// Since when the process runs.
    pub fn started(&self) -> Instant {
        self.started
    }
}
