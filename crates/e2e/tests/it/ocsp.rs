//! An OCSP response on the wire, as openssl reads and verifies it.

use std::process::{Command, Stdio};

use meltemi_e2e::certificates::{CertificateSpec, Certificates};
use meltemi_e2e::differential::{Proxy, start};
use meltemi_e2e::ocsp::{OcspSpec, respond};
use meltemi_e2e::peers;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_gets_the_response_that_goes_with_the_certificate() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    let root = CertificateSpec { ca: true, ..CertificateSpec::default() };
    let server = CertificateSpec { issuer: Some("root".to_owned()), ..CertificateSpec::default() };
    let specs = [("root".to_owned(), root), ("server".to_owned(), server)];
    Certificates::make(&specs, dir.path()).expect("the folder is writable");
    let spec = OcspSpec { of: "server".to_owned(), issuer: "root".to_owned(), ..OcspSpec::default() };
    respond("good", &spec, dir.path()).expect("openssl makes it");
    let any = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    let certificate = json!({"certificate_chain": {"filename": path("server.pem")},
        "private_key": {"filename": path("server.key")}, "ocsp_staple": {"filename": path("good.der")}});
    let context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [certificate]}});
    let answer = json!({"name": "d", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config"}});
    let chain = json!({"transport_socket": {"name": "tls", "typed_config": context}, "filters": [answer]});
    let listener = json!({"name": "main", "address": any, "filter_chains": [chain]});
    let bootstrap = json!({"admin": {"address": any}, "static_resources": {"listeners": [listener]}});
    std::fs::write(path("bootstrap.json"), bootstrap.to_string()).expect("the folder is writable");
    let proxy = Proxy::Meltemi(peers::meltemi());
    let running = start(&proxy, &path("bootstrap.json"), dir.path()).await.expect("the proxy is up");
    for version in ["-tls1_2", "-tls1_3"] {
        let client = Command::new("openssl")
            .args(["s_client", version, "-status", "-connect", &running.listeners["main"].to_string()])
            .arg("-CAfile")
            .arg(path("root.pem"))
            .stdin(Stdio::null())
            .output()
            .expect("openssl runs");
        let text = String::from_utf8_lossy(&client.stdout);
        assert!(text.contains("OCSP Response Status: successful"), "{version}: {text}");
        assert!(text.contains("Next Update:"), "{version}: {text}");
    }
}
