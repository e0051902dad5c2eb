//! A worker thread under test, scripted upstreams, and a client that speaks HTTP/1.1 by hand.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use meltemi_compile::program::Program;
use meltemi_envoy::config::bootstrap::v3::Bootstrap;
use meltemi_envoy::json::Codec;
use meltemi_proxy::access_log::{FlushPolicy, LogWriter};
use meltemi_proxy::command_line::DrainStrategy;
use meltemi_proxy::departure::DrainPolicy;
use meltemi_proxy::istio_stats::NodeFacts;
use meltemi_proxy::stats::Registry;
use meltemi_proxy::upstream::shared::HostStates;
use meltemi_proxy::worker::{self, Command, ListenerSocket, WorkerContext, WorkerHandle};
use tokio::sync::oneshot;

/// No test waits longer for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A worker with what it serves.
pub(crate) struct Worker {
    handle: WorkerHandle,
    addresses: BTreeMap<String, SocketAddr>,
}

impl Worker {
    /// Starts a worker on listeners and clusters given as YAML of `static_resources`.
    pub(crate) fn start(resources: &str) -> Worker {
        let (_writer, logs) = LogWriter::spawn(FlushPolicy::default()).unwrap();
        let context = WorkerContext {
            id: 0,
            hosts: Arc::new(HostStates::default()),
            stats: Registry::new().worker(0),
            logs,
            node: Arc::new(NodeFacts::new(&Default::default())),
            lifecycle: Arc::default(),
            admission: None,
            tls: Arc::default(),
        };
        let mut worker = Worker { handle: worker::spawn(context).unwrap(), addresses: BTreeMap::new() };
        worker.serve(resources);
        worker
    }

    /// Serves something else; returns once new requests see it.
    pub(crate) fn serve(&mut self, resources: &str) {
        let program = program(resources);
        let mut sockets = Vec::new();
        for (name, listener) in &program.listeners {
            if self.addresses.contains_key(&**name) {
                continue;
            }
            let socket = TcpListener::bind(listener.address).unwrap();
            self.addresses.insert(name.to_string(), socket.local_addr().unwrap());
            sockets.push(ListenerSocket { listener: name.clone(), socket });
        }
        let (applied, done) = oneshot::channel();
        let drain = DrainPolicy { time: Duration::from_secs(5), strategy: DrainStrategy::Immediate };
        self.send(Command::Program { program: Arc::new(program), sockets, drain, applied });
        done.blocking_recv().unwrap();
    }

    pub(crate) fn send(&self, command: Command) {
        assert!(self.handle.commands.send(command).is_ok(), "the worker is alive");
    }

    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    /// Waits until the thread is gone.
    pub(crate) fn wait_until_ended(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let start = Instant::now();
        while self.handle.poll_ended(&mut cx).is_pending() {
            assert!(start.elapsed() < DEADLINE, "the worker goes on");
            std::thread::yield_now();
        }
    }

    /// Waits until no connection is open.
    pub(crate) fn wait_until_idle(&self) {
        until("all connections end", || self.handle.connections() == 0);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker that a failed test killed is not there any more.
        let _ = self.handle.commands.send(Command::Stop);
    }
}

/// Waits for a condition.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited too long until {what}");
        std::thread::yield_now();
    }
}

fn program(resources: &str) -> Program {
    let text = format!("static_resources:\n{resources}");
    let bootstrap: Bootstrap = Codec::new().parse(&text).unwrap();
    let resources = bootstrap.static_resources.unwrap();
    let mut program = Program::default();
    for listener in &resources.listeners {
        let listener = Arc::new(meltemi_compile::listener(listener).unwrap());
        program.listeners.insert(listener.name.clone(), listener);
    }
    for cluster in &resources.clusters {
        let (cluster, endpoints) = meltemi_compile::cluster(cluster).unwrap();
        let name = cluster.name.clone();
        program.clusters.insert(name.clone(), Arc::new(cluster));
        if let Some(endpoints) = endpoints {
            program.endpoints.insert(name, Arc::new(endpoints));
        }
    }
    program
}

/// A listener whose one virtual host has these routes (YAML flow mappings, one per line).
pub(crate) fn listener(name: &str, routes: &[&str]) -> String {
    let routes: String = routes.iter().map(|route| format!("              - {route}\n")).collect();
    format!(
        r#"
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          upgrade_configs: [{{upgrade_type: websocket}}]
          route_config:
            name: routes
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
{routes}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
    )
}

/// A static cluster; `more` are further fields, one per line.
pub(crate) fn cluster(name: &str, hosts: &[SocketAddr], more: &[&str]) -> String {
    let more: String = more.iter().map(|line| format!("    {line}\n")).collect();
    let hosts: String = hosts
        .iter()
        .map(|host| {
            let (ip, port) = (host.ip(), host.port());
            format!(
                "        - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}\n"
            )
        })
        .collect();
    format!(
        "  - name: {name}\n    type: STATIC\n    connect_timeout: 1s\n{more}    load_assignment:\n      \
         cluster_name: {name}\n      endpoints:\n      - lb_endpoints:\n{hosts}"
    )
}

/// Static resources of listeners and clusters.
pub(crate) fn resources(listeners: &[String], clusters: &[String]) -> String {
    format!("  listeners:{}\n  clusters:\n{}", listeners.concat(), clusters.concat())
}

/// An address where nobody listens.
pub(crate) fn dead_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An upstream whose connections are each handled by a function on a thread of its own.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    pub(crate) fn start(handle: impl Fn(Connection) + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (handle, count) = (Arc::new(handle), connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (handle, stream) = (handle.clone(), stream.unwrap());
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || handle(Connection::new(stream)));
            }
        });
        Upstream { address, connections }
    }

    /// Answers every request with 200 and this body.
    pub(crate) fn saying(body: &'static str) -> Upstream {
        Upstream::start(move |mut connection| {
            while connection.read_message().is_some() {
                connection.write(&ok(body));
            }
        })
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// A 200 with a body.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A connection that messages are written to and read from by hand.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A message as it came: head (lower case names are not forced) and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        lines.filter_map(|line| line.split_once(": ")).find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Connection {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Connection { stream, buffer: Vec::new() }
    }

    pub(crate) fn open(address: SocketAddr) -> Connection {
        Connection::new(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn write(&mut self, text: &str) {
        // A peer that closed is noticed by the next read.
        let _ = self.stream.write_all(text.as_bytes());
    }

    pub(crate) fn close_write(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Sends a GET and reads the answer.
    pub(crate) fn get(&mut self, path: &str) -> Message {
        self.write(&format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n\r\n"));
        self.read_message().expect("an answer")
    }

    /// Reads up to and with `end`; `None` when the connection ends before.
    pub(crate) fn read_until(&mut self, end: &str) -> Option<String> {
        loop {
            let found = self.buffer.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let taken: Vec<u8> = self.buffer.drain(..at + end.len()).collect();
                return Some(String::from_utf8(taken).unwrap());
            }
            self.fill()?;
        }
    }

    /// Reads a message with a length or with chunks.
    pub(crate) fn read_message(&mut self) -> Option<Message> {
        let head = self.read_until("\r\n\r\n")?;
        let mut message = Message { head, body: String::new() };
        if message.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.read_until("\r\n")?;
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                message.body += &self.read_exactly(size)?;
                self.read_until("\r\n")?;
                if size == 0 {
                    return Some(message);
                }
            }
        }
        let length = message.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        message.body = self.read_exactly(length)?;
        Some(message)
    }

    pub(crate) fn read_exactly(&mut self, count: usize) -> Option<String> {
        while self.buffer.len() < count {
            self.fill()?;
        }
        Some(String::from_utf8(self.buffer.drain(..count).collect()).unwrap())
    }

    /// Whether the peer closes without a further byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && self.fill().is_none()
    }

    fn fill(&mut self) -> Option<()> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => None,
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Some(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("waited too long for the peer: {error}"),
        }
    }
}
