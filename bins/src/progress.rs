//! Progress on a terminal; nothing where stderr is none.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `length` units, or a counter without it, that looks as `template` says.
pub(crate) fn progress_bar(length: Option<u64>, template: &str) -> ProgressBar {
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
