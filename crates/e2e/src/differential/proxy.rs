//! Starting a proxy on a bootstrap: a stock Envoy or ours.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::client;
use crate::process::{DEADLINE, Process, until};

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

/// Arguments of a proxy that says nothing else.
pub(super) const ARGUMENTS: [&str; 2] = ["--drain-time-s", "5"];

/// Starts a proxy on a bootstrap and waits until it is ready.
///
/// # Errors
/// If it does not become ready; the error holds its output.
pub async fn start(proxy: &Proxy, bootstrap: &Path, dir: &Path) -> anyhow::Result<Running> {
    start_with(proxy, bootstrap, &ARGUMENTS.map(str::to_owned), dir).await
}

/// As [`start`], with arguments of its own.
///
/// # Errors
/// If it does not become ready; the error holds its output.
pub async fn start_with(
    proxy: &Proxy,
    bootstrap: &Path,
    arguments: &[String],
    dir: &Path,
) -> anyhow::Result<Running> {
    let admin_path = dir.join("admin-address");
    let mut command = proxy.command(bootstrap, &admin_path);
    let mut process = Process::spawn(command.args(arguments), &dir.join("proxy.log"))?;
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
    // Envoy leaves an empty list out.
    for status in json["listener_statuses"].as_array().into_iter().flatten() {
        let socket = &status["local_address"]["socket_address"];
        let ip = socket["address"].as_str().context("address")?;
        let port = socket["port_value"].as_u64().context("port_value")?;
        let name = status["name"].as_str().context("name")?;
        found.insert(name.to_owned(), SocketAddr::new(ip.parse()?, u16::try_from(port)?));
    }
    Ok(found)
}
