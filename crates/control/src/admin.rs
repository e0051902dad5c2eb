//! The admin interface: readiness, metrics, and what istioctl and people look at under `/debug`.
//! Source: istiod's `pilot/pkg/xds/debug.go` for paths and shapes. Read-only but for the choice of the generation that is served; plain HTTP/1.1.

mod debug;
mod dump;
mod generations;
mod istiod;
mod mtls;
mod objects;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use meltemi_runtime::task;
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;
use crate::orders::Orders;
use crate::proxies::Proxies;

/// What the pages are about.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) orders: Orders,
    /// The files of objects that another process maintains.
    pub(crate) machine: Arc<[PathBuf]>,
}

/// Path and one line about it; `/debug` lists them.
const PAGES: [(&str, &str); 22] = [
    ("/ready", "200 once the mesh is loaded"),
    ("/version", "version of the control plane"),
    ("/metrics", "Prometheus metrics"),
    ("/debug", "this list"),
    ("/debug/syncz", "connected proxies, with versions sent and taken"),
    ("/debug/configz", "the objects in force"),
    ("/debug/endpointz", "services with their endpoints"),
    ("/debug/endpointShardz", "endpoints by host and namespace, as istiod keeps them"),
    ("/debug/registryz", "the services"),
    ("/debug/adsz", "connected proxies, with what they have of each type"),
    ("/debug/connections", "connected proxies"),
    ("/debug/edsz?proxyID=", "the endpoints that a proxy is served"),
    ("/debug/push_status", "what is wrong, by code and object"),
    ("/debug/mesh", "the objects that MeshConfig is in"),
    ("/debug/list", "the names of these pages"),
    ("/debug/mtlsz", "what every port of a workload lets in, and what its callers send"),
    ("/debug/config_dump?proxyID=", "what a proxy is served, as Envoy's config dump"),
    ("/debug/diagnostics", "everything that is wrong at the moment"),
    ("/debug/objectz?kind=", "all objects in force, with the place that each is written at"),
    ("/debug/nodez", "the nodes of connected proxies, as they said"),
    ("/debug/generations", "the generations that are kept"),
    (
        "/generations/serve",
        "POST: serve a kept generation (?generation=) or the files; from this machine only",
    ),
];

/// The routes.
pub(crate) fn router(subject: Subject) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .route("/", get(list))
        .route("/debug", get(list))
        .route("/debug/", get(list))
        .route("/debug/syncz", get(syncz))
        .route("/debug/configz", get(configz))
        .route("/debug/endpointz", get(endpointz))
        .route("/debug/mtlsz", get(mtlsz))
        .route("/debug/config_dump", get(config_dump))
        .route("/debug/diagnostics", get(diagnostics))
        .merge(generations::router())
        .merge(objects::router())
        .merge(istiod::router())
        .layer(axum::middleware::from_fn(of_this_machine))
        .fallback(unknown)
        .with_state(subject)
}

/// Pages under `/debug` tell everything about the mesh: on an address that other machines reach they are for this one alone,
/// as in istiod for who has not proved to be somebody.
async fn of_this_machine(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let is_local = peer.is_none_or(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
    if request.uri().path().starts_with("/debug") && !is_local {
        return (StatusCode::UNAUTHORIZED, "this page is served to this machine only\n").into_response();
    }
    next.run(request).await
}

/// Indented, for people; whoever wants it short has `jq`.
fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn unknown() -> Response {
    (StatusCode::NOT_FOUND, "there is no such page; /debug lists them\n").into_response()
}

async fn ready(State(subject): State<Subject>) -> Response {
    match subject.proxies.generation() {
        Some(_) => StatusCode::OK.into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the mesh is not loaded yet\n").into_response(),
    }
}

async fn version() -> &'static str {
    concat!("meltemi ", env!("CARGO_PKG_VERSION"), "\n")
}

async fn metrics(State(subject): State<Subject>) -> Response {
    let mut connected = BTreeMap::from([("sotw".to_owned(), 0), ("delta".to_owned(), 0)]);
    for proxy in subject.proxies.connected() {
        *connected.entry(proxy.mode().to_string()).or_default() += 1;
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], subject.metrics.text(&connected)).into_response()
}

async fn list() -> String {
    PAGES.iter().map(|(path, about)| format!("{path:<30}{about}\n")).collect()
}

async fn syncz(State(subject): State<Subject>) -> Response {
    json(&debug::syncz(&subject.proxies.connected()))
}

async fn configz(State(subject): State<Subject>) -> Response {
    let generation = subject.proxies.generation();
    json(&generation.map(|g| debug::configz(&g.snapshot)).unwrap_or_default())
}

async fn endpointz(State(subject): State<Subject>) -> Response {
    let generation = subject.proxies.generation();
    json(&generation.map(|g| debug::endpointz(&g.snapshot)).unwrap_or_default())
}

async fn mtlsz(State(subject): State<Subject>) -> Response {
    let generation = subject.proxies.generation();
    let proxies = subject.proxies.connected();
    json(&generation.map(|g| mtls::page(&g.snapshot, &proxies)).unwrap_or_default())
}

async fn diagnostics(State(subject): State<Subject>) -> Response {
    json(&subject.proxies.findings().diagnostics)
}

#[derive(Deserialize)]
struct Which {
    #[serde(rename = "proxyID")]
    proxy_id: Option<String>,
}

async fn config_dump(State(subject): State<Subject>, Query(which): Query<Which>) -> Response {
    let Some(id) = which.proxy_id else {
        return (StatusCode::BAD_REQUEST, "proxyID is required: a node id, or name.namespace\n")
            .into_response();
    };
    let Some(config) = subject.proxies.served(&id) else {
        return (StatusCode::NOT_FOUND, format!("no proxy {id} is connected\n")).into_response();
    };
    match task::blocking("config dump", move || dump::json(&config)).await {
        Ok(Ok(dump)) => json(&dump),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
