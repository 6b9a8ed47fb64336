//! Comparisons with short failure messages.

use std::fmt::Debug;

/// The number of characters that a message shows of each side. They start shortly before the first difference.
const SHOWN: usize = 160;

/// The number of characters that a message shows before the first difference.
const BEFORE: usize = 40;

/// Compares two lists. The message of a failure contains `name`, both lengths, and the first items that differ, from their
/// first difference.
#[track_caller]
pub(super) fn same_items<T: Debug + PartialEq>(name: &str, found: &[T], expected: &[T]) {
    let Some(at) = (0..found.len().max(expected.len())).find(|&at| found.get(at) != expected.get(at)) else { return };
    let describe = |item: Option<&T>| item.map_or_else(|| "nothing".to_owned(), |item| format!("{item:?}"));
    let difference = difference(&describe(found.get(at)), &describe(expected.get(at)));
    panic!("{name}: found {} items, expected {}; item {at}: {difference}", found.len(), expected.len());
}

/// Compares two values. The message of a failure contains `name`, and both values from their first difference.
#[track_caller]
pub(super) fn same<T: Debug + PartialEq + ?Sized>(name: &str, found: &T, expected: &T) {
    if found != expected {
        panic!("{name}: {}", difference(&format!("{found:?}"), &format!("{expected:?}")));
    }
}

fn difference(found: &str, expected: &str) -> String {
    let common = found.chars().zip(expected.chars()).take_while(|(found, expected)| found == expected).count();
    let from = common.saturating_sub(BEFORE);
    let part = |text: &str| {
        let start = if from > 0 { "…" } else { "" };
        let end = if text.chars().count() > from + SHOWN { "…" } else { "" };
        let shown: String = text.chars().skip(from).take(SHOWN).collect();
        format!("{start}{shown}{end}")
    };
    format!("found {}, expected {}", part(found), part(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(check: impl FnOnce() + std::panic::UnwindSafe) -> String {
        *std::panic::catch_unwind(check).expect_err("a failure").downcast().expect("a text")
    }

    #[test]
    fn failures_are_short_and_show_the_difference() {
        let (found, expected) = ("a".repeat(10_000) + "b" + &"d".repeat(10_000), "a".repeat(10_000) + "c");
        let items = [String::new(), found.clone()];
        let text = failure(move || same_items("pages", &items, &[String::new(), expected]));
        assert!(text.len() < 500, "{text}");
        assert!(text.starts_with("pages: found 2 items, expected 2; item 1: found …aaa"), "{text}");
        assert!(text.contains("ab") && text.contains("ac\""), "{text}");
        let text = failure(|| same("the key", &Some(1), &None));
        assert_eq!(text, "the key: found Some(1), expected None");
        same_items("nothing", &[0; 0], &[]);
        assert_eq!(
            failure(|| same_items("more", &[1], &[])),
            "more: found 1 items, expected 0; item 0: found 1, expected nothing"
        );
    }
}
