//! `meltemi up` from its command line to a running mesh: everything that can be refused is refused here, before the
//! first process starts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use meltemi_agent::Protocol;
use meltemi_api::istio::MeshConfig;
use meltemi_api::{Diagnostic, Object, Severity};
use meltemi_identity::TrustDomain;
use meltemi_runtime::logging::Level;

use crate::args::UpArgs;
use crate::block::Block;
use crate::manifests::Manifests;
use crate::mesh::{self, Setup};
use crate::plan::{Memory, Plan, Surroundings, plan};
use crate::preflight::{self, GatewayPorts};
use crate::programs::Programs;
use crate::state::{StateDir, default_root, directory_hash};
use crate::terminal::{Happening, Terminal};

/// The trust domain of a mesh whose MeshConfig says none. Istio's default.
const TRUST_DOMAIN: &str = "cluster.local";

/// Runs the mesh of a directory until Ctrl-C, SIGTERM or SIGHUP; then everything it started has ended, and the exit code
/// is 0. It is 1 when the manifests ask for something that cannot run here.
///
/// Must be called on the main thread, which it blocks.
///
/// # Errors
/// If the directory cannot be read or is in use by another mesh, no loopback block is free, or a process of the mesh
/// itself cannot be started.
pub fn up(args: UpArgs) -> anyhow::Result<ExitCode> {
    let root =
        args.directory.canonicalize().with_context(|| format!("cannot read {}", args.directory.display()))?;
    // Warnings of `up` itself; a host program may have its own logging.
    let _ = meltemi_runtime::logging::init(Level::Warning);
    let terminal = Terminal::new(args.output);
    let mut manifests = Manifests::new(root.clone());
    manifests.refresh().with_context(|| format!("reading {}", root.display()))?;
    let objects = manifests.objects();
    if objects.is_empty() {
        let root = root.display();
        match manifests.is_empty() {
            true => bail!("{root} holds no manifest (*.yaml, *.yml, *.json)"),
            false => bail!("{root} holds no sound object; `meltemi validate {root}` shows what is wrong"),
        }
    }
    let state = StateDir::open(args.state_dir.clone().map_or_else(|| default_root(&root), Ok)?)?;
    let block = Block::claim(directory_hash(&root)).context("claiming addresses")?;
    let mut memory = Memory::new(block.control_plane(), block.first_port());
    let (plan, mut findings) = plan(&objects, &mut memory);
    findings.extend(preflight::sidecar_ports(&plan, &objects));
    let mut gateway_ports = GatewayPorts::new(args.bind);
    let refusals = gateway_ports.claim(&plan, &objects);
    tell(&terminal, &manifests, &findings);
    tell(&terminal, &manifests, &refusals);
    if !refusals.is_empty() {
        // A Deployment that cannot run leaves the others useful; a mesh that cannot be entered is a mistake.
        return Ok(ExitCode::FAILURE);
    }
    if plan == Plan::default() {
        bail!(
            "{} holds no Deployment that can run here and no Gateway: there is nothing to do",
            root.display()
        );
    }
    let mut programs = programs(&args, &root, &state, &block, terminal.color())?;
    programs.trust_domain = trust_domain(&objects)?;
    state.tell(&root, programs.control_admin()).context("writing where the control plane is")?;
    let setup = Setup {
        programs,
        state,
        manifests,
        memory,
        plan,
        gateway_ports,
        terminal,
        wait_ready: args.wait_ready_timeout,
    };
    // One thread, this one: the kernel ends the children when the thread that started them ends.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(mesh::run(setup));
    drop(block);
    code
}

/// Notes of the same kind are told once for all objects.
fn tell(terminal: &Terminal, manifests: &Manifests, findings: &[Diagnostic]) {
    for finding in findings.iter().filter(|finding| finding.severity > Severity::Info) {
        terminal.tell(&Happening::Finding { text: manifests.render(finding, terminal.color()) });
    }
    let images =
        findings.iter().filter(|finding| finding.code == meltemi_api::codes::IMAGE_IGNORED.id).count();
    if images > 0 {
        let text =
            format!("note: images are not used on one machine; {images} Deployments run their `command`");
        terminal.tell(&Happening::Finding { text });
    }
}

fn programs(
    args: &UpArgs,
    root: &Path,
    state: &StateDir,
    block: &Block,
    color: bool,
) -> anyhow::Result<Programs> {
    let executable = std::env::current_exe().context("finding this executable")?;
    let bin = state.bin(&executable)?;
    let path = std::env::var("PATH").unwrap_or_default();
    let directory = if root.is_dir() { root } else { root.parent().unwrap_or(root) };
    Ok(Programs {
        executable,
        manifests: root.to_owned(),
        directory: directory.to_owned(),
        foreign_proxy: args.proxy.as_deref().map(absolute).transpose()?,
        concurrency: args.concurrency,
        log_level: args.log_level.clone(),
        is_atomic: args.atomic,
        keep_generations: args.keep_generations,
        protocol: if args.sotw { Protocol::StateOfTheWorld } else { Protocol::Delta },
        gateway_bind: args.bind,
        control_plane: block.control_plane().into(),
        cert_ttl: args.cert_ttl,
        trust_domain: TRUST_DOMAIN.parse().context("the trust domain")?,
        surroundings: Surroundings { path: format!("{}:{path}", bin.display()) },
        color,
    })
}

/// The trust domain of the identities that are minted, for as long as the mesh runs.
fn trust_domain(objects: &[Arc<Object>]) -> anyhow::Result<TrustDomain> {
    let holders = MeshConfig::candidates(objects);
    let said = holders.first().and_then(|object| MeshConfig::of(object)?.trust_domain.as_deref());
    said.unwrap_or(TRUST_DOMAIN).parse().context("the trust domain")
}

/// Proxies do not run in the directory that the command line is relative to.
fn absolute(binary: &Path) -> anyhow::Result<PathBuf> {
    binary.canonicalize().with_context(|| format!("no proxy at {}", binary.display()))
}
