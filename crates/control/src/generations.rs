//! The last generations of what the user saved, kept on disk, so that an earlier one can be served again and a restart
//! forgets nothing.
//!
//! A generation is two files: `N.yaml`, its objects as a manifest of its own, and `N.json`, what is said of it. What runs
//! and what is secret is not in the first: Secrets, Deployments and Pods with their endpoints, and what another process tells of (the state
//! file) stay as they are now, whatever generation is served. Of Secrets and Deployments there are digests, which tell that one has
//! changed. Leaves out what is in force: that is the mesh's (`mesh.rs`).

mod author;
mod record;
mod store;

use meltemi_api::Kind;

pub(crate) use record::{Change, Record, digests};
pub(crate) use store::{Kept, Store};

/// Whether an object says what is there, not what should happen: it stays as it is now, also when an earlier generation
/// is served. A program does not go back because a route does, and a key that was replaced must not come back.
pub(crate) fn is_of_now(kind: Kind) -> bool {
    const THERE: [Kind; 10] = [
        Kind::Secret,
        Kind::Node,
        Kind::Pod,
        Kind::Deployment,
        Kind::StatefulSet,
        Kind::DaemonSet,
        Kind::ReplicaSet,
        Kind::Job,
        Kind::Endpoints,
        Kind::EndpointSlice,
    ];
    THERE.contains(&kind)
}
