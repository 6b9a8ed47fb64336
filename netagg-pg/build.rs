//! Rebuilds the crate when a migration is added: `sqlx::migrate!` itself notices only changes of known files.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
