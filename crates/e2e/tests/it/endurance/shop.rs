//! A running shop with what one sees of its identity: counters of its proxies, their logs, its authority, and callers with
//! certificates of their own.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use meltemi_e2e::mesh::Mesh;
use meltemi_e2e::process::{DEADLINE, until};
use meltemi_e2e::{client, peers};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A cluster with `max_requests_per_connection: 1`: its connections are closed all the time.
const FRESH: &str = "outbound|8080||product-info.";

/// Whether connections of a cluster are to last.
fn lasts(cluster: &str) -> bool {
    cluster.starts_with("outbound|") && !cluster.starts_with(FRESH)
}

/// The shop under `up -o json`.
pub(super) struct Shop {
    pub(super) mesh: Mesh,
    running: Value,
    scratch: tempfile::TempDir,
}

impl Shop {
    pub(super) async fn start(options: &[&str]) -> Shop {
        let mesh = Mesh::shop(&[&["-o", "json"], options].concat()).await.expect("the shop is up");
        let running = mesh.running().await.expect("it runs");
        Shop { mesh, running, scratch: tempfile::tempdir().expect("a folder") }
    }

    pub(super) fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn logs(&self) -> PathBuf {
        self.running["logs"].as_str().expect("a folder").into()
    }

    fn state(&self) -> PathBuf {
        self.logs().parent().expect("the state directory").to_path_buf()
    }

    /// The files of the authority.
    pub(super) fn authority(&self) -> PathBuf {
        self.state().join("ca")
    }

    /// Where a replica's sidecar listens.
    pub(super) fn sidecar(&self, replica: &str) -> SocketAddr {
        let mut rows = self.running["replicas"].as_array().expect("replicas").iter();
        let row = rows.find(|row| row["workload"] == replica).expect("the replica");
        row["address"].as_str().expect("text").parse().expect("an address")
    }

    /// The proxies by name, with their admin interfaces.
    fn proxies(&self) -> Vec<(String, SocketAddr)> {
        let bootstraps = std::fs::read_dir(self.state().join("bootstrap")).expect("bootstraps");
        let proxy = |path: &Path| {
            let text = std::fs::read_to_string(path).expect("a bootstrap");
            let bootstrap: Value = serde_json::from_str(&text).expect("JSON");
            let admin = &bootstrap["admin"]["address"]["socket_address"];
            let ip = admin["address"].as_str().expect("an address").parse().expect("an address");
            let port = admin["port_value"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, SocketAddr::new(ip, port))
        };
        bootstraps.map(|entry| proxy(&entry.expect("an entry").path())).collect()
    }

    /// The sum of a counter over the hosts of all clusters that are wanted, over all proxies.
    async fn sum(&self, counter: &str, is_wanted: fn(&str) -> bool) -> u64 {
        let mut sum = 0;
        for (name, admin) in self.proxies() {
            let answer = client::get(admin, "admin", "/clusters").await;
            let answer = answer.unwrap_or_else(|e| panic!("{name}: {e:#}"));
            let text = String::from_utf8_lossy(answer.body()).into_owned();
            for line in text.lines() {
                let mut parts = line.split("::");
                let (cluster, key, value) = (parts.next(), parts.nth(1), parts.next());
                if key == Some(counter) && cluster.is_some_and(is_wanted) {
                    sum += value.and_then(|value| value.parse::<u64>().ok()).expect("a number");
                }
            }
        }
        sum
    }

    /// Connections to other sidecars that were made and are closed again, but those that are meant to be.
    pub(super) async fn closed(&self) -> u64 {
        self.sum("cx_total", lasts).await - self.sum("cx_active", lasts).await
    }

    /// Connections to other sidecars that came to nothing, also because of their handshake.
    pub(super) async fn refused(&self) -> u64 {
        self.sum("cx_connect_fail", |cluster| cluster.starts_with("outbound|")).await
    }

    /// Every request to product-info gets a connection of its own, so that each is a handshake.
    pub(super) async fn shake_hands_for_each_request_to_product_info(&self) {
        let rule = "  host: product-info\n  trafficPolicy:\n";
        let limit = "    connectionPool: {http: {maxRequestsPerConnection: 1}}\n";
        self.mesh.edit("traffic.yaml", rule, &format!("{rule}{limit}")).expect("edited");
        let in_force = until("connections close after one request", DEADLINE, async || {
            self.mesh.served(2).await.expect("200");
            // Without the rule, connections stay open after their request.
            (self.sum("cx_active", |cluster| cluster.starts_with(FRESH)).await == 0).then_some(())
        });
        in_force.await.expect("the rule is in force");
    }

    /// STRICT for all, and in force.
    pub(super) async fn demand_mutual_tls(&self) {
        let policy = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: all}\nspec: {mtls: {mode: STRICT}}\n";
        self.mesh.save("strict.yaml", policy).expect("saved");
        for name in ["product-info-v1-0", "frontend-v1-0"] {
            let refused = until("plaintext is refused", DEADLINE, async || {
                client::get(self.sidecar(name), "x", "/").await.is_err().then_some(())
            });
            refused.await.expect("STRICT is in force");
        }
    }

    /// Waits until a second has passed without a new connection: every pool has what it needs.
    pub(super) async fn until_warm(&self) {
        let mut last = (0, std::time::Instant::now());
        let warm = until("pools are warm", DEADLINE, async || {
            let now = self.sum("cx_total", lasts).await;
            if now != last.0 {
                last = (now, std::time::Instant::now());
            }
            (last.1.elapsed() > Duration::from_secs(1)).then_some(())
        });
        warm.await.expect("the pools are warm");
    }

    /// How many certificates each proxy has got at least.
    pub(super) fn rotations(&self) -> u64 {
        let of_proxy = |name: &str| {
            let log = std::fs::read_to_string(self.logs().join(name).join("proxy.log")).unwrap_or_default();
            log.matches("certificate received").count() as u64
        };
        self.proxies().iter().map(|(name, _)| of_proxy(name)).min().unwrap_or_default()
    }

    /// What all proxies hold.
    pub(super) fn resident_kib(&self) -> u64 {
        let of = |pid: i32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?.to_owned();
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        let proxies = self.mesh.members_with(&[" proxy --identity"]);
        proxies.into_iter().filter_map(|member| of(member.pid)).sum()
    }

    /// Kills the control plane and keeps it down: it does not start without its configuration, whoever tries.
    pub(super) fn end_control_plane(&self) -> End {
        let away = self.scratch("away");
        std::fs::rename(&self.mesh.dir, &away).expect("renamed");
        for member in self.mesh.members_with(&[" control-plane "]) {
            // It may have ended by itself.
            let _gone = kill_process(Pid::from_raw(member.pid).expect("a pid is positive"), Signal::KILL);
        }
        End { away, dir: self.mesh.dir.clone() }
    }

    /// A certificate of the frontend's identity, by the root that signs now.
    pub(super) fn issue(&self, name: &str) -> PathBuf {
        let out = self.scratch(name);
        let mut issue = Command::new(peers::meltemi());
        issue.args([
            "cert",
            "issue",
            "--identity",
            "spiffe://cluster.local/ns/default/sa/frontend",
            "--ttl",
            "10m",
        ]);
        issue.arg("--ca-directory").arg(self.authority()).arg("--out").arg(&out);
        let output = issue.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        out
    }
}

/// A control plane that is kept down.
#[must_use]
pub(super) struct End {
    away: PathBuf,
    dir: PathBuf,
}

impl End {
    /// Lets it start again.
    pub(super) fn undo(self) {
        std::fs::rename(&self.away, &self.dir).expect("renamed");
    }
}

/// Whether a caller with the certificate in this folder is served, as a sidecar would call.
pub(super) fn caller(sidecar: SocketAddr, certificate: &Path) -> bool {
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-alpn", "istio", "-servername", "outbound_.8080_._.x"])
        .args(["-connect", &sidecar.to_string()])
        .arg("-cert")
        .arg(certificate.join("cert-chain.pem"))
        .arg("-key")
        .arg(certificate.join("key.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let mut stdin = client.stdin.take().expect("it is piped");
    // A server that does not believe the certificate hangs up before.
    let _cut = stdin.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let output = client.wait_with_output().expect("openssl ends");
    drop(stdin);
    String::from_utf8_lossy(&output.stdout).contains("HTTP/1.1 200")
}
