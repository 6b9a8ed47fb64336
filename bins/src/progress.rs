//! Progress on a terminal. Without a terminal on stderr, nothing is shown.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `length` units, drawn by `template`. Without `length` it is a counter.
pub(crate) fn progress_bar(length: Option<u64>, template: &str) -> ProgressBar {
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
