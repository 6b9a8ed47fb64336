//! The settings of the usage service, with their defaults.

use std::time::Duration;

use super::cursor::CursorSecret;

/// The settings of the usage service: how long responses stay cached, and the secret of cursors.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UsageConfig {
    /// The secret that authenticates cursors. Default: random, so cursors are invalid after the process ends.
    pub cursor_secret: CursorSecret,
    /// How long a detail page stays cached if its range ends at least one hour ago. Default: 5 minutes.
    pub detail_ttl: Duration,
    /// How long a detail page stays cached if its range reaches into the last hour. Default: 2 s.
    pub recent_detail_ttl: Duration,
    /// How long daily totals stay cached, unless they change. Default: 1 hour.
    pub day_ttl: Duration,
    /// How long monthly totals stay cached, unless they change. Default: 6 hours.
    pub month_ttl: Duration,
}

impl UsageConfig {
    /// The default settings with this secret. Servers that share a secret accept each other's cursors.
    pub fn new(cursor_secret: CursorSecret) -> Self {
        Self { cursor_secret, ..Self::default() }
    }
}

impl Default for UsageConfig {
    fn default() -> Self {
        Self {
            cursor_secret: CursorSecret::random(),
            detail_ttl: Duration::from_secs(5 * 60),
            recent_detail_ttl: Duration::from_secs(2),
            day_ttl: Duration::from_secs(60 * 60),
            month_ttl: Duration::from_secs(6 * 60 * 60),
        }
    }
}
