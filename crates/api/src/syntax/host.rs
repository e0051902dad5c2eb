//! Hosts and addresses.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::text::{is_label, is_namespace};
use super::{Flaw, Verdict};
use crate::codes;

/// What the address of a Unix socket begins with.
const UNIX: &str = "unix://";

/// Longest DNS name.
const LONGEST_NAME: usize = 255;

fn bad_host(text: &str, reason: &str) -> Flaw {
    Flaw::new(&codes::BAD_HOST, format!("`{text}` is not a host: {reason}"))
}

fn bad_address(text: &str, expected: &str) -> Flaw {
    Flaw::new(&codes::BAD_ADDRESS, format!("`{text}` is not {expected}"))
}

/// A DNS name whose leftmost label may be `*` or start with `*-`, or `*` alone, or an IP address.
pub(crate) fn host(text: &str) -> Verdict {
    if text == "*" || text.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if text.is_empty() {
        return Err(Flaw::new(&codes::BAD_HOST, "the host is empty"));
    }
    if text.len() > LONGEST_NAME {
        return Err(bad_host(text, "it is longer than 255 characters"));
    }
    if text.contains("://") {
        return Err(bad_host(text, "it has a scheme").help("write the name alone"));
    }
    if let Some((name, port)) = text.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(
            bad_host(text, "it has a port").help(format!("write `{name}`; ports have a field of their own"))
        );
    }
    let text_without_dot = text.strip_suffix('.').unwrap_or(text);
    let (first, others) = text_without_dot.split_once('.').unwrap_or((text_without_dot, ""));
    let rest = first.strip_prefix('*');
    let first_fine = match rest {
        Some("") => !others.is_empty(),
        Some(rest) => rest.strip_prefix('-').is_some_and(is_label),
        None => is_label(first),
    };
    if !first_fine {
        let reason =
            if rest.is_some() { "a wildcard must be a whole label, as in `*.example.com`" } else { LABELS };
        return Err(bad_host(text, reason));
    }
    let others_fine = others.is_empty() || others.split('.').all(is_label);
    if others_fine { Ok(()) } else { Err(bad_host(text, LABELS)) }
}

const LABELS: &str =
    "labels are letters, digits and `-`, at most 63 of them, and do not begin or end with `-`";

/// A host to send to: no wildcard that stands for everything.
pub(crate) fn destination_host(text: &str) -> Verdict {
    if text == "*" {
        return Err(bad_host(text, "a destination must be one service"));
    }
    host(text)
}

/// Whether a host is a name that DNS can resolve, or an address.
fn is_fully_qualified(text: &str) -> bool {
    !text.starts_with('*') && host(text).is_ok()
}

/// The host that a tunnel leads to.
pub(crate) fn tunnel_host(text: &str) -> Verdict {
    match is_fully_qualified(text) {
        true => Ok(()),
        false => Err(bad_host(text, "a tunnel needs a DNS name or an IP address")),
    }
}

/// A host with an optional namespace in front: `*`, `reviews.example.com`, `ns/*.example.com`, `./*`.
pub(crate) fn namespaced_host(text: &str) -> Verdict {
    match text.split_once('/') {
        None => host(text),
        Some((namespace, name)) => in_namespace(text, namespace, name, &["*", "."]),
    }
}

/// A host with its namespace: `*/*`, `./reviews`, `~/*`, `ns/reviews.ns.svc.cluster.local`; `~` before a namespace leaves
/// out.
pub(crate) fn egress_host(text: &str) -> Verdict {
    let Some((namespace, name)) = text.split_once('/') else {
        return Err(
            bad_host(text, "the namespace is missing").help(format!("write `*/{text}` or `./{text}`"))
        );
    };
    let namespace = namespace.strip_prefix('~').filter(|rest| !rest.is_empty()).unwrap_or(namespace);
    in_namespace(text, namespace, name, &["*", ".", "~"])
}

fn in_namespace(text: &str, namespace: &str, name: &str, special: &[&str]) -> Verdict {
    if !special.contains(&namespace) && !is_namespace(namespace) {
        return Err(bad_host(text, "the part before `/` is not a namespace"));
    }
    host(name)
}

/// An IP address, or a CIDR block.
pub(crate) fn ip_or_cidr(text: &str) -> Verdict {
    match text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() {
        true => Ok(()),
        false => Err(bad_address(text, "an IP address or a CIDR block")),
    }
}

/// An IP address.
pub(crate) fn ip(text: &str) -> Verdict {
    if text.parse::<IpAddr>().is_ok() { Ok(()) } else { Err(bad_address(text, "an IP address")) }
}

/// An address to listen on.
pub(crate) fn bind(text: &str) -> Verdict {
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) if text.starts_with("unix://") => {
            Err(Flaw::new(&codes::UNSUPPORTED_VALUE, "listening on a Unix socket is not supported yet"))
        }
        Err(_) => Err(bad_address(text, "an IP address")),
    }
}

/// What the address of a Unix socket begins with.
const UNIX_SCHEME: &str = "unix://";

/// An address of a sidecar's listener.
pub(crate) fn sidecar_bind(text: &str) -> Verdict {
    text.strip_prefix(UNIX_SCHEME).map_or_else(|| bind(text), |path| unix_path(text, path))
}

/// A path from the root, or a name of the abstract kind.
fn unix_path(text: &str, path: &str) -> Verdict {
    let is_whole = match path.strip_prefix('@') {
        Some(name) => !name.is_empty(),
        None => path.starts_with('/') && !path.ends_with('/'),
    };
    if is_whole {
        return Ok(());
    }
    Err(bad_address(text, "a Unix socket").help("write `unix:///path/of/socket`"))
}

/// Where an inbound listener forwards: this machine, or the workload's own address.
pub(crate) fn default_endpoint(text: &str) -> Verdict {
    if let Some(path) = text.strip_prefix(UNIX_SCHEME) {
        return unix_path(text, path);
    }
    // A port alone is one of this machine.
    let with_host = if text.starts_with(':') { format!("127.0.0.1{text}") } else { text.to_owned() };
    let address = with_host.parse::<SocketAddr>().ok();
    let fine = address.is_some_and(|at| at.port() > 0 && (at.ip().is_loopback() || at.ip().is_unspecified()));
    if fine {
        return Ok(());
    }
    Err(bad_address(text, "an endpoint of the workload")
        .help("write `127.0.0.1:PORT`, `[::1]:PORT`, `0.0.0.0:PORT` or `unix:///path`"))
}

/// The address of a workload.
pub(crate) fn workload_address(text: &str) -> Verdict {
    if let Some(path) = text.strip_prefix(UNIX) {
        let is_socket = path.starts_with('/') && !path.ends_with('/');
        let fine = is_socket || path.starts_with('@') && path.len() > 1;
        let flaw = || {
            bad_address(text, "the address of a Unix socket").help("write `unix:///PATH` or `unix://@NAME`")
        };
        return if fine { Ok(()) } else { Err(flaw()) };
    }
    if is_fully_qualified(text) { Ok(()) } else { Err(bad_address(text, "an IP address or a DNS name")) }
}

/// The `clusterIP` of a service: `None`, an address, or nothing.
pub(crate) fn cluster_ip(text: &str) -> Verdict {
    let fine = text.is_empty() || text == "None" || text.parse::<IpAddr>().is_ok();
    if fine { Ok(()) } else { Err(bad_address(text, "an IP address or `None`")) }
}
