//! The comparison of each day and month.

use std::collections::BTreeMap;

use netagg_core::{Day, EventType, Granularity, Month};
use sqlx::PgConnection;

use super::catch_up::CatchUp;
use super::report::{LedgerDifference, LedgerFault, TotalsDifference, Undecided};
use crate::client::PgError;
use crate::reconcile::day_snapshot::DaySnapshot;
use crate::reconcile::snapshot::ReconciliationSnapshot;
use crate::reconcile::sums::{self, Column, Sums, SumsByType, SumsRow};

/// The result of comparing a day.
#[derive(Debug)]
pub(super) struct DayResult {
    pub(super) day: Day,
    pub(super) faults: Vec<LedgerDifference>,
    pub(super) totals: TotalsResult,
    /// Whether a repair has to resolve a conflict of the day.
    is_in_conflict: bool,
}

/// The result of comparing the totals of a day.
#[derive(Debug)]
pub(super) enum TotalsResult {
    /// For each type that differs: the sums in the totals, and the sums over the events.
    Compared(Vec<(EventType, Option<Sums>, Option<Sums>)>),
    Undecided(Undecided),
}

impl DayResult {
    pub(super) fn of(day: Day, snapshot: &DaySnapshot, outcome: &CatchUp) -> Self {
        let (identities, events) = (snapshot.identities, snapshot.events());
        let count = |counts: &BTreeMap<Day, u64>| counts.get(&day).copied().filter(|count| *count > 0);
        let faults = [
            (identities != events).then_some(LedgerFault::CountMismatch { identities, events }),
            count(&outcome.never_counted).map(|events| LedgerFault::NeverCounted { events }),
            count(&outcome.never_stored).map(|events| LedgerFault::NeverStored { events }),
        ];
        let totals = match count(&outcome.not_yet_stored) {
            Some(events) => TotalsResult::Undecided(Undecided { day, events }),
            None => {
                let mut wanted = snapshot.counted.clone();
                for more in [&outcome.stored, &outcome.uncounted] {
                    sums::add(&mut wanted, more.get(&day).unwrap_or(&SumsByType::new()));
                }
                TotalsResult::Compared(sums::differing(&snapshot.totals, &wanted))
            }
        };
        Self {
            day,
            faults: faults.into_iter().flatten().map(|fault| LedgerDifference { day, fault }).collect(),
            totals,
            is_in_conflict: snapshot.marked_at.is_some() || outcome.conflicting.contains(&day),
        }
    }

    /// Whether the totals differ, and a repair will follow.
    pub(super) fn awaits_repair(&self) -> bool {
        self.is_in_conflict && matches!(&self.totals, TotalsResult::Compared(differing) if !differing.is_empty())
    }

    /// Adds the differences of the totals to `differences`.
    pub(super) fn list(&self, differences: &mut Vec<TotalsDifference>) {
        let TotalsResult::Compared(differing) = &self.totals else { return };
        for (event_type, found, wanted) in differing {
            differences.extend(by_column(
                Granularity::Day,
                self.day,
                *event_type,
                *found,
                *wanted,
                self.is_in_conflict,
            ));
        }
    }
}

/// The columns in which `found` differs from `wanted`.
fn by_column(
    granularity: Granularity,
    date: Day,
    event_type: EventType,
    found: Option<Sums>,
    wanted: Option<Sums>,
    awaits_repair: bool,
) -> impl Iterator<Item = TotalsDifference> {
    let of = |sums: Option<Sums>, column| sums.map(|sums| sums.of(column));
    Column::ALL
        .into_iter()
        .map(move |column| (column, of(found, column), of(wanted, column)))
        .filter(|(_, in_totals, by_events)| in_totals != by_events)
        .map(move |(column, in_totals, by_events)| TotalsDifference {
            granularity,
            date,
            event_type,
            column,
            in_totals,
            by_events,
            awaits_repair,
        })
}

/// The months of which the audited range has all days.
#[derive(Debug)]
pub(super) struct Months {
    /// The rows of `agg_month`, and the sums over the rows of `agg_day` in the same snapshot.
    rows: BTreeMap<Month, (SumsByType, SumsByType)>,
}

impl Months {
    pub(super) async fn read(
        connection: &mut PgConnection,
        from: Day,
        to: Day,
        snapshot: &ReconciliationSnapshot,
    ) -> Result<Self, PgError> {
        let is_whole = |month: Month| from <= month.first_day() && month.last_day() <= to;
        let mut rows = BTreeMap::<Month, (SumsByType, SumsByType)>::new();
        let found: Vec<SumsRow> = sqlx::query_as(include_str!("../../../queries/audit/months.sql"))
            .bind(from.to_date())
            .bind(to.to_date())
            .fetch_all(connection)
            .await?;
        for row in found {
            let (first_day, event_type, sums) = row.decode()?;
            rows.entry(first_day.month()).or_default().0.insert(event_type, sums);
        }
        for (date, day) in &snapshot.days {
            sums::add(&mut rows.entry(date.month()).or_default().1, &day.totals);
        }
        rows.retain(|month, _| is_whole(*month));
        Ok(Self { rows })
    }

    /// Adds the differences of months to `differences`: the differences of their days, and the differences between a month
    /// and the sum of its days. A month with an undecided day is left out.
    pub(super) fn compare(&self, results: &BTreeMap<Day, DayResult>, differences: &mut Vec<TotalsDifference>) {
        for (month, (found, of_days)) in &self.rows {
            let days = || results.range(month.first_day()..=month.last_day()).map(|(_, result)| result);
            let mut wanted = of_days.clone();
            let mut awaits_repair = false;
            let mut is_undecided = false;
            for result in days() {
                match &result.totals {
                    TotalsResult::Undecided(_) => is_undecided = true,
                    TotalsResult::Compared(differing) => {
                        for (event_type, found, by_events) in differing {
                            let correction = by_events.unwrap_or_default() - found.unwrap_or_default();
                            *wanted.entry(*event_type).or_default() += correction;
                            awaits_repair |= result.is_in_conflict;
                        }
                    }
                }
            }
            if is_undecided {
                continue;
            }
            for (event_type, found, wanted) in sums::differing(found, &wanted) {
                let date = month.first_day();
                differences.extend(by_column(Granularity::Month, date, event_type, found, wanted, awaits_repair));
            }
        }
    }
}
