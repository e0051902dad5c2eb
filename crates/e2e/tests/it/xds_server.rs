//! The xDS server of `tests/peers`, which nobody here wrote much of: grpcio with the classes of xds-protos.

use std::path::{Path, PathBuf};
use std::process::Command;

use meltemi_e2e::peers;
use meltemi_e2e::process::{DEADLINE, Process, until};
use serde_json::{Value, json};

/// What type URLs begin with.
pub(crate) const TYPE: &str = "type.googleapis.com/";

/// How resources come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// One stream for all types, or one for each.
    pub(crate) aggregated: bool,
    /// Only what changed.
    pub(crate) delta: bool,
    /// By a Unix socket instead of a TCP port.
    pub(crate) unix: bool,
}

pub(crate) const WAYS: [Way; 4] = [
    Way { aggregated: true, delta: false, unix: false },
    Way { aggregated: true, delta: true, unix: true },
    Way { aggregated: false, delta: false, unix: true },
    Way { aggregated: false, delta: true, unix: false },
];

impl Way {
    fn api_type(self) -> &'static str {
        if self.delta { "DELTA_GRPC" } else { "GRPC" }
    }

    fn api(self) -> Value {
        json!({"api_type": self.api_type(), "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]})
    }

    /// A config source.
    pub(crate) fn source(self) -> Value {
        match self.aggregated {
            true => json!({"ads": {}, "resource_api_version": "V3"}),
            false => json!({"api_config_source": self.api(), "resource_api_version": "V3"}),
        }
    }
}

/// The server, and the folder of what it serves.
pub(crate) struct Server {
    process: Process,
    dir: PathBuf,
    port: u16,
}

impl Server {
    /// `None` when its package is not installed.
    pub(crate) async fn start(dir: &Path) -> Option<Server> {
        let packages = peers::python_package("xds")?.join("xds");
        let script = peers::repository().join("crates/e2e/tests/peers/xds_server.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(dir).env("PYTHONPATH", packages);
        let process = Process::spawn(&mut command, &dir.join("server.log")).expect("python3 starts");
        let port = async || process.output().lines().next()?.parse().ok();
        let port = until("the server's port", DEADLINE, port).await.expect("the server prints its port");
        Some(Server { process, dir: dir.to_path_buf(), port })
    }

    /// Serves these resources of a type from now on.
    pub(crate) fn serve(&self, file: &str, version: &str, resources: &[Value]) {
        let next = self.dir.join(format!("{file}.next"));
        let text = json!({"version": version, "resources": resources}).to_string();
        std::fs::write(&next, text).expect("the folder is writable");
        std::fs::rename(&next, self.dir.join(format!("{file}.json"))).expect("the file is replaced");
    }

    /// The cluster of the server, for a bootstrap.
    fn cluster(&self, way: Way) -> Value {
        let address = match way.unix {
            true => json!({"pipe": {"path": self.dir.join("xds.sock")}}),
            false => json!({"socket_address": {"address": "127.0.0.1", "port_value": self.port}}),
        };
        json!({"name": "xds", "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {"http2_protocol_options": {}}}}})
    }

    pub(crate) fn bootstrap(&self, way: Way) -> Value {
        let mut dynamic = json!({"lds_config": way.source(), "cds_config": way.source()});
        if way.aggregated {
            dynamic["ads_config"] = way.api();
        }
        json!({"node": {"id": "proxy", "cluster": "c"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "dynamic_resources": dynamic, "static_resources": {"clusters": [self.cluster(way)]}})
    }

    /// The requests that it got.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.process
            .output()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(Value::is_object)
            .collect()
    }

    /// Waits until it was told that something is wrong with a type.
    pub(crate) async fn refused(&self, kind: &str) -> String {
        let found = async || {
            let of_kind = |request: &&Value| request["type"] == kind && request["error"] != "";
            Some(self.requests().iter().find(of_kind)?["error"].as_str()?.to_owned())
        };
        until("a NACK", DEADLINE, found).await.expect("the proxy refuses it")
    }
}

pub(crate) fn typed(kind: &str, mut resource: Value) -> Value {
    resource["@type"] = format!("{TYPE}{kind}").into();
    resource
}
