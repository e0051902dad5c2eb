//! The admin interface: paths, parameters and answers of Envoy's, for the tools that read it.
//!
//! Owns dispatch over one table of endpoints; each submodule answers a few of them from the shared state, which
//! only `control` changes. Source: <https://www.envoyproxy.io/docs/envoy/latest/operations/admin>, with answers
//! compared to those of Envoy 1.40.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use meltemi_compile::program::Name;
use meltemi_envoy::config::bootstrap::v3::Bootstrap;
use meltemi_runtime::logging;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::access_log::LogSink;
use crate::command_line::ProxyArgs;
use crate::config::Store;
use crate::lifecycle::Lifecycle;
use crate::stats::{Registry, StatsConfig};
use crate::upstream::shared::HostStates;
use crate::worker::Command;

mod clusters;
mod config_dump;
mod control;
mod health;
mod info;
mod listeners;
mod secrets;
mod stats;
mod subscriptions;

/// What the process is made of, as the admin interface reads it.
#[derive(Debug)]
pub struct Admin {
    /// Configuration.
    pub store: Arc<Mutex<Store>>,
    /// Where listeners listen.
    pub addresses: Arc<Mutex<BTreeMap<Name, SocketAddr>>>,
    /// Statistics of the workers.
    pub registry: Arc<Registry>,
    /// Ejections.
    pub hosts: Arc<HostStates>,
    /// State of the process.
    pub lifecycle: Arc<Lifecycle>,
    /// The process log's level; `None` when somebody else set logging up.
    pub logging: Option<logging::Handle>,
    /// The access logs.
    pub logs: LogSink,
    /// The bootstrap with the node as it is announced.
    pub bootstrap: Bootstrap,
    /// The command line.
    pub args: ProxyArgs,
    /// Number of workers.
    pub concurrency: usize,
    /// The workers.
    pub workers: Vec<mpsc::UnboundedSender<Command>>,
    /// Ends the process.
    pub quit: mpsc::Sender<()>,
    /// Which statistics are shown, and how they are tagged.
    pub stats_config: StatsConfig,
    /// The counters at the last `/reset_counters`.
    pub counters_before: Mutex<BTreeMap<String, u64>>,
    /// When the process started.
    pub started: SystemTime,
    /// Whether a graceful drain is under way: of all listeners, of the inbound ones.
    pub draining: [Arc<AtomicBool>; 2],
}

/// Parameters of a request, in order.
type Params = Vec<(String, String)>;

/// What can be asked.
struct Endpoint {
    path: &'static str,
    /// Changes something: only by POST.
    mutates: bool,
    /// Takes long enough to be kept off the main thread.
    heavy: bool,
    help: &'static str,
    params: &'static [(&'static str, &'static str)],
    answer: fn(&Admin, &Params) -> Reply,
}

/// An answer.
#[derive(Debug)]
struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";

impl Reply {
    fn text(body: impl Into<String>) -> Reply {
        Reply { status: StatusCode::OK, content_type: TEXT, body: body.into() }
    }

    fn json(value: &serde_json::Value) -> Reply {
        // As Envoy: one blank for a level.
        let mut body = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut body, formatter);
        serde::Serialize::serialize(value, &mut serializer).expect("invariant: a vector takes JSON");
        body.push(b'\n');
        Reply {
            status: StatusCode::OK,
            content_type: JSON,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    fn compact_json(value: &serde_json::Value) -> Reply {
        Reply { status: StatusCode::OK, content_type: JSON, body: value.to_string() }
    }

    fn error(status: StatusCode, body: impl Into<String>) -> Reply {
        Reply { status, content_type: TEXT, body: body.into() }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, self.content_type),
            (header::CACHE_CONTROL, "no-cache, max-age=0"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (self.status, headers, self.body).into_response()
    }
}

/// Everything that can be asked, in the order of the help.
const ENDPOINTS: &[Endpoint] = &[
    get("/", "Admin home page", &[], help),
    get("/certs", "print certs on machine", &[], secrets::certs),
    get("/clusters", "upstream cluster status", clusters::PARAMS, clusters::clusters),
    Endpoint {
        heavy: true,
        ..get("/config_dump", "dump current configs", config_dump::PARAMS, config_dump::config_dump)
    },
    get("/contention", "dump current Envoy mutex contention stats (if enabled)", &[], info::contention),
    post("/drain_listeners", "drain listeners", control::DRAIN_PARAMS, control::drain_listeners),
    post("/healthcheck/fail", "cause the server to fail health checks", &[], control::fail_health_checks),
    post("/healthcheck/ok", "cause the server to pass health checks", &[], control::pass_health_checks),
    get("/help", "print out list of admin commands", &[], help),
    get(
        "/hot_restart_version",
        "print the hot restart compatibility version",
        &[],
        info::hot_restart_version,
    ),
    get("/init_dump", "dump current Envoy init manager information", &[], info::init_dump),
    get("/listeners", "print listener info", listeners::PARAMS, listeners::listeners),
    post("/logging", "query/change logging levels", control::LOGGING_PARAMS, control::logging),
    get("/memory", "print current allocation/heap usage", &[], info::memory),
    post("/quitquitquit", "exit the server", &[], control::quit),
    get("/ready", "print server state, return 200 if LIVE, otherwise return 503", &[], info::ready),
    post("/reset_counters", "reset all counters to zero", &[], stats::reset_counters),
    post("/reopen_logs", "reopen access logs", &[], control::reopen_logs),
    get("/runtime", "print runtime values", &[], info::runtime),
    Endpoint {
        heavy: true,
        ..get("/server_info", "print server version/status information", &[], info::server_info)
    },
    get("/stats", "print server stats", stats::PARAMS, stats::stats),
    get(
        "/stats/prometheus",
        "print server stats in prometheus format",
        stats::PROMETHEUS_PARAMS,
        stats::prometheus,
    ),
];

type Answer = fn(&Admin, &Params) -> Reply;
type Parameters = &'static [(&'static str, &'static str)];

const fn get(path: &'static str, help: &'static str, params: Parameters, answer: Answer) -> Endpoint {
    Endpoint { path, mutates: false, heavy: false, help, params, answer }
}

const fn post(path: &'static str, help: &'static str, params: Parameters, answer: Answer) -> Endpoint {
    Endpoint { path, mutates: true, heavy: false, help, params, answer }
}

/// Serves the interface until the process ends.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let router = Router::new().fallback(dispatch).with_state(admin);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin interface ended");
    }
}

async fn dispatch(State(admin): State<Arc<Admin>>, request: Request<axum::body::Body>) -> Reply {
    // Envoy's interface merges slashes: a route that rewrites `/admin/` to `/` sends `//ready`.
    let path = format!("/{}", request.uri().path().trim_start_matches('/'));
    let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| endpoint.path == path) else {
        return Reply::error(StatusCode::NOT_FOUND, format!("invalid path. {}", help_text()));
    };
    if endpoint.mutates && request.method() != Method::POST {
        let method = request.method();
        return Reply::error(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("Method {method} not allowed, POST required."),
        );
    }
    let Ok(Query(params)) = Query::<Params>::try_from_uri(request.uri()) else {
        return Reply::error(StatusCode::BAD_REQUEST, "malformed query\n");
    };
    if !endpoint.heavy {
        return (endpoint.answer)(&admin, &params);
    }
    match tokio::task::spawn_blocking(move || (endpoint.answer)(&admin, &params)).await {
        Ok(reply) => reply,
        Err(error) => Reply::error(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn help(_: &Admin, _: &Params) -> Reply {
    Reply::text(help_text())
}

fn help_text() -> String {
    let mut text = "admin commands are:\n".to_owned();
    for endpoint in ENDPOINTS {
        let post = if endpoint.mutates { " (POST)" } else { "" };
        text.push_str(&format!("  {}{post}: {}\n", endpoint.path, endpoint.help));
        for (name, meaning) in endpoint.params {
            text.push_str(&format!("      {name}: {meaning}\n"));
        }
    }
    text
}

impl Admin {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self, listener: &Name, configured: SocketAddr) -> SocketAddr {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.get(listener).copied().unwrap_or(configured)
    }

    fn uptime(&self) -> Duration {
        self.lifecycle.started().elapsed()
    }
}

/// The value of a parameter.
fn param<'p>(params: &'p Params, name: &str) -> Option<&'p str> {
    params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Whether a parameter is there, with or without a value.
fn has(params: &Params, name: &str) -> bool {
    param(params, name).is_some()
}

/// A parameter that is a regular expression, unanchored as in Envoy.
fn regex_param(params: &Params, name: &str) -> Result<Option<regex::Regex>, Reply> {
    let Some(pattern) = param(params, name).filter(|pattern| !pattern.is_empty()) else { return Ok(None) };
    let compiled = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build();
    compiled
        .map(Some)
        .map_err(|error| Reply::error(StatusCode::BAD_REQUEST, format!("Invalid re2 regex: {error}\n")))
}

#[cfg(test)]
mod tests;
