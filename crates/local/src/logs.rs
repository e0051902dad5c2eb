//! Logs of replicas: one file per process, bounded, the previous one kept as `.1`. Leaves out reading them.
//!
//! Processes write their files themselves, so a log costs `up` nothing per line. A file that grew too large is copied
//! and cut (as logrotate's `copytruncate`): the writers hold it open in append mode, so they go on at its new end. Lines
//! written between copy and cut are lost.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::limits::{LOG_CHECK_PERIOD, MAX_LOG_BYTES};

/// Makes room for a new run: what is there becomes the previous one.
pub(crate) fn begin(path: &Path) -> io::Result<()> {
    match fs::rename(path, previous(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Keeps every `.log` file two levels below `root` within its bound, for ever.
pub(crate) async fn keep_bounded(root: PathBuf) {
    loop {
        tokio::time::sleep(LOG_CHECK_PERIOD).await;
        let root = root.clone();
        // A panic in there is logged by tokio; the next round tries again.
        let _ = tokio::task::spawn_blocking(move || cut_large(&root, MAX_LOG_BYTES)).await;
    }
}

fn cut_large(root: &Path, limit: u64) {
    let Ok(directories) = fs::read_dir(root) else { return };
    for directory in directories.flatten() {
        let Ok(files) = fs::read_dir(directory.path()) else { continue };
        for file in files.flatten() {
            let path = file.path();
            let is_log = path.extension().is_some_and(|extension| extension == "log");
            if is_log && file.metadata().is_ok_and(|metadata| metadata.len() > limit) {
                cut(&path);
            }
        }
    }
}

fn cut(path: &Path) {
    let copied = fs::copy(path, previous(path));
    let cut = copied.and_then(|_| OpenOptions::new().write(true).open(path)?.set_len(0));
    if let Err(error) = cut {
        tracing::warn!(path = %path.display(), %error, "cannot bound a log file");
    }
}

fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_large_log_becomes_its_own_predecessor_and_the_writer_goes_on() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("frontend-v1-0");
        fs::create_dir(&directory).unwrap();
        let path = directory.join("app.log");
        let mut writer = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        writer.write_all(b"0123456789").unwrap();
        cut_large(scratch.path(), 10);
        assert_eq!(fs::read(&path).unwrap(), b"0123456789", "at the limit is within it");
        writer.write_all(b"a").unwrap();
        cut_large(scratch.path(), 10);
        writer.write_all(b"b").unwrap();
        assert_eq!(fs::read(directory.join("app.log.1")).unwrap(), b"0123456789a");
        assert_eq!(fs::read(&path).unwrap(), b"b");
    }

    #[test]
    fn a_new_run_keeps_the_last_one() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("app.log");
        begin(&path).unwrap();
        fs::write(&path, "first").unwrap();
        begin(&path).unwrap();
        assert_eq!(fs::read_to_string(previous(&path)).unwrap(), "first");
        assert!(!path.exists());
    }
}
