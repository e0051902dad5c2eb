//! A named message with a version, as xDS carries it: what translation makes, servers send and clients take.

use std::fmt;
use std::sync::Arc;

use prost::Name;
use xxhash_rust::xxh3::Xxh3;

use crate::Any;

/// One resource. Its bytes are shared between all that hold it.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    /// The name that clients subscribe to: `name`, or `cluster_name` of a ClusterLoadAssignment.
    pub name: Arc<str>,
    /// Equal versions promise equal bodies; [`Resource::new`] uses a digest of the body, 16 hex digits.
    pub version: String,
    /// The encoded message.
    pub body: Any,
}

/// Without the message: it may be a private key.
impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({})", self.name, self.version, self.body.type_url)
    }
}

impl Resource {
    /// A resource whose version is the digest of its bytes.
    pub fn new(name: impl Into<Arc<str>>, body: Any) -> Resource {
        let mut digest = Xxh3::new();
        digest.update(body.type_url.as_bytes());
        digest.update(&[0]);
        digest.update(&body.value);
        Resource { name: name.into(), version: format!("{:016x}", digest.digest()), body }
    }

    /// Encodes `message`.
    pub fn encode<M: Name>(name: &str, message: &M) -> Arc<Resource> {
        Arc::new(Resource::new(name, Any::pack(message)))
    }
}
