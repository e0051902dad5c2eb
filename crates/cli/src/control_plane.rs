//! The control plane that a command asks: the one of a running `meltemi up`, or any whose admin interface is named. Leaves
//! out what is asked.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use meltemi_local::{RunningMesh, running_meshes};
use serde_json::Value;

use crate::ask;

/// The port of the admin interface of a control plane, and where `meltemi control-plane` has it unless told otherwise.
const ADMIN_PORT: u16 = 15014;
const DEFAULT: &str = "127.0.0.1";

/// Which control plane.
#[derive(Args, Clone, Debug, Default)]
pub struct MeshArgs {
    /// The admin interface of the control plane; without it that of the running `meltemi up`, else 127.0.0.1:15014
    #[arg(long, value_name = "HOST:PORT")]
    pub control_plane: Option<String>,

    /// The state directory of the mesh, where several run or it has one of its own
    #[arg(long, value_name = "DIR", env = "MELTEMI_STATE_DIR", conflicts_with = "control_plane")]
    pub state_dir: Option<PathBuf>,
}

/// A control plane that may be asked.
#[derive(Debug, Clone)]
pub(crate) struct ControlPlane {
    address: String,
}

impl ControlPlane {
    /// The one that the arguments mean. It is not asked yet.
    ///
    /// # Errors
    /// If several meshes run and none is named, or none runs from the state directory.
    pub(crate) fn find(args: &MeshArgs) -> anyhow::Result<ControlPlane> {
        if let Some(address) = &args.control_plane {
            return Ok(ControlPlane { address: ask::with_port(address, ADMIN_PORT) });
        }
        let address = match choose(&running_meshes(args.state_dir.as_deref())?)? {
            Some(mesh) => mesh.control_plane.to_string(),
            None => format!("{DEFAULT}:{ADMIN_PORT}"),
        };
        Ok(ControlPlane { address })
    }

    /// A page, as JSON.
    ///
    /// # Errors
    /// If it does not answer, or not with JSON.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.read(ask::get(&self.address, path), path)
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// If it does not answer, or refuses.
    pub(crate) fn post(&self, path: &str) -> anyhow::Result<Value> {
        self.read(ask::post(&self.address, path), path)
    }

    fn read(&self, answer: anyhow::Result<Vec<u8>>, path: &str) -> anyhow::Result<Value> {
        let body = answer.context(
            "is it a control plane (`meltemi up` or `meltemi control-plane`)? `--control-plane HOST:PORT` names another",
        )?;
        serde_json::from_slice(&body).with_context(|| format!("{path} of {} is no JSON", self.address))
    }
}

/// The only one; `None` if none runs.
fn choose(meshes: &[RunningMesh]) -> anyhow::Result<Option<&RunningMesh>> {
    match meshes {
        [] => Ok(None),
        [mesh] => Ok(Some(mesh)),
        several => {
            let names = several.iter().map(|mesh| {
                format!("\n  {}: --state-dir {}", mesh.directory.display(), mesh.state_dir.display())
            });
            bail!("several meshes run here; say which one:{}", names.collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_meshes_one_must_be_named() {
        let mesh = |name: &str| RunningMesh {
            directory: format!("/{name}").into(),
            control_plane: "127.1.1.1:15014".parse().unwrap(),
            state_dir: format!("/state/{name}").into(),
        };
        assert_eq!(choose(&[]).unwrap(), None);
        assert_eq!(choose(&[mesh("a")]).unwrap(), Some(&mesh("a")));
        let refusal = choose(&[mesh("a"), mesh("b")]).unwrap_err().to_string();
        assert!(refusal.contains("/a: --state-dir /state/a"), "{refusal}");
    }

    #[test]
    fn a_named_one_is_asked() {
        let args = MeshArgs { control_plane: Some("10.0.0.1".into()), state_dir: None };
        assert_eq!(ControlPlane::find(&args).unwrap().address, "10.0.0.1:15014");
    }
}
