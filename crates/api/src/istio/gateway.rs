//! Gateway: what a gateway workload listens on. Leaves out the merging of Gateways on one workload. Source: Istio
//! `networking.Gateway`.

use std::collections::BTreeMap;

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::syntax;

wire! {
    /// Servers on the workloads of a selector.
    pub struct Gateway {
        /// The servers.
        servers: Vec<Server>, "servers";
        /// Labels of the workloads; empty: all.
        selector: BTreeMap<String, String>, "selector" => syntax::label_value;
    }
    rule check::gateway;
}

wire! {
    /// One port and the hosts it serves.
    pub struct Server {
        /// The port.
        port: Port, "port", required;
        /// Address to listen on; absent: all addresses.
        bind: Option<String>, "bind" => syntax::bind;
        /// Hosts, `*` wildcards allowed, optionally `namespace/` in front.
        hosts: Vec<String>, "hosts" => syntax::namespaced_host;
        /// TLS.
        tls: Option<ServerTlsSettings>, "tls";
        /// Name, unique among the servers of the object.
        name: Option<String>, "name";
    }
    later UNSUPPORTED_FIELD "defaultEndpoint";
    rule check::server;
}

wire! {
    /// A port.
    pub struct Port {
        /// The number.
        number: u32, "number", required => syntax::port;
        /// HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP or TLS, in any case.
        protocol: String, "protocol", required => syntax::protocol;
        /// Name.
        name: String, "name", required => syntax::port_name;
    }
    ignored "targetPort";
}

wire! {
    /// TLS of a server.
    pub struct ServerTlsSettings {
        /// Answer every plain request with a redirect to https.
        https_redirect: Option<bool>, "httpsRedirect";
        /// How TLS is treated.
        mode: Option<TlsMode>, "mode";
        /// Name of the secret with key and certificate.
        credential_name: Option<String>, "credentialName";
    }
    later UNSUPPORTED_FIELD "serverCertificate", "privateKey", "caCertificates", "caCrl", "subjectAltNames",
        "credentialNames", "caCertCredentialName", "tlsCertificates", "verifyCertificateSpki",
        "verifyCertificateHash", "minProtocolVersion", "maxProtocolVersion", "cipherSuites", "insecureSkipVerify";
    rule check::server_tls;
}

wire_enum! {
    /// How a server treats TLS.
    pub enum TlsMode {
        /// Route by SNI, do not terminate.
        Passthrough = "PASSTHROUGH",
        /// Terminate.
        Simple = "SIMPLE",
        /// Terminate and demand a client certificate.
        Mutual = "MUTUAL",
        /// Route by SNI to the service it names.
        AutoPassthrough = "AUTO_PASSTHROUGH",
        /// Mutual, with the mesh's own certificates.
        IstioMutual = "ISTIO_MUTUAL",
        /// Terminate and ask for a client certificate.
        OptionalMutual = "OPTIONAL_MUTUAL",
    }
}
