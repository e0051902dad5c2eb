//! How the proxy writes itself into a request before it is routed.
//!
//! Source: Envoy's `ConnectionManagerUtility::mutateRequestHeaders`. Who the client is, and whether it is internal, is
//! [`client_address`]'s; requests that are not internal lose what only trusted clients may say.

use std::net::{IpAddr, SocketAddr};

use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use meltemi_compile::matcher::StringMatcher;
use meltemi_compile::program::{ForwardClientCert, HttpConnectionManager, StripPort};
use meltemi_http::{Headers, RequestHead, Text, is_hop_by_hop};

use super::{client_address, client_certificate};
use crate::random;
use crate::record::ConnectionInfo;
use crate::router::asked::is_asking;
use crate::stream::response_head::append_via;
use crate::stream::{RequestTraits, names, split_port};

/// Fields that only internal clients may set.
fn is_reserved(name: &str, is_edge: bool) -> bool {
    match name {
        "x-envoy-internal"
        | "x-envoy-retry-on"
        | "x-envoy-retry-grpc-on"
        | "x-envoy-max-retries"
        | "x-envoy-upstream-alt-stat-name"
        | "x-envoy-upstream-rq-timeout-ms"
        | "x-envoy-upstream-rq-per-try-timeout-ms"
        | "x-envoy-upstream-rq-timeout-alt-response"
        | "x-envoy-upstream-stream-duration-ms"
        | "x-envoy-expected-rq-timeout-ms"
        | "x-envoy-force-trace"
        | "x-envoy-ip-tags"
        | "x-envoy-original-url"
        | "x-envoy-hedge-on-per-try-timeout" => true,
        "x-envoy-decorator-operation"
        | "x-envoy-downstream-service-cluster"
        | "x-envoy-downstream-service-node"
        | "x-envoy-original-path"
        | "x-envoy-original-host" => is_edge,
        _ => false,
    }
}

/// Changes the head as the connection manager is told to. Gives the client's address and what the request is, or the
/// status that refuses a client without a valid address.
pub(crate) fn prepare(
    head: &mut RequestHead,
    settings: &HttpConnectionManager,
    connection: &ConnectionInfo,
    own_address: IpAddr,
) -> Result<(SocketAddr, RequestTraits), StatusCode> {
    let forwarding = &settings.forwarding;
    let client = client_address::detect(&mut head.headers, forwarding, connection, own_address)?;
    if !settings.ignored_upgrades.is_empty() {
        ignore_upgrades(&mut head.headers, &settings.ignored_upgrades);
    }
    let mut traits = RequestTraits { is_internal: client.is_internal, ..traits(head) };
    let is_edge = forwarding.use_remote_address && !client.is_internal;
    // On plaintext, most modes only take it away, which is done in passing.
    let keeps_client_cert =
        connection.tls.is_some() || forwarding.client_cert == ForwardClientCert::AlwaysForwardOnly;
    clean(&mut head.headers, keeps_client_cert, &mut traits, is_edge);
    if connection.tls.is_some() {
        client_certificate::forward(&mut head.headers, forwarding, connection);
    }
    forward_proto(head, settings, connection.tls.is_some());
    if forwarding.append_x_forwarded_port && !head.headers.contains(&names::X_FORWARDED_PORT) {
        head.headers.append(names::X_FORWARDED_PORT.clone(), HeaderValue::from(connection.local.port()));
    }
    if let Some(via) = &forwarding.via {
        append_via(&mut head.headers, via);
    }
    if client.is_internal {
        head.headers.set(names::X_ENVOY_INTERNAL.clone(), HeaderValue::from_static("true"));
    } else if is_edge {
        let address = client_address::value(client.address.ip());
        head.headers.set(names::X_ENVOY_EXTERNAL_ADDRESS.clone(), address);
    }
    request_id(&mut head.headers, settings, is_edge);
    strip_authority(head, settings, connection);
    Ok((client.address, traits))
}

/// Takes out what speaks of the connection, and what the client may not say.
fn clean(headers: &mut Headers, keeps_client_cert: bool, traits: &mut RequestTraits, is_edge: bool) {
    let keep_upgrade = traits.upgrade.is_some();
    remove_nominated(headers);
    headers.retain(|name, value| {
        if is_hop_by_hop(name) {
            return keeps_hop_field(name, value, keep_upgrade);
        }
        let text = name.as_str();
        match text.strip_prefix("x-") {
            Some(rest) if rest.starts_with("envoy-") => {
                let keeps = traits.is_internal || !is_reserved(text, is_edge);
                traits.asks_router |= keeps && is_asking(text);
                keeps
            }
            Some("forwarded-client-cert") => keeps_client_cert,
            _ => true,
        }
    });
}

/// Forgets the upgrades that are not to be heard of.
fn ignore_upgrades(headers: &mut Headers, ignored: &[StringMatcher]) {
    let Some(offered) = headers.get_str(&header::UPGRADE) else { return };
    let is_heard = |name: &&str| !ignored.iter().any(|matcher| matcher.matches(name.as_bytes()));
    let left: Vec<&str> = offered.split(',').map(str::trim).filter(is_heard).collect();
    match HeaderValue::from_str(&left.join(",")) {
        Ok(value) if !left.is_empty() => headers.set(header::UPGRADE, value),
        _ => drop(headers.remove(&header::UPGRADE)),
    }
}

fn traits(head: &RequestHead) -> RequestTraits {
    let is_grpc = head.headers.get(&header::CONTENT_TYPE).is_some_and(is_grpc_type);
    RequestTraits { is_grpc, upgrade: upgrade(head), ..RequestTraits::default() }
}

fn is_grpc_type(value: &HeaderValue) -> bool {
    let value = value.as_bytes();
    let grpc = b"application/grpc";
    value.starts_with(grpc) && (value.len() == grpc.len() || value[grpc.len()] == b'+')
}

fn upgrade(head: &RequestHead) -> Option<Box<str>> {
    if head.method == http::Method::CONNECT {
        return Some("connect".into());
    }
    head.upgrade().map(|protocol| protocol.to_ascii_lowercase().into())
}

fn keeps_hop_field(name: &HeaderName, value: &HeaderValue, keep_upgrade: bool) -> bool {
    if *name == header::TE {
        return value.as_bytes() == b"trailers";
    }
    keep_upgrade && (*name == header::CONNECTION || *name == header::UPGRADE)
}

/// Fields that `connection` names go no further (RFC 9110, 7.6.1).
fn remove_nominated(headers: &mut Headers) {
    let Some(value) = headers.get(&header::CONNECTION) else { return };
    if matches!(value.as_bytes(), b"close" | b"keep-alive" | b"Keep-Alive" | b"Upgrade" | b"upgrade") {
        return;
    }
    let nominated: Vec<HeaderName> = headers
        .get_all(&header::CONNECTION)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| HeaderName::try_from(token.trim()).ok())
        .filter(|name| !is_hop_by_hop(name) && *name != names::X_FORWARDED_FOR)
        .filter(|name| *name != names::X_FORWARDED_HOST && *name != names::X_FORWARDED_PROTO)
        .collect();
    for name in nominated {
        headers.remove(&name);
    }
}

static HTTP: HeaderValue = HeaderValue::from_static("http");
static HTTPS: HeaderValue = HeaderValue::from_static("https");

/// `x-forwarded-proto` and the scheme. Only a trusted hop may say something else than what we see.
fn forward_proto(head: &mut RequestHead, settings: &HttpConnectionManager, is_tls: bool) {
    let forwarding = &settings.forwarding;
    if let Some(scheme) = &forwarding.scheme {
        head.headers.set(names::X_FORWARDED_PROTO.clone(), scheme.clone());
        head.scheme = Some(Text::from_static(if scheme == "https" { "https" } else { "http" }));
        return;
    }
    let is_ours = forwarding.use_remote_address && forwarding.xff_num_trusted_hops == 0;
    if is_ours || !head.headers.contains(&names::X_FORWARDED_PROTO) {
        let proto = if is_tls { HTTPS.clone() } else { HTTP.clone() };
        head.headers.set(names::X_FORWARDED_PROTO.clone(), proto);
    }
    if head.scheme.is_none() {
        let is_https = head.headers.get(&names::X_FORWARDED_PROTO).is_some_and(|proto| proto == "https");
        head.scheme = Some(Text::from_static(if is_https { "https" } else { "http" }));
    }
}

fn request_id(headers: &mut Headers, settings: &HttpConnectionManager, is_edge: bool) {
    let forwarding = &settings.forwarding;
    if !forwarding.generate_request_id {
        return;
    }
    let is_foreign = is_edge && !forwarding.preserve_external_request_id;
    if is_foreign || headers.get(&names::X_REQUEST_ID).is_none_or(HeaderValue::is_empty) {
        let id = HeaderValue::from_bytes(&random::uuid()).expect("invariant: a UUID is visible ASCII");
        headers.set(names::X_REQUEST_ID.clone(), id);
    }
}

/// Takes the port, or the last dot of the name, off `:authority`.
fn strip_authority(head: &mut RequestHead, settings: &HttpConnectionManager, connection: &ConnectionInfo) {
    let Some(authority) = &head.authority else { return };
    let (host, port) = split_port(authority);
    let strips = match settings.strip_port {
        StripPort::Keep => false,
        StripPort::Any => port.is_some(),
        StripPort::Matching => port == Some(connection.local.port()),
    } && head.method != http::Method::CONNECT;
    let dotless = settings.strip_trailing_host_dot.then(|| host.strip_suffix('.')).flatten();
    if !strips && dotless.is_none() {
        return;
    }
    let host = dotless.unwrap_or(host);
    head.authority = Some(match port {
        Some(port) if !strips => Text::from(format!("{host}:{port}")),
        _ => Text::from(host),
    });
}
