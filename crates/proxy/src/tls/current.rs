//! What is made of the secrets of a moment, and made anew when one of them changes.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use meltemi_compile::tls::{Secret, SecretRef};

use super::secrets::{SecretSlot, Secrets};

/// A `T` of the secrets that are there now, shared by all workers.
#[derive(Debug)]
pub(super) struct Current<T> {
    slots: Vec<Arc<SecretSlot>>,
    made: ArcSwapOption<Made<T>>,
    making: Mutex<()>,
}

#[derive(Debug)]
struct Made<T> {
    from: Vec<Arc<Secret>>,
    /// `None`: they cannot be used together, which was said once.
    value: Option<Arc<T>>,
}

impl<T> Current<T> {
    pub(super) fn new<'s>(wanted: impl Iterator<Item = &'s SecretRef>, secrets: &Secrets) -> Current<T> {
        let slots = wanted.map(|secret| secrets.slot(secret)).collect();
        Current { slots, made: ArcSwapOption::empty(), making: Mutex::default() }
    }

    /// The value of now; `None` while a secret is missing, or when `make` cannot use them together.
    pub(super) fn get(&self, make: impl FnOnce(&[Arc<Secret>]) -> anyhow::Result<T>) -> Option<Arc<T>> {
        let secrets: Vec<Arc<Secret>> =
            self.slots.iter().map(|slot| slot.load_full()).collect::<Option<_>>()?;
        if let Some(value) = self.made_of(&secrets) {
            return value;
        }
        // Workers do not make the same thing side by side: its sessions are to be shared.
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = self.made_of(&secrets) {
            return value;
        }
        let value = make(&secrets).map(Arc::new);
        let value =
            value.map_err(|error| tracing::warn!(%error, "secrets that cannot be used together")).ok();
        self.made.store(Some(Arc::new(Made { from: secrets, value: value.clone() })));
        value
    }

    /// What was made of these secrets, if something was.
    fn made_of(&self, secrets: &[Arc<Secret>]) -> Option<Option<Arc<T>>> {
        let made = self.made.load();
        let made = made.as_ref()?;
        let is_current = made.from.iter().zip(secrets).all(|(old, new)| Arc::ptr_eq(old, new));
        is_current.then(|| made.value.clone())
    }
}
