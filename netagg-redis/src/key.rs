//! The keys in Redis.
//!
//! All begin with `netagg:1:`, where 1 is the version of this schema. A version key holds a random text that is never
//! used twice; the key of an answer is a hash of its name, of the versions it was computed under, and of the history that
//! the server said they are part of. What was computed before a version changed lies under a key that nobody looks up any
//! more, and no accident of Redis brings it back: an eviction or a flush leads to new versions, and a server that starts
//! from an old snapshot, or takes over without the last versions of another, begins a new history.

use std::fmt::Write;

use bytes::Bytes;
use netagg_core::Month;
use sha2::{Digest, Sha256};

/// The version of all months together. The hash tag in braces puts all version keys on one node of a cluster, so that
/// they are read with one command; answers spread over all nodes.
pub(crate) const ALL_MONTHS: &str = "netagg:1:{version}:all";

/// Deleted to learn whether the server takes writes; never there. It would lie where the versions do.
pub(crate) const WRITABLE: &str = "netagg:1:{version}:writable";

/// The version of one month.
pub(crate) fn month(month: Month) -> String {
    format!("netagg:1:{{version}}:{month}")
}

/// The answer named `name` under `versions`.
pub(crate) fn answer(name: &str, versions: &[Bytes]) -> String {
    let mut hash = Sha256::new();
    for part in std::iter::once(name.as_bytes()).chain(versions.iter().map(|version| &version[..])) {
        // with its length, so that no two lists of parts look alike
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut key = "netagg:1:answer:".to_owned();
    for byte in hash.finalize() {
        let _ = write!(key, "{byte:02x}");
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_and_other_versions_are_other_keys() {
        let versions = |texts: &[&'static str]| texts.iter().map(|text| Bytes::from(*text)).collect::<Vec<_>>();
        let keys = [
            answer("name", &versions(&[])),
            answer("name", &versions(&[""])),
            answer("name", &versions(&["a", "b"])),
            answer("name", &versions(&["b", "a"])),
            answer("name", &versions(&["ab"])),
            answer("namea", &versions(&["b"])),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(month("2025-10".parse().expect("a month")), "netagg:1:{version}:2025-10");
    }
}
