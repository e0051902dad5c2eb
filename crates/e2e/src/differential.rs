//! The differential harness: one Envoy bootstrap, the same calls, through Envoy and through our proxy.
//!
//! A case is a folder of `testdata/differential` with `bootstrap.yaml` (a template), `calls.yaml` and
//! `expected.yaml`, which is recorded from Envoy by `DIFFERENTIAL=record cargo test -p meltemi-e2e --test it
//! differential`. In the template `${NAME}` is the port of a backend of that name, `${dead}` a port where nothing
//! listens, `${log}` the access log file. Listeners and admin use port 0.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Request;
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Received, dead_port, short};
use crate::client;
use crate::process::{DEADLINE, Process, until};

/// What `calls.yaml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calls {
    /// Names of the backends to start.
    pub backends: Vec<String>,
    /// The calls, one after the other.
    pub calls: Vec<Call>,
}

/// One call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// What it shows.
    pub name: String,
    /// Listener to call, default `main`.
    #[serde(default)]
    pub listener: Option<String>,
    /// Speak HTTP/2.
    #[serde(default)]
    pub http2: bool,
    /// Default GET.
    #[serde(default)]
    pub method: Option<String>,
    /// Default `/`.
    #[serde(default)]
    pub path: Option<String>,
    /// Default `shop.example`.
    #[serde(default)]
    pub host: Option<String>,
    /// Request headers.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Request body.
    #[serde(default)]
    pub body: String,
    /// A body of so many bytes instead.
    #[serde(default)]
    pub body_size: usize,
    /// Bytes to send as they are, instead of all the above.
    #[serde(default)]
    pub raw: Option<String>,
    /// How often, default once.
    #[serde(default)]
    pub repeat: Option<usize>,
    /// Only count the answers by status and backend: the choice is random.
    #[serde(default)]
    pub count_only: bool,
    /// Where we differ from Envoy on purpose.
    #[serde(default)]
    pub differs: Option<Differs>,
}

/// A deliberate difference: what our proxy answers to raw bytes instead, and why.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differs {
    /// The reason, for the reader.
    pub because: String,
    /// What our proxy does; the backends receive nothing.
    pub instead: client::RawAnswer,
}

/// What happened, masked so that two runs compare equal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Per call.
    pub calls: Vec<Outcome>,
    /// The access log, a line per request.
    pub log: Vec<String>,
}

/// What one call led to.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The call's name.
    pub name: String,
    /// The answers (one, unless repeated).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// For raw bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<client::RawAnswer>,
    /// What the backends received.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<Received>,
    /// For `count_only`: the distinct pairs of status and backend that occurred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<String>,
}

/// One response.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Status code, 0 when the connection ended without a response.
    pub status: u16,
    /// Headers, sorted.
    pub headers: Vec<(String, String)>,
    /// Body, or its length.
    pub body: String,
}

/// The proxies that can run a bootstrap.
#[derive(Debug, Clone)]
pub enum Proxy {
    /// A stock Envoy.
    Envoy(PathBuf),
    /// `meltemi proxy`.
    Meltemi(PathBuf),
}

impl Proxy {
    /// The command that runs `bootstrap` and writes its admin address to `admin_path`.
    pub fn command(&self, bootstrap: &Path, admin_path: &Path) -> Command {
        let mut command = match self {
            Proxy::Envoy(path) => Command::new(path),
            Proxy::Meltemi(path) => {
                let mut command = Command::new(path);
                command.arg("proxy");
                command
            }
        };
        command.arg("-c").arg(bootstrap).arg("--admin-address-path").arg(admin_path);
        command.args(["--concurrency", "1", "-l", "warning", "--file-flush-interval-msec", "50"]);
        command.args(["--drain-time-s", "5"]);
        if matches!(self, Proxy::Envoy(_)) {
            command.args(["--disable-hot-restart"]);
        }
        command
    }
}

/// A proxy that is up.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub process: Process,
    /// Its admin interface.
    pub admin: SocketAddr,
    /// Listener addresses by name.
    pub listeners: BTreeMap<String, SocketAddr>,
}

/// Starts a proxy on a bootstrap and waits until it is ready.
///
/// # Errors
/// If it does not become ready; the error holds its output.
pub async fn start(proxy: &Proxy, bootstrap: &Path, dir: &Path) -> anyhow::Result<Running> {
    let admin_path = dir.join("admin-address");
    let mut process = Process::spawn(&mut proxy.command(bootstrap, &admin_path), &dir.join("proxy.log"))?;
    let admin = until("the proxy is ready", DEADLINE, async || {
        if process.has_ended() {
            return Some(Err(()));
        }
        let admin: SocketAddr = std::fs::read_to_string(&admin_path).ok()?.trim().parse().ok()?;
        let answer = client::get(admin, "admin", "/ready").await.ok()?;
        (answer.status() == 200).then_some(Ok(admin))
    });
    let Ok(Ok(admin)) = admin.await else { bail!("the proxy does not get ready:\n{}", process.output()) };
    let listeners = listeners(admin).await?;
    Ok(Running { process, admin, listeners })
}

async fn listeners(admin: SocketAddr) -> anyhow::Result<BTreeMap<String, SocketAddr>> {
    let answer = client::get(admin, "admin", "/listeners?format=json").await?;
    let json: serde_json::Value = serde_json::from_slice(answer.body())?;
    let mut found = BTreeMap::new();
    for status in json["listener_statuses"].as_array().context("listener_statuses is a list")? {
        let socket = &status["local_address"]["socket_address"];
        let ip = socket["address"].as_str().context("address")?;
        let port = socket["port_value"].as_u64().context("port_value")?;
        let name = status["name"].as_str().context("name")?;
        found.insert(name.to_owned(), format!("{ip}:{port}").parse()?);
    }
    Ok(found)
}

/// A folder of `testdata/differential`.
#[derive(Debug)]
pub struct Case {
    /// The folder.
    pub dir: PathBuf,
    /// What to call.
    pub calls: Calls,
}

impl Case {
    /// All cases, by name.
    ///
    /// # Errors
    /// If a folder cannot be read or a `calls.yaml` is not valid.
    pub fn all(root: &Path) -> anyhow::Result<Vec<Case>> {
        let mut dirs: Vec<PathBuf> =
            std::fs::read_dir(root)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
        dirs.sort();
        dirs.into_iter().map(Case::read).collect()
    }

    fn read(dir: PathBuf) -> anyhow::Result<Case> {
        let text =
            std::fs::read_to_string(dir.join("calls.yaml")).with_context(|| dir.display().to_string())?;
        let calls = serde_saphyr::from_str(&text).with_context(|| dir.display().to_string())?;
        Ok(Case { dir, calls })
    }

    /// What our proxy is expected to do: as Envoy, but for the deliberate differences. A case that has any
    /// does not compare access logs.
    ///
    /// # Errors
    /// If the recording is missing or unreadable.
    pub fn expected_of_ours(&self) -> anyhow::Result<Observed> {
        let mut expected = self.expected()?;
        for (call, outcome) in self.calls.calls.iter().zip(&mut expected.calls) {
            if let Some(differs) = &call.differs {
                outcome.raw = Some(differs.instead.clone());
                outcome.upstream.clear();
            }
        }
        Ok(expected)
    }

    /// Whether a call differs from Envoy on purpose.
    pub fn differs(&self) -> bool {
        self.calls.calls.iter().any(|call| call.differs.is_some())
    }

    /// The recording.
    ///
    /// # Errors
    /// If it is missing or unreadable.
    pub fn expected(&self) -> anyhow::Result<Observed> {
        let path = self.dir.join("expected.yaml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{}: record it with DIFFERENTIAL=record", path.display()))?;
        Ok(serde_saphyr::from_str(&text)?)
    }

    /// Writes the recording.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn record(&self, observed: &Observed) -> anyhow::Result<()> {
        std::fs::write(self.dir.join("expected.yaml"), serde_saphyr::to_string(observed)?)?;
        Ok(())
    }

    /// Runs the calls through a proxy.
    ///
    /// # Errors
    /// If the proxy does not start.
    pub async fn run(&self, proxy: &Proxy) -> anyhow::Result<Observed> {
        let dir = tempfile::tempdir()?;
        let mut backends = Vec::new();
        for name in &self.calls.backends {
            backends.push(Backend::start(name).await?);
        }
        let mut ports: Vec<(String, u16)> = vec![("dead".to_owned(), dead_port()?)];
        ports.extend(backends.iter().map(|backend| (backend.name.clone(), backend.address.port())));
        let log = dir.path().join("access.log");
        let bootstrap = dir.path().join("bootstrap.yaml");
        std::fs::write(&bootstrap, self.filled_in(&ports, &log)?)?;
        let running =
            start(proxy, &bootstrap, dir.path()).await.with_context(|| self.dir.display().to_string())?;
        ports.extend(running.listeners.iter().map(|(name, at)| (format!("listener {name}"), at.port())));
        let mask = Mask { ports, own_address: own_address() };
        let mut calls = Vec::new();
        for call in &self.calls.calls {
            calls.push(self.outcome(call, &running, &backends, &mask).await?);
        }
        Ok(Observed { calls, log: self.log_lines(&log, &mask).await })
    }

    fn filled_in(&self, ports: &[(String, u16)], log: &Path) -> anyhow::Result<String> {
        let mut text = std::fs::read_to_string(self.dir.join("bootstrap.yaml"))?;
        for (name, port) in ports {
            text = text.replace(&format!("${{{name}}}"), &port.to_string());
        }
        Ok(text.replace("${log}", &log.display().to_string()))
    }

    async fn outcome(
        &self,
        call: &Call,
        running: &Running,
        backends: &[Backend],
        mask: &Mask,
    ) -> anyhow::Result<Outcome> {
        let listener = call.listener.as_deref().unwrap_or("main");
        let address = *running.listeners.get(listener).with_context(|| format!("no listener {listener}"))?;
        let mut outcome =
            Outcome { name: call.name.clone(), answers: vec![], raw: None, upstream: vec![], seen: vec![] };
        if let Some(raw) = &call.raw {
            let raw = raw.clone();
            outcome.raw =
                Some(tokio::task::spawn_blocking(move || client::raw(address, raw.as_bytes())).await??);
        }
        for _ in 0..call.repeat.unwrap_or(usize::from(call.raw.is_none())) {
            outcome.answers.push(answer(call, address, mask).await?);
        }
        outcome.upstream = backends.iter().flat_map(Backend::take).map(|r| mask.received(r)).collect();
        if call.count_only {
            outcome.count();
        }
        // Whether the head of a request had left before its body turned out bad is a matter of timing.
        if outcome.raw.as_ref().is_some_and(|raw| raw.statuses.iter().all(|status| *status >= 400)) {
            outcome.upstream.clear();
        }
        Ok(outcome)
    }

    async fn log_lines(&self, log: &Path, mask: &Mask) -> Vec<String> {
        let wanted: usize = self.calls.calls.iter().map(|c| c.repeat.unwrap_or(1)).sum();
        let read = || String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
        // A raw call may log more or fewer lines than one, so what is there at the deadline counts.
        let deadline = std::time::Duration::from_millis(1500);
        let _complete =
            until("all lines", deadline, async || (read().lines().count() >= wanted).then_some(())).await;
        let unordered = self.differs() || self.calls.calls.iter().any(|call| call.count_only);
        let lines = read();
        if unordered { vec![] } else { lines.lines().map(|line| mask.text(line)).collect() }
    }
}

impl Outcome {
    fn count(&mut self) {
        let backend = |answer: &Answer| {
            let header = answer.headers.iter().find(|(name, _)| name == "x-backend");
            header.map_or_else(|| "none".to_owned(), |(_, value)| value.clone())
        };
        self.seen = self.answers.iter().map(|a| format!("{} {}", a.status, backend(a))).collect();
        self.seen.sort();
        self.seen.dedup();
        self.answers.clear();
        self.upstream.clear();
    }
}

async fn answer(call: &Call, address: SocketAddr, mask: &Mask) -> anyhow::Result<Answer> {
    let host = call.host.as_deref().unwrap_or("shop.example");
    let path = call.path.as_deref().unwrap_or("/");
    let uri = if call.http2 { format!("http://{host}{path}") } else { path.to_owned() };
    let mut request = Request::builder().method(call.method.as_deref().unwrap_or("GET")).uri(uri);
    if !call.http2 {
        request = request.header("host", host);
    }
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let body = if call.body_size > 0 { "b".repeat(call.body_size) } else { call.body.clone() };
    let request = request.body(Bytes::from(body)).with_context(|| call.name.clone())?;
    let result = if call.http2 {
        client::http2(address, request).await
    } else {
        client::http1(address, request).await
    };
    let Ok(response) = result else { return Ok(Answer { status: 0, headers: vec![], body: String::new() }) };
    let mut headers: Vec<(String, String)> = response
        .headers()
        .iter()
        .map(|(name, value)| mask.header(name.as_str(), &String::from_utf8_lossy(value.as_bytes())))
        .collect();
    headers.sort();
    Ok(Answer { status: response.status().as_u16(), headers, body: mask.text(&short(response.body())) })
}

/// Replaces what differs from run to run.
struct Mask {
    ports: Vec<(String, u16)>,
    own_address: String,
}

impl Mask {
    fn received(&self, mut received: Received) -> Received {
        for (name, value) in &mut received.headers {
            *value = self.header(name, value).1;
        }
        received.body = self.text(&received.body);
        received
    }

    fn header(&self, name: &str, value: &str) -> (String, String) {
        let masked = match name {
            "date" => "<date>".to_owned(),
            "x-request-id" if value.len() == 36 => "<uuid>".to_owned(),
            "x-envoy-upstream-service-time" => "<ms>".to_owned(),
            "x-envoy-expected-rq-timeout-ms" => rounded_up(value),
            "x-forwarded-port" => self.text(&format!(":{value}")),
            _ => self.text(value),
        };
        (name.to_owned(), masked)
    }

    fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, port) in &self.ports {
            text = text.replace(&format!(":{port}"), &format!(":<{name}>"));
        }
        text.replace(&self.own_address, "<own address>")
    }
}

/// A retry announces what is left of the timeout: whole seconds are the same in every run.
fn rounded_up(milliseconds: &str) -> String {
    match milliseconds.parse::<u64>() {
        Ok(ms) if ms > 1000 => (ms.div_ceil(1000) * 1000).to_string(),
        _ => milliseconds.to_owned(),
    }
}

/// The address of this machine that Envoy puts into x-forwarded-for instead of a loopback one. Connecting a
/// datagram socket sends nothing; it only asks the kernel which address it would use.
fn own_address() -> String {
    let route = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    route.map_or_else(|_| "127.0.0.1".to_owned(), |address| address.ip().to_string())
}
