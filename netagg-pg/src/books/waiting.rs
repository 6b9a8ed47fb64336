//! Looking up what a ledger lacked: whether it has it by now.

use std::collections::HashMap;

use chrono::NaiveDate;
use netagg_core::Day;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Apart;
use crate::error::PgError;

/// How many keys are looked up at a time.
const KEYS: usize = 10_000;

/// One of the two ledgers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ledger {
    /// That of the events.
    Stored,
    /// That of the totals.
    Counted,
}

/// Takes those out of `missing` that `ledger` has by now; `found` is told of each, with the content and the day it has
/// there.
pub(crate) async fn look_up(
    connection: &mut PgConnection,
    ledger: Ledger,
    missing: &mut Vec<Apart>,
    mut found: impl FnMut(Apart, i64, Day),
) -> Result<(), PgError> {
    let statement = match ledger {
        Ledger::Stored => include_str!("../../queries/event_identity_known.sql"),
        Ledger::Counted => include_str!("../../queries/agg_identity_known.sql"),
    };
    let asked = std::mem::take(missing);
    for asked in asked.chunks(KEYS) {
        let keys: Vec<Uuid> = asked.iter().map(|apart| apart.key).collect();
        let rows: Vec<(Uuid, i64, NaiveDate)> =
            sqlx::query_as(statement).bind(keys).fetch_all(&mut *connection).await?;
        let known: HashMap<Uuid, (i64, NaiveDate)> =
            rows.into_iter().map(|(key, content, day)| (key, (content, day))).collect();
        for &apart in asked {
            match known.get(&apart.key) {
                Some(&(content, day)) => found(apart, content, Day::from(day)),
                None => missing.push(apart),
            }
        }
    }
    Ok(())
}
