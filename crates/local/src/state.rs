//! The state directory of one mesh: logs, bootstraps, the file of replicas, and the lock that keeps a second
//! `up` off the same directory. Leaves out what the files say.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

/// The directory of bootstraps in a state directory.
pub(crate) const BOOTSTRAPS: &str = "bootstrap";
/// The lock, which holds the number of the process that has it.
pub(crate) const LOCK: &str = "up.lock";

/// The file that says where the control plane is.
pub(crate) const MESH: &str = "mesh.json";

/// An open state directory; the lock is held until it is dropped.
#[derive(Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Opens or creates `root` for this process alone.
    ///
    /// # Errors
    /// If it cannot be created, or another `up` uses it.
    pub(crate) fn open(root: PathBuf) -> anyhow::Result<StateDir> {
        create_private(&root)?;
        for part in [BOOTSTRAPS, "logs", "bin"] {
            create_private(&root.join(part))?;
        }
        let lock = lock(&root.join(LOCK))?;
        Ok(StateDir { root, _lock: lock })
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The file that tells the control plane of replicas and their readiness.
    pub(crate) fn workloads_file(&self) -> PathBuf {
        self.root.join("workloads.yaml")
    }

    /// The bootstrap of one proxy.
    pub(crate) fn bootstrap_file(&self, instance: &str) -> PathBuf {
        self.root.join(BOOTSTRAPS).join(format!("{instance}.json"))
    }

    /// The files of the certificate authority, kept from run to run.
    pub(crate) fn authority(&self) -> PathBuf {
        self.root.join("ca")
    }

    /// The last generations, kept from run to run.
    pub(crate) fn generations(&self) -> PathBuf {
        self.root.join("generations")
    }

    /// Tells commands of the same user where the control plane of this mesh is, and what it reads.
    pub(crate) fn tell(&self, directory: &Path, control_admin: SocketAddr) -> io::Result<()> {
        let mesh = json!({ "directory": directory, "controlPlane": control_admin });
        write_atomically(&self.root.join(MESH), format!("{mesh:#}\n"))
    }

    /// The key of first credentials.
    pub(crate) fn credential_key(&self) -> PathBuf {
        self.root.join("credential-key")
    }

    /// The directory of the sockets beside one proxy. Its name is short, because the path of a socket must be.
    pub(crate) fn sockets(&self, instance: &str) -> PathBuf {
        self.root.join("run").join(format!("{:016x}", xxh3_64(instance.as_bytes())))
    }

    /// The directory of one instance's logs.
    pub(crate) fn logs(&self, instance: &str) -> PathBuf {
        self.root.join("logs").join(instance)
    }

    /// A directory in which `meltemi` is this executable, whatever its file is called; first in the `PATH` of
    /// workloads.
    pub(crate) fn bin(&self, executable: &Path) -> anyhow::Result<PathBuf> {
        let bin = self.root.join("bin");
        let link = bin.join("meltemi");
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("replacing {}", link.display()));
            }
            _ => {}
        }
        symlink(executable, &link).with_context(|| format!("linking {}", link.display()))?;
        Ok(bin)
    }
}

/// The state directory of a mesh that names none: `$XDG_STATE_HOME/meltemi/<hash of DIR>`.
///
/// # Errors
/// If neither `XDG_STATE_HOME` nor `HOME` is an absolute path.
pub(crate) fn default_root(directory: &Path) -> anyhow::Result<PathBuf> {
    Ok(state_home()?.join(format!("{:016x}", directory_hash(directory))))
}

/// Where the state directories of meshes that name none are.
///
/// # Errors
/// If neither `XDG_STATE_HOME` nor `HOME` is an absolute path.
pub(crate) fn state_home() -> anyhow::Result<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    let Some(base) = base else {
        bail!("neither XDG_STATE_HOME nor HOME is set: name a directory with --state-dir");
    };
    Ok(base.join("meltemi"))
}

/// The number that stands for a directory: names its state and chooses where the search for a block starts.
pub(crate) fn directory_hash(directory: &Path) -> u64 {
    xxh3_64(directory.as_os_str().as_encoded_bytes())
}

/// Replaces a file whole: whoever reads it sees the old text or the new one, never a part.
pub(crate) fn write_atomically(path: &Path, text: impl AsRef<[u8]>) -> io::Result<()> {
    let scratch = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&scratch)?;
    file.write_all(text.as_ref())?;
    std::fs::rename(&scratch, path)
}

pub(crate) fn create_private(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("creating {}", path.display()))
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let _ = file.read_to_string(&mut owner);
            bail!(
                "a mesh already runs from this directory (process {}): stop it first, or give this one its own \
                 --state-dir",
                owner.trim()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("locking {}", path.display()));
        }
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_mesh_per_state_directory_and_nobody_else_reads_it() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("state");
        let first = StateDir::open(root.clone()).unwrap();
        assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        let refusal = StateDir::open(root.clone()).unwrap_err().to_string();
        assert!(refusal.contains(&std::process::id().to_string()), "{refusal}");
        drop(first);
        StateDir::open(root).unwrap();
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("workloads.yaml");
        write_atomically(&path, "one").unwrap();
        write_atomically(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
    }
}
