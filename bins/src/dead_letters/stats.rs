//! How many dead letters there are of each kind.

use std::collections::BTreeMap;

use comfy_table::CellAlignment;
use netagg_core::{InvalidKind, Timestamp};
use netagg_kafka::{KafkaLetterReader, Replayed, StoredLetter};

use super::filter::{FOREIGN, LetterFilter};
use super::{kind, show_time};
use crate::Failure;
use crate::admin::table;
use crate::config::Kafka;
use crate::output::outln;

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    letters: u64,
    replayed: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Count {
    fn add(&mut self, letter: &StoredLetter, replayed: &Replayed) {
        self.letters += 1;
        self.replayed += u64::from(letter.origin.as_ref().is_some_and(|origin| replayed.contains(&origin.source)));
        let time = letter.record.instant();
        self.first = self.first.into_iter().chain(time).min();
        self.last = self.last.max(time);
    }
}

pub(super) async fn stats(reader: &KafkaLetterReader, filter: LetterFilter, kafka: &Kafka) -> Result<(), Failure> {
    filter.check()?;
    let replayed = Replayed::read(&kafka.client, &kafka.dlq_topic).await?;
    let mut letters = reader.read(filter.since()).await?;
    let mut kinds = BTreeMap::<_, Count>::new();
    let mut all = Count::default();
    while let Some(letter) = letters.next().await? {
        if filter.admits(&letter) {
            kinds.entry(kind(letter.origin.as_ref())).or_default().add(&letter, &replayed);
            all.add(&letter, &replayed);
        }
    }
    let mut table = table(["kind", "letters", "first", "last", "sent again"]);
    for index in [1, 4] {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let in_order = InvalidKind::ALL.iter().map(|kind| kind.as_str()).chain([FOREIGN]);
    let counts = in_order.filter_map(|kind| Some((kind, *kinds.get(kind)?)));
    for (kind, count) in counts.chain([("all", all)]) {
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
