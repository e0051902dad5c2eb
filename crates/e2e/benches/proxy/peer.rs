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

use crate::machine;

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

/// A proxy that runs on CPU 0.
pub(crate) struct Running {
    process: Process,
    ports: BTreeMap<&'static str, u16>,
    _dir: tempfile::TempDir,
}

const PORTS: [&str; 5] = ["http1", "http2", "routes", "tcp", "admin"];

/// How long a proxy may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

impl Peer {
    /// Those that are installed; Envoy and ours must be.
    pub(crate) fn all() -> anyhow::Result<Vec<Peer>> {
        peers::envoy().context("Envoy is needed: scripts/peers")?;
        let mut all = vec![Peer::Envoy, Peer::Meltemi];
        for (peer, program) in [(Peer::Haproxy, "haproxy"), (Peer::Nginx, "nginx")] {
            match in_path(program) {
                Some(_) => all.push(peer),
                None => eprintln!("{program} is not installed: left out"),
            }
        }
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
        let mut ports = BTreeMap::new();
        for name in PORTS {
            ports.insert(name, free_port()?);
        }
        let mut command = self.command(dir.path(), &ports, backend, virtual_hosts)?;
        let process = Process::spawn(&mut command, &dir.path().join("output"))?;
        let mut running = Running { process, ports, _dir: dir };
        running.wait(self)?;
        Ok(running)
    }

    fn command(
        self,
        dir: &Path,
        ports: &BTreeMap<&'static str, u16>,
        backend: Backend,
        virtual_hosts: usize,
    ) -> anyhow::Result<Command> {
        let template = match self {
            Peer::Envoy | Peer::Meltemi => "envoy.yaml",
            Peer::Haproxy => "haproxy.cfg",
            Peer::Nginx => "nginx.conf",
        };
        let folder = peers::repository().join("crates/e2e/benches/proxy");
        let mut text = std::fs::read_to_string(folder.join(template))?;
        for (name, port) in ports
            .iter()
            .map(|(name, port)| (*name, *port))
            .chain([("backend", backend.http), ("source", backend.source)])
        {
            text = text.replace(&format!("${{{name}}}"), &port.to_string());
        }
        let dir_text = dir.display().to_string();
        text = text.replace("${dir}", &dir_text);
        for name in ["http1", "http2", "routes"] {
            let manager = manager(name, &dir_text, virtual_hosts).to_string();
            text = text.replace(&format!("${{manager {name}}}"), &manager);
        }
        let config = dir.join(template);
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
            Peer::Nginx => command.args(["-p", &dir_text, "-c"]),
        };
        command.arg(&config);
        Ok(command)
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[listener]))
    }

    fn wait(&mut self, peer: Peer) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let address = self.address("tcp");
        let probe = if peer == Peer::Nginx { self.address("http2") } else { address };
        while std::net::TcpStream::connect(probe).is_err() {
            if self.process.has_ended() || Instant::now() > deadline {
                bail!("{} does not start:\n{}", peer.name(), self.process.output());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/bin"].iter().map(PathBuf::from);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Virtual hosts, and routes in each, of the `routes` listener.
pub(crate) const VIRTUAL_HOSTS: usize = 1000;
pub(crate) const ROUTES: usize = 10;

/// The `HttpConnectionManager` of a listener.
fn manager(name: &str, dir: &str, virtual_hosts: usize) -> Value {
    let is_http2 = name == "http2";
    let cluster = if is_http2 { "http2" } else { "http1" };
    let action = json!({
        "cluster": cluster,
        "timeout": "15s",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,unavailable,retriable-status-codes",
            "retriable_status_codes": [503],
            "num_retries": 2,
        },
    });
    let virtual_hosts = match name {
        "routes" => (0..virtual_hosts).map(|host| virtual_host(host, &action)).collect(),
        _ => vec![
            json!({"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}),
        ],
    };
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": if is_http2 { "HTTP2" } else { "AUTO" },
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
