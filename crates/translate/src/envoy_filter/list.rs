//! Operations on a list: of filters, of listener filters, of routes.

use meltemi_api::istio::PatchOperation;

/// Applies an operation to a list. `anchor` tells which element is meant; without one, what comes before is first, what
/// comes after is last, and nothing is replaced or removed.
pub(super) fn edit<T>(
    list: &mut Vec<T>,
    operation: PatchOperation,
    anchor: Option<&dyn Fn(&T) -> bool>,
    value: impl FnOnce() -> T,
) {
    let position = |list: &[T]| anchor.and_then(|is_meant| list.iter().position(is_meant));
    match operation {
        PatchOperation::Add => list.push(value()),
        PatchOperation::InsertFirst => list.insert(0, value()),
        PatchOperation::InsertBefore if anchor.is_none() => list.insert(0, value()),
        PatchOperation::InsertAfter if anchor.is_none() => list.push(value()),
        PatchOperation::InsertBefore => {
            if let Some(at) = position(list) {
                list.insert(at, value());
            }
        }
        PatchOperation::InsertAfter => {
            if let Some(at) = position(list) {
                list.insert(at + 1, value());
            }
        }
        PatchOperation::Replace => {
            if let Some(at) = position(list) {
                list[at] = value();
            }
        }
        PatchOperation::Remove => {
            if let Some(is_meant) = anchor {
                list.retain(|element| !is_meant(element));
            }
        }
        PatchOperation::Invalid | PatchOperation::Merge | PatchOperation::MergeAndReplaceList => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(operation: PatchOperation, anchor: Option<&str>) -> String {
        let mut list = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let is_meant = |element: &String| Some(element.as_str()) == anchor;
        let anchor = anchor.map(|_| &is_meant as &dyn Fn(&String) -> bool);
        edit(&mut list, operation, anchor, || "x".to_owned());
        list.concat()
    }

    #[test]
    fn around_an_anchor() {
        use PatchOperation as Is;
        let with = |operation| edited(operation, Some("b"));
        assert_eq!(
            [Is::Add, Is::InsertFirst, Is::InsertBefore, Is::InsertAfter, Is::Replace, Is::Remove].map(with),
            ["abcx", "xabc", "axbc", "abxc", "axc", "ac"]
        );
        let without = |operation| edited(operation, None);
        assert_eq!(
            [Is::InsertBefore, Is::InsertAfter, Is::Replace, Is::Remove].map(without),
            ["xabc", "abcx", "abc", "abc"]
        );
        let elsewhere = |operation| edited(operation, Some("z"));
        assert_eq!([Is::InsertBefore, Is::InsertAfter, Is::Replace, Is::Remove].map(elsewhere), ["abc"; 4]);
    }
}
