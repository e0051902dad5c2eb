//! `meltemi diff`: what would change for which proxies, before it is in force. The comparison itself is `explain`'s.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use meltemi_explain::diff::{Difference, Proxy, compare};
use meltemi_local::Imagination;
use meltemi_snapshot::{Inputs, Snapshot};
use serde_json::json;

use crate::control_plane::{ControlPlane, MeshArgs};
use crate::mesh::{Mesh, Node};
use crate::output::{Format, Outcome, conclude, counted, print};

/// Say what would change for which proxies from one configuration to another.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Say what would change for which proxies from one configuration to another, in plain words.\n\n\
        Both are translated for every proxy, as the control plane does it, and compared resource by resource. Of a folder \
        the proxies are those that `meltemi up` would run, of a running mesh those that are connected. What is told is all \
        that changes: where no words fit, fields are named.",
    after_help = "Examples:\n  \
        meltemi diff before/ after/                    two folders, for a review or in CI\n  \
        meltemi diff examples/shop                     the folder against what runs\n  \
        meltemi diff before/ after/ --resources        and which resources of which proxy\n  \
        git stash -q && cp -r mesh /tmp/mesh && git stash pop -q && meltemi diff /tmp/mesh mesh\n\n\
        Exit code: 0 when nothing changes, 1 when something does, 2 when one of them cannot be read or asked."
)]
pub struct DiffArgs {
    /// The folder (or file) before, and the one after; of one alone: what runs is before it
    #[arg(required = true, num_args = 1..=2, value_name = "DIR")]
    pub folders: Vec<PathBuf>,

    /// Name the resources that differ, proxy by proxy
    #[arg(long)]
    pub resources: bool,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,

    /// Which control plane.
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// Compares two configurations. What cannot be read is exit code 2 with a message.
pub fn diff(args: &DiffArgs) -> ExitCode {
    conclude(run(args))
}

/// Both meshes, and who is in only one of them.
struct Sides {
    before: Snapshot,
    after: Snapshot,
    proxies: Vec<Proxy>,
    added: Vec<String>,
    removed: Vec<String>,
}

fn run(args: &DiffArgs) -> anyhow::Result<Outcome> {
    let sides = match args.folders.as_slice() {
        [before, after] => {
            let mut imagination = Imagination::default();
            let before = Mesh::of_folder(before, &mut imagination)?;
            sides(&before, &Mesh::of_folder(after, &mut imagination)?)?
        }
        [after] => {
            let running = Mesh::running(&ControlPlane::find(&args.mesh)?)?;
            let objects = crate::mesh::read(after)?;
            let objects =
                objects.into_iter().filter(|object| object.kind() != meltemi_api::Kind::Secret).collect();
            // Processes follow the files by themselves; what is compared is what the files say about those that run.
            let after =
                Mesh { objects, of_machine: running.of_machine.clone(), proxies: running.proxies.clone() };
            sides(&running, &after)?
        }
        _ => return Err(anyhow!("one folder or two")),
    };
    let difference = compare(&sides.before, &sides.after, &sides.proxies);
    let value = json!({
        "statements": difference.statements,
        "proxies": difference.proxies,
        "compared": difference.compared,
        "addedProxies": sides.added,
        "removedProxies": sides.removed,
    });
    print(args.output, &value, || text(&sides, &difference, args.resources))?;
    let is_same = difference.proxies.is_empty() && sides.added.is_empty() && sides.removed.is_empty();
    Ok(if is_same { Outcome::Fine } else { Outcome::Finding })
}

fn sides(before: &Mesh, after: &Mesh) -> anyhow::Result<Sides> {
    let names = |mesh: &Mesh| mesh.proxies.iter().map(|proxy| proxy.name.clone()).collect::<BTreeSet<_>>();
    let (old, new) = (names(before), names(after));
    let common = after.proxies.iter().filter(|proxy| old.contains(&proxy.name));
    let nodes = common.map(|proxy: &Node| (proxy.name.as_str(), &proxy.node, proxy.is_authenticated));
    let proxies = Proxy::of_nodes(nodes).map_err(anyhow::Error::msg)?;
    let build = |mesh: &Mesh| Snapshot::build(&Inputs { objects: mesh.all() }).0;
    Ok(Sides {
        before: build(before),
        after: build(after),
        proxies,
        added: new.difference(&old).cloned().collect(),
        removed: old.difference(&new).cloned().collect(),
    })
}

fn text(sides: &Sides, difference: &Difference, with_resources: bool) -> String {
    let mut lines = Vec::new();
    for (proxies, verb) in [(&sides.added, "comes"), (&sides.removed, "goes")] {
        lines.extend(proxies.iter().map(|proxy| format!("the proxy {proxy} {verb}")));
    }
    for statement in &difference.statements {
        let by = statement.by.as_ref().map(|by| format!("\n  by {by}")).unwrap_or_default();
        lines.push(format!("{}{by}", statement.text));
    }
    let compared = counted(difference.compared, "proxy").replace("proxys", "proxies");
    match lines.is_empty() {
        true => lines.push(format!("nothing changes for {compared}")),
        false => lines.push(format!("nothing else changes ({compared} compared)")),
    }
    if with_resources {
        for proxy in &difference.proxies {
            lines.push(format!("\n{}:", proxy.proxy));
            lines.extend(proxy.resources.iter().map(|resource| {
                let change = json!(resource.change);
                format!("  {} {} {}", change.as_str().unwrap_or_default(), resource.kind, resource.name)
            }));
        }
    }
    lines.join("\n") + "\n"
}
