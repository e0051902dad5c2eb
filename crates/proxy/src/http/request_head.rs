//! How the proxy writes itself into a request before it is routed.
//!
//! Source: Envoy's `ConnectionManagerUtility::mutateRequestHeaders`. Envoy 1.40 treats no client as internal unless
//! `internal_address_config` says so (which `compile` refuses), so every request is cleaned as external.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderName, HeaderValue};
use meltemi_compile::program::{HttpConnectionManager, StripPort};
use meltemi_http::{Headers, RequestHead, Text, is_hop_by_hop};

use crate::random;
use crate::record::ConnectionInfo;
use crate::router::asked::is_asking;
use crate::stream::response_head::append_via;
use crate::stream::{RequestTraits, names, split_port};

/// Fields that only trusted clients may set: taken out of every request.
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

/// Changes the head as the connection manager is told to. Gives the client's address and what the request is.
pub(crate) fn prepare(
    head: &mut RequestHead,
    settings: &HttpConnectionManager,
    connection: &ConnectionInfo,
    own_address: IpAddr,
) -> (SocketAddr, RequestTraits) {
    let is_edge = settings.forwarding.use_remote_address;
    let mut traits = traits(head);
    let keep_upgrade = traits.upgrade.is_some();
    remove_nominated(&mut head.headers);
    head.headers.retain(|name, value| {
        if is_hop_by_hop(name) {
            return keeps_hop_field(name, value, keep_upgrade);
        }
        let text = name.as_str();
        if !text.starts_with("x-envoy-") {
            return true;
        }
        let keeps = !is_reserved(text, is_edge);
        traits.asks_router |= keeps && is_asking(text);
        keeps
    });
    let remote = forward_for(&mut head.headers, settings, connection, own_address);
    forward_proto(head, settings);
    if settings.forwarding.append_x_forwarded_port && !head.headers.contains(&names::X_FORWARDED_PORT) {
        head.headers.append(names::X_FORWARDED_PORT.clone(), HeaderValue::from(connection.local.port()));
    }
    if let Some(via) = &settings.forwarding.via {
        append_via(&mut head.headers, via);
    }
    if is_edge {
        head.headers.set(names::X_ENVOY_EXTERNAL_ADDRESS.clone(), address_value(remote.ip()));
    }
    request_id(&mut head.headers, settings);
    strip_authority(head, settings, connection);
    (remote, traits)
}

fn traits(head: &RequestHead) -> RequestTraits {
    let is_grpc = head.headers.get(&header::CONTENT_TYPE).is_some_and(is_grpc_type);
    RequestTraits { is_grpc, upgrade: upgrade(head), asks_router: false }
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

/// `x-forwarded-for`: appends the peer where it may, and finds out who the client is.
fn forward_for(
    headers: &mut Headers,
    settings: &HttpConnectionManager,
    connection: &ConnectionInfo,
    own_address: IpAddr,
) -> SocketAddr {
    let forwarding = &settings.forwarding;
    let peer = connection.remote;
    if !forwarding.use_remote_address {
        let trusted = forwarded_address(headers, forwarding.xff_num_trusted_hops);
        return trusted.map_or(peer, |ip| SocketAddr::new(ip, 0));
    }
    let hops = forwarding.xff_num_trusted_hops.checked_sub(1);
    let client = hops.and_then(|hops| forwarded_address(headers, hops));
    if !forwarding.skip_xff_append {
        // Envoy names itself for clients on its own machine.
        append_value(
            headers,
            &names::X_FORWARDED_FOR,
            if peer.ip().is_loopback() { own_address } else { peer.ip() },
        );
    }
    client.map_or(peer, |ip| SocketAddr::new(ip, 0))
}

/// The address `skip` places from the end of the last `x-forwarded-for`.
fn forwarded_address(headers: &Headers, skip: u32) -> Option<IpAddr> {
    let value = headers.get_all(&names::X_FORWARDED_FOR).last()?.to_str().ok()?;
    value.rsplit(',').nth(skip as usize)?.trim().parse().ok()
}

fn append_value(headers: &mut Headers, name: &HeaderName, address: IpAddr) {
    let appended = match headers.get(name) {
        Some(old) => {
            let mut bytes = old.as_bytes().to_vec();
            bytes.push(b',');
            bytes.extend_from_slice(address.to_string().as_bytes());
            HeaderValue::try_from(bytes).unwrap_or_else(|_| address_value(address))
        }
        None => address_value(address),
    };
    headers.set(name.clone(), appended);
}

fn address_value(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_string()).expect("invariant: an address is visible ASCII")
}

static HTTP: HeaderValue = HeaderValue::from_static("http");

/// `x-forwarded-proto` and the scheme. Only a trusted hop may say something else than what we see.
fn forward_proto(head: &mut RequestHead, settings: &HttpConnectionManager) {
    let forwarding = &settings.forwarding;
    let is_ours = forwarding.use_remote_address && forwarding.xff_num_trusted_hops == 0;
    if is_ours || !head.headers.contains(&names::X_FORWARDED_PROTO) {
        head.headers.set(names::X_FORWARDED_PROTO.clone(), HTTP.clone());
    }
    if head.scheme.is_none() {
        let is_https = head.headers.get(&names::X_FORWARDED_PROTO).is_some_and(|proto| proto == "https");
        head.scheme = Some(Text::from_static(if is_https { "https" } else { "http" }));
    }
}

fn request_id(headers: &mut Headers, settings: &HttpConnectionManager) {
    let forwarding = &settings.forwarding;
    if !forwarding.generate_request_id {
        return;
    }
    let is_edge = forwarding.use_remote_address && !forwarding.preserve_external_request_id;
    if is_edge || headers.get(&names::X_REQUEST_ID).is_none_or(HeaderValue::is_empty) {
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
