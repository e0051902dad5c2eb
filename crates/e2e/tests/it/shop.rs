//! The example shop under `meltemi up`, as its README promises it.

use std::time::{Duration, Instant};

use meltemi_e2e::client;
use meltemi_e2e::mesh::{Load, Mesh, RECOMMENDATION};
use meltemi_e2e::peers;
use meltemi_e2e::process::until;
use rustix::process::{Pid, Signal};

/// An edit is in force well within this, also where ten debug builds share two cores; how long it took is printed.
const IN_FORCE: Duration = Duration::from_secs(10);

fn kill(pid: i32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid).expect("a pid is positive"), signal).expect("it runs");
}

/// The count of a binomial lies within four standard deviations of its mean: a fair split fails once in 16,000 runs.
/// The three of the promise are tested on 10,000 requests in `static_proxy`.
fn within_4_sigma(count: u64, of: u64, share: f64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
    let (count, of) = (count as f64, of as f64);
    (count - of * share).abs() <= 4.0 * (of * share * (1.0 - share)).sqrt()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shop_splits_routes_by_user_redirects_and_rewrites() {
    let mesh = Mesh::shop(&[]).await.expect("the shop is up");
    let report = mesh.load(100, Duration::from_secs(9)).expect("load runs").report().await.expect("a report");
    assert_eq!(report.failed(), 0, "{report:?}");
    let (v1, v2) = (report.versions_with("recommendation@v1"), report.versions_with("recommendation@v2"));
    assert!(report.completed() >= 700, "{report:?}");
    assert_eq!(v1 + v2, report.completed(), "{report:?}");
    assert!(within_4_sigma(v2, v1 + v2, 0.1), "{report:?}");

    for _ in 0..10 {
        let versions = mesh.versions(Some("jason")).await.expect("200");
        assert!(versions.contains("recommendation@v3"), "{versions}");
        let versions = mesh.versions(Some("beta-anna")).await.expect("200");
        assert!(!versions.contains("recommendation@v1"), "{versions}");
    }
    let moved = client::get(mesh.gateway, "localhost", "/old-shop").await.expect("an answer");
    assert_eq!(moved.status(), 302);
    assert!(moved.headers()["location"].to_str().expect("text").ends_with(RECOMMENDATION), "{moved:?}");
    let rewritten =
        client::get(mesh.gateway, "localhost", "/shop/product-recommendation").await.expect("an answer");
    assert_eq!(rewritten.status(), 200);
    let late = client::get(mesh.gateway, "localhost", &format!("{RECOMMENDATION}?delay=5s")).await;
    assert_eq!(late.expect("an answer").status(), 504, "the route's timeout is two seconds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shop_takes_an_edit_at_once_and_keeps_the_last_good_of_a_broken_one() {
    let mesh = Mesh::shop(&[]).await.expect("the shop is up");
    let load = mesh.load(50, Duration::from_secs(6)).expect("load runs");
    mesh.edit("traffic.yaml", "exact: jason", "exact: maria").expect("edited");
    let saved = Instant::now();
    let routed = until("maria gets v3", IN_FORCE, async || {
        mesh.versions(Some("maria")).await.ok().filter(|versions| versions.contains("recommendation@v3"))
    });
    routed.await.unwrap_or_else(|e| panic!("{e}\n{}", mesh.up.output()));
    eprintln!("the edit was in force after {:?}", saved.elapsed());

    mesh.edit("traffic.yaml", "exact: maria", "exactly: maria").expect("edited");
    let shown = until("the diagnostic is shown", IN_FORCE, async || {
        let output = mesh.up.output();
        (output.contains("exactly") && output.contains("traffic.yaml")).then_some(output)
    });
    let output = shown.await.unwrap_or_else(|e| panic!("{e}\n{}", mesh.up.output()));
    assert!(output.contains("MEL0"), "a code: {output}");
    let versions = mesh.versions(Some("maria")).await.expect("200");
    assert!(versions.contains("recommendation@v3"), "the last good version stays: {versions}");
    let validate = std::process::Command::new(peers::meltemi()).arg("validate").arg(&mesh.dir).output();
    let validate = validate.expect("validate runs");
    assert_eq!(validate.status.code(), Some(1), "{validate:?}");
    assert!(String::from_utf8_lossy(&validate.stdout).contains("exactly"), "{validate:?}");
    let report = load.report().await.expect("a report");
    assert_eq!(report.failed(), 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shop_survives_the_death_of_its_control_plane() {
    let mesh = Mesh::shop(&[]).await.expect("the shop is up");
    let load = mesh.load(50, Duration::from_secs(6)).expect("load runs");
    let control_plane = mesh.members_with(&["control-plane"]);
    assert_eq!(control_plane.len(), 1, "{:?}", mesh.members());
    kill(control_plane[0].pid, Signal::KILL);
    mesh.edit("traffic.yaml", "exact: jason", "exact: maria").expect("edited");
    let routed = until("the change is picked up after the restart", Duration::from_secs(20), async || {
        mesh.versions(Some("maria")).await.ok().filter(|versions| versions.contains("recommendation@v3"))
    });
    routed.await.unwrap_or_else(|e| panic!("{e}\n{}", mesh.up.output()));
    let again = mesh.members_with(&["control-plane"]);
    assert!(again.len() == 1 && again[0].pid != control_plane[0].pid, "{again:?}");
    let report = load.report().await.expect("a report");
    assert_eq!(report.failed(), 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shop_hides_the_death_of_a_replica_and_restarts_it() {
    let mesh = Mesh::shop(&[]).await.expect("the shop is up");
    let load = mesh.load(50, Duration::from_secs(5)).expect("load runs");
    let replicas = mesh.members_with(&["echo", "--service=recommendation", "--version=v1"]);
    assert_eq!(replicas.len(), 2, "{:?}", mesh.members());
    kill(replicas[0].pid, Signal::KILL);
    let restarted = until("the replica is restarted", Duration::from_secs(20), async || {
        let now = mesh.members_with(&["echo", "--service=recommendation", "--version=v1"]);
        (now.len() == 2 && now.iter().all(|m| m.pid != replicas[0].pid)).then_some(())
    });
    restarted.await.unwrap_or_else(|e| panic!("{e}\n{}", mesh.up.output()));
    let report = load.report().await.expect("a report");
    assert_eq!(report.failed(), 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shop_leaves_nothing_behind_when_up_is_killed_or_stopped() {
    for signal in [Signal::KILL, Signal::INT, Signal::TERM] {
        let mut mesh = Mesh::shop(&[]).await.expect("the shop is up");
        assert!(mesh.members().len() > 10, "{:?}", mesh.members());
        mesh.up.signal(signal);
        mesh.up.wait(Duration::from_secs(20)).await.expect("up ends");
        let gone = until("nothing is left", Duration::from_secs(10), async || {
            mesh.members().is_empty().then_some(())
        });
        gone.await.unwrap_or_else(|e| panic!("{signal:?}: {e}: {:?}", mesh.members()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_shops_run_side_by_side() {
    let (one, two) = tokio::join!(Mesh::shop(&[]), Mesh::shop(&[]));
    let (one, two) = (one.expect("the first is up"), two.expect("the second is up"));
    one.edit("traffic.yaml", "exact: jason", "exact: maria").expect("edited");
    let routed = until("maria gets v3 in the first", IN_FORCE, async || {
        one.versions(Some("maria")).await.ok().filter(|versions| versions.contains("recommendation@v3"))
    });
    routed.await.expect("the first has changed");
    let versions = two.versions(Some("jason")).await.expect("200");
    assert!(versions.contains("recommendation@v3"), "the second has not: {versions}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_readiness_probe_takes_a_replica_out() {
    let mesh = Mesh::shop(&[]).await.expect("the shop is up");
    let printed = until("up prints how to fail a probe", Duration::from_secs(20), async || {
        let output = mesh.up.output();
        output.lines().find(|line| line.contains("healthz?fail=true")).map(str::to_owned)
    });
    let line = printed.await.expect("the table is printed once all is ready");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("a URL");
    let request = http::Request::post("/healthz?fail=true").header("host", address).body(bytes::Bytes::new());
    let address = address.parse().expect("an address");
    let answer = client::http1(address, request.expect("a request")).await.expect("the program answers");
    assert!(answer.status().is_success(), "{answer:?}");
    let out = until("up says that the replica is not ready", Duration::from_secs(10), async || {
        mesh.up.output().contains("not ready").then_some(())
    });
    out.await.unwrap_or_else(|e| panic!("{e}\n{}", mesh.up.output()));
    let report = mesh.load(50, Duration::from_secs(2)).expect("load runs").report().await.expect("a report");
    assert_eq!(report.failed(), 0, "{report:?}");
}

/// A stock Envoy is gateway and sidecar under our control plane, and carries the same splits.
async fn shop_on_envoy(mode: &str) {
    let Some(envoy) = peers::envoy() else { return };
    let mesh = Mesh::shop(&["--proxy", &envoy.display().to_string(), mode]).await.expect("the shop is up");
    assert!(mesh.members_with(&["envoy", "-c"]).len() >= 8, "{:?}", mesh.members());
    let report = mesh.load(100, Duration::from_secs(5)).expect("load runs").report().await.expect("a report");
    assert_eq!(report.failed(), 0, "{report:?}");
    let (v1, v2) = (report.versions_with("recommendation@v1"), report.versions_with("recommendation@v2"));
    assert!(report.completed() >= 400, "{report:?}");
    assert!(within_4_sigma(v2, v1 + v2, 0.1), "{report:?}");
    let versions = mesh.versions(Some("jason")).await.expect("200");
    assert!(versions.contains("recommendation@v3"), "{versions}");
    mesh.edit("traffic.yaml", "exact: jason", "exact: maria").expect("edited");
    let routed = until("maria gets v3", IN_FORCE, async || {
        mesh.versions(Some("maria")).await.ok().filter(|versions| versions.contains("recommendation@v3"))
    });
    routed.await.unwrap_or_else(|e| panic!("{e}\n{}", mesh.up.output()));
    let output = mesh.up.output();
    assert!(!output.to_lowercase().contains("rejected"), "Envoy accepts everything: {output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_envoy_carries_the_shop_by_delta() {
    shop_on_envoy("--delta").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_envoy_carries_the_shop_by_state_of_the_world() {
    shop_on_envoy("--sotw").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_reports_what_it_could_not_do() {
    let port = meltemi_e2e::backend::dead_port().expect("a port");
    let load = Load::start(&format!("http://127.0.0.1:{port}/"), 50, Duration::from_millis(500), &[]);
    let report = load.expect("load runs").report().await.expect("a report");
    assert!(report.failed() >= 20 && report.completed() == 0, "{report:?}");
}
