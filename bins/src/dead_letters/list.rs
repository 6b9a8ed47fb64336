//! `netagg dlq list`: the newest dead letters.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
use netagg_kafka::{DlqOrigin, DlqReader, DlqSummary};
use terminal_size::terminal_size_of;

use super::filter::FilterArguments;
use super::text::{print_json, show_position, show_time};
use crate::Failure;
use crate::process::outln;
use crate::process::terminal_escape::printable;
use crate::tables::table;

/// The limits of the column widths on a terminal of any width.
const WIDEST_KEY: Width = Width::Fixed(24);
const NARROWEST_KEY: Width = Width::Fixed(6);
const NARROWEST_DETAIL: Width = Width::Fixed(20);

pub(super) async fn list(
    reader: &DlqReader,
    filter: FilterArguments,
    limit: u64,
    is_json: bool,
    topic: &str,
) -> Result<(), Failure> {
    let newest = reader.newest(&filter.filter()?, limit as usize).await?;
    if is_json {
        for dead_letter in &newest {
            print_json(dead_letter)?;
        }
    } else if newest.is_empty() {
        outln!("no dead letters");
    } else {
        outln!("{}", as_table(&newest, topic));
    }
    Ok(())
}

/// A table of dead letters. On a terminal each dead letter has a line, which cuts long values. Elsewhere no value is cut.
fn as_table(dead_letters: &[DlqSummary], topic: &str) -> Table {
    let mut table = table(["position", "time", "kind", "source", "key", "detail"]);
    let width = terminal_size_of(std::io::stdout()).map(|(width, _)| width.0);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    for dead_letter in dead_letters {
        let origin = dead_letter.origin.as_ref();
        table.add_row([
            show_position(&dead_letter.position),
            show_time(dead_letter.time),
            dead_letter.kind().as_str().to_owned(),
            origin.map_or("-".to_owned(), |origin| source(origin, topic)),
            dead_letter.key.as_deref().map_or("-".to_owned(), printable),
            origin.map_or("-".to_owned(), |origin| printable(origin.detail.as_bytes())),
        ]);
    }
    if width.is_some() {
        for row in table.row_iter_mut() {
            row.max_height(1);
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            // No cell contains this delimiter, so a long value is cut at the end of the column, not at the end of a word.
            column.set_delimiter('\n');
            column.set_constraint(match index {
                4 => ColumnConstraint::Boundaries { lower: NARROWEST_KEY, upper: WIDEST_KEY },
                5 => ColumnConstraint::LowerBoundary(NARROWEST_DETAIL),
                _ => ColumnConstraint::ContentWidth,
            });
        }
    }
    table
}

/// `partition:offset`, with the topic if it differs from `topic`.
fn source(origin: &DlqOrigin, topic: &str) -> String {
    let position = show_position(&origin.source);
    if &*origin.source.partition.topic == topic {
        return position;
    }
    format!("{} {position}", printable(origin.source.partition.topic.as_bytes()))
}
