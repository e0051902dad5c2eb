//! The interface over a real socket.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use clap::Parser;
use meltemi_runtime::task::{self, Task};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{Admin, serve};
use crate::access_log::{FlushPolicy, LogWriter};
use crate::bootstrap;
use crate::command_line::ProxyArgs;
use crate::lifecycle::{Lifecycle, State};
use crate::stats::Registry;
use crate::worker::Command;

const BOOTSTRAP: &str = r#"
node: {id: n, cluster: c}
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
    filter_chains:
    - filters:
      - name: h
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: p
          route_config: {name: inline, virtual_hosts: []}
          http_filters:
          - {name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: c
    type: STATIC
    load_assignment:
      cluster_name: c
      endpoints:
      - locality: {region: eu, zone: a}
        lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}}]
"#;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: ProxyArgs,
}

/// A served interface of a process that has its bootstrap in force.
struct World {
    address: std::net::SocketAddr,
    admin: Arc<Admin>,
    commands: mpsc::UnboundedReceiver<Command>,
    quit: mpsc::Receiver<()>,
    _task: Task<()>,
}

impl World {
    async fn start() -> World {
        let args = Line::try_parse_from(["proxy", "--config-yaml", BOOTSTRAP]).expect("arguments").args;
        let start = bootstrap::start(bootstrap::read(&args).expect("readable")).expect("taken");
        let mut store = start.store;
        store.settle(tokio::time::Instant::now());
        let (worker, commands) = mpsc::unbounded_channel();
        let (quit, quit_asked) = mpsc::channel(1);
        let (_, logs) = LogWriter::spawn(FlushPolicy::default()).expect("thread");
        let lifecycle = Arc::new(Lifecycle::default());
        lifecycle.reached(State::Live);
        let admin = Arc::new(Admin {
            store: Arc::new(store.into()),
            addresses: Arc::default(),
            registry: Registry::new(),
            hosts: Arc::default(),
            lifecycle,
            logging: None,
            logs,
            bootstrap: start.message,
            args,
            concurrency: 1,
            workers: vec![worker],
            quit,
            stats_config: Default::default(),
            counters_before: Default::default(),
            started: SystemTime::now(),
            draining: Default::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let task = task::spawn("admin", serve(listener, Arc::clone(&admin)));
        World { address, admin, commands, quit: quit_asked, _task: task }
    }

    async fn ask(&self, method: &str, target: &str) -> (StatusCode, String) {
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        let request = format!("{method} {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        let (head, body) = answer.split_once("\r\n\r\n").expect("head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).expect("status");
        (StatusCode::from_u16(status).expect("status"), body.to_owned())
    }

    async fn get(&self, target: &str) -> String {
        let (status, body) = self.ask("GET", target).await;
        assert_eq!(status, StatusCode::OK, "{target}: {body}");
        body
    }

    async fn json(&self, target: &str) -> Value {
        serde_json::from_str(&self.get(target).await).expect("JSON")
    }
}

#[tokio::test]
async fn readiness_follows_the_state() {
    let world = World::start().await;
    assert_eq!(world.ask("GET", "/ready").await, (StatusCode::OK, "LIVE\n".into()));
    assert_eq!(world.ask("GET", "//ready").await.0, StatusCode::OK, "slashes are merged");
    for (state, text) in
        [(State::PreInitializing, "PRE_INITIALIZING\n"), (State::Initializing, "INITIALIZING\n")]
    {
        world.admin.lifecycle.reached(state);
        assert_eq!(world.ask("GET", "/ready").await, (StatusCode::SERVICE_UNAVAILABLE, text.into()));
    }
    world.admin.lifecycle.reached(State::Live);
    world.ask("POST", "/healthcheck/fail").await;
    assert_eq!(world.ask("GET", "/ready").await, (StatusCode::SERVICE_UNAVAILABLE, "DRAINING\n".into()));
    world.ask("POST", "/healthcheck/ok").await;
    assert_eq!(world.ask("GET", "/ready").await.0, StatusCode::OK);
}

#[tokio::test]
async fn what_changes_something_wants_post() {
    let mut world = World::start().await;
    let refusal = (StatusCode::METHOD_NOT_ALLOWED, "Method GET not allowed, POST required.".to_owned());
    for path in ["/quitquitquit", "/drain_listeners", "/healthcheck/fail", "/logging", "/reopen_logs"] {
        assert_eq!(world.ask("GET", path).await, refusal, "{path}");
    }
    assert!(world.quit.try_recv().is_err() && world.commands.try_recv().is_err());
    world.ask("POST", "/quitquitquit").await;
    assert!(world.quit.try_recv().is_ok());
    world.ask("POST", "/drain_listeners?inboundonly").await;
    assert!(matches!(world.commands.try_recv(), Ok(Command::StopListeners { inbound_only: true })));
    world.ask("POST", "/drain_listeners?graceful").await;
    assert!(matches!(world.commands.try_recv(), Ok(Command::Drain { inbound_only: false, .. })));
    assert!(world.commands.try_recv().is_err(), "listeners close after the drain time");
}

#[tokio::test]
async fn a_graceful_drain_that_is_asked_for_again_goes_on_as_it_began() {
    let mut world = World::start().await;
    tokio::time::pause();
    for _ in 0..3 {
        let params = vec![("graceful".to_owned(), String::new())];
        super::control::drain_listeners(&world.admin, &params);
        assert!(matches!(world.commands.try_recv(), Ok(Command::Drain { inbound_only: false, .. })));
    }
    let stopped = world.commands.recv().await;
    assert!(matches!(stopped, Some(Command::StopListeners { inbound_only: false })));
    let second = tokio::time::timeout(Duration::from_secs(3600), world.commands.recv()).await;
    assert!(second.is_err(), "one timer for all three");
}

#[tokio::test]
async fn an_unknown_path_lists_what_there_is() {
    let world = World::start().await;
    let (status, body) = world.ask("GET", "/nosuch").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        body.starts_with("invalid path. admin commands are:\n") && body.contains("  /quitquitquit (POST): ")
    );
}

#[tokio::test]
async fn the_four_statistics_of_readiness_exist() {
    let world = World::start().await;
    let filter = "/stats?usedonly&filter=%5E(server.state%7Clistener_manager.workers_started)$";
    assert_eq!(world.get(filter).await, "listener_manager.workers_started: 1\nserver.state: 0\n");
    let filter = "/stats?filter=%5E(cluster_manager.cds%7Clistener_manager.lds).update_success$";
    assert_eq!(
        world.get(filter).await,
        "cluster_manager.cds.update_success: 0\nlistener_manager.lds.update_success: 0\n"
    );
    assert_eq!(world.ask("GET", "/stats?filter=%5B").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn statistics_have_three_forms() {
    let world = World::start().await;
    let json = world.json("/stats?format=json&type=Gauges&filter=%5Eserver.live$").await;
    assert_eq!(json, serde_json::json!({"stats": [{"name": "server.live", "value": 1}]}));
    let page = world.get("/stats/prometheus").await;
    assert!(page.contains("\nenvoy_cluster_membership_total{envoy_cluster_name=\"c\"} 1\n"), "{page}");
    // Istio's metrics are for the nodes of a mesh, which have metadata.
    assert!(!page.contains("istio_build"), "{page}");
    let other = world.get("/stats?format=prometheus").await;
    assert!(other.starts_with("# TYPE ") && other.contains("\nenvoy_server_state 0\n"), "{other}");
}

#[tokio::test]
async fn clusters_list_their_hosts_as_envoy_does() {
    let world = World::start().await;
    let text = world.get("/clusters").await;
    for line in [
        "c::observability_name::c",
        "c::default_priority::max_retries::3",
        "c::added_via_api::false",
        "c::127.0.0.1:9::health_flags::healthy",
        "c::127.0.0.1:9::region::eu",
        "c::127.0.0.1:9::zone::a",
        "c::127.0.0.1:9::weight::1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let json = world.json("/clusters?format=json").await;
    let host = &json["cluster_statuses"][0]["host_statuses"][0];
    assert_eq!(host["address"]["socket_address"]["port_value"], 9);
    assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
    assert_eq!(host["locality"], serde_json::json!({"region": "eu", "zone": "a"}));
}

#[tokio::test]
async fn listeners_list_their_addresses() {
    let world = World::start().await;
    assert_eq!(world.get("/listeners").await, "l::127.0.0.1:8080\n");
    let json = world.json("/listeners?format=json").await;
    assert_eq!(json["listener_statuses"][0]["local_address"]["socket_address"]["port_value"], 8080);
}

#[tokio::test]
async fn the_dump_has_envoys_parts() {
    let world = World::start().await;
    let dump = world.json("/config_dump?include_eds").await;
    let configs = dump["configs"].as_array().expect("configs");
    let types: Vec<&str> =
        configs.iter().filter_map(|config| config["@type"].as_str()?.rsplit('.').next()).collect();
    assert_eq!(
        types,
        [
            "BootstrapConfigDump",
            "ClustersConfigDump",
            "EndpointsConfigDump",
            "ListenersConfigDump",
            "ScopedRoutesConfigDump",
            "RoutesConfigDump",
            "SecretsConfigDump"
        ]
    );
    assert_eq!(configs[0]["bootstrap"]["node"]["user_agent_name"], "meltemi");
    assert_eq!(configs[1]["static_clusters"][0]["cluster"]["name"], "c");
    assert_eq!(configs[2]["static_endpoint_configs"][0]["endpoint_config"]["cluster_name"], "c");
    assert_eq!(configs[3]["static_listeners"][0]["listener"]["name"], "l");
    assert_eq!(configs[5]["static_route_configs"][0]["route_config"]["name"], "inline");
}

#[tokio::test]
async fn the_dump_can_be_narrowed() {
    let world = World::start().await;
    let dump = world.json("/config_dump?resource=static_clusters").await;
    assert_eq!(
        dump["configs"][0]["@type"],
        "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster"
    );
    assert_eq!(world.json("/config_dump?resource=dynamic_listeners").await, serde_json::json!({}));
    let dump = world.json("/config_dump?name_regex=%5Enone$").await;
    assert!(dump["configs"][1].get("static_clusters").is_none());
    assert_eq!(world.ask("GET", "/config_dump?resource=nosuch").await.0, StatusCode::NOT_FOUND);
    let dump = world.json("/config_dump?resource=static_clusters&mask=cluster.name").await;
    assert_eq!(dump["configs"][0]["cluster"]["name"], "c");
    assert!(dump["configs"][0]["cluster"].get("type").is_none());
}

#[tokio::test]
async fn the_process_tells_who_it_is() {
    let world = World::start().await;
    let info = world.json("/server_info").await;
    assert_eq!((&info["state"], &info["node"]["id"]), (&"LIVE".into(), &"n".into()));
    assert_eq!(info["command_line_options"]["concurrency"], 1);
    let memory = world.json("/memory").await;
    assert!(memory["allocated"].as_str().and_then(|bytes| bytes.parse::<u64>().ok()).is_some_and(|n| n > 0));
    assert_eq!(world.json("/certs").await, serde_json::json!({"certificates": []}));
}
