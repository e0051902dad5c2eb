//! The tests, run one after another by a small harness: the standard one would take the roles' command lines for its
//! own.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "a_mesh_starts_follows_its_manifests_and_stops_clean",
        a_mesh_starts_follows_its_manifests_and_stops_clean,
    ),
    (
        "a_pod_template_that_does_not_work_stops_at_its_first_replica",
        a_pod_template_that_does_not_work_stops_at_its_first_replica,
    ),
    ("readiness_reaches_the_control_plane", readiness_reaches_the_control_plane),
    ("whatever_crashes_comes_back", whatever_crashes_comes_back),
    ("nothing_is_left_after_sigkill", nothing_is_left_after_sigkill),
    (
        "two_meshes_run_side_by_side_but_not_on_one_directory",
        two_meshes_run_side_by_side_but_not_on_one_directory,
    ),
    ("a_gateway_port_in_use_is_refused_with_its_field", a_gateway_port_in_use_is_refused_with_its_field),
];

pub(crate) fn list() -> ExitCode {
    TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
    ExitCode::SUCCESS
}

pub(crate) fn run(filter: Option<&str>) -> ExitCode {
    let mut failed = Vec::new();
    for (name, test) in TESTS.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter))) {
        let outcome = catch_unwind(AssertUnwindSafe(test));
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        if outcome.is_err() {
            failed.push(name);
        }
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A running `up` and what it says.
struct Up {
    process: Child,
    events: Receiver<Value>,
    directory: tempfile::TempDir,
    /// Every process that it has told of.
    pids: BTreeSet<i32>,
}

fn manifest(replicas: u32, port: u16, argument: &str) -> String {
    let executable = std::env::current_exe().unwrap();
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: shop}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: shop}}}}
  template:
    metadata: {{labels: {{app: shop}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: shop
        command: ['{}', program, '{argument}']
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1, failureThreshold: 1}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: door}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - port: {{number: {port}, name: http, protocol: HTTP}}
    hosts: ['*']
",
        executable.display()
    )
}

/// A port that is free now and, with luck, for the length of a test; nobody listens on it here anyway.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn command(directory: &Path, state: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("up").arg(directory).arg("--state-dir").arg(state).args(["-o", "json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

impl Up {
    fn start(replicas: u32) -> Up {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("manifests")).unwrap();
        fs::write(directory.path().join("manifests/shop.yaml"), manifest(replicas, free_port(), "")).unwrap();
        let mut process =
            command(&directory.path().join("manifests"), &directory.path().join("state")).spawn().unwrap();
        let (sender, events) = channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).expect("one JSON object per line");
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Up { process, events, directory, pids: BTreeSet::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn next(&mut self, deadline: Instant) -> Value {
        match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(event) => {
                self.pids.extend(event["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()));
                event
            }
            Err(RecvTimeoutError::Timeout) => panic!("up said nothing in time"),
            Err(RecvTimeoutError::Disconnected) => panic!("up is gone"),
        }
    }

    /// Waits for an event of this kind about this process, instance or anything.
    fn until(&mut self, kind: &str, about: &str) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let event = self.next(deadline);
            let is_about = about.is_empty() || event["unit"] == about || event["instance"] == about;
            if event["event"] == kind && is_about {
                return event;
            }
        }
    }

    fn pid_of(running: &Value, instance: &str) -> i32 {
        let rows = running["replicas"].as_array().unwrap();
        let row = rows.iter().find(|row| row["workload"] == instance).unwrap();
        row["pid"].as_i64().unwrap().try_into().unwrap()
    }

    fn workloads(&self) -> String {
        fs::read_to_string(self.path("state/workloads.yaml")).unwrap()
    }

    /// Waits until the file of replicas says how many are healthy.
    fn until_healthy(&self, count: usize) {
        eventually(&format!("{count} healthy"), || self.workloads().matches("\"True\"").count() == count);
    }

    fn signal(&self, signal: Signal) {
        kill(i32::try_from(self.process.id()).unwrap(), signal);
    }

    /// Waits for its end, and for the end of everything it ever started.
    fn end(&mut self) -> ExitStatus {
        let status = self.process.wait().unwrap();
        let (path, pids) = (self.directory.path().to_owned(), self.pids.clone());
        eventually("no process is left", || {
            pids.iter().all(|pid| !is_alive(*pid)) && processes_in(&path).is_empty()
        });
        status
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // For a test that failed half-way; its reaper does the rest.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}

/// Processes that work in this directory: programs and what they leave behind.
fn processes_in(directory: &Path) -> Vec<i32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
        })
        .collect()
}

fn a_mesh_starts_follows_its_manifests_and_stops_clean() {
    let mut up = Up::start(2);
    up.until("control-plane", "");
    let running = up.until("running", "");
    assert_eq!(running["replicas"].as_array().unwrap().len(), 2);
    assert!(running["replicas"].as_array().unwrap().iter().all(|row| row["ready"] == true));
    assert_eq!(running["gateways"][0]["workload"], "door-0");
    up.until_healthy(2);

    let manifests = up.path("manifests/shop.yaml");
    let text = fs::read_to_string(&manifests).unwrap();
    fs::write(&manifests, text.replace("replicas: 2", "replicas: 3")).unwrap();
    up.until("ready", "shop-2");
    up.until_healthy(3);

    fs::write(&manifests, text.replace("replicas: 2", "replicas: 1")).unwrap();
    up.until("removed", "");
    up.until("removed", "");
    assert_eq!(up.workloads().matches("WorkloadEntry").count(), 1);

    fs::write(
        &manifests,
        text.replace("replicas: 2", "replicas: 1").replace("program, ''", "program, 'new'"),
    )
    .unwrap();
    up.until("restarting", "shop-0");
    let started = up.until("started", "shop-0/app");
    up.until("ready", "shop-0");
    let command = fs::read_to_string(format!("/proc/{}/cmdline", started["pid"])).unwrap();
    assert!(command.contains("\0new\0"), "{command:?}");

    up.signal(Signal::TERM);
    up.until("stopped", "");
    assert_eq!(up.end().code(), Some(0));
    let log = fs::read_to_string(up.path("state/logs/shop-0/app.log")).unwrap();
    assert!(log.starts_with("shop-0 answers\n"), "{log}");
}

fn a_pod_template_that_does_not_work_stops_at_its_first_replica() {
    let mut up = Up::start(2);
    let before = Up::pid_of(&up.until("running", ""), "shop-1");
    let manifests = up.path("manifests/shop.yaml");
    let text = fs::read_to_string(&manifests).unwrap();
    fs::write(&manifests, text.replace("program, ''", "program, crash")).unwrap();
    up.until("restarting", "shop-0");
    // Several crashes later the other replica still works as it did.
    for _ in 0..3 {
        up.until("ended", "shop-0/app");
    }
    assert!(is_alive(before));
    up.until_healthy(1);

    fs::write(&manifests, text.replace("program, ''", "program, fixed")).unwrap();
    up.until("ready", "shop-0");
    up.until("restarting", "shop-1");
    up.until("ready", "shop-1");
    up.until_healthy(2);
    assert!(!is_alive(before));
    up.signal(Signal::TERM);
    assert_eq!(up.end().code(), Some(0));
}

fn readiness_reaches_the_control_plane() {
    let mut up = Up::start(1);
    up.until("running", "");
    up.until_healthy(1);
    fs::write(up.path("manifests/sick"), "").unwrap();
    let event = up.until("not-ready", "shop-0");
    assert_eq!(event["why"], "status 503");
    up.until_healthy(0);
    fs::remove_file(up.path("manifests/sick")).unwrap();
    up.until("ready", "shop-0");
    up.until_healthy(1);
    up.signal(Signal::INT);
    assert_eq!(up.end().code(), Some(0));
}

fn whatever_crashes_comes_back() {
    let mut up = Up::start(1);
    let running = up.until("running", "");
    kill(Up::pid_of(&running, "shop-0"), Signal::KILL);
    let ended = up.until("ended", "shop-0/app");
    assert_eq!((ended["why"].as_str(), ended["restarts"].as_u64()), (Some("killed by signal 9"), Some(1)));
    up.until("ready", "shop-0");

    let gateway = running["gateways"][0]["pid"].as_i64().unwrap();
    kill(i32::try_from(gateway).unwrap(), Signal::KILL);
    up.until("ended", "door-0/proxy");
    up.until("ready", "door-0");
    up.signal(Signal::HUP);
    assert_eq!(up.end().code(), Some(0));
}

fn nothing_is_left_after_sigkill() {
    let mut up = Up::start(2);
    up.until("running", "");
    assert!(up.pids.len() >= 6, "control plane, gateway, two programs, two sidecars: {:?}", up.pids);
    let programs = processes_in(up.directory.path()).len();
    assert!(programs >= 4, "two programs and their stray children");
    up.signal(Signal::KILL);
    assert_eq!(up.end().code(), None);
}

fn two_meshes_run_side_by_side_but_not_on_one_directory() {
    let (mut first, mut second) = (Up::start(1), Up::start(1));
    let addresses = [first.until("running", ""), second.until("running", "")]
        .map(|running| running["control_plane"].clone());
    assert_ne!(addresses[0], addresses[1]);

    let mut third = command(&first.path("manifests"), &first.path("state"));
    let refusal = third.stderr(Stdio::piped()).output().unwrap();
    assert!(!refusal.status.success());
    let text = String::from_utf8(refusal.stderr).unwrap();
    assert!(
        text.contains(&format!("already runs from this directory (process {})", first.process.id())),
        "{text}"
    );

    for up in [&mut first, &mut second] {
        up.signal(Signal::TERM);
        assert_eq!(up.end().code(), Some(0));
    }
}

fn a_gateway_port_in_use_is_refused_with_its_field() {
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let text = manifest(1, squatter.local_addr().unwrap().port(), "");
    fs::write(directory.path().join("shop.yaml"), text).unwrap();
    let state = tempfile::tempdir().unwrap();
    let mut up = command(directory.path(), state.path()).spawn().unwrap();
    let mut output = String::new();
    up.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(1));
    assert!(output.contains("MEL0407") && output.contains("number:"), "{output}");
}
