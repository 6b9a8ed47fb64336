//! The rows of `agg_day` and of the view `agg_month`.

use chrono::NaiveDate;
use netagg_core::ports::TotalsQuery;
use netagg_core::{AggregateRow, Day, Error, EventType, Granularity, Totals};
use sqlx::{FromRow, PgConnection};

use crate::client::rows::TotalsRow;
use crate::client::{PgError, Postgres, Traced};

/// Adds `sums` to the totals.
pub(super) async fn add(
    connection: &mut PgConnection,
    sums: impl IntoIterator<Item = ((Day, EventType), Totals)>,
) -> Result<(), PgError> {
    let (mut days, mut types) = (Vec::new(), Vec::new());
    let (mut counts, mut durations) = (Vec::new(), Vec::new());
    // `numeric` has no Rust type here, and text is exact.
    let (mut bytes_up, mut bytes_down) = (Vec::new(), Vec::new());
    for ((day, event_type), totals) in sums {
        days.push(day.to_date());
        types.push(event_type.as_str());
        // A batch's count and seconds are far below 2^63.
        counts.push(totals.count_events as i64);
        durations.push(totals.sum_duration as i64);
        bytes_up.push(totals.sum_bytes_up.to_string());
        bytes_down.push(totals.sum_bytes_down.to_string());
    }
    if days.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("../../queries/totals/add.sql"))
        .bind(days)
        .bind(types)
        .bind(counts)
        .bind(durations)
        .bind(bytes_up)
        .bind(bytes_down)
        .execute(connection)
        .traced("INSERT agg_day")
        .await?;
    Ok(())
}

/// Reads the totals that `query` selects.
pub(super) async fn read(postgres: &Postgres, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
    let (summary, statement, from, to) = match query.granularity {
        Granularity::Day => ("SELECT agg_day", include_str!("../../queries/totals/by_day.sql"), query.from, query.to),
        Granularity::Month => (
            "SELECT agg_month",
            include_str!("../../queries/totals/by_month.sql"),
            query.from.month().first_day(),
            query.to.month().last_day(),
        ),
    };
    postgres
        .call(async {
            let mut session = postgres.session().await?;
            let rows: Vec<DatedTotalsRow> = sqlx::query_as(statement)
                .bind(from.to_date())
                .bind(to.to_date())
                .bind(query.event_type.map(EventType::as_str))
                .fetch_all(&mut *session)
                .traced(summary)
                .await?;
            session.release();
            rows.into_iter().map(AggregateRow::try_from).collect()
        })
        .await
}

/// Totals of a day or month.
#[derive(Debug, FromRow)]
struct DatedTotalsRow {
    date: NaiveDate,
    #[sqlx(flatten)]
    totals: TotalsRow,
}

impl TryFrom<DatedTotalsRow> for AggregateRow {
    type Error = PgError;

    fn try_from(row: DatedTotalsRow) -> Result<Self, PgError> {
        Ok(Self { date: Day::from(row.date), event_type: row.totals.event_type()?, totals: row.totals.totals()? })
    }
}
