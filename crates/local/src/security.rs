//! Whether what runs is called with mutual TLS: what the control plane says about every port, and the words for it.
//! Leaves out how policies combine, which only the control plane knows; `up` asks for the outcome.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::{MAX_SECURITY_BYTES, SECURITY_TIMEOUT};

/// A line with its workloads that is longer is two, in characters: 80 columns, less the margin.
const LINE: usize = 76;

/// The control plane's pages.
const PAGE: &str = "/debug/mtlsz";
const GENERATIONS: &str = "/debug/generations";

/// One port of a replica, as the control plane's page has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) namespace: String,
    pub(crate) workload: String,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// What it lets in: `PERMISSIVE`, `STRICT` or `DISABLE`.
    pub(crate) mode: Option<String>,
    /// The object that says so.
    pub(crate) by: Option<String>,
    pub(crate) calls: Vec<Calls>,
}

/// What callers in the mesh send to a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Calls {
    pub(crate) service: String,
    pub(crate) port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subset: Option<String>,
    /// Namespaces of the callers.
    pub(crate) from: Vec<String>,
    pub(crate) sends: Sent,
    /// The object that says so.
    pub(crate) by: Option<String>,
    pub(crate) is_let_in: bool,
}

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sent {
    /// In mutual TLS of the mesh.
    Mtls,
    /// In TLS of another kind.
    Tls,
    /// As they are.
    Plaintext,
}

/// The word of the table for a replica or a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    /// All calls come in mutual TLS.
    Mtls,
    /// All calls come in TLS of another kind.
    Tls,
    /// All calls come as they are.
    Plaintext,
    /// Some so, some otherwise.
    Mixed,
    /// Some calls are not let in.
    Refused,
    /// Nobody calls it.
    Uncalled,
}

impl Word {
    /// For people.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Word::Mtls => "mTLS",
            Word::Tls => "TLS",
            Word::Plaintext => "plaintext",
            Word::Mixed => "mixed",
            Word::Refused => "refused",
            Word::Uncalled => "-",
        }
    }

    /// Of several ways in.
    pub(crate) fn of(mut all: impl Iterator<Item = Sent>) -> Word {
        let Some(first) = all.next() else { return Word::Uncalled };
        match first {
            _ if all.any(|other| other != first) => Word::Mixed,
            Sent::Mtls => Word::Mtls,
            Sent::Tls => Word::Tls,
            Sent::Plaintext => Word::Plaintext,
        }
    }
}

/// How the replica of an address is called.
pub(crate) fn word(ports: &[Port], address: IpAddr) -> Word {
    let calls = || ports.iter().filter(|port| port.address == address).flat_map(|port| &port.calls);
    match calls().all(|calls| calls.is_let_in) {
        true => Word::of(calls().map(|calls| calls.sends)),
        false => Word::Refused,
    }
}

/// What is in force, one line for all workloads that it is in force for. `workload_of` is the workload of an address.
pub(crate) fn lines(ports: &[Port], workload_of: impl Fn(IpAddr) -> Option<String>) -> Vec<String> {
    let mut by_text: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut all: Vec<String> = Vec::new();
    for port in ports {
        let Some(workload) = workload_of(port.address) else { continue };
        // The port is worth a word where a workload has several.
        let is_only = ports.iter().all(|other| other.address != port.address || other.port == port.port);
        let name = if is_only { workload } else { format!("{workload}:{}", port.port) };
        let names = by_text.entry(sentence(port)).or_default();
        if !names.contains(&name) {
            names.push(name.clone());
        }
        if !all.contains(&name) {
            all.push(name);
        }
    }
    let line = |(text, names): (String, Vec<String>)| {
        let is_all = names.len() == all.len() && names.len() > 1;
        let whose = if is_all { "all workloads".to_owned() } else { names.join(", ") };
        let separator = if text.len() + whose.len() > LINE { ":\n    " } else { ": " };
        format!("{text}{separator}{whose}")
    };
    by_text.into_iter().map(line).collect()
}

fn sentence(port: &Port) -> String {
    let lets_in = match port.mode.as_deref() {
        Some("STRICT") => "only mTLS (STRICT",
        Some("DISABLE") => "only plaintext (DISABLE",
        Some("PERMISSIVE") => "mTLS; from outside the mesh plaintext, too (PERMISSIVE",
        _ => return "plaintext, since there is no sidecar".to_owned(),
    };
    let by = port.by.as_ref().map_or_else(String::new, |by| format!(", {by}"));
    let mut text = format!("{lets_in}{by})");
    let usual = if port.mode.as_deref() == Some("DISABLE") { Sent::Plaintext } else { Sent::Mtls };
    for calls in port.calls.iter().filter(|calls| calls.sends != usual || !calls.is_let_in) {
        text.push_str(&format!("; {}", exception(calls)));
    }
    text
}

/// What is not as the mode alone would have it.
fn exception(calls: &Calls) -> String {
    let sent = match calls.sends {
        Sent::Mtls => "mTLS",
        Sent::Tls => "TLS of their own",
        Sent::Plaintext => "plaintext",
    };
    let subset = calls.subset.as_ref().map_or_else(String::new, |subset| format!(" of subset {subset}"));
    let by = calls.by.as_ref().map_or_else(String::new, |by| format!(" ({by})"));
    let refused = if calls.is_let_in { "" } else { " and are refused" };
    format!("callers{subset} from {} send {sent}{by}{refused}", calls.from.join(", "))
}

/// Asks the control plane.
///
/// # Errors
/// If it does not answer in time, or with something else.
pub(crate) async fn ask(control_plane: SocketAddr) -> io::Result<Vec<Port>> {
    page(control_plane, PAGE).await
}

/// Whether the control plane refuses the files as they are now (`--strict`).
///
/// # Errors
/// If it does not tell.
pub(crate) async fn is_refused(control_plane: SocketAddr) -> io::Result<bool> {
    let told: Generations = page(control_plane, GENERATIONS).await?;
    Ok(told.is_refused)
}

/// What the control plane says of generations, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Generations {
    is_refused: bool,
}

async fn page<T: for<'de> Deserialize<'de>>(control_plane: SocketAddr, path: &str) -> io::Result<T> {
    let answer = timeout(SECURITY_TIMEOUT, get(control_plane, path)).await.map_err(io::Error::other)??;
    let body = body(&answer).ok_or_else(|| io::Error::other("the control plane does not tell"))?;
    serde_json::from_slice(body).map_err(io::Error::other)
}

/// An answer to HTTP/1.0 comes in one piece and ends with the connection.
async fn get(address: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_SECURITY_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// What follows the head of a successful answer.
fn body(answer: &[u8]) -> Option<&[u8]> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let is_success = answer.get(8..13) == Some(b" 200 ");
    is_success.then(|| &answer[head + 4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host: u8, mode: &str, calls: &[(Sent, bool)]) -> Port {
        let calls = calls.iter().map(|(sends, is_let_in)| Calls {
            service: "a.default.svc.cluster.local".into(),
            port: 80,
            subset: None,
            from: vec!["default".into()],
            sends: *sends,
            by: Some("DestinationRule default/a".into()),
            is_let_in: *is_let_in,
        });
        Port {
            namespace: "default".into(),
            workload: format!("a-{host}"),
            address: IpAddr::from([127, 0, 0, host]),
            port: 8080,
            mode: Some(mode.into()),
            by: (mode != "PERMISSIVE").then(|| "PeerAuthentication default/p".into()),
            calls: calls.collect(),
        }
    }

    fn workload(address: IpAddr) -> Option<String> {
        Some(if address == IpAddr::from([127, 0, 0, 9]) { "b" } else { "a" }.to_owned())
    }

    #[test]
    fn one_word_for_all_calls_into_a_replica() {
        let of = |calls: &[(Sent, bool)]| word(&[port(1, "PERMISSIVE", calls)], [127, 0, 0, 1].into());
        assert_eq!(of(&[]), Word::Uncalled);
        assert_eq!(of(&[(Sent::Mtls, true), (Sent::Mtls, true)]), Word::Mtls);
        assert_eq!(of(&[(Sent::Plaintext, true)]), Word::Plaintext);
        assert_eq!(of(&[(Sent::Plaintext, true), (Sent::Mtls, true)]), Word::Mixed);
        assert_eq!(of(&[(Sent::Plaintext, false), (Sent::Mtls, true)]), Word::Refused);
        let others = [port(2, "PERMISSIVE", &[(Sent::Plaintext, true)])];
        assert_eq!(word(&others, [127, 0, 0, 1].into()), Word::Uncalled);
    }

    #[test]
    fn what_is_alike_is_told_once() {
        let mtls = [(Sent::Mtls, true)];
        let permissive = "mTLS; from outside the mesh plaintext, too (PERMISSIVE)";
        let same = [port(1, "PERMISSIVE", &mtls), port(2, "PERMISSIVE", &mtls), port(9, "PERMISSIVE", &mtls)];
        assert_eq!(lines(&same, workload), [format!("{permissive}: all workloads")]);
        let refused = [(Sent::Plaintext, false)];
        let different =
            [port(1, "PERMISSIVE", &mtls), port(2, "PERMISSIVE", &mtls), port(9, "STRICT", &refused)];
        assert_eq!(
            lines(&different, workload),
            [
                format!("{permissive}: a"),
                "only mTLS (STRICT, PeerAuthentication default/p); callers from default send plaintext \
                 (DestinationRule default/a) and are refused:\n    b"
                    .to_owned()
            ]
        );
    }

    #[test]
    fn only_a_success_has_a_body() {
        assert_eq!(body(b"HTTP/1.0 200 OK\r\na: b\r\n\r\n[]"), Some(&b"[]"[..]));
        assert_eq!(body(b"HTTP/1.0 503 Service Unavailable\r\n\r\nno"), None);
        assert_eq!(body(b"HTTP/1.0 200 OK"), None);
    }
}
