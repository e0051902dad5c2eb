//! Resources from files: `path_config_source`.
//!
//! A file holds a `DiscoveryResponse`, in JSON, YAML or binary by its name. It is read when the subscription begins and
//! when something is moved onto it, or into the watched directory; writing into it in place does nothing, as in Envoy.
//! Source: `envoy.config.core.v3.PathConfigSource`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use meltemi_compile::FileOrigin;
use meltemi_envoy::extensions::transport_sockets::tls::v3::Secret;
use meltemi_envoy::json::Codec;
use meltemi_envoy::service::discovery::v3::DiscoveryResponse;
use meltemi_envoy::{Any, config, type_url};
use meltemi_runtime::task::{self, Task};
use meltemi_xds::client::Update;
use meltemi_xds::{Mode, Resource};
use prost::Message as _;
use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::subscription::FileProblem;

/// Files that were read and wait to be taken. A file that changes again meanwhile is read again later.
const UPDATE_QUEUE: usize = 16;

/// The largest file that is read; as large as an xDS message may be.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Room for events of one read: a name is at most 255 bytes.
const EVENT_BUFFER: usize = 4096;

/// What is read from a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileKey {
    /// The type.
    pub(super) kind: &'static str,
    /// The name of the only resource; `None` is everything of the type.
    pub(super) name: Option<String>,
    /// The file.
    pub(super) origin: FileOrigin,
}

/// What a file said, or why it could not be read.
pub(super) type FileUpdate = (FileKey, Result<Update, FileProblem>);

/// The files that are followed.
#[derive(Debug)]
pub(super) struct Files {
    followed: BTreeMap<FileKey, Task<()>>,
    sender: mpsc::Sender<FileUpdate>,
    updates: mpsc::Receiver<FileUpdate>,
}

/// Whether a subscription can begin.
pub(super) fn check(file: &FileOrigin) -> Result<(), String> {
    if Path::new(&*file.path).exists() {
        return Ok(());
    }
    Err(format!("paths must refer to an existing path in the system: '{}' does not exist", file.path))
}

impl Files {
    pub(super) fn new() -> Files {
        let (sender, updates) = mpsc::channel(UPDATE_QUEUE);
        Files { followed: BTreeMap::new(), sender, updates }
    }

    /// Follows these of a type, and no others of it.
    pub(super) fn follow(&mut self, kind: &'static str, wanted: BTreeSet<FileKey>) {
        self.followed.retain(|key, _| key.kind != kind || wanted.contains(key));
        for key in wanted {
            if !self.followed.contains_key(&key) {
                let follow = follow(key.clone(), self.sender.clone());
                self.followed.insert(key, task::spawn("file subscription", follow));
            }
        }
    }

    /// The next file that was read. Cancel safe.
    pub(super) async fn next(&mut self) -> FileUpdate {
        self.updates.recv().await.expect("invariant: a sender is kept")
    }
}

async fn follow(key: FileKey, updates: mpsc::Sender<FileUpdate>) {
    let origin = &key.origin;
    let mut watch = match Watch::new(origin) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!(path = %origin.path, %error, "cannot watch: the file is read once");
            None
        }
    };
    let mut known = BTreeSet::new();
    loop {
        let read = read_apart(key.clone(), known.clone()).await;
        if let Ok(update) = &read {
            known = update.changed.iter().map(|resource| resource.name.to_string()).collect();
        }
        if updates.send((key.clone(), read)).await.is_err() {
            return;
        }
        match &mut watch {
            Some(watch) => watch.moved().await,
            None => return,
        }
    }
}

/// Reading and parsing may take long, so it is kept off the main thread.
async fn read_apart(key: FileKey, known: BTreeSet<String>) -> Result<Update, FileProblem> {
    let read = tokio::task::spawn_blocking(move || read(&key, &known));
    read.await.map_err(|error| FileProblem::Unreadable(error.to_string()))?
}

fn read(key: &FileKey, known: &BTreeSet<String>) -> Result<Update, FileProblem> {
    let FileKey { kind, name, origin } = key;
    let path = &*origin.path;
    let failed = |error: &dyn std::fmt::Display| FileProblem::Unreadable(format!("{path}: {error}"));
    let unexpected = |what: &dyn std::fmt::Display| FileProblem::Unexpected(format!("{path}: {what}"));
    let size = std::fs::metadata(path).map_err(|error| failed(&error))?.len();
    if size > MAX_FILE_BYTES {
        return Err(failed(&"too large"));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
    let response = parse(path, &bytes).map_err(|error| failed(&error))?;
    if name.is_some() && response.resources.len() != 1 {
        return Err(unexpected(&format_args!("Unexpected resource length: {}", response.resources.len())));
    }
    let version = response.version_info;
    let changed = response.resources.into_iter().map(|any| resource(kind, any, &version));
    let changed: Vec<Resource> = changed.collect::<Result<_, _>>().map_err(|error| failed(&error))?;
    let is_there = |name: &String| changed.iter().any(|resource| *resource.name == **name);
    if let Some(name) = name.as_ref().filter(|name| !is_there(name)) {
        return Err(unexpected(&format_args!("Unexpected resource (expecting {name}): {}", changed[0].name)));
    }
    let removed = known.iter().filter(|name| !is_there(name)).cloned().collect();
    let (control_plane, nonce) = (String::new(), String::new());
    let mode = Mode::Sotw;
    let type_url = (*kind).to_owned();
    Ok(Update { type_url, changed, removed, full: true, version, mode, control_plane, nonce })
}

fn parse(path: &str, bytes: &[u8]) -> Result<DiscoveryResponse, String> {
    match Path::new(path).extension().and_then(OsStr::to_str) {
        Some("pb") => DiscoveryResponse::decode(bytes).map_err(|error| error.to_string()),
        Some("pb_text") => Err("the text format of protobuf is not supported".to_owned()),
        _ => {
            let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
            Codec::new().parse(text).map_err(|error| error.to_string())
        }
    }
}

/// Gives a resource the name that is in it.
fn resource(kind: &str, body: Any, version: &str) -> Result<Resource, String> {
    let name = match kind {
        type_url::LISTENER => body.unpack::<config::listener::v3::Listener>().map(|m| m.name),
        type_url::CLUSTER => body.unpack::<config::cluster::v3::Cluster>().map(|m| m.name),
        type_url::ROUTE => body.unpack::<config::route::v3::RouteConfiguration>().map(|m| m.name),
        type_url::SECRET => body.unpack::<Secret>().map(|m| m.name),
        type_url::EXTENSION_CONFIG => body.unpack::<config::core::v3::TypedExtensionConfig>().map(|m| m.name),
        _ => body.unpack::<config::endpoint::v3::ClusterLoadAssignment>().map(|m| m.cluster_name),
    };
    let name = name.map_err(|error| error.to_string())?;
    Ok(Resource { name: name.into(), version: version.to_owned(), body })
}

/// Tells when something is moved to where it looks.
pub(super) struct Watch {
    events: AsyncFd<OwnedFd>,
    /// The file that matters; `None`: any in the directory.
    file: Option<PathBuf>,
}

impl Watch {
    #[expect(
        deprecated,
        reason = "the replacement is unsafe, for descriptors that may change; an OwnedFd does not"
    )]
    pub(super) fn new(origin: &FileOrigin) -> io::Result<Watch> {
        let path = Path::new(&*origin.path);
        let (directory, file) = match &origin.watched_directory {
            Some(directory) => (Path::new(&**directory), None),
            None => (path.parent().unwrap_or(Path::new("")), path.file_name().map(PathBuf::from)),
        };
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&fd, directory, inotify::WatchFlags::MOVED_TO)?;
        Ok(Watch { events: AsyncFd::new(fd)?, file })
    }

    /// Waits for the next move that matters; for ever when the system does not tell any more. Cancel safe.
    pub(super) async fn moved(&mut self) {
        loop {
            let Ok(mut ready) = self.events.readable().await else { return std::future::pending().await };
            if self.matters() {
                return;
            }
            ready.clear_ready();
        }
    }

    /// Takes all events that are there.
    fn matters(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); EVENT_BUFFER];
        let mut reader = inotify::Reader::new(self.events.get_ref(), &mut buffer);
        let mut found = false;
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| Path::new(OsStr::from_bytes(name.to_bytes())));
            found |= self.file.as_deref().is_none_or(|file| name == Some(file));
        }
        found
    }
}

#[cfg(test)]
mod tests;
