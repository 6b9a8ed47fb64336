//! The month fence: the setting with the dropped months. Every [transaction that writes](super::write_transaction) events
//! or totals checks it, so that no event of a dropped month is stored or counted.

use netagg_core::Month;
use sqlx::PgConnection;

use super::settings::{read_month, record_month};
use crate::client::PgError;

/// The setting with the newest dropped month.
pub(super) const DROPPED_THROUGH: &str = "dropped_through";

/// Checks that `month` is not dropped.
pub(crate) async fn check(connection: &mut PgConnection, month: Month) -> Result<(), PgError> {
    match dropped_through(connection).await? {
        Some(through) if month <= through => Err(PgError::MonthsDropped { through }),
        _ => Ok(()),
    }
}

/// The newest dropped month. All earlier months are dropped, too.
pub(crate) async fn dropped_through(connection: &mut PgConnection) -> Result<Option<Month>, PgError> {
    read_month(connection, DROPPED_THROUGH).await
}

/// Records `month`, and all before it, as dropped. The fence never moves back.
pub(crate) async fn raise(connection: &mut PgConnection, month: Month) -> Result<(), PgError> {
    record_month(connection, DROPPED_THROUGH, month).await
}
