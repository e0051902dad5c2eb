//! `meltemi describe`: which objects apply to a service or a workload, and what is wrong with them. Leaves out what becomes
//! of one request: that is `explain`'s.
//!
//! Source of the question: `istioctl experimental describe`.

mod applied;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use meltemi_api::{Kind, Object, Severity};
use meltemi_local::Imagination;
use meltemi_snapshot::{Inputs, Snapshot};
use serde::Serialize;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, MeshArgs};
use crate::mesh::{Mesh, cited};
use crate::output::{Format, Outcome, conclude, print};

/// Names that say that a service is meant.
const SERVICE: [&str; 4] = ["service", "svc", "serviceentry", "se"];
/// Names that say that a workload is meant.
const WORKLOAD: [&str; 6] = ["workload", "deployment", "deploy", "pod", "workloadentry", "we"];

/// Say which objects apply to a service or a workload, and what is wrong with them.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Say which objects apply to a service or a workload, and what is wrong with them.\n\n\
        Of a service: its ports with their protocols and endpoints, the DestinationRule and the VirtualServices for it, \
        and the gateways that lead to it. Of a workload (a Deployment, a replica, a WorkloadEntry): its services, what it \
        lets in, and every policy that selects it. Findings about all of those follow.",
    after_help = "Examples:\n  \
        meltemi describe reviews                     a service of the running mesh\n  \
        meltemi describe workload/reviews-v1 -n shop a workload\n  \
        meltemi describe svc/reviews -f examples/shop  of a folder, before it runs\n\n\
        Exit code: 0 when nothing is wrong, 1 when there are findings (warnings or errors), 2 when there is no such\n\
        service or workload, or the control plane cannot be asked."
)]
pub struct DescribeArgs {
    /// A service or a workload: NAME, NAME.NAMESPACE, service/NAME, workload/NAME
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Its namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// Look at the mesh that a folder would make instead of the running one
    #[arg(short, long, value_name = "DIR", conflicts_with_all = ["control_plane", "state_dir"])]
    pub file: Option<PathBuf>,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,

    /// Which control plane.
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// Describes something. What cannot be told is exit code 2 with a message.
pub fn describe(args: &DescribeArgs) -> ExitCode {
    conclude(run(args))
}

/// What is described, and what applies to it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    kind: &'static str,
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    services: Vec<applied::Service>,
    /// Of a workload: what its ports let in.
    mutual_tls: Vec<applied::Port>,
    /// Of a workload: other objects that select it.
    policies: Vec<String>,
    findings: Vec<Value>,
}

fn run(args: &DescribeArgs) -> anyhow::Result<Outcome> {
    let mesh = match &args.file {
        Some(folder) => Mesh::of_folder(folder, &mut Imagination::default())?,
        None => Mesh::running(&ControlPlane::find(&args.mesh)?)?,
    };
    let (snapshot, diagnostics) = Snapshot::build(&Inputs { objects: mesh.all() });
    let mut description = find(args, &mesh.all(), &snapshot)?;
    let related = applied::related(&description, &mesh.all());
    description.findings = diagnostics
        .iter()
        .filter(|finding| finding.object.as_ref().is_some_and(|id| related.contains(id)))
        .map(|finding| {
            let object = finding.object.as_ref().and_then(|id| snapshot.object(id));
            json!({
                "severity": finding.severity,
                "code": finding.code,
                "object": object.map(|object| cited(object)),
                "field": finding.field,
                "message": finding.message,
            })
        })
        .collect();
    let is_fine = !description.findings.iter().any(|finding| finding["severity"] != json!(Severity::Info));
    print(args.output, &json!(description), || text::of(&description))?;
    Ok(if is_fine { Outcome::Fine } else { Outcome::Finding })
}

/// The service or the workload that is meant.
fn find(args: &DescribeArgs, objects: &[Arc<Object>], snapshot: &Snapshot) -> anyhow::Result<Description> {
    let (kind, rest) =
        args.name.split_once('/').map_or((None, args.name.as_str()), |(kind, rest)| (Some(kind), rest));
    let is = |names: &[&str]| kind.is_none_or(|kind| names.contains(&kind.to_ascii_lowercase().as_str()));
    if !is(&SERVICE) && !is(&WORKLOAD) {
        bail!(
            "`{}` is described neither as a service nor as a workload: say service/NAME or workload/NAME",
            args.name
        );
    }
    let (name, namespace) = rest.rsplit_once('.').unwrap_or((rest, &args.namespace));
    if is(&SERVICE)
        && let Some(services) = applied::services_called(snapshot, rest, name, namespace)
    {
        let first = Description {
            kind: "service",
            namespace: namespace.into(),
            name: rest.into(),
            ..Description::default()
        };
        return Ok(Description { services, ..first });
    }
    if is(&WORKLOAD)
        && let Some(labels) = applied::workload_labels(objects, name, namespace)
    {
        let services = applied::services_of(snapshot, &labels, namespace);
        let mutual_tls = applied::lets_in(snapshot, &services, &labels, namespace);
        let policies = applied::policies(objects, snapshot, &labels, namespace);
        return Ok(Description {
            kind: "workload",
            namespace: namespace.into(),
            name: name.into(),
            labels,
            services,
            mutual_tls,
            policies,
            findings: Vec::new(),
        });
    }
    let there = |kind: Kind| {
        let names = objects
            .iter()
            .filter(|object| object.kind() == kind)
            .map(|object| format!("{}.{}", object.id.name, object.id.namespace));
        names.collect::<Vec<_>>().join(", ")
    };
    bail!(
        "there is no service or workload {name} in the namespace {namespace}; services: {}; workloads: {}",
        there(Kind::Service),
        there(Kind::Deployment)
    )
}

#[cfg(test)]
mod tests;
