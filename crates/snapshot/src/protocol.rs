//! Which protocol a port speaks.
//!
//! Source: Istio "Protocol Selection" and `pkg/config/protocol`, `pkg/config/kube/conversion.go`:
//! UDP transport, else the word up to the first `-` of `appProtocol`, or without one of the port name, then well-known
//! ports, else unknown (sniffed by Istio where the proxy can).

/// The protocol of a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `tcp`; also `redis` and `mysql`, whose filters are off in Istio by default, and `mongo`.
    /// Differs: Istio puts Envoy's `mongo_proxy`, which counts and forwards, before a `mongo` port.
    Tcp,
    /// `udp`: not proxied.
    Udp,
    /// `tls`: encrypted, routed by SNI.
    Tls,
    /// `https`: as `tls`.
    Https,
    /// `http`: HTTP/1.
    Http,
    /// `http2`.
    Http2,
    /// `grpc`.
    Grpc,
    /// `grpc-web`.
    GrpcWeb,
    /// `http_proxy`: HTTP CONNECT and absolute URLs.
    HttpProxy,
    /// Not declared.
    Unsupported,
}

/// Ports whose server speaks first (SMTP, DNS, MySQL, MongoDB): never sniffed, TCP when nothing is declared.
const SERVER_FIRST_PORTS: [u16; 4] = [25, 53, 3306, 27017];

impl Protocol {
    /// Reads a protocol word in any case, as in Gateway, ServiceEntry and Sidecar ports.
    pub fn parse(word: &str) -> Protocol {
        match word.to_ascii_lowercase().as_str() {
            "tcp" | "mongo" | "redis" | "mysql" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "tls" => Protocol::Tls,
            "https" => Protocol::Https,
            "http" => Protocol::Http,
            "http2" => Protocol::Http2,
            "grpc" => Protocol::Grpc,
            "grpc-web" => Protocol::GrpcWeb,
            "http_proxy" => Protocol::HttpProxy,
            _ => Protocol::Unsupported,
        }
    }

    /// The protocol of a Kubernetes service port.
    pub fn of_service_port(
        transport: Option<&str>,
        app_protocol: Option<&str>,
        name: Option<&str>,
        number: u16,
    ) -> Protocol {
        if transport.is_some_and(|t| t.eq_ignore_ascii_case("UDP")) {
            return Protocol::Udp;
        }
        let app_protocol = app_protocol.filter(|word| !word.is_empty());
        match app_protocol {
            Some("kubernetes.io/h2c") => return Protocol::Http2,
            Some("kubernetes.io/ws") => return Protocol::Http,
            Some("kubernetes.io/wss") => return Protocol::Https,
            _ => {}
        }
        let declared = app_protocol.or(name).map_or(Protocol::Unsupported, of_word);
        if declared == Protocol::Unsupported && SERVER_FIRST_PORTS.contains(&number) {
            return Protocol::Tcp;
        }
        declared
    }

    /// Whether requests of it are routed one by one.
    pub fn is_http(self) -> bool {
        use Protocol::*;
        matches!(self, Http | Http2 | Grpc | GrpcWeb | HttpProxy)
    }

    /// Whether upstream connections speak HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// Whether the client's bytes are TLS that the proxy does not open.
    pub fn is_tls(self) -> bool {
        matches!(self, Protocol::Tls | Protocol::Https)
    }
}

/// `grpc-web` holds the separator, so it is asked for first.
fn of_word(word: &str) -> Protocol {
    let lower = word.to_ascii_lowercase();
    if lower.starts_with("grpc-web") {
        return Protocol::GrpcWeb;
    }
    Protocol::parse(lower.split('-').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_order() {
        let of = Protocol::of_service_port;
        assert_eq!(of(Some("UDP"), Some("http"), Some("http"), 80), Protocol::Udp);
        assert_eq!(of(None, Some("kubernetes.io/h2c"), Some("tcp"), 80), Protocol::Http2);
        assert_eq!(of(None, Some("grpc"), Some("http-x"), 80), Protocol::Grpc);
        assert_eq!(of(None, Some("acme/x"), Some("http-x"), 80), Protocol::Unsupported);
        assert_eq!(of(None, Some("http-x"), Some("tcp"), 80), Protocol::Http);
        assert_eq!(of(None, Some("acme/x"), Some("http-x"), 25), Protocol::Tcp);
        assert_eq!(of(None, Some(""), Some("http"), 80), Protocol::Http);
        assert_eq!(of(None, None, Some("grpc-web-x"), 80), Protocol::GrpcWeb);
        assert_eq!(of(None, None, Some("https"), 443), Protocol::Https);
        assert_eq!(of(None, None, Some("web"), 80), Protocol::Unsupported);
        assert_eq!(of(None, None, None, 3306), Protocol::Tcp);
    }
}
