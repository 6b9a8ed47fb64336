//! The newest dead letters.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
use netagg_kafka::{KafkaLetterReader, LetterOrigin, LetterSummary};
use terminal_size::terminal_size_of;

use super::filter::FilterArguments;
use super::text::{print_json, show_place, show_time};
use crate::Failure;
use crate::process::outln;
use crate::process::terminal_escape::printable;
use crate::tables::table;

/// How wide columns are on a terminal, however wide or narrow it is.
const WIDEST_KEY: Width = Width::Fixed(24);
const NARROWEST_KEY: Width = Width::Fixed(6);
const NARROWEST_DETAIL: Width = Width::Fixed(20);

pub(super) async fn list(
    reader: &KafkaLetterReader,
    filter: FilterArguments,
    limit: u64,
    is_json: bool,
    topic: &str,
) -> Result<(), Failure> {
    let newest = reader.newest(&filter.filter()?, limit as usize).await?;
    if is_json {
        for letter in &newest {
            print_json(letter)?;
        }
    } else if newest.is_empty() {
        outln!("no dead letters");
    } else {
        outln!("{}", as_table(&newest, topic));
    }
    Ok(())
}

/// On a terminal a line for each letter, however long its detail; elsewhere all of it.
fn as_table(letters: &[LetterSummary], topic: &str) -> Table {
    let mut table = table(["place", "time", "kind", "source", "key", "detail"]);
    let width = terminal_size_of(std::io::stdout()).map(|(width, _)| width.0);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    for letter in letters {
        let origin = letter.origin.as_ref();
        table.add_row([
            show_place(&letter.place),
            show_time(letter.time),
            letter.kind().as_str().to_owned(),
            origin.map_or("-".to_owned(), |origin| source(origin, topic)),
            letter.key.as_deref().map_or("-".to_owned(), printable),
            origin.map_or("-".to_owned(), |origin| printable(origin.detail.as_bytes())),
        ]);
    }
    if width.is_some() {
        for row in table.row_iter_mut() {
            row.max_height(1);
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            // none is in a cell, so what is too long is cut where the column ends, not where a word does
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

/// `partition:offset`, with the topic if it is another one than `topic`.
fn source(origin: &LetterOrigin, topic: &str) -> String {
    let place = show_place(&origin.source);
    if &*origin.source.partition.topic == topic {
        return place;
    }
    format!("{} {place}", printable(origin.source.partition.topic.as_bytes()))
}
