//! How a client speaks TLS to a service. Leaves out what an absent mode means; that is the mesh's automatic mTLS.
//! Source: Istio `networking.ClientTLSSettings`.

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::syntax;

wire! {
    /// TLS towards a service.
    pub struct ClientTlsSettings {
        /// Whether and how.
        mode: Option<ClientTlsMode>, "mode";
        /// Path of the client's certificate chain, on the proxy's side.
        client_certificate: Option<String>, "clientCertificate" => syntax::path;
        /// Path of the client's private key.
        private_key: Option<String>, "privateKey" => syntax::path;
        /// Path of the certificates of the CAs that the server is verified by; absent: the system's.
        ca_certificates: Option<String>, "caCertificates" => syntax::path;
        /// Name of the secret with key, certificate and CA certificate; excludes the paths.
        credential_name: Option<String>, "credentialName" => syntax::credential_name;
        /// Names of which the server's certificate must carry one.
        subject_alt_names: Vec<String>, "subjectAltNames" => syntax::not_empty;
        /// The server name to ask for; absent: the request's host.
        sni: Option<String>, "sni" => syntax::server_name;
        /// Do not verify the server's certificate.
        insecure_skip_verify: Option<bool>, "insecureSkipVerify";
        /// Path of the revocation list for the server's certificate.
        ca_crl: Option<String>, "caCrl" => syntax::path;
    }
    rule check::client_tls;
}

wire_enum! {
    /// Whether and how a client speaks TLS.
    pub enum ClientTlsMode {
        /// Plaintext.
        Disable = "DISABLE",
        /// The server shows a certificate.
        Simple = "SIMPLE",
        /// Both sides do; the client's is the user's.
        Mutual = "MUTUAL",
        /// Both sides do, with the mesh's own certificates.
        IstioMutual = "ISTIO_MUTUAL",
    }
}
