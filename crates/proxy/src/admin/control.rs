//! What changes something: `/drain_listeners`, `/healthcheck/*`, `/logging`, `/quitquitquit`, `/reopen_logs`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::StatusCode;
use meltemi_runtime::task;

use super::{Admin, Params, Reply, has, param};
use crate::worker::Command;

pub(super) const DRAIN_PARAMS: &[(&str, &str)] = &[
    ("graceful", "ask clients to go for the drain time (--drain-time-s) before closing listeners"),
    ("skip_exit", "ask clients to go but never close listeners"),
    ("inboundonly", "only listeners whose traffic_direction is INBOUND"),
];

pub(super) const LOGGING_PARAMS: &[(&str, &str)] =
    &[("level", "desired logging level; one of trace, debug, info, warning, error, critical, off")];

pub(super) fn drain_listeners(admin: &Admin, params: &Params) -> Reply {
    let inbound_only = has(params, "inboundonly");
    let skip_exit = has(params, "skip_exit");
    if skip_exit || has(params, "graceful") {
        let asking = admin.args.drain_policy().begin();
        tell(admin, || Command::Drain { inbound_only, asking });
    }
    if skip_exit {
        return Reply::text("OK\n");
    }
    if !has(params, "graceful") {
        tell(admin, || Command::StopListeners { inbound_only });
        return Reply::text("OK\n");
    }
    // As in Envoy, a drain that is under way goes on as it began.
    let draining = admin.draining[usize::from(inbound_only)].clone();
    if draining.swap(true, Ordering::Relaxed) {
        return Reply::text("OK\n");
    }
    let workers = admin.workers.clone();
    let drain_time = Duration::from_secs(u64::from(admin.args.drain_time_s));
    let stop = async move {
        tokio::time::sleep(drain_time).await;
        for worker in workers {
            // A worker that is gone listens no more.
            let _ = worker.send(Command::StopListeners { inbound_only });
        }
        draining.store(false, Ordering::Relaxed);
    };
    task::spawn("drain_listeners", stop).detach();
    Reply::text("OK\n")
}

fn tell(admin: &Admin, command: impl Fn() -> Command) {
    for worker in &admin.workers {
        // A worker that is gone has nothing to drain.
        let _ = worker.send(command());
    }
}

pub(super) fn fail_health_checks(admin: &Admin, _: &Params) -> Reply {
    admin.lifecycle.set_health_failed(true);
    Reply::text("OK\n")
}

pub(super) fn pass_health_checks(admin: &Admin, _: &Params) -> Reply {
    admin.lifecycle.set_health_failed(false);
    Reply::text("OK\n")
}

pub(super) fn reopen_logs(admin: &Admin, _: &Params) -> Reply {
    admin.logs.reopen();
    Reply::text("OK\n")
}

/// The channel holds one request to quit; a second one adds nothing.
pub(super) fn quit(admin: &Admin, _: &Params) -> Reply {
    let _ = admin.quit.try_send(());
    Reply::text("OK\n")
}

/// There is one level for all; it is listed under each of the names that tools look for.
pub(super) fn logging(admin: &Admin, params: &Params) -> Reply {
    let Some(logging) = &admin.logging else {
        return Reply::error(
            StatusCode::SERVICE_UNAVAILABLE,
            "the log level belongs to the parent program\n",
        );
    };
    if let Some((name, _)) = params.iter().find(|(name, _)| name != "level") {
        let text = format!("error: no logger of its own for '{name}'\n\nusage: /logging?level=<level>\n");
        return Reply::error(StatusCode::BAD_REQUEST, text);
    }
    if let Some(level) = param(params, "level").filter(|level| !level.is_empty()) {
        match level.parse() {
            Ok(level) => logging.set_level(level),
            Err(_) => {
                let text = "error: unknown logger level\n\nusage: /logging?level=<level>\n";
                return Reply::error(StatusCode::BAD_REQUEST, text);
            }
        }
    }
    Reply::text(format!("active loggers:\n  meltemi: {}\n", logging.level()))
}
