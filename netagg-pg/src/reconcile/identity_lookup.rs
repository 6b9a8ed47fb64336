//! The lookup of identities that a ledger lacked in a snapshot and may have by now, and the sums over their events.

use std::collections::{BTreeMap, HashMap};

use netagg_core::Day;
use sqlx::PgConnection;
use uuid::Uuid;

use super::day_snapshot::Unmatched;
use super::days::DaySelection;
use super::sums::{SumsByType, SumsRow};
use super::time_range::time_ranges;
use crate::client::PgError;
use crate::client::rows::IdentityRow;

/// How many keys one statement looks up.
const KEYS: usize = 10_000;

/// One of the two ledgers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ledger {
    /// `event_identity`: the stored events.
    Events,
    /// `agg_identity`: the counted events.
    Totals,
}

/// Removes from `missing` the identities that `ledger` has by now. Calls `found` for each, with its row in the ledger.
pub(super) async fn look_up(
    connection: &mut PgConnection,
    ledger: Ledger,
    missing: &mut Vec<Unmatched>,
    mut found: impl FnMut(Unmatched, IdentityRow),
) -> Result<(), PgError> {
    let statement = match ledger {
        Ledger::Events => include_str!("../../queries/dedup/event_identity_find.sql"),
        Ledger::Totals => include_str!("../../queries/dedup/agg_identity_find.sql"),
    };
    let asked = std::mem::take(missing);
    for asked in asked.chunks(KEYS) {
        let keys: Vec<Uuid> = asked.iter().map(|unmatched| unmatched.key).collect();
        let rows: Vec<IdentityRow> = sqlx::query_as(statement).bind(keys).fetch_all(&mut *connection).await?;
        let known: HashMap<Uuid, IdentityRow> = rows.into_iter().map(|row| (row.key, row)).collect();
        for &unmatched in asked {
            match known.get(&unmatched.key) {
                Some(&row) => found(unmatched, row),
                None => missing.push(unmatched),
            }
        }
    }
    Ok(())
}

/// The sums over the stored events of `identities`, by day.
pub(super) async fn sums_of(
    connection: &mut PgConnection,
    identities: &[Unmatched],
) -> Result<BTreeMap<Day, SumsByType>, PgError> {
    let mut sums = BTreeMap::<Day, SumsByType>::new();
    let Some(days) = DaySelection::only(identities.iter().map(|unmatched| unmatched.day)) else { return Ok(sums) };
    for range in time_ranges(connection, &days).await? {
        let is_here = |unmatched: &&Unmatched| range.has(unmatched.day.to_date());
        let keys: Vec<Uuid> = identities.iter().filter(is_here).map(|unmatched| unmatched.key).collect();
        if keys.is_empty() {
            continue;
        }
        let rows: Vec<SumsRow> = sqlx::query_as(include_str!("../../queries/reconcile/sums_of_keys.sql"))
            .bind(range.from)
            .bind(range.until)
            .bind(keys)
            .fetch_all(&mut *connection)
            .await?;
        for row in rows {
            let (day, event_type, of_type) = row.decode()?;
            *sums.entry(day).or_default().entry(event_type).or_default() += of_type;
        }
    }
    Ok(sums)
}
