//! Work of the application in the transaction of a store.

use std::fmt::Debug;

use async_trait::async_trait;
use netagg_core::Event;
use sqlx::PgConnection;

/// Work of the application in the transaction that stores new events, such as totals by another dimension.
///
/// PostgreSQL commits this work together with the events. So it takes effect once for each stored event, even if an event
/// is redelivered or sent twice, or a batch is interrupted. Pass the hook to
/// [`PgEventStore::with_hook`](crate::PgEventStore::with_hook).
///
/// Several batches are stored at a time. Always write rows in the same order. Otherwise two transactions can wait for each
/// other: PostgreSQL then ends one of them with a deadlock error, and its batch is stored again.
///
/// # Life of a hook
///
/// - It sees the events that are stored from now on. Compute earlier events from `events_raw` yourself, with the services
///   stopped.
/// - It also sees events that are set aside because their partition cannot be made. It does not see them again when they move.
/// - Retention drops events and leaves the application's rows. [`Postgres::audit`](crate::Postgres::audit) and
///   [`Postgres::rebuild`](crate::Postgres::rebuild) do not know these rows.
/// - Keep its tables in a schema of the application, and create them before the service starts:
///   [`Postgres::pool`](crate::Postgres::pool) has connections.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use netagg_core::async_trait::async_trait;
/// use netagg_core::Event;
/// use netagg_pg::{StoreHook, sqlx};
///
/// /// Counts events by user, in the table `events_by_user (user_id text PRIMARY KEY, events bigint)`.
/// #[derive(Debug)]
/// struct EventsByUser;
///
/// #[async_trait]
/// impl StoreHook for EventsByUser {
///     async fn stored(&self, connection: &mut sqlx::PgConnection, events: &[&Event]) -> Result<(), sqlx::Error> {
///         let mut counts = BTreeMap::<&str, i64>::new();
///         for event in events {
///             *counts.entry(event.fields().user_id.as_str()).or_default() += 1;
///         }
///         let (users, counts): (Vec<_>, Vec<_>) = counts.into_iter().unzip();
///         sqlx::query(
///             "INSERT INTO events_by_user SELECT * FROM unnest($1::text[], $2::bigint[])
///              ON CONFLICT (user_id) DO UPDATE SET events = events_by_user.events + excluded.events",
///         )
///         .bind(users)
///         .bind(counts)
///         .execute(connection)
///         .await?;
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait StoreHook: Debug + Send + Sync {
    /// Handles the new events that this transaction stores. There is at least one event. The events are in the order of
    /// their identities.
    ///
    /// # Errors
    /// An error rolls the transaction back, with the events. The service repeats the batch after an error that can pass: a lost
    /// connection, a deadlock, a timeout. It stops after any other error, so that no event is lost because of a fault in
    /// the hook.
    async fn stored(&self, connection: &mut PgConnection, events: &[&Event]) -> Result<(), sqlx::Error>;
}
