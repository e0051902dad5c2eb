//! [`Call`]: what is asked about.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::Deserialize;

/// Where a call goes that names no address: one that no service has.
const UNKNOWN_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 3, 3, 7));

/// One call, as it meets one proxy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Call {
    /// How it reaches the proxy.
    pub mode: Mode,
    /// Destination address; empty is an address that no service has.
    pub address: String,
    /// Destination port.
    pub port: u16,
    /// What the client speaks, below TLS if there is TLS.
    pub protocol: Protocol,
    /// Whether the client encrypts.
    pub tls: Security,
    /// Server name; empty is the host, for TLS that is not the mesh's.
    pub sni: String,
    /// ALPN, several separated by commas; empty is what a client of the protocol offers.
    pub alpn: String,
    /// `:authority`.
    pub host: String,
    /// `:method`; empty is GET.
    pub method: String,
    /// `:path`, with its query; empty is `/`.
    pub path: String,
    /// Further headers. A value is a text, or a list of texts for a header that comes several times.
    pub headers: BTreeMap<String, HeaderValues>,
    /// The SPIFFE identity of the client, for mutual TLS.
    pub principal: String,
}

/// The values of a header.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum HeaderValues {
    /// One.
    One(String),
    /// Several fields of the same name.
    Several(Vec<String>),
}

impl HeaderValues {
    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let values = match self {
            HeaderValues::One(value) => std::slice::from_ref(value),
            HeaderValues::Several(values) => values.as_slice(),
        };
        values.iter().map(String::as_str)
    }
}

/// How a call reaches the proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// From the workload, redirected to 15001, or to the listener itself with `interceptionMode: NONE`.
    #[default]
    Outbound,
    /// To the workload, redirected to 15006.
    Inbound,
    /// To a listener of a gateway.
    Gateway,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/2.
    Http2,
    /// Anything else.
    Tcp,
}

/// Whether a client encrypts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// It does not.
    #[default]
    Plaintext,
    /// TLS, as anybody speaks it.
    Tls,
    /// Mutual TLS, as sidecars of the mesh speak it.
    Mtls,
}

impl Call {
    /// The call with what it does not say filled in.
    ///
    /// # Errors
    /// If the address is none, or the call contradicts itself.
    pub(crate) fn completed(mut self) -> Result<Completed, String> {
        let address = match self.address.as_str() {
            "" => UNKNOWN_ADDRESS,
            text => text.parse().map_err(|_| format!("call.address: `{text}` is no IP address"))?,
        };
        if self.tls == Security::Plaintext && !self.alpn.is_empty() {
            return Err("call.alpn: only TLS offers ALPN".to_owned());
        }
        let fill = |field: &mut String, value: &str| {
            if field.is_empty() {
                value.clone_into(field);
            }
        };
        fill(&mut self.method, "GET");
        fill(&mut self.path, "/");
        if self.host.is_empty()
            && let Some(host) = take_host(&mut self.headers)
        {
            self.host = host;
        }
        if self.tls == Security::Tls {
            let name = self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name).to_owned();
            fill(&mut self.sni, &name);
        }
        fill(&mut self.alpn, self.protocol.alpn(self.tls));
        Ok(Completed { address, call: self })
    }
}

/// `Host` among the headers is the authority.
fn take_host(headers: &mut BTreeMap<String, HeaderValues>) -> Option<String> {
    let name = headers.keys().find(|name| name.eq_ignore_ascii_case("host"))?.clone();
    headers.remove(&name)?.iter().next().map(str::to_owned)
}

/// A [`Call`] that leaves nothing open.
pub(crate) struct Completed {
    pub(crate) address: IpAddr,
    pub(crate) call: Call,
}

impl Protocol {
    /// Whether it is any HTTP.
    pub(crate) fn is_http(self) -> bool {
        self != Protocol::Tcp
    }

    /// What a client offers that speaks it within TLS: Istio's names in the mesh.
    fn alpn(self, tls: Security) -> &'static str {
        match (tls, self) {
            (Security::Plaintext, _) | (Security::Tls, Protocol::Tcp) => "",
            (Security::Tls, Protocol::Http) => "http/1.1",
            (Security::Tls, Protocol::Http2) => "h2",
            (Security::Mtls, Protocol::Http) => "istio-http/1.1",
            (Security::Mtls, Protocol::Http2) => "istio-h2",
            (Security::Mtls, Protocol::Tcp) => "istio",
        }
    }

    /// What the HTTP inspector makes of it.
    pub(crate) fn inspected(self) -> Option<&'static str> {
        match self {
            Protocol::Http => Some("http/1.1"),
            Protocol::Http2 => Some("h2c"),
            Protocol::Tcp => None,
        }
    }
}
