//! The pages for users, which tests compare with the programs.

use std::path::Path;

/// The READMEs and the guides, with their paths in the repository, in order.
pub(crate) fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let entries = |folder: &Path| {
        let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        entries.collect::<Vec<_>>()
    };
    let guides = entries(&root.join("docs"));
    let guides = guides.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let crates = entries(&root).into_iter().map(|folder| folder.join("README.md")).filter(|path| path.is_file());
    let mut pages: Vec<_> = guides
        .chain(crates)
        .chain(["README.md", "README.ru.md"].map(|name| root.join(name)))
        .map(|path| {
            let name = path.strip_prefix(&root).expect("a path in the repository").display().to_string();
            (name, std::fs::read_to_string(path).expect("a page"))
        })
        .collect();
    pages.sort();
    pages
}
