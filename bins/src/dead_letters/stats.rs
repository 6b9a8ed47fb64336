//! `netagg dlq stats`: the number of dead letters of each kind.

use netagg_kafka::{DlqCount, DlqKind, DlqReader};

use super::filter::FilterArguments;
use super::text::show_time;
use crate::Failure;
use crate::process::outln;
use crate::tables::{right_align, table};

pub(super) async fn stats(reader: &DlqReader, filter: FilterArguments) -> Result<(), Failure> {
    let counts = reader.count(&filter.filter()?).await?;
    let all = counts.values().fold(DlqCount::default(), |all, count| all.plus(*count));
    let mut table = table(["kind", "dead letters", "first", "last", "sent again"]);
    right_align(&mut table, 1..2);
    right_align(&mut table, 4..);
    let in_order = DlqKind::all().filter_map(|kind| Some((kind.as_str(), *counts.get(&kind)?)));
    for (kind, count) in in_order.chain([("all", all)]) {
        table.add_row([
            kind.to_owned(),
            count.dead_letters.to_string(),
            show_time(count.first),
            show_time(count.last),
            count.replayed.to_string(),
        ]);
    }
    outln!("{table}");
    Ok(())
}
