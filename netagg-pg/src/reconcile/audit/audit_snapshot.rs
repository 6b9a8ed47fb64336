//! One snapshot for an audit: the days, and the offsets at that moment.

use sqlx::PgConnection;

use crate::client::PgError;
use crate::reconcile::days::DaySelection;
use crate::reconcile::offsets::{self, OffsetReport};
use crate::reconcile::read_progress::OnProgress;
use crate::reconcile::snapshot::{Lists, ReconciliationSnapshot};
use crate::stores::progress::{AGGREGATOR, INGESTOR};

/// One snapshot.
#[derive(Debug)]
pub(super) struct AuditSnapshot {
    pub(super) snapshot: ReconciliationSnapshot,
    pub(super) offsets: Vec<OffsetReport>,
    /// Whether the aggregator has processed all offsets that the ingestor has processed. Then it will never count the
    /// events that are stored and not counted.
    pub(super) aggregator_has_passed: bool,
}

impl AuditSnapshot {
    /// Reads the selected days in the transaction of `connection`, which sees one state of the database.
    pub(super) async fn take(
        connection: &mut PgConnection,
        days: &DaySelection,
        on_progress: &OnProgress<'_>,
    ) -> Result<Self, PgError> {
        let offsets = offsets::read(connection).await?;
        let aggregator_has_passed = offsets::has_passed(connection, AGGREGATOR, INGESTOR, &offsets).await?;
        let snapshot = ReconciliationSnapshot::read(connection, days, Lists::Both, on_progress).await?;
        Ok(Self { snapshot, offsets, aggregator_has_passed })
    }
}
