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
    value: Arc<T>,
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
            return Some(value);
        }
        // Workers do not make the same thing side by side: its sessions are to be shared.
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = self.made_of(&secrets) {
            return Some(value);
        }
        match make(&secrets) {
            Ok(value) => {
                let value = Arc::new(value);
                self.made.store(Some(Arc::new(Made { from: secrets, value: Arc::clone(&value) })));
                Some(value)
            }
            Err(error) => {
                tracing::warn!(%error, "secrets that cannot be used together");
                None
            }
        }
    }

    fn made_of(&self, secrets: &[Arc<Secret>]) -> Option<Arc<T>> {
        let made = self.made.load();
        let made = made.as_ref()?;
        let is_current = made.from.iter().zip(secrets).all(|(old, new)| Arc::ptr_eq(old, new));
        is_current.then(|| Arc::clone(&made.value))
    }
}
