//! Which fields had no effect while something was compiled, for the table of supported fields and for people who ask.
//!
//! Nothing is written down unless somebody listens with [`unheeded`], so compiling costs the same without.

use std::cell::RefCell;

use crate::ledger::Harmless;

/// A field that was set, read, and has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheeded {
    /// Name of the field.
    pub field: &'static str,
    /// Why nothing is lost by it.
    pub reason: &'static str,
}

thread_local! {
    static NOTES: RefCell<Option<Vec<Unheeded>>> = const { RefCell::new(None) };
}

/// Runs `work` on this thread; gives its result and the fields that it found without effect.
pub fn unheeded<T>(work: impl FnOnce() -> T) -> (T, Vec<Unheeded>) {
    NOTES.set(Some(Vec::new()));
    let result = work();
    (result, NOTES.take().unwrap_or_default())
}

/// Whether a field is there: what `harmless!` asks of values and references alike.
pub(crate) trait IsSet {
    /// Whether it is anything but its default.
    fn is_set(&self) -> bool;
}

impl<T: Default + PartialEq> IsSet for T {
    fn is_set(&self) -> bool {
        *self != T::default()
    }
}

/// A field without effect; only one that is set is of interest.
pub(crate) fn note(reason: Harmless, field: &'static str, is_set: bool) {
    NOTES.with_borrow_mut(|notes| {
        if let Some(notes) = notes
            && is_set
        {
            notes.push(Unheeded { field, reason: reason.text() });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_that_are_set_are_told_and_only_to_those_who_listen() {
        note(Harmless::Metadata, "before", true);
        let ((), notes) = unheeded(|| {
            note(Harmless::Metadata, "unset", 0.is_set());
            note(Harmless::Metadata, "set", 1.is_set());
        });
        assert_eq!(notes.iter().map(|note| note.field).collect::<Vec<_>>(), ["set"]);
        assert!(notes[0].reason.ends_with('.'), "{}", notes[0].reason);
    }
}
