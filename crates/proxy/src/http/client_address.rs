//! Who sent a request, and whether it is one of ours.
//!
//! Source: Envoy's `mutateRequestHeaders` and its original-IP-detection extensions. Internal are requests of one hop from
//! an address in `internal_address_config`; without that nobody is, as in Envoy since 1.38.

use std::net::{IpAddr, SocketAddr};

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use meltemi_compile::program::{Forwarding, IpDetection, IpNet};
use meltemi_http::Headers;

use crate::record::ConnectionInfo;
use crate::stream::names;

/// The client of a request.
pub(super) struct Client {
    pub(super) address: SocketAddr,
    pub(super) is_internal: bool,
}

/// What an extension found.
struct Detected {
    ip: IpAddr,
    /// The address may make a request internal.
    is_trusted: bool,
}

/// Finds out who the client is, and appends the peer to `x-forwarded-for` where it may. The status refuses a request whose
/// client cannot be told.
pub(super) fn detect(
    headers: &mut Headers,
    forwarding: &Forwarding,
    connection: &ConnectionInfo,
    own_address: IpAddr,
) -> Result<Client, StatusCode> {
    let peer = connection.remote;
    if forwarding.use_remote_address {
        return Ok(by_connection(headers, forwarding, peer, own_address));
    }
    let detected = match forwarding.ip_detections.as_slice() {
        [] => hops_back(headers, forwarding.xff_num_trusted_hops),
        extensions => by_extensions(headers, extensions, peer, own_address)?,
    };
    let Some(Detected { ip, is_trusted }) = detected else {
        return Ok(Client { address: peer, is_internal: false });
    };
    Ok(Client { address: SocketAddr::new(ip, 0), is_internal: is_trusted && is_internal(forwarding, ip) })
}

fn is_internal(forwarding: &Forwarding, ip: IpAddr) -> bool {
    contains(&forwarding.internal_addresses, ip)
}

fn contains(ranges: &[IpNet], ip: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&ip))
}

/// `use_remote_address`: the peer, or who it and further trusted hops forward for.
fn by_connection(
    headers: &mut Headers,
    forwarding: &Forwarding,
    peer: SocketAddr,
    own_address: IpAddr,
) -> Client {
    let hops = forwarding.xff_num_trusted_hops.checked_sub(1);
    let forwarded = hops.and_then(|hops| forwarded_address(headers, hops));
    let address = forwarded.map_or(peer, |ip| SocketAddr::new(ip, 0));
    let is_first_hop = !headers.contains(&names::X_FORWARDED_FOR);
    if !forwarding.skip_xff_append {
        append(headers, peer, own_address);
    }
    Client { address, is_internal: is_first_hop && is_internal(forwarding, address.ip()) }
}

/// The first extension that finds an address. One that is asked and may append does so, whoever finds it in the end.
fn by_extensions(
    headers: &mut Headers,
    extensions: &[IpDetection],
    peer: SocketAddr,
    own_address: IpAddr,
) -> Result<Option<Detected>, StatusCode> {
    for extension in extensions {
        let (detected, skips_append) = match extension {
            IpDetection::ForwardedHops { hops, skips_append } => (hops_back(headers, *hops), *skips_append),
            IpDetection::ForwardedOutside { trusted, skips_append } => {
                (outside(headers, trusted, peer), *skips_append)
            }
            IpDetection::Header { name, is_trusted, reject } => {
                let ip = headers.get_str(name).and_then(|text| text.trim().parse().ok());
                if let (None, Some(status)) = (ip, reject) {
                    return Err(*status);
                }
                (ip.map(|ip| Detected { ip, is_trusted: *is_trusted }), true)
            }
        };
        if !skips_append {
            append(headers, peer, own_address);
        }
        if detected.is_some() {
            return Ok(detected);
        }
    }
    Ok(None)
}

fn hops_back(headers: &Headers, hops: u32) -> Option<Detected> {
    let ip = forwarded_address(headers, hops)?;
    let is_single =
        headers.get(&names::X_FORWARDED_FOR).is_some_and(|value| !value.as_bytes().contains(&b','));
    Some(Detected { ip, is_trusted: is_single })
}

/// The address `skip` places from the end of the last `x-forwarded-for`.
fn forwarded_address(headers: &Headers, skip: u32) -> Option<IpAddr> {
    let value = headers.get_all(&names::X_FORWARDED_FOR).last()?.to_str().ok()?;
    value.rsplit(',').nth(skip as usize)?.trim().parse().ok()
}

/// The last address that is in none of the ranges, if the peer is in one; the first, when all are.
fn outside(headers: &Headers, trusted: &[IpNet], peer: SocketAddr) -> Option<Detected> {
    if !contains(trusted, peer.ip()) {
        return None;
    }
    let value = headers.get_all(&names::X_FORWARDED_FOR).last()?.to_str().ok()?;
    let mut last = None;
    for text in value.rsplit(',') {
        let ip = text.trim().parse().ok()?;
        last = Some(Detected { ip, is_trusted: false });
        if !contains(trusted, ip) {
            break;
        }
    }
    last
}

/// Names the peer. Envoy names itself for clients on its own machine.
fn append(headers: &mut Headers, peer: SocketAddr, own_address: IpAddr) {
    let address = if peer.ip().is_loopback() { own_address } else { peer.ip() };
    let name: &HeaderName = &names::X_FORWARDED_FOR;
    let appended = match headers.get(name) {
        Some(old) => {
            let mut bytes = old.as_bytes().to_vec();
            bytes.push(b',');
            bytes.extend_from_slice(address.to_string().as_bytes());
            HeaderValue::try_from(bytes).unwrap_or_else(|_| value(address))
        }
        None => value(address),
    };
    headers.set(name.clone(), appended);
}

/// An address as the value of a field.
pub(super) fn value(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_string()).expect("invariant: an address is visible ASCII")
}
