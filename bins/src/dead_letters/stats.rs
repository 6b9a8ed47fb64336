//! How many dead letters there are of each kind.

use netagg_kafka::{KafkaLetterReader, LetterCount, LetterKind};

use super::filter::FilterArguments;
use super::text::show_time;
use crate::Failure;
use crate::process::outln;
use crate::tables::{right_align, table};

pub(super) async fn stats(reader: &KafkaLetterReader, filter: FilterArguments) -> Result<(), Failure> {
    let counts = reader.count(&filter.filter()?).await?;
    let all = counts.values().fold(LetterCount::default(), |all, count| all.plus(*count));
    let mut table = table(["kind", "letters", "first", "last", "sent again"]);
    right_align(&mut table, 1..2);
    right_align(&mut table, 4..);
    let in_order = LetterKind::all().filter_map(|kind| Some((kind.as_str(), *counts.get(&kind)?)));
    for (kind, count) in in_order.chain([("all", all)]) {
        table.add_row([
            kind.to_owned(),
            count.letters.to_string(),
            show_time(count.first),
            show_time(count.last),
            count.replayed.to_string(),
        ]);
    }
    outln!("{table}");
    Ok(())
}
