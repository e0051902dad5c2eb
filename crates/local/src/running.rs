//! The proxies of meshes that run, for commands that look at one by its name. Read from the state directories: the mesh is
//! not asked, so that this works when it is in trouble. Leaves out whether a proxy answers.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::process::{Pid, test_kill_process};
use serde::Deserialize;
use serde_json::Value;

use crate::state::{BOOTSTRAPS, LOCK, MESH, state_home};

/// The sidecar or gateway of a running mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningProxy {
    /// Its instance: `frontend-v1-0`, outside of the namespace `default` with that behind a dot.
    pub name: String,
    /// Its admin interface.
    pub admin: SocketAddr,
    /// The state directory of its mesh.
    pub state_dir: PathBuf,
}

/// A mesh that runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunningMesh {
    /// The manifests that it runs.
    pub directory: PathBuf,
    /// The admin interface of its control plane.
    pub control_plane: SocketAddr,
    /// Its state directory.
    #[serde(skip)]
    pub state_dir: PathBuf,
}

/// The mesh with this state directory, or all meshes of this user.
///
/// # Errors
/// If a directory cannot be read, or no mesh runs from the one that is named.
pub fn running_meshes(state_dir: Option<&Path>) -> anyhow::Result<Vec<RunningMesh>> {
    let meshes = running(state_dir)?.into_iter().map(|directory| {
        let path = directory.join(MESH);
        let shown = path.display();
        let text = fs::read(&path).with_context(|| format!("read {shown}"))?;
        let mesh: RunningMesh = serde_json::from_slice(&text).with_context(|| format!("read {shown}"))?;
        Ok(RunningMesh { state_dir: directory, ..mesh })
    });
    meshes.collect()
}

/// The proxies of the mesh with this state directory, or of all meshes of this user, by mesh and name.
///
/// # Errors
/// If a directory cannot be read, or no mesh runs from the one that is named.
pub fn running_proxies(state_dir: Option<&Path>) -> anyhow::Result<Vec<RunningProxy>> {
    let mut proxies = Vec::new();
    for directory in running(state_dir)? {
        proxies.extend(proxies_of(&directory)?);
    }
    Ok(proxies)
}

/// The state directories of meshes that run.
fn running(state_dir: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    if let Some(directory) = state_dir {
        anyhow::ensure!(
            is_running(directory),
            "no mesh runs from the state directory {}",
            directory.display()
        );
        return Ok(vec![directory.to_owned()]);
    }
    Ok(entries(&state_home()?)?.into_iter().filter(|directory| is_running(directory)).collect())
}

/// Whether the `up` that wrote its number into the lock still lives. The lock itself is not tried, because that could keep
/// an `up` from starting.
fn is_running(directory: &Path) -> bool {
    let text = fs::read_to_string(directory.join(LOCK)).unwrap_or_default();
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid).is_ok())
}

fn proxies_of(directory: &Path) -> anyhow::Result<Vec<RunningProxy>> {
    let mut proxies = Vec::new();
    for path in entries(&directory.join(BOOTSTRAPS))? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")) else {
            continue;
        };
        let shown = path.display();
        let text = fs::read(&path).with_context(|| format!("read {shown}"))?;
        let bootstrap: Value = serde_json::from_slice(&text).with_context(|| format!("read {shown}"))?;
        let admin = admin(&bootstrap).with_context(|| format!("{shown} names no admin address"))?;
        proxies.push(RunningProxy { name: name.to_owned(), admin, state_dir: directory.to_owned() });
    }
    Ok(proxies)
}

fn admin(bootstrap: &Value) -> Option<SocketAddr> {
    let address = &bootstrap["admin"]["address"]["socket_address"];
    let port = u16::try_from(address["port_value"].as_u64()?).ok()?;
    Some(SocketAddr::new(address["address"].as_str()?.parse().ok()?, port))
}

/// What is in a directory, in order; nothing if it does not exist.
fn entries(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = || -> io::Result<Vec<PathBuf>> {
        let mut paths: Vec<PathBuf> = fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        paths.sort();
        Ok(paths)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        paths => paths.with_context(|| format!("read {}", directory.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateDir;

    #[test]
    fn the_proxies_of_a_running_mesh_are_found_by_their_bootstraps() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("state");
        let state = StateDir::open(root.clone()).unwrap();
        let address = serde_json::json!({"socket_address": {"address": "127.7.7.2", "port_value": 15000}});
        let bootstrap = serde_json::json!({"admin": {"address": address}}).to_string();
        fs::write(state.bootstrap_file("cart-0.shop"), bootstrap).unwrap();
        let found = running_proxies(Some(&root)).unwrap();
        let admin = "127.7.7.2:15000".parse().unwrap();
        assert_eq!(found, [RunningProxy { name: "cart-0.shop".into(), admin, state_dir: root.clone() }]);
        state.tell(Path::new("/shop"), "127.7.7.1:15014".parse().unwrap()).unwrap();
        let meshes = running_meshes(Some(&root)).unwrap();
        assert_eq!(
            (meshes[0].directory.as_path(), meshes[0].control_plane.port()),
            (Path::new("/shop"), 15014)
        );
        fs::write(root.join(LOCK), "").unwrap();
        let refusal = running_proxies(Some(&root)).unwrap_err().to_string();
        assert!(refusal.contains("no mesh runs"), "{refusal}");
    }
}
