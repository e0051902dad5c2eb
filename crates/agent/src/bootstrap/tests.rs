//! Goldens of the bootstrap, and that they are bootstraps in the eyes of the protobuf definition.
//! `UPDATE_GOLDEN=1 cargo test -p meltemi-agent` rewrites them.

use std::path::Path;

use meltemi_envoy::config::bootstrap::v3::Bootstrap;
use meltemi_envoy::json::Codec;

use super::*;
use crate::Protocol;

fn sidecar() -> ProxySpec {
    ProxySpec {
        kind: ProxyKind::Sidecar,
        name: "frontend-v1-0".into(),
        namespace: "default".into(),
        workload: "frontend-v1".into(),
        service_account: "frontend".into(),
        labels: [("app", "frontend"), ("version", "v1")].map(|(k, v)| (k.into(), v.into())).into(),
        address: "127.8.9.2".parse().unwrap(),
        xds: XdsServer::Plaintext("127.8.9.1:15010".parse().unwrap()),
        protocol: Protocol::Delta,
        gateway_bind: None,
    }
}

fn gateway() -> ProxySpec {
    ProxySpec {
        kind: ProxyKind::Router,
        name: "shop-gateway-0".into(),
        workload: "shop-gateway".into(),
        service_account: "shop-gateway".into(),
        labels: [("istio".into(), "ingressgateway".into())].into(),
        address: "127.8.9.10".parse().unwrap(),
        protocol: Protocol::StateOfTheWorld,
        gateway_bind: Some("127.0.0.1".parse().unwrap()),
        ..sidecar()
    }
}

fn check(name: &str, spec: &ProxySpec) {
    let text = serde_json::to_string_pretty(&bootstrap(spec)).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name} is stale: UPDATE_GOLDEN=1 rewrites it");
    let parsed: Bootstrap = Codec::new().parse(&text).unwrap();
    assert_eq!(parsed.static_resources.unwrap().listeners.len(), 2);
}

#[test]
fn sidecar_golden() {
    check("sidecar.json", &sidecar());
}

#[test]
fn sidecar_with_agent_golden() {
    check(
        "sidecar-with-agent.json",
        &ProxySpec { xds: XdsServer::Agent("/run/frontend".into()), ..sidecar() },
    );
}

#[test]
fn gateway_golden() {
    check("gateway.json", &gateway());
}

#[test]
fn the_node_id_is_istios() {
    assert_eq!(node_id(&sidecar()), "sidecar~127.8.9.2~frontend-v1-0.default~default.svc.cluster.local");
    assert_eq!(node_id(&gateway()), "router~127.8.9.10~shop-gateway-0.default~default.svc.cluster.local");
}
