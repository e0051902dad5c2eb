//! Listeners, routes, clusters and endpoints change all the time, and no request notices.
//!
//! Configuration comes from watched files, replaced by rename, as `path_config_source` wants it.
//! `CHURN_SECONDS=600` runs it for longer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use meltemi_e2e::backend::Backend;
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::mesh::Load;
use meltemi_e2e::peers;
use serde_json::{Value, json};

/// How often something changes.
const STEP: Duration = Duration::from_millis(100);

/// Requests per second, over each version of HTTP.
const RATE: u32 = 200;

/// What a proxy may grow by while its configuration changes: several generations are alive at once.
const GROWTH_LIMIT_KIB: u64 = 24 << 10;

fn seconds() -> u64 {
    std::env::var("CHURN_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30)
}

/// The folder of configuration files.
struct Files {
    dir: PathBuf,
    ports: Vec<u16>,
}

fn typed(kind: &str, mut resource: Value) -> Value {
    resource["@type"] = format!("type.googleapis.com/{kind}").into();
    resource
}

fn path_source(path: &Path) -> Value {
    json!({"path_config_source": {"path": path}, "resource_api_version": "V3"})
}

impl Files {
    /// Everything as of the step with this number.
    fn write(&self, step: usize) {
        self.write_endpoints(step);
        match step % 3 {
            0 => self.write_routes(step),
            1 => self.write_clusters(step),
            _ => self.write_listeners(step),
        }
    }

    fn put(&self, name: &str, resources: &[Value]) {
        let path = self.dir.join(name);
        let next = path.with_extension("next");
        let text = json!({"version_info": "1", "resources": resources}).to_string();
        std::fs::write(&next, text).expect("the folder is writable");
        std::fs::rename(&next, &path).expect("the file is replaced");
    }

    /// One, two or all three backends.
    fn write_endpoints(&self, step: usize) {
        let ports =
            self.ports.iter().enumerate().filter(|(i, _)| !(step + i).is_multiple_of(3) || *i == step % 2);
        let endpoint = |port: &u16| json!({"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}});
        let endpoints: Vec<Value> = ports.map(|(_, port)| endpoint(port)).collect();
        let assignment = json!({"cluster_name": "a", "endpoints": [{"lb_endpoints": endpoints}]});
        self.put("eds.json", &[typed("envoy.config.endpoint.v3.ClusterLoadAssignment", assignment)]);
    }

    fn write_routes(&self, step: usize) {
        let forward = json!({"cluster": "a", "retry_policy": {"retry_on": "connect-failure,refused-stream"}});
        let mut hosts: Vec<Value> = (0..step % 7)
            .map(|n| {
                let routes = json!([{"match": {"prefix": "/"}, "route": forward}]);
                json!({"name": format!("h{n}"), "domains": [format!("h{n}.example")], "routes": routes})
            })
            .collect();
        hosts.push(json!({
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": forward}],
            "response_headers_to_add": [{"header": {"key": "x-step", "value": step.to_string()}}],
        }));
        let config = json!({"name": "routes", "virtual_hosts": hosts});
        self.put("rds.json", &[typed("envoy.config.route.v3.RouteConfiguration", config)]);
    }

    fn write_clusters(&self, step: usize) {
        let cluster = |name: &str| {
            let config = json!({
                "name": name,
                "type": "EDS",
                "lb_policy": if step.is_multiple_of(2) { "ROUND_ROBIN" } else { "LEAST_REQUEST" },
                "connect_timeout": format!("{}s", 1 + step % 4),
                "eds_cluster_config": {"eds_config": path_source(&self.dir.join("eds.json")), "service_name": "a"},
            });
            typed("envoy.config.cluster.v3.Cluster", config)
        };
        let mut clusters = vec![cluster("a")];
        if step.is_multiple_of(2) {
            clusters.push(cluster("sometimes"));
        }
        self.put("cds.json", &clusters);
    }

    fn write_listeners(&self, step: usize) {
        let mut listeners = vec![self.listener("main", step)];
        if step.is_multiple_of(2) {
            listeners.push(self.listener("sometimes", step));
        }
        self.put("lds.json", &listeners);
    }

    fn listener(&self, name: &str, step: usize) -> Value {
        let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
        let manager = typed(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            json!({
                "stat_prefix": name,
                "server_name": format!("step-{step}"),
                "rds": {"route_config_name": "routes", "config_source": path_source(&self.dir.join("rds.json"))},
                "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
            }),
        );
        let filter =
            json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
        let config = json!({
            "name": name,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [{"filters": [filter]}],
        });
        typed("envoy.config.listener.v3.Listener", config)
    }

    fn bootstrap(&self) -> String {
        json!({
            "node": {"id": "churn", "cluster": "churn"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "dynamic_resources": {
                "lds_config": path_source(&self.dir.join("lds.json")),
                "cds_config": path_source(&self.dir.join("cds.json")),
            },
        })
        .to_string()
    }
}

fn resident_kib(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.process.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_changes_under_load_fail_no_request() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut backends = Vec::new();
    for name in ["a", "b", "c"] {
        backends.push(Backend::quiet(name).await.expect("a port"));
    }
    let ports = backends.iter().map(|backend| backend.address.port()).collect();
    let files = Files { dir: dir.path().to_path_buf(), ports };
    (0..3).for_each(|step| files.write(step));
    let bootstrap = dir.path().join("bootstrap.json");
    std::fs::write(&bootstrap, files.bootstrap()).expect("the folder is writable");
    let running =
        start(&Proxy::Meltemi(peers::meltemi()), &bootstrap, dir.path()).await.expect("the proxy is up");
    let url = format!("http://{}/", running.listeners["main"]);
    let time = Duration::from_secs(seconds());
    let loads = [
        Load::start(&url, RATE, time, &[]).expect("load runs"),
        Load::start(&url, RATE, time, &["--http2"]).expect("load runs"),
    ];
    let end = Instant::now() + time;
    let mut ticks = tokio::time::interval(STEP);
    let (mut step, mut early_kib) = (3, 0);
    while Instant::now() < end {
        ticks.tick().await;
        files.write(step);
        step += 1;
        // By then every kind of change has happened a few times.
        if step == 60 {
            early_kib = resident_kib(&running);
        }
    }
    let late_kib = resident_kib(&running);
    for load in loads {
        let report = load.report().await.expect("a report");
        assert_eq!(report.failed(), 0, "{report:?}");
        assert!(report.completed() > u64::from(RATE) * time.as_secs() / 2, "{report:?}");
    }
    eprintln!("{step} changes in {} s; resident {early_kib} KiB early, {late_kib} KiB late", time.as_secs());
    assert!(late_kib < early_kib + GROWTH_LIMIT_KIB, "memory grows: {early_kib} KiB, then {late_kib} KiB");
    assert_changes_arrived(&running, step).await;
}

/// The changes were in force, and none was refused.
async fn assert_changes_arrived(running: &Running, step: usize) {
    let answer = meltemi_e2e::client::get(running.admin, "admin", "/stats").await.expect("the admin answers");
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|value| value.parse::<usize>().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
    };
    for kind in ["listener_manager.lds", "cluster_manager.cds"] {
        assert_eq!(value(&format!("{kind}.update_rejected")), 0, "{kind}");
        // Changes that come while one is applied are taken together.
        assert!(value(&format!("{kind}.update_success")) > step / 12, "{kind} in {step} steps:\n{text}");
    }
}
