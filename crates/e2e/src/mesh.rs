//! `meltemi up` on a copy of the example shop, as a user would run it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::Request;
use serde_json::Value;

use crate::backend::free_port;
use crate::process::{Process, until};
use crate::{client, peers};

/// How long a mesh may take until it serves: a debug build on a busy machine, with stock Envoys at worst.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How much later than it should a load may end: requests that are late are still sent.
const LATE: Duration = Duration::from_secs(120);

/// The path that goes through all three services.
pub const RECOMMENDATION: &str = "/v1/product-recommendation";

/// The environment variable that marks every process of one mesh.
const MARK: &str = "MELTEMI_E2E_MESH";

/// A running mesh; everything it started ends with it.
#[derive(Debug)]
pub struct Mesh {
    /// `meltemi up`.
    pub up: Process,
    /// The folder of YAML it reads, a copy that may be edited.
    pub dir: PathBuf,
    /// The gateway.
    pub gateway: SocketAddr,
    mark: String,
    _temp: tempfile::TempDir,
}

/// A process of a mesh.
#[derive(Debug, Clone)]
pub struct Member {
    /// Process id.
    pub pid: i32,
    /// Its command line, arguments separated by spaces.
    pub command: String,
}

impl Mesh {
    /// Starts the shop with more options for `up`, and waits until it serves steadily.
    ///
    /// # Errors
    /// If it does not come up; the error holds what `up` printed.
    pub async fn shop(options: &[&str]) -> anyhow::Result<Mesh> {
        Mesh::shop_with(options, &[]).await
    }

    /// As [`Mesh::shop`], with more files in the folder, each with its text.
    ///
    /// # Errors
    /// If it does not come up; the error holds what `up` printed.
    pub async fn shop_with(options: &[&str], files: &[(&str, &str)]) -> anyhow::Result<Mesh> {
        let temp = tempfile::tempdir()?;
        let dir = temp.path().join("shop");
        let port = free_port()?;
        copy_shop(&dir, port)?;
        for (name, text) in files {
            std::fs::write(dir.join(name), text)?;
        }
        let mark = temp.path().display().to_string();
        let mut command = Command::new(peers::meltemi());
        command.arg("up").arg(&dir).args(options);
        command.env("XDG_STATE_HOME", temp.path().join("state")).env(MARK, &mark);
        let up = Process::spawn(&mut command, &temp.path().join("up.log"))?;
        let mut mesh = Mesh { up, dir, gateway: SocketAddr::from(([127, 0, 0, 1], port)), mark, _temp: temp };
        mesh.wait_until_steady().await?;
        Ok(mesh)
    }

    /// Twenty good answers in a row: every sidecar has its configuration.
    async fn wait_until_steady(&mut self) -> anyhow::Result<()> {
        let mut good = 0;
        let gateway = self.gateway;
        let up = &mut self.up;
        let steady = until("the shop serves", START_DEADLINE, async || {
            if up.has_ended() {
                return Some(false);
            }
            let answer = client::get(gateway, "localhost", RECOMMENDATION).await;
            good = if answer.is_ok_and(|a| a.status() == 200) { good + 1 } else { 0 };
            (good >= 20).then_some(true)
        });
        let serves = steady.await.with_context(|| self.up.output())?;
        anyhow::ensure!(serves, "up ended:\n{}", self.up.output());
        Ok(())
    }

    /// Calls the shop so many times, one after the other.
    ///
    /// # Errors
    /// If an answer is not 200.
    pub async fn served(&self, times: usize) -> anyhow::Result<()> {
        for _ in 0..times {
            let answer = client::get(self.gateway, "localhost", RECOMMENDATION).await?;
            anyhow::ensure!(answer.status() == 200, "{answer:?}");
        }
        Ok(())
    }

    /// Calls the shop as `user` and gives back the versions that took part, such as
    /// `frontend@v1,recommendation@v2,product-info@v1`.
    ///
    /// # Errors
    /// If the answer is not 200.
    pub async fn versions(&self, user: Option<&str>) -> anyhow::Result<String> {
        let mut request = Request::get(RECOMMENDATION).header("host", "localhost");
        if let Some(user) = user {
            request = request.header("end-user", user);
        }
        let answer = client::http1(self.gateway, request.body(Bytes::new())?).await?;
        anyhow::ensure!(answer.status() == 200, "{answer:?}");
        let versions = answer.headers().get("x-echo-versions").context("x-echo-versions")?;
        Ok(versions.to_str()?.to_owned())
    }

    /// Rewrites one file of the folder, as an editor does it: a new file moved over the old one.
    ///
    /// # Errors
    /// If the file cannot be read or written, or does not contain `from`.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> anyhow::Result<()> {
        let path = self.dir.join(file);
        let text = std::fs::read_to_string(&path)?;
        anyhow::ensure!(text.contains(from), "{file} does not contain {from:?}");
        self.save(file, &text.replacen(from, to, 1))
    }

    /// Writes a file of the folder, as an editor does it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let new = self.dir.join(format!(".{file}.new"));
        std::fs::write(&new, text)?;
        std::fs::rename(&new, self.dir.join(file))?;
        Ok(())
    }

    /// What `up` tells of the mesh once it runs, as JSON; for a mesh started with `-o json`.
    ///
    /// # Errors
    /// If it does not tell in time.
    pub async fn running(&self) -> anyhow::Result<Value> {
        until("up tells what runs", START_DEADLINE, async || {
            let output = self.up.output();
            let mut events = output.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events.find(|event| event["event"] == "running")
        })
        .await
    }

    /// The text of a file of the folder.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn text(&self, file: &str) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.dir.join(file))?)
    }

    /// Starts `meltemi load` on the shop for so long.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn load(&self, rate: u32, duration: Duration) -> anyhow::Result<Load> {
        Load::start(&format!("http://{}{RECOMMENDATION}", self.gateway), rate, duration, &[])
    }

    /// The processes of this mesh that run now, except `up` itself.
    pub fn members(&self) -> Vec<Member> {
        members(&self.mark, self.up.pid().cast_signed())
    }

    /// The processes whose command line holds all of `words`.
    pub fn members_with(&self, words: &[&str]) -> Vec<Member> {
        let all = self.members().into_iter();
        all.filter(|member| words.iter().all(|word| member.command.contains(word))).collect()
    }
}

/// Every process whose environment carries the mark.
fn members(mark: &str, except: i32) -> Vec<Member> {
    let wanted = format!("{MARK}={mark}");
    let Ok(entries) = std::fs::read_dir("/proc") else { return vec![] };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != except).filter_map(|pid| member(pid, &wanted)).collect()
}

fn member(pid: i32, wanted: &str) -> Option<Member> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find(|entry| *entry == wanted.as_bytes())?;
    let command =
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline")).ok()?).replace('\0', " ");
    // A process that has ended but is not reaped yet has no command line any more.
    (!command.is_empty()).then_some(Member { pid, command })
}

fn copy_shop(to: &Path, port: u16) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(peers::repository().join("examples/shop"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let mut text = std::fs::read_to_string(&path)?;
        if path.file_name().is_some_and(|name| name == "gateway.yaml") {
            text = text.replacen("number: 8080", &format!("number: {port}"), 1);
        }
        std::fs::write(to.join(path.file_name().context("a file has a name")?), text)?;
    }
    Ok(())
}

/// A running `meltemi load`.
#[derive(Debug)]
pub struct Load {
    process: Process,
    duration: Duration,
    _temp: tempfile::TempDir,
}

impl Load {
    /// Starts it on a URL.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(url: &str, rate: u32, duration: Duration, options: &[&str]) -> anyhow::Result<Load> {
        let temp = tempfile::tempdir()?;
        let mut command = Command::new(peers::meltemi());
        command.args(["load", url, "-o", "json", "--connections", "4"]).args(options);
        command.args(["--rate", &rate.to_string(), "--duration", &format!("{}ms", duration.as_millis())]);
        let process = Process::spawn(&mut command, &temp.path().join("load.json"))?;
        Ok(Load { process, duration, _temp: temp })
    }

    /// Waits for its report.
    ///
    /// # Errors
    /// If it does not end in time or prints no report.
    pub async fn report(mut self) -> anyhow::Result<Report> {
        self.process.wait(self.duration + LATE).await?;
        let text = self.process.output();
        let start = text.find('{').with_context(|| format!("no JSON in: {text}"))?;
        Ok(Report(serde_json::from_str(&text[start..]).with_context(|| text.clone())?))
    }
}

/// What `meltemi load -o json` says.
#[derive(Debug)]
pub struct Report(pub Value);

impl Report {
    /// Requests that got a complete response.
    pub fn completed(&self) -> u64 {
        self.map("statuses").values().filter_map(Value::as_u64).sum()
    }

    /// Requests that did not get a 2xx at the first attempt: another answer, no answer, or sent again because a
    /// reused connection had been closed. (Those never sent say that the generator was too slow.)
    pub fn failed(&self) -> u64 {
        let good =
            |(status, count): (&String, &Value)| status.starts_with('2').then(|| count.as_u64()).flatten();
        let good: u64 = self.map("statuses").iter().filter_map(good).sum();
        let unanswered: u64 = self.map("failures").values().filter_map(Value::as_u64).sum();
        self.completed() - good + unanswered + self.0["resent"].as_u64().unwrap_or(0)
    }

    /// Responses whose versions contain `word`.
    pub fn versions_with(&self, word: &str) -> u64 {
        self.map("versions")
            .iter()
            .filter(|(name, _)| name.contains(word))
            .filter_map(|(_, n)| n.as_u64())
            .sum()
    }

    fn map(&self, key: &str) -> serde_json::Map<String, Value> {
        self.0[key].as_object().cloned().unwrap_or_default()
    }
}
