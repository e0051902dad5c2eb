//! How a server terminates TLS: on a gateway, or on an ingress listener of a sidecar. Source: Istio
//! `networking.ServerTLSSettings`.

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::syntax;

wire! {
    /// TLS of a server.
    pub struct ServerTlsSettings {
        /// Answer every plain request with a redirect to https.
        https_redirect: Option<bool>, "httpsRedirect";
        /// How TLS is treated; absent: PASSTHROUGH.
        mode: Option<TlsMode>, "mode";
        /// Path of the certificate chain, on the proxy's side.
        server_certificate: Option<String>, "serverCertificate" => syntax::path;
        /// Path of the private key.
        private_key: Option<String>, "privateKey" => syntax::path;
        /// Path of the certificates of the CAs that clients are verified by.
        ca_certificates: Option<String>, "caCertificates" => syntax::path;
        /// Path of the revocation list for client certificates.
        ca_crl: Option<String>, "caCrl" => syntax::path;
        /// Name of the secret with key, certificate and, for MUTUAL, CA certificate.
        credential_name: Option<String>, "credentialName" => syntax::credential_name;
        /// As `credentialName`, for one certificate each of RSA and ECDSA.
        credential_names: Vec<String>, "credentialNames" => syntax::credential_name;
        /// Name of the secret with the CA certificate, when it is another one.
        ca_cert_credential_name: Option<String>, "caCertCredentialName" => syntax::credential_name;
        /// Paths, for one certificate each of RSA and ECDSA.
        tls_certificates: Vec<TlsCertificate>, "tlsCertificates";
        /// Names of which the client's certificate must carry one.
        subject_alt_names: Vec<String>, "subjectAltNames" => syntax::not_empty;
        /// SHA-256 of the public keys that clients may have, base64.
        verify_certificate_spki: Vec<String>, "verifyCertificateSpki" => syntax::spki_pin;
        /// SHA-256 of the certificates that clients may have, hex.
        verify_certificate_hash: Vec<String>, "verifyCertificateHash" => syntax::certificate_hash;
        /// Oldest version; absent: 1.2.
        min_protocol_version: Option<TlsProtocol>, "minProtocolVersion";
        /// Newest version; absent: 1.3.
        max_protocol_version: Option<TlsProtocol>, "maxProtocolVersion";
        /// Suites of TLS 1.2, best first.
        cipher_suites: Vec<String>, "cipherSuites";
        /// Take client certificates of unknown CAs too.
        insecure_skip_verify: Option<bool>, "insecureSkipVerify";
    }
    rule check::server_tls;
}

wire! {
    /// Where a certificate is, on the proxy's side.
    pub struct TlsCertificate {
        /// Path of the certificate chain.
        server_certificate: Option<String>, "serverCertificate" => syntax::path;
        /// Path of the private key.
        private_key: Option<String>, "privateKey" => syntax::path;
        /// Path of the certificates of the CAs; the server's own `caCertificates` counts.
        ca_certificates: Option<String>, "caCertificates" => syntax::path;
    }
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

wire_enum! {
    /// A version of TLS.
    pub enum TlsProtocol {
        /// The proxy's choice.
        Auto = "TLS_AUTO",
        /// 1.0.
        V1_0 = "TLSV1_0",
        /// 1.1.
        V1_1 = "TLSV1_1",
        /// 1.2.
        V1_2 = "TLSV1_2",
        /// 1.3.
        V1_3 = "TLSV1_3",
    }
}

impl ServerTlsSettings {
    /// The mode in force.
    pub fn mode(&self) -> TlsMode {
        self.mode.unwrap_or_default()
    }

    /// The names of the secrets, whether one or several are given.
    pub fn credentials(&self) -> &[String] {
        match self.credential_names.as_slice() {
            [] => self.credential_name.as_slice(),
            several => several,
        }
    }
}

impl TlsMode {
    /// Whether the bytes go on as they came.
    pub fn is_passthrough(self) -> bool {
        matches!(self, TlsMode::Passthrough | TlsMode::AutoPassthrough)
    }

    /// Whether it is the mesh's own certificate that is shown.
    pub fn is_of_mesh(self) -> bool {
        self == TlsMode::IstioMutual
    }

    /// Whether the client is asked for a certificate.
    pub fn asks_for_client_certificate(self) -> bool {
        matches!(self, TlsMode::Mutual | TlsMode::OptionalMutual | TlsMode::IstioMutual)
    }
}
