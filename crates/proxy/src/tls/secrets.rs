//! The secrets of the process, by name and source.
//!
//! A context holds the slot of each secret that it names; whoever receives secrets fills the slots. A new secret is for
//! new handshakes; connections that are there go on with what they began with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use meltemi_compile::Origin;
use meltemi_compile::program::Name;
use meltemi_compile::tls::{Secret, SecretRef};

/// Where one secret is, once it is there.
pub type SecretSlot = ArcSwapOption<Secret>;

type Key = (Name, Option<Origin>);

/// All of them.
#[derive(Debug, Default)]
pub struct Secrets(Mutex<BTreeMap<Key, Arc<SecretSlot>>>);

impl Secrets {
    /// The slot of a secret. Takes a lock.
    pub fn slot(&self, secret: &SecretRef) -> Arc<SecretSlot> {
        self.find(&secret.name, secret.origin.as_ref())
    }

    /// Fills a slot, or empties it.
    pub fn set(&self, name: &Name, origin: Option<&Origin>, secret: Option<Arc<Secret>>) {
        self.find(name, origin).store(secret);
    }

    fn find(&self, name: &Name, origin: Option<&Origin>) -> Arc<SecretSlot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry((name.clone(), origin.cloned())).or_default())
    }
}
