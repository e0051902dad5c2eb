//! The generations that are kept, and the only thing that the admin interface changes: which of them is served.
//!
//! A change is taken from this machine alone, and not from a page in somebody's browser: a browser says where its page
//! came from (`Origin`), and a page that has made its name lead here has another `Host`.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::{Subject, json};
use crate::orders::Order;

pub(super) fn router() -> Router<Subject> {
    Router::new()
        .route("/debug/generations", get(list))
        .route("/debug/generations/{number}", get(show))
        .route("/generations/serve", post(serve))
}

#[derive(Deserialize)]
struct Which {
    /// None: the files.
    generation: Option<u64>,
}

async fn list(State(subject): State<Subject>) -> Response {
    give(&subject, Order::List).await
}

async fn show(State(subject): State<Subject>, Path(number): Path<u64>) -> Response {
    give(&subject, Order::Show(number)).await
}

async fn serve(
    State(subject): State<Subject>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Query(which): Query<Which>,
) -> Response {
    if let Err(reason) = may_change(peer.ip(), &headers) {
        return (StatusCode::FORBIDDEN, format!("{reason}\n")).into_response();
    }
    let order = which.generation.map_or(Order::ServeFiles, Order::Serve);
    give(&subject, order).await
}

async fn give(subject: &Subject, order: Order) -> Response {
    match subject.orders.give(order).await {
        Ok(answer) => json(&answer),
        Err(error) => (StatusCode::CONFLICT, format!("{error:#}\n")).into_response(),
    }
}

/// Whether the caller may choose what is served.
fn may_change(peer: IpAddr, headers: &HeaderMap) -> Result<(), &'static str> {
    if !peer.to_canonical().is_loopback() {
        return Err("only this machine may choose the generation that is served");
    }
    if headers.contains_key(header::ORIGIN) {
        return Err("a page in a browser may not choose the generation that is served");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_here = host.parse::<SocketAddr>().is_ok_and(|host| host.ip().is_loopback())
        || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback())
        || host.split(':').next() == Some("localhost");
    if is_here { Ok(()) } else { Err("the request is for another host") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(peer: &str, headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), header::HeaderValue::from_static(value))
        });
        may_change(peer.parse().unwrap(), &headers.collect()).is_ok()
    }

    #[test]
    fn only_a_program_on_this_machine_chooses() {
        assert!(judged("127.0.0.1", &[("host", "127.0.0.1:15014")]));
        assert!(judged("::ffff:127.0.0.1", &[("host", "localhost:15014")]));
        assert!(judged("::1", &[("host", "[::1]:15014")]));
        assert!(!judged("10.0.0.1", &[("host", "127.0.0.1:15014")]));
        assert!(!judged("127.0.0.1", &[("host", "127.0.0.1:15014"), ("origin", "http://127.0.0.1:15014")]));
        assert!(!judged("127.0.0.1", &[("host", "rebound.example:15014")]));
        assert!(!judged("127.0.0.1", &[]));
    }
}
