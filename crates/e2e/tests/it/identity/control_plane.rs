//! A proxy that goes to the control plane by itself, over TLS with the certificate that its agent serves.

use meltemi_e2e::client;

use super::*;

/// ADS at the TLS port, with this certificate of the agent and for a server of this name.
fn bootstrap(authority: &Authority, server: &str) -> String {
    let http2 = r#"typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}"#;
    let sds = "{resource_api_version: V3, api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}]}}";
    format!(
        r#"
node: {{id: sidecar~127.0.0.1~cart-0.shop~shop.svc.cluster.local, cluster: cart, metadata: {{SERVICE_ACCOUNT: cart, NAMESPACE: shop, INTERCEPTION_MODE: NONE}}}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources:
  lds_config: {{ads: {{}}, resource_api_version: V3, initial_fetch_timeout: 1s}}
  cds_config: {{ads: {{}}, resource_api_version: V3, initial_fetch_timeout: 1s}}
  ads_config: {{api_type: GRPC, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]}}
static_resources:
  clusters:
  - name: sds-grpc
    type: STATIC
    connect_timeout: 1s
    {http2}
    load_assignment: {{cluster_name: sds-grpc, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: {socket}}}}}}}}}]}}]}}
  - name: xds
    type: STATIC
    connect_timeout: 1s
    {http2}
    load_assignment: {{cluster_name: xds, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]}}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: istiod.istio-system.svc
        common_tls_context:
          alpn_protocols: [h2]
          tls_params: {{tls_maximum_protocol_version: TLSv1_3}}
          tls_certificate_sds_secret_configs: [{{name: default, sds_config: {sds}}}]
          combined_validation_context:
            default_validation_context: {{match_typed_subject_alt_names: [{{san_type: DNS, matcher: {{exact: {server}}}}}]}}
            validation_context_sds_secret_config: {{name: ROOTCA, sds_config: {sds}}}
"#,
        socket = authority.sds().display(),
        ip = authority.secure.ip(),
        port = authority.secure.port(),
    )
}

/// A number of `/stats`, once the admin interface answers.
async fn stat(admin: &Path, name: &str) -> Option<u64> {
    let address = std::fs::read_to_string(admin).ok()?.trim().parse().ok()?;
    let answer = client::get(address, "admin", "/stats").await.ok()?;
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
}

async fn check(proxy: &[&str]) {
    let authority = Authority::start("1h").await;
    for (server, is_believed) in [("istiod.other.svc", false), ("istiod.istio-system.svc", true)] {
        let (config, admin) = (authority.path("proxy.yaml"), authority.path("admin"));
        let _stale = std::fs::remove_file(&admin);
        std::fs::write(&config, bootstrap(&authority, server)).expect("writable");
        let beside = proxy.iter().map(|part| (*part).to_owned());
        let paths = [
            "-c".into(),
            config.display().to_string(),
            "--admin-address-path".into(),
            admin.display().to_string(),
        ];
        let agent = authority.agent(&beside.chain(paths).collect::<Vec<_>>());
        let done = async || match is_believed {
            // The control plane gives it what belongs to its identity.
            true => (stat(&admin, "cluster_manager.cds.update_success").await? > 0).then_some(()),
            false => (stat(&admin, "server.live").await? > 0).then_some(()),
        };
        let waited = until(server, DEADLINE, done).await;
        waited.unwrap_or_else(|error| panic!("{error:#}: {}", agent.output()));
        let taken = stat(&admin, "cluster_manager.cds.update_success").await;
        assert_eq!(taken > Some(0), is_believed, "{server}: {}", agent.output());
    }
}

#[tokio::test]
async fn our_proxy_goes_to_the_control_plane_with_the_certificate_of_its_agent() {
    let meltemi = peers::meltemi().display().to_string();
    check(&[&meltemi, "proxy"]).await;
}

#[tokio::test]
async fn envoy_goes_to_the_control_plane_with_the_certificate_of_its_agent() {
    let Some(envoy) = peers::envoy() else { return };
    check(&[&envoy.display().to_string(), "--disable-hot-restart", "--concurrency", "1"]).await;
}
