//! The mesh that a command looks at: what a folder would make, or what runs. Leaves out what is looked at.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use meltemi_api::{Change, Kind, Object, Origin, parse};
use meltemi_local::{Imagination, ImaginedProxy};
use meltemi_sources::files;
use serde::Deserialize;
use serde_json::Value;

use crate::control_plane::ControlPlane;

/// What objects of a running mesh are called where they have no file.
const LIVE: &str = "the running mesh";

/// Objects, and the proxies that there are or would be.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// What people wrote.
    pub(crate) objects: Vec<Arc<Object>>,
    /// What `up` tells of processes.
    pub(crate) of_machine: Vec<Arc<Object>>,
    pub(crate) proxies: Vec<Node>,
}

/// A proxy, as it asks for its configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// In the JSON of protobuf.
    pub(crate) node: Value,
    pub(crate) is_authenticated: bool,
}

impl Mesh {
    /// What `up` would make of a folder; `imagination` gives the same addresses to what is in several.
    ///
    /// # Errors
    /// If it cannot be read, or holds no object.
    pub(crate) fn of_folder(path: &Path, imagination: &mut Imagination) -> anyhow::Result<Mesh> {
        let objects = read(path)?;
        let imagined = imagination.mesh(&objects);
        let (of_machine, _) = parse(&imagined.manifests, &Arc::from("what would run"));
        let proxies = imagined.proxies.into_iter().map(|ImaginedProxy { name, node }| Node {
            name,
            node,
            is_authenticated: true,
        });
        Ok(Mesh {
            objects,
            of_machine: of_machine.into_iter().map(Arc::new).collect(),
            proxies: proxies.collect(),
        })
    }

    /// What a control plane has in force, and who is connected. Of Secrets it tells no values.
    ///
    /// # Errors
    /// If it does not answer.
    pub(crate) fn running(control_plane: &ControlPlane) -> anyhow::Result<Mesh> {
        let entries: Vec<Entry> = read_page(control_plane, "/debug/objectz")?;
        let connected: Vec<Connected> = read_page(control_plane, "/debug/nodez")?;
        let (mut objects, mut of_machine) = (Vec::new(), Vec::new());
        for entry in entries {
            let is_of_machine = entry.is_of_machine;
            if let Some(object) = entry.object()? {
                let list = if is_of_machine { &mut of_machine } else { &mut objects };
                list.push(Arc::new(object));
            }
        }
        let proxies = connected.into_iter().map(|proxy| Node {
            name: proxy.proxy,
            node: proxy.node,
            // Values of Secrets are not there to be compared.
            is_authenticated: false,
        });
        Ok(Mesh { objects, of_machine, proxies: proxies.collect() })
    }

    /// All objects.
    pub(crate) fn all(&self) -> Vec<Arc<Object>> {
        self.objects.iter().chain(&self.of_machine).cloned().collect()
    }
}

/// The sound objects of a folder or file. That some are not is told.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Arc<Object>>> {
    let shown = path.display();
    let batch = files::load(&[path.to_owned()]).with_context(|| format!("{shown} cannot be read"))?;
    let errors = batch.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let objects: Vec<_> = batch
        .changes
        .into_iter()
        .filter_map(|change| match change {
            Change::Put(object) => Some(object),
            Change::Delete(_) | Change::Synced(_) | Change::Lost(..) => None,
        })
        .collect();
    ensure!(!objects.is_empty(), "{shown} holds no sound object; `meltemi validate {shown}` tells more");
    if errors > 0 {
        anstream::eprintln!(
            "warning: {errors} errors in {shown}: what is broken is left out; `meltemi validate {shown}` shows them"
        );
    }
    Ok(objects)
}

fn read_page<T: for<'de> Deserialize<'de>>(control_plane: &ControlPlane, path: &str) -> anyhow::Result<T> {
    let page = control_plane.get(path)?;
    serde_json::from_value(page)
        .with_context(|| format!("{path} has another form: is it another version of meltemi?"))
}

#[derive(Deserialize)]
struct Entry {
    origin: Place,
    #[serde(rename = "isOfMachine")]
    is_of_machine: bool,
    object: Value,
}

#[derive(Deserialize)]
struct Place {
    file: String,
    document: usize,
    line: u32,
}

#[derive(Deserialize)]
struct Connected {
    proxy: String,
    node: Value,
}

impl Entry {
    /// The object, as its author wrote it. A Secret without its values is none.
    fn object(self) -> anyhow::Result<Option<Object>> {
        if self.object["kind"] == Kind::Secret.as_str() {
            return Ok(None);
        }
        let (mut objects, diagnostics) = parse(&self.object.to_string(), &Arc::from(LIVE));
        let Some(object) = objects.pop() else {
            let reason = diagnostics.first().map(|diagnostic| diagnostic.message.clone()).unwrap_or_default();
            bail!(
                "the control plane has an object that is not understood here, maybe of another version: {reason}"
            );
        };
        let origin =
            Origin { file: self.origin.file.into(), document: self.origin.document, line: self.origin.line };
        Ok(Some(Object { origin, ..object }))
    }
}

/// `VirtualService default/reviews (traffic.yaml:12)`.
pub(crate) fn cited(object: &Object) -> String {
    let file = Path::new(&*object.origin.file).file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("{} ({file}:{})", object.id, object.origin.line)
}
