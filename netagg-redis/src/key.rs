//! The keys in Redis.
//!
//! All keys begin with `netagg:1:`, where 1 is the version of this scheme of keys. There are two kinds:
//!
//! - A version key holds a random text that is never used twice. There is one for each month, and one for all months together.
//! - The key of a cached response is a hash over the name of the response, the versions that it was computed under, and the
//!   history of the server.
//!
//! After a change of a version, no lookup uses the keys of responses that were computed before. No failure of Redis makes
//! these responses reachable again. An eviction or a flush leads to new versions. A server begins a new history if it
//! starts from an old snapshot, or if it becomes the master without the last versions of the old master.

use std::fmt::Write;

use bytes::Bytes;
use netagg_core::Month;
use sha2::{Digest, Sha256};

/// The version key of all months together. The hash tag in braces puts all version keys on one node of a cluster, so that
/// one command reads them. The keys of responses spread over all nodes.
pub(crate) const ALL_MONTHS: &str = "netagg:1:{version}:all";

/// A key that never exists. Deleting it shows whether the server accepts writes. It is on the same node as the versions.
pub(crate) const WRITABLE: &str = "netagg:1:{version}:writable";

/// The version key of one month.
pub(crate) fn month(month: Month) -> String {
    format!("netagg:1:{{version}}:{month}")
}

/// The key of the response named `name` under `versions`.
pub(crate) fn answer(name: &str, versions: &[Bytes]) -> String {
    let mut hash = Sha256::new();
    for part in std::iter::once(name.as_bytes()).chain(versions.iter().map(|version| &version[..])) {
        // The length of each part is hashed, too, so that different lists of parts never give the same input.
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
    fn different_names_or_versions_give_different_keys() {
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
