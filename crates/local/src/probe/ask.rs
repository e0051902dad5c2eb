//! How to ask: an HTTP GET, a TCP connection, a command. Leaves out when, and what a row of answers means.
//!
//! Source: the kubelet's `pkg/probe/{http,tcp,exec}`: a status from 200 to 399 is a success, whatever the body.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;

use meltemi_api::kubernetes::{Container, HttpHeader, PortRef, Probe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::limits::MAX_PROBE_BYTES;
use crate::mark;
use crate::plan::probe_port;
use crate::probe::Ask;

/// The program that is asked.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) container: Container,
    pub(crate) address: IpAddr,
    /// `$PORT`.
    pub(crate) port: u16,
    /// For probes by command.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) directory: PathBuf,
    pub(crate) mark: String,
}

impl Target {
    /// Who asks for this probe; `None` when the probe names no way, or a port that the container does not have (the plan
    /// refuses both).
    pub(super) fn asker(&self, probe: &Probe) -> Option<Asker<'_>> {
        if let Some(http) = &probe.http_get {
            let socket = self.socket(http.host.as_deref(), &http.port)?;
            let path = http.path.as_deref().unwrap_or("/");
            return Some(Asker::Http(socket, request(socket, path, &http.http_headers)));
        }
        if let Some(tcp) = &probe.tcp_socket {
            return Some(Asker::Tcp(self.socket(tcp.host.as_deref(), &tcp.port)?));
        }
        let exec = probe.exec.as_ref()?;
        Some(Asker::Exec { command: exec.command.clone(), target: self })
    }

    fn socket(&self, host: Option<&str>, port: &PortRef) -> Option<SocketAddr> {
        let address = host.and_then(|host| host.parse().ok()).unwrap_or(self.address);
        Some(SocketAddr::new(address, probe_port(&self.container, port, self.port)?))
    }
}

/// One way of asking, ready to be used again and again.
pub(super) enum Asker<'a> {
    Http(SocketAddr, String),
    Tcp(SocketAddr),
    Exec { command: Vec<String>, target: &'a Target },
}

/// Asks this path of a process of the mesh.
pub(super) fn http(socket: SocketAddr, path: &str) -> Asker<'static> {
    Asker::Http(socket, request(socket, path, &[]))
}

impl Ask for Asker<'_> {
    async fn ask(&self) -> Result<(), String> {
        match self {
            Asker::Http(socket, request) => match status(*socket, request).await {
                Ok(status) if (200..400).contains(&status) => Ok(()),
                Ok(status) => Err(format!("status {status}")),
                Err(error) => Err(error.to_string()),
            },
            Asker::Tcp(socket) => match TcpStream::connect(socket).await {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
            Asker::Exec { command, target } => exec(command, target).await,
        }
    }
}

fn request(socket: SocketAddr, path: &str, headers: &[HttpHeader]) -> String {
    let own_host = headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
    let host = own_host.map_or_else(|| socket.to_string(), |header| header.value.clone());
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe/meltemi\r\nAccept: */*\r\nConnection: close\r\n"
    );
    for header in headers.iter().filter(|header| !header.name.eq_ignore_ascii_case("host")) {
        request.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    request + "\r\n"
}

/// The status code of the answer. The body is not read: the connection is closed behind the status line.
async fn status(socket: SocketAddr, request: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(socket).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(MAX_PROBE_BYTES);
    while answer.len() < MAX_PROBE_BYTES && !answer.contains(&b'\n') {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let code = line.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    code.and_then(|code| std::str::from_utf8(code).ok())
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

async fn exec(command: &[String], target: &Target) -> Result<(), String> {
    let (program, arguments) = command.split_first().ok_or("the command is empty")?;
    let run = Command::new(program)
        .args(arguments)
        .envs(&target.environment)
        .env(mark::VARIABLE, &target.mark)
        .current_dir(&target.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    match run.await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(format!("{program}: {error}")),
    }
}
