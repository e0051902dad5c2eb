//! The protocol of a service's or container's port, in the words of the Istio API, and whether a program reaches it
//! through `HTTP_PROXY`. Source: Istio "Protocol Selection".
//!
//! A port that declares nothing is TCP here: an explicit proxy cannot look at the first bytes before it must choose.

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spoken(&'static str);

const WORDS: [&str; 9] = ["grpc-web", "grpc", "http2", "https", "http_proxy", "http", "tls", "udp", "tcp"];

impl Spoken {
    /// From transport, `appProtocol` and name, in Istio's order of precedence.
    pub(crate) fn of(transport: Option<&str>, app_protocol: Option<&str>, name: Option<&str>) -> Spoken {
        if transport.is_some_and(|transport| transport.eq_ignore_ascii_case("UDP")) {
            return Spoken("udp");
        }
        match app_protocol {
            Some("kubernetes.io/h2c") => return Spoken("http2"),
            Some("kubernetes.io/ws") => return Spoken("http"),
            Some("kubernetes.io/wss") => return Spoken("https"),
            _ => {}
        }
        let declared = app_protocol.and_then(word).or_else(|| name.and_then(prefix));
        Spoken(declared.unwrap_or("tcp"))
    }

    /// The word for a `port.protocol` field.
    pub(crate) fn field(self) -> String {
        self.0.to_ascii_uppercase()
    }

    /// Whether a sidecar carries it at all.
    pub(crate) fn is_proxied(self) -> bool {
        self.0 != "udp"
    }

    /// Whether an HTTP client with a proxy setting reaches it by name; gRPC clients and whatever is not HTTP need
    /// an address of their own to connect to.
    pub(crate) fn goes_through_http_proxy(self) -> bool {
        matches!(self.0, "http" | "grpc-web" | "http_proxy")
    }
}

fn word(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    WORDS.into_iter().find(|word| *word == lower)
}

/// The name up to its first `-`; `grpc-web` holds the separator, so it is asked for first.
fn prefix(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    if lower == "grpc-web" || lower.starts_with("grpc-web-") {
        return Some("grpc-web");
    }
    word(lower.split('-').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence_and_default() {
        let of = |transport, app, name| Spoken::of(transport, app, name).field();
        assert_eq!(of(Some("UDP"), Some("http"), None), "UDP");
        assert_eq!(of(None, Some("kubernetes.io/h2c"), Some("tcp")), "HTTP2");
        assert_eq!(of(None, Some("GRPC"), Some("http-x")), "GRPC");
        assert_eq!(of(None, Some("acme"), Some("http-x")), "HTTP");
        assert_eq!(of(None, None, Some("grpc-web-x")), "GRPC-WEB");
        assert_eq!(of(None, None, Some("web")), "TCP");
        assert_eq!(of(None, None, None), "TCP");
    }
}
