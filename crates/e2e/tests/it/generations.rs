//! Generations of the shop: an earlier one is served again under load and nobody notices, a restart of the control plane
//! goes on with it, and the next edit ends it. With `--atomic` nothing of a folder with an error is in force.

use std::process::Command;
use std::time::Duration;

use meltemi_e2e::mesh::Mesh;
use meltemi_e2e::peers;
use meltemi_e2e::process::until;
use rustix::process::{Pid, Signal};
use serde_json::Value;

/// Far longer than it takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a command on the mesh; its exit code and what it printed.
fn run(mesh: &Mesh, arguments: &[&str]) -> (Option<i32>, String) {
    let address = control_plane(mesh);
    let output = Command::new(peers::meltemi()).args(arguments).args(["--control-plane", &address]).output();
    let output = output.expect("it runs");
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&told).into_owned())
}

/// Where the admin interface of its control plane is, as its command line says.
fn control_plane(mesh: &Mesh) -> String {
    let members = mesh.members_with(&["control-plane", "--admin-address="]);
    let words = members.first().expect("a control plane").command.clone();
    let flag = words.split(' ').find_map(|word| word.strip_prefix("--admin-address="));
    flag.expect("an address").to_owned()
}

/// The generations that are kept, oldest first, and the one that is served instead of the files.
fn generations(mesh: &Mesh) -> Option<(Vec<Value>, Option<u64>)> {
    let (code, text) = run(mesh, &["rollback", "-o", "json"]);
    let overview: Value = (code == Some(0)).then(|| serde_json::from_str(&text).ok()).flatten()?;
    Some((overview["generations"].as_array()?.clone(), overview["serves"].as_u64()))
}

async fn gets(mesh: &Mesh, user: &str, version: &str) {
    let routed = until("the user gets the version", DEADLINE, async || {
        mesh.versions(Some(user)).await.ok().filter(|versions| versions.contains(version))
    });
    routed.await.unwrap_or_else(|error| panic!("{user} {version}: {error}\n{}", mesh.up.output()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_generation_is_served_without_a_failed_request() {
    let mesh = Mesh::shop(&[]).await.expect("the shop is up");
    let load = mesh.load(50, Duration::from_secs(8)).expect("load runs");
    mesh.edit("traffic.yaml", "exact: jason", "exact: maria").expect("edited");
    gets(&mesh, "maria", "recommendation@v3").await;
    let (kept, _) = generations(&mesh).expect("a list");
    assert_eq!(kept.len(), 2, "{kept:?}");
    let changed = kept[1]["changed"].as_array().expect("a list");
    assert!(
        changed.iter().all(|name| name.as_str().is_some_and(|name| name.starts_with("VirtualService"))),
        "{kept:?}"
    );
    assert!(kept[1]["author"].is_string() && kept[1]["time"].is_string(), "{kept:?}");

    let first = kept[0]["generation"].as_u64().expect("a number");
    let (code, told) = run(&mesh, &["rollback", &first.to_string()]);
    assert_eq!(code, Some(0), "{told}");
    gets(&mesh, "jason", "recommendation@v3").await;

    let members = mesh.members_with(&["control-plane"]);
    let killed = members.first().expect("a control plane").pid;
    rustix::process::kill_process(Pid::from_raw(killed).expect("positive"), Signal::KILL).expect("it runs");
    let again = until("the new control plane goes on with it", DEADLINE, async || {
        let is_new = mesh.members_with(&["control-plane"]).first().is_some_and(|member| member.pid != killed);
        is_new.then(|| generations(&mesh)).flatten().filter(|(_, serves)| *serves == Some(first))
    });
    again.await.unwrap_or_else(|error| panic!("{error}\n{}", mesh.up.output()));
    gets(&mesh, "jason", "recommendation@v3").await;

    mesh.edit("traffic.yaml", "exact: maria", "exact: petra").expect("edited");
    gets(&mesh, "petra", "recommendation@v3").await;
    let (kept, serves) = generations(&mesh).expect("a list");
    assert_eq!((kept.len(), serves), (3, None), "{kept:?}");
    let report = load.report().await.expect("a report");
    assert_eq!(report.failed(), 0, "{report:?}");
    let (code, told) = run(&mesh, &["rollback", "999"]);
    assert!(code == Some(2) && told.contains("is not kept"), "{code:?} {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_atomic_mesh_takes_a_folder_whole_or_not_at_all() {
    let mesh = Mesh::shop(&["--atomic"]).await.expect("the shop is up");
    let good = mesh.text("traffic.yaml").expect("its text");
    mesh.save("broken.yaml", "kind: {").expect("saved");
    let refused =
        until("the folder is refused", DEADLINE, async || mesh.up.output().contains("refused").then_some(()));
    refused.await.unwrap_or_else(|error| panic!("{error}\n{}", mesh.up.output()));
    mesh.save("traffic.yaml", &good.replace("exact: jason", "exact: maria")).expect("saved");
    let held = until("the edit is held back", DEADLINE, async || {
        (run(&mesh, &["rollback"]).0 == Some(1)).then_some(())
    });
    held.await.unwrap_or_else(|error| panic!("{error}\n{}", mesh.up.output()));
    gets(&mesh, "jason", "recommendation@v3").await;
    // Programs are not touched either: `up` looks at the files twice a second.
    let frontend = mesh.text("frontend.yaml").expect("its text");
    mesh.save("frontend.yaml", &frontend.replacen("replicas: 2", "replicas: 3", 1)).expect("saved");
    let third = async || (mesh.members_with(&["echo", "--service=frontend"]).len() == 3).then_some(());
    assert!(until("a third replica", Duration::from_secs(3), third).await.is_err(), "{}", mesh.up.output());

    std::fs::remove_file(mesh.dir.join("broken.yaml")).expect("removed");
    gets(&mesh, "maria", "recommendation@v3").await;
    until("the third replica", DEADLINE, third).await.expect("it runs");
    assert_eq!(run(&mesh, &["rollback"]).0, Some(0));
}
