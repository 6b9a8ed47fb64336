//! The metrics of this crate.

use metrics::{Unit, describe_gauge, gauge};

use crate::client::Postgres;

/// Describes the metrics of this crate, with their units and meanings, to the recorder in scope. Installs no recorder.
pub fn describe_metrics() {
    describe_gauge!(
        "netagg_db_pool_connections",
        Unit::Count,
        "Connections to PostgreSQL: open and idle, in use, and the maximum."
    );
    describe_gauge!(
        "netagg_events_set_aside",
        Unit::Count,
        "Accepted events that wait for a partition of their month, as of some seconds ago."
    );
}

impl Postgres {
    /// Sets the gauge `netagg_db_pool_connections` to the current state of the pool. Call it before each scrape.
    pub fn record_metrics(&self) {
        let pool = self.pool_use();
        for (state, connections) in [("idle", pool.idle), ("used", pool.used), ("max", pool.max)] {
            gauge!("netagg_db_pool_connections", "state" => state).set(connections);
        }
    }
}
