//! Resources from an xDS server that nobody here wrote, over every kind of stream, through our proxy and through Envoy.

mod secured;

use meltemi_e2e::backend::Backend;
use meltemi_e2e::client;
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::peers;
use meltemi_e2e::process::{DEADLINE, until};
use serde_json::{Value, json};

use crate::xds_server::{Server, TYPE, WAYS, Way, typed};

const MUTATION: &str = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";

fn endpoints(port: u16) -> Value {
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": address}}]}]);
    typed(
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        json!({"cluster_name": "a", "endpoints": endpoints}),
    )
}

fn routes(rewrite: &str) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "a", "prefix_rewrite": rewrite}});
    let hosts = json!([{"name": "v", "domains": ["*"], "routes": [route]}]);
    typed("envoy.config.route.v3.RouteConfiguration", json!({"name": "r", "virtual_hosts": hosts}))
}

/// A filter that says which one it is.
fn filter(value: &str) -> Value {
    let header =
        json!({"header": {"key": "x-filter", "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"});
    let config = json!({"@type": MUTATION, "mutations": {"response_mutations": [{"append": header}]}});
    typed("envoy.config.core.v3.TypedExtensionConfig", json!({"name": "mutate", "typed_config": config}))
}

fn serve_all(server: &Server, way: Way, port: u16) {
    let cluster = json!({"name": "a", "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": {"eds_config": way.source()}});
    server.serve("clusters", "c1", &[typed("envoy.config.cluster.v3.Cluster", cluster)]);
    server.serve("endpoints", "e1", &[endpoints(port)]);
    let router = json!({"name": "router", "typed_config": {"@type": format!("{TYPE}envoy.extensions.filters.http.router.v3.Router")}});
    let discovery = json!({"config_source": way.source(), "type_urls": [MUTATION],
        "default_config": {"@type": MUTATION, "mutations": {}}});
    let manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({"stat_prefix": "main", "rds": {"route_config_name": "r", "config_source": way.source()},
            "http_filters": [{"name": "mutate", "config_discovery": discovery}, router]}),
    );
    let listener = json!({"name": "main", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]});
    server.serve("listeners", "l1", &[typed("envoy.config.listener.v3.Listener", listener)]);
    server.serve("routes", "r1", &[routes("/one")]);
    server.serve("filters", "f1", &[filter("first")]);
}

/// Calls until the answer's body and filter are these.
async fn answers(running: &Running, body: &str, filter: &str) {
    let address = running.listeners["main"];
    let what = format!("{body} by {filter}");
    let answer = until(&what, DEADLINE, async || {
        let answer = client::get(address, "shop.example", "/").await.ok()?;
        let named = answer.headers().get("x-filter").map_or("", |value| value.to_str().unwrap_or("?"));
        (String::from_utf8_lossy(answer.body()).trim() == body && named == filter).then_some(())
    });
    answer.await.expect("the proxy takes the change");
}

/// The numbers that both must agree on.
const STATS: &[&str] = &[
    "listener_manager.lds.update_success",
    "listener_manager.lds.update_rejected",
    "cluster_manager.cds.update_success",
    "cluster.a.update_success",
    "cluster.a.update_attempt",
    "cluster.a.version_text",
    "http.main.rds.r.update_success",
    "http.main.rds.r.update_attempt",
    "http.main.rds.r.config_reload",
    "http.main.rds.r.version_text",
    "extension_config_discovery.http_filter.mutate.update_success",
    "extension_config_discovery.http_filter.mutate.update_rejected",
    "extension_config_discovery.http_filter.mutate.config_reload",
    "extension_config_discovery.http_filter.mutate.config_fail",
    "extension_config_discovery.http_filter.mutate.version_text",
];

async fn stats(running: &Running) -> Vec<String> {
    let answer = client::get(running.admin, "admin", "/stats").await.expect("the admin answers");
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    let wanted = |line: &&str| line.split_once(": ").is_some_and(|(name, _)| STATS.contains(&name));
    let mut kept: Vec<String> = text.lines().filter(wanted).map(str::to_owned).collect();
    kept.sort_unstable();
    kept
}

/// A life with changes of everything, and one that must be refused; gives the numbers at the end.
async fn life(proxy: &Proxy, way: Way, backends: &[Backend; 2]) -> Option<Vec<String>> {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await?;
    serve_all(&server, way, backends[0].address.port());
    let bootstrap = dir.path().join("bootstrap.json");
    std::fs::write(&bootstrap, server.bootstrap(way).to_string()).expect("the folder is writable");
    let running = start(proxy, &bootstrap, dir.path()).await.expect("the proxy starts");
    answers(&running, "one: GET /one", "first").await;
    server.serve("filters", "f2", &[filter("second")]);
    answers(&running, "one: GET /one", "second").await;
    server.serve("endpoints", "e2", &[endpoints(backends[1].address.port())]);
    answers(&running, "two: GET /one", "second").await;
    server.serve("routes", "r2", &[routes("/two")]);
    answers(&running, "two: GET /two", "second").await;

    let buffer = json!({"@type": format!("{TYPE}envoy.extensions.filters.http.buffer.v3.Buffer"), "max_request_bytes": 5});
    let unwanted = json!({"name": "mutate", "typed_config": buffer});
    server.serve("filters", "f3", &[typed("envoy.config.core.v3.TypedExtensionConfig", unwanted)]);
    let reason = server.refused("envoy.config.core.v3.TypedExtensionConfig").await;
    assert!(reason.contains("envoy.extensions.filters.http.buffer.v3.Buffer"), "{reason}");
    answers(&running, "two: GET /two", "second").await;
    server.serve("filters", "f4", &[filter("fourth")]);
    answers(&running, "two: GET /two", "fourth").await;
    assert_services(&server, way);
    Some(stats(&running).await)
}

/// Every type was asked for at the service where it belongs.
fn assert_services(server: &Server, way: Way) {
    let verb = if way.delta { "Delta" } else { "Stream" };
    for (kind, service) in [
        ("envoy.config.listener.v3.Listener", "ListenerDiscoveryService/VERBListeners"),
        ("envoy.config.cluster.v3.Cluster", "ClusterDiscoveryService/VERBClusters"),
        ("envoy.config.route.v3.RouteConfiguration", "RouteDiscoveryService/VERBRoutes"),
        ("envoy.config.endpoint.v3.ClusterLoadAssignment", "EndpointDiscoveryService/VERBEndpoints"),
        ("envoy.config.core.v3.TypedExtensionConfig", "ExtensionConfigDiscoveryService/VERBExtensionConfigs"),
    ] {
        let service =
            if way.aggregated { "AggregatedDiscoveryService/VERBAggregatedResources" } else { service };
        let service = service.replace("VERB", verb);
        let requests = server.requests();
        let of_kind: Vec<&Value> = requests.iter().filter(|request| request["type"] == kind).collect();
        assert!(!of_kind.is_empty(), "{kind} was not asked for");
        assert!(of_kind.iter().all(|request| request["service"] == service.as_str()), "{of_kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_come_by_every_kind_of_stream() {
    for way in WAYS {
        let backends =
            [Backend::start("one").await.expect("a port"), Backend::start("two").await.expect("a port")];
        let Some(ours) = life(&Proxy::Meltemi(peers::meltemi()), way, &backends).await else { return };
        let Some(envoy) = peers::envoy() else { return };
        let envoy = life(&Proxy::Envoy(envoy), way, &backends).await.expect("the server runs");
        assert_eq!(ours.len(), STATS.len(), "{ours:?}");
        assert_eq!(ours, envoy, "{way:?}");
    }
}
