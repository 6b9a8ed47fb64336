//! Admin and all-in-one command.
fn main() {}
