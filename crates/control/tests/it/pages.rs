//! The pages under `/debug` that are istiod's, and its metrics.

use meltemi_xds::Mode;
use serde_json::Value;
use tempfile::TempDir;

use super::{NODE, Proxy, Running, SERVICE};

const ENDPOINT: &str = "\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-0, namespace: default}
spec: {address: 10.1.1.1, labels: {app: reviews}, serviceAccount: reviews}
";

#[tokio::test]
async fn what_istiod_tells_of_services_and_clients() {
    let folder = TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("mesh.yaml"), format!("{SERVICE}---\n{ENDPOINT}")).expect("written");
    let running = Running::start(folder.path(), &[]).await;
    let mut proxy = Proxy::start(running.xds, NODE, Mode::Delta).await;
    let update = proxy.routes().await;
    proxy.ack(&update).await;

    let page = async |path: &str| -> Value {
        let (status, body) = running.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    };
    let services = page("/debug/registryz").await;
    assert_eq!(services[0]["hostname"], "reviews.default.svc.cluster.local");
    assert_eq!(services[0]["ports"][0]["port"], 9080);
    let shards = page("/debug/endpointShardz").await;
    let shard = &shards["reviews.default.svc.cluster.local"]["default"]["Shards"]["Kubernetes/Kubernetes"];
    assert_eq!((&shard[0]["Addresses"][0], &shard[0]["TLSMode"]), (&"10.1.1.1".into(), &"istio".into()));
    for path in ["/debug/connections", "/debug/adsz"] {
        let clients = page(path).await;
        assert_eq!(clients["totalClients"], 1, "{path}");
        assert!(
            clients["clients"][0]["connectionId"].as_str().is_some_and(|id| id.starts_with(NODE)),
            "{path}"
        );
    }
    let assignments = page(&format!("/debug/edsz?proxyID={NODE}")).await;
    assert_eq!(assignments[0]["cluster_name"], "outbound|9080||reviews.default.svc.cluster.local");
    assert!(page("/debug/push_status").await["proxyStatus"].is_object());
    assert!(page("/debug/list").await.as_array().is_some_and(|names| names.contains(&"registryz".into())));
    assert_eq!(page("/debug/mesh").await, Value::Array(Vec::new()), "nothing configures the mesh");

    let (_, metrics) = running.get("/metrics").await;
    for line in ["pilot_push_triggers{type=\"global\"} 1", "pilot_eds_no_instances 0", "pilot_services 1"] {
        assert!(metrics.lines().any(|l| l == line), "{line} in\n{metrics}");
    }
    running.stop().await;
}
