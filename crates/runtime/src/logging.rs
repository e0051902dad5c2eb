//! Logs to standard error through `tracing`, with Envoy's level names, changeable while running.
//!
//! Source of the level names: Envoy's `-l/--log-level` and its admin endpoint `/logging`.

use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Registry, fmt as lines};

/// The level names of Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Trace,
    /// What a developer wants to see.
    Debug,
    /// Life-cycle events; the default.
    Info,
    /// Something is degraded. Also spelled `warn`.
    Warning,
    /// A human must act. Also spelled `err`.
    Error,
    /// Only what ends the process; `tracing` has no such level, so the same as `error` here.
    Critical,
    /// Nothing.
    Off,
}

/// A level name that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown log level {0:?}: expected trace, debug, info, warning|warn, error|err, critical or off")]
pub struct UnknownLevel(pub String);

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Level, UnknownLevel> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "trace" => Level::Trace,
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warning" | "warn" => Level::Warning,
            "error" | "err" => Level::Error,
            "critical" => Level::Critical,
            "off" => Level::Off,
            _ => return Err(UnknownLevel(text.to_owned())),
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
            Level::Critical => "critical",
            Level::Off => "off",
        })
    }
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> LevelFilter {
        match level {
            Level::Trace => LevelFilter::TRACE,
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warning => LevelFilter::WARN,
            Level::Error | Level::Critical => LevelFilter::ERROR,
            Level::Off => LevelFilter::OFF,
        }
    }
}

/// What our crates log at the level. Libraries log every frame at `debug`, which would bury it, so they are heard
/// up to `info`, and in full only at `trace`.
fn filter(level: Level) -> Targets {
    let ours = LevelFilter::from(level);
    let others = if level == Level::Trace { ours } else { ours.min(LevelFilter::INFO) };
    Targets::new().with_default(others).with_target(OUR_TARGETS, ours)
}

/// What the targets of our crates begin with.
const OUR_TARGETS: &str = "meltemi";

/// Reads and changes the level while the process runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    filter: reload::Handle<Targets, Registry>,
    level: std::sync::Arc<std::sync::Mutex<Level>>,
}

impl Handle {
    /// The level in force.
    pub fn level(&self) -> Level {
        *self.level.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes the level for everything logged from now on.
    pub fn set_level(&self, level: Level) {
        let mut current = self.level.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The only error is that the subscriber is gone, and then nothing is logged anyway.
        let _ = self.filter.reload(filter(level));
        *current = level;
    }
}

/// Starts logging to standard error, in colour on a terminal.
///
/// # Errors
/// If the process logs already.
pub fn init(level: Level) -> Result<Handle, TryInitError> {
    let (filter, reload) = reload::Layer::new(filter(level));
    let format = lines::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(filter).with(format).try_init()?;
    Ok(Handle { filter: reload, level: std::sync::Arc::new(std::sync::Mutex::new(level)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_aliases_are_read() {
        for name in ["trace", "debug", "info", "warning", "error", "critical", "off"] {
            assert_eq!(name.parse::<Level>().expect("known").to_string(), name);
        }
        assert_eq!("WARN".parse(), Ok(Level::Warning));
        assert_eq!("loud".parse::<Level>(), Err(UnknownLevel("loud".into())));
    }

    #[test]
    fn the_level_changes_while_running() {
        let handle = init(Level::Warning).expect("first in this process");
        assert!(!tracing::enabled!(tracing::Level::INFO));
        handle.set_level(Level::Debug);
        assert_eq!(handle.level(), Level::Debug);
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        assert!(!tracing::enabled!(target: "h2::codec", tracing::Level::DEBUG));
        handle.set_level(Level::Trace);
        assert!(tracing::enabled!(target: "h2::codec", tracing::Level::TRACE));
        assert!(init(Level::Info).is_err());
    }
}
