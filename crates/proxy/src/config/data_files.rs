//! The files that secrets name for their data: moved onto, or moved into the watched directory, they are read again.
//!
//! Source: Envoy's `SdsApi`, which watches `filename`s and `watched_directory` of secrets that came by SDS.

use std::collections::{BTreeMap, BTreeSet};

use meltemi_compile::FileOrigin;
use meltemi_runtime::task::{self, Task};
use tokio::sync::mpsc;

use super::files::Watch;
use super::secrets::SecretKey;

/// Moves that wait to be looked at; another of the same file says nothing new.
const MOVE_QUEUE: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct DataFiles {
    followed: BTreeMap<(SecretKey, FileOrigin), Task<()>>,
    sender: mpsc::Sender<SecretKey>,
    moved: mpsc::Receiver<SecretKey>,
}

impl DataFiles {
    pub(super) fn new() -> DataFiles {
        let (sender, moved) = mpsc::channel(MOVE_QUEUE);
        DataFiles { followed: BTreeMap::new(), sender, moved }
    }

    /// Follows these and no others.
    pub(super) fn follow(&mut self, wanted: BTreeSet<(SecretKey, FileOrigin)>) {
        self.followed.retain(|key, _| wanted.contains(key));
        for key in wanted {
            if self.followed.contains_key(&key) {
                continue;
            }
            let (secret, file) = key.clone();
            let follow = follow(secret, file, self.sender.clone());
            self.followed.insert(key, task::spawn("files of a secret", follow));
        }
    }

    /// The next secret whose files moved. Cancel safe.
    pub(super) async fn next(&mut self) -> SecretKey {
        self.moved.recv().await.expect("invariant: a sender is kept")
    }
}

async fn follow(secret: SecretKey, file: FileOrigin, moved: mpsc::Sender<SecretKey>) {
    let mut watch = match Watch::new(&file) {
        Ok(watch) => watch,
        Err(error) => {
            tracing::warn!(path = %file.path, %error, "cannot watch: the file is read once");
            return;
        }
    };
    loop {
        watch.moved().await;
        if moved.send(secret.clone()).await.is_err() {
            return;
        }
    }
}
