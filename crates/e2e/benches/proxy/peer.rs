//! The proxies that are compared, each with the same job written in its own configuration language.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use meltemi_e2e::backend::free_port;
use meltemi_e2e::peers;
use meltemi_e2e::process::Process;
use serde_json::{Value, json};

use crate::{machine, tls};

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Envoy,
    Meltemi,
    Haproxy,
    Nginx,
}

/// Where the traffic ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backend {
    pub(crate) http: u16,
    pub(crate) source: u16,
}

/// A proxy that runs on CPU 0, or a pair of them: the first takes plaintext and speaks mutual TLS to the second.
pub(crate) struct Running {
    processes: Vec<Process>,
    /// Those of the first.
    ports: Ports,
    dir: tempfile::TempDir,
}

type Ports = BTreeMap<&'static str, u16>;

const PORTS: [&str; 5] = ["http1", "http2", "routes", "tcp", "admin"];
/// Of each of a pair: plaintext in (HTTP/1.1 or HTTP/2 to the other), mutual TLS in (the same), TLS for any client.
const PAIR_PORTS: [&str; 6] = ["plain1", "plain2", "mutual1", "mutual2", "edge", "admin"];

/// How long a proxy may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

impl Peer {
    /// Those that are installed; Envoy and ours must be. `BENCH_PEERS=envoy,meltemi` narrows it.
    pub(crate) fn all() -> anyhow::Result<Vec<Peer>> {
        peers::envoy().context("Envoy is needed: scripts/peers")?;
        let mut all = vec![Peer::Envoy, Peer::Meltemi];
        for (peer, program) in [(Peer::Haproxy, "haproxy"), (Peer::Nginx, "nginx")] {
            match in_path(program) {
                Some(_) => all.push(peer),
                None => eprintln!("{program} is not installed: left out"),
            }
        }
        let wanted = std::env::var("BENCH_PEERS").unwrap_or_default();
        all.retain(|peer| wanted.is_empty() || wanted.split(',').any(|name| name == peer.name()));
        Ok(all)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Envoy => "envoy",
            Peer::Meltemi => "meltemi",
            Peer::Haproxy => "haproxy",
            Peer::Nginx => "nginx",
        }
    }

    /// Starts it with all listeners, so many virtual hosts behind `routes`, and waits until they listen.
    pub(crate) fn start(self, backend: Backend, virtual_hosts: usize) -> anyhow::Result<Running> {
        let dir = tempfile::tempdir()?;
        let ports = free_ports(&PORTS)?;
        let dir_text = dir.path().display().to_string();
        let mut values = values(&ports, backend, &dir_text);
        for name in ["http1", "http2", "routes"] {
            values.insert(format!("manager {name}"), manager(name, &dir_text, virtual_hosts).to_string());
        }
        let mut command = self.command(&Job { template: self.template(), dir: dir.path(), values })?;
        let process = Process::spawn(&mut command, &dir.path().join("output"))?;
        // Configured everywhere; where it is the last that listens, the others do too.
        let probe = ports[if self == Peer::Nginx { "http2" } else { "tcp" }];
        self.running(process, probe).map(|process| Running { processes: vec![process], ports, dir })
    }

    /// Starts two of it with mutual TLS between them.
    pub(crate) fn start_pair(self, backend: Backend) -> anyhow::Result<Running> {
        let dir = tempfile::tempdir()?;
        tls::write_certificates(dir.path())?;
        let (outer, inner) = (free_ports(&PAIR_PORTS)?, free_ports(&PAIR_PORTS)?);
        let mut processes = Vec::new();
        for (name, ports, other) in [("inner", &inner, &outer), ("outer", &outer, &inner)] {
            let own = dir.path().join(name);
            std::fs::create_dir(&own)?;
            let mut values = values(ports, backend, &own.display().to_string());
            values.insert("certificates".to_owned(), dir.path().display().to_string());
            for port in ["mutual1", "mutual2"] {
                values.insert(format!("other {port}"), other[port].to_string());
            }
            for port in ["plain1", "plain2", "mutual1", "mutual2", "edge"] {
                let cluster = if port.starts_with("plain") { port } else { "backend" };
                let manager =
                    connection_manager(port, "AUTO", all_hosts(&action(cluster)), &own.display().to_string());
                values.insert(format!("manager {port}"), manager.to_string());
            }
            let mut command = self.command(&Job { template: self.pair_template(), dir: &own, values })?;
            let process = Process::spawn(&mut command, &own.join("output"))?;
            processes.insert(0, self.running(process, ports["edge"])?);
        }
        Ok(Running { processes, ports: outer, dir })
    }

    fn template(self) -> &'static str {
        match self {
            Peer::Envoy | Peer::Meltemi => "envoy.yaml",
            Peer::Haproxy => "haproxy.cfg",
            Peer::Nginx => "nginx.conf",
        }
    }

    fn pair_template(self) -> &'static str {
        match self {
            Peer::Envoy | Peer::Meltemi => "envoy-pair.yaml",
            Peer::Haproxy => "haproxy-pair.cfg",
            Peer::Nginx => "nginx-pair.conf",
        }
    }

    fn command(self, job: &Job<'_>) -> anyhow::Result<Command> {
        let folder = peers::repository().join("crates/e2e/benches/proxy");
        let mut text = std::fs::read_to_string(folder.join(job.template))?;
        for (name, value) in &job.values {
            text = text.replace(&format!("${{{name}}}"), value);
        }
        let config = job.dir.join(job.template);
        std::fs::write(&config, text)?;
        let program = match self {
            Peer::Envoy => peers::envoy().context("Envoy")?,
            Peer::Meltemi => peers::meltemi(),
            Peer::Haproxy => in_path("haproxy").context("haproxy")?,
            Peer::Nginx => in_path("nginx").context("nginx")?,
        };
        let mut command = machine::pinned(0, &program);
        match self {
            Peer::Envoy => {
                command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "warning", "-c"])
            }
            Peer::Meltemi => command.args(["proxy", "--concurrency", "1", "-l", "warning", "-c"]),
            Peer::Haproxy => command.args(["-db", "-f"]),
            Peer::Nginx => command.arg("-p").arg(job.dir).arg("-c"),
        };
        command.arg(&config);
        Ok(command)
    }

    /// Waits until the proxy listens.
    fn running(self, mut process: Process, port: u16) -> anyhow::Result<Process> {
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if process.has_ended() || Instant::now() > deadline {
                bail!("{} does not start:\n{}", self.name(), process.output());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }
}

/// A configuration to be written.
struct Job<'a> {
    template: &'static str,
    dir: &'a Path,
    /// What stands for `${…}`.
    values: BTreeMap<String, String>,
}

fn free_ports(names: &[&'static str]) -> anyhow::Result<Ports> {
    names.iter().map(|name| Ok((*name, free_port()?))).collect()
}

fn values(ports: &Ports, backend: Backend, dir: &str) -> BTreeMap<String, String> {
    let own = ports.iter().map(|(name, port)| (*name, *port));
    let all = own.chain([("backend", backend.http), ("source", backend.source)]);
    let texts = all.map(|(name, port)| (name.to_owned(), port.to_string()));
    texts.chain([("dir".to_owned(), dir.to_owned())]).collect()
}

impl Running {
    /// CPU time of all its processes.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(|process| machine::cpu_seconds(process.pid())).sum()
    }

    /// A line of `/proc/PID/status` in KiB, summed over its processes.
    pub(crate) fn memory_kib(&self, field: &str) -> anyhow::Result<f64> {
        self.processes.iter().map(|process| machine::memory_kib(process.pid(), field)).sum()
    }

    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[listener]))
    }

    /// Where the certificates of a pair are.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/bin"].iter().map(PathBuf::from);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Virtual hosts, and routes in each, of the `routes` listener.
pub(crate) const VIRTUAL_HOSTS: usize = 1000;
pub(crate) const ROUTES: usize = 10;

/// The `HttpConnectionManager` of a listener without TLS.
fn manager(name: &str, dir: &str, virtual_hosts: usize) -> Value {
    let (codec, cluster) = if name == "http2" { ("HTTP2", "http2") } else { ("AUTO", "http1") };
    let action = action(cluster);
    let virtual_hosts = match name {
        "routes" => (0..virtual_hosts).map(|host| virtual_host(host, &action)).collect(),
        _ => all_hosts(&action),
    };
    connection_manager(name, codec, virtual_hosts, dir)
}

/// What a route does.
fn action(cluster: &str) -> Value {
    json!({
        "cluster": cluster,
        "timeout": "15s",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,unavailable,retriable-status-codes",
            "retriable_status_codes": [503],
            "num_retries": 2,
        },
    })
}

/// One virtual host with one route.
fn all_hosts(action: &Value) -> Vec<Value> {
    vec![json!({"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]})]
}

fn connection_manager(name: &str, codec: &str, virtual_hosts: Vec<Value>, dir: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": codec,
        "access_log": [{
            "name": "file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": format!("{dir}/access.log"),
            },
        }],
        "route_config": {"name": name, "virtual_hosts": virtual_hosts},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    })
}

fn virtual_host(number: usize, action: &Value) -> Value {
    let routes: Vec<Value> = (0..ROUTES)
        .map(|route| match route % 2 {
            0 => json!({"match": {"path": format!("/exact/{route}")}, "route": action}),
            _ => json!({"match": {"prefix": format!("/prefix/{route}/")}, "route": action}),
        })
        .collect();
    json!({"name": format!("host-{number}"), "domains": [format!("host-{number}.example")], "routes": routes})
}
