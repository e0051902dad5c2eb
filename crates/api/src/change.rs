//! The vocabulary in which a source tells what happened to its objects. Leaves out how changes are batched and
//! carried: that is the source's affair.

use std::sync::Arc;

use crate::object::{Object, ObjectId};

/// One thing a source has to say. A source never reads the mesh; it only says these.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object exists and reads like this, now.
    Put(Arc<Object>),
    /// The object no longer exists.
    Delete(ObjectId),
    /// The named source has delivered everything it knew at its start.
    Synced(Arc<str>),
    /// The named source can no longer vouch for its objects; they keep their last state.
    Lost(Arc<str>, String),
}
