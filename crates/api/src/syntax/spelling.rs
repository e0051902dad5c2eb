//! "Did you mean …": the closest of the known names.

/// Names offered when none is close.
const MOST_OFFERED: usize = 12;

/// Longest name compared; the comparison takes time in proportion to the product of the lengths.
const LONGEST_COMPARED: usize = 64;

/// Help for a name that is not among the known ones.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let closest = known.iter().map(|candidate| (distance(name, candidate), *candidate)).min();
    match closest {
        Some((distance, candidate)) if distance <= tolerance(name) => format!("did you mean `{candidate}`?"),
        Some(_) if known.len() <= MOST_OFFERED => format!("known here: {}", known.join(", ")),
        _ => String::new(),
    }
}

/// Whether one name is likely to be the other misspelt.
pub(crate) fn is_close(name: &str, known: &str) -> bool {
    distance(name, known) <= tolerance(name)
}

/// Edits that a misspelling may take: a third of the name, at least one.
fn tolerance(name: &str) -> usize {
    (name.chars().count() / 3).max(1)
}

/// Edits from one name to another, without regard to case: insert, delete, replace, swap neighbours.
fn distance(a: &str, b: &str) -> usize {
    let letters =
        |text: &str| text.chars().take(LONGEST_COMPARED).map(|c| c.to_ascii_lowercase()).collect::<Vec<_>>();
    let (a, b) = (letters(a), letters(b));
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_offered() {
        assert_eq!(did_you_mean("hots", ["hosts", "http", "gateways"]), "did you mean `hosts`?");
        assert_eq!(
            did_you_mean("perTryTimeOut", ["attempts", "perTryTimeout"]),
            "did you mean `perTryTimeout`?"
        );
        assert_eq!(did_you_mean("zzz", ["exact", "prefix"]), "known here: exact, prefix");
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
