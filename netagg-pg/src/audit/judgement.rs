//! What is said of each day and month.

use std::collections::BTreeMap;

use netagg_core::{Day, EventType, Granularity, Month};
use sqlx::PgConnection;

use super::settling::Settled;
use crate::books::{self, Books, ByType, Column, DayBooks, Sums, SumsRow};
use crate::error::PgError;

/// A total that is not the sum over the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TotalsDifference {
    /// By day, in `agg_day`; or by month, in `agg_month`.
    pub granularity: Granularity,
    /// The day, or the first day of the month.
    pub date: Day,
    /// The type of the events.
    pub event_type: EventType,
    /// Which of the sums.
    pub column: Column,
    /// What the totals say; `None` if they have no row.
    pub in_totals: Option<i128>,
    /// What the events say; `None` if there are none.
    pub by_events: Option<i128>,
    /// Whether the aggregator is still to repair it, after a conflict.
    pub awaits_repair: bool,
}

impl TotalsDifference {
    /// Days before months, each in their order.
    pub(super) fn order(&self) -> (bool, Day, EventType, Column) {
        (self.granularity == Granularity::Month, self.date, self.event_type, self.column)
    }
}

/// A day of which a ledger is not what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct LedgerDifference {
    /// The day.
    pub day: Day,
    /// What is wrong.
    pub fault: LedgerFault,
}

/// What may be wrong with a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum LedgerFault {
    /// `event_identity` has another number of identities than `events_raw` has events.
    Unlike {
        /// How many identities.
        identities: u64,
        /// How many events.
        events: u64,
    },
    /// Events that the aggregator has passed and `agg_identity` does not have.
    NeverCounted {
        /// How many.
        events: u64,
    },
    /// Events that the ingestor has passed and only `agg_identity` has.
    NeverStored {
        /// How many.
        events: u64,
    },
}

/// A day that could not be compared, as the ingestor has still to store what the totals contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Undecided {
    /// The day.
    pub day: Day,
    /// How many events of it the ingestor has still to store.
    pub events: u64,
}

/// What is said of a day.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) day: Day,
    pub(super) faults: Vec<LedgerDifference>,
    pub(super) verdict: Verdict,
    /// Whether a conflict of the day is, or will be, answered by a repair.
    is_in_conflict: bool,
}

#[derive(Debug)]
pub(super) enum Verdict {
    /// Type, what the totals say, what the events say; where they differ.
    Decided(Vec<(EventType, Option<Sums>, Option<Sums>)>),
    Undecided(Undecided),
}

impl Judgement {
    pub(super) fn of(day: Day, books: &DayBooks, settled: &Settled) -> Self {
        let events = books.events();
        let unlike = LedgerFault::Unlike { identities: books.identities, events };
        let count = |counts: &BTreeMap<Day, u64>| counts.get(&day).copied().filter(|count| *count > 0);
        let faults = [
            (books.identities != events).then_some(unlike),
            count(&settled.never_counted).map(|events| LedgerFault::NeverCounted { events }),
            count(&settled.never_stored).map(|events| LedgerFault::NeverStored { events }),
        ];
        let verdict = match count(&settled.not_yet_stored) {
            Some(events) => Verdict::Undecided(Undecided { day, events }),
            None => {
                let mut wanted = books.counted.clone();
                for more in [&settled.stored, &settled.uncounted] {
                    books::add(&mut wanted, more.get(&day).unwrap_or(&ByType::new()));
                }
                Verdict::Decided(books::differing(&books.totals, &wanted))
            }
        };
        Self {
            day,
            faults: faults.into_iter().flatten().map(|fault| LedgerDifference { day, fault }).collect(),
            verdict,
            is_in_conflict: books.marked_at.is_some() || settled.conflicting.contains(&day),
        }
    }

    /// Whether the day differs, and waits for a repair.
    pub(super) fn is_to_be_repaired(&self) -> bool {
        self.is_in_conflict && matches!(&self.verdict, Verdict::Decided(differing) if !differing.is_empty())
    }

    /// Adds where the totals differ to `differences`.
    pub(super) fn list(&self, differences: &mut Vec<TotalsDifference>) {
        let Verdict::Decided(differing) = &self.verdict else { return };
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

/// Each column in which `found` is not `wanted`.
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

/// The months that lie in the range from their first to their last day.
#[derive(Debug)]
pub(super) struct Months {
    /// Their rows of `agg_month`, and the sums over those of `agg_day` in the same snapshot.
    rows: BTreeMap<Month, (ByType, ByType)>,
}

impl Months {
    pub(super) async fn read(
        connection: &mut PgConnection,
        from: Day,
        to: Day,
        books: &Books,
    ) -> Result<Self, PgError> {
        let is_whole = |month: Month| from <= month.first_day() && month.last_day() <= to;
        let mut rows = BTreeMap::<Month, (ByType, ByType)>::new();
        let found: Vec<SumsRow> = sqlx::query_as(include_str!("../../queries/audit_months.sql"))
            .bind(from.to_date())
            .bind(to.to_date())
            .fetch_all(connection)
            .await?;
        for row in found {
            let (first_day, event_type, sums) = books::decode(row)?;
            rows.entry(first_day.month()).or_default().0.insert(event_type, sums);
        }
        for (day, books) in &books.days {
            books::add(&mut rows.entry(day.month()).or_default().1, &books.totals);
        }
        rows.retain(|month, _| is_whole(*month));
        Ok(Self { rows })
    }

    /// Adds where months differ to `differences`: by what the days in them differ, and by what a month is not the sum of
    /// its days. A month with an undecided day is left out.
    pub(super) fn compare(&self, judgements: &BTreeMap<Day, Judgement>, differences: &mut Vec<TotalsDifference>) {
        for (month, (found, of_days)) in &self.rows {
            let days = || judgements.range(month.first_day()..=month.last_day()).map(|(_, judgement)| judgement);
            let mut wanted = of_days.clone();
            let mut awaits_repair = false;
            let mut is_undecided = false;
            for judgement in days() {
                match &judgement.verdict {
                    Verdict::Undecided(_) => is_undecided = true,
                    Verdict::Decided(differing) => {
                        for (event_type, found, by_events) in differing {
                            let correction = by_events.unwrap_or_default() - found.unwrap_or_default();
                            *wanted.entry(*event_type).or_default() += correction;
                            awaits_repair |= judgement.is_in_conflict;
                        }
                    }
                }
            }
            if is_undecided {
                continue;
            }
            for (event_type, found, wanted) in books::differing(found, &wanted) {
                let date = month.first_day();
                differences.extend(by_column(Granularity::Month, date, event_type, found, wanted, awaits_repair));
            }
        }
    }
}
