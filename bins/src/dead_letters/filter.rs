//! Which dead letters a command is about.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{Day, InvalidKind, Timestamp};
use netagg_kafka::StoredLetter;

use crate::Failure;
use crate::variables::parse_duration;

/// What the kind of a message is called that netagg did not write.
pub(super) const FOREIGN: &str = "foreign";

/// Which letters; all of these together.
#[derive(Clone, Debug, Default, Args)]
#[allow(clippy::exhaustive_structs)]
pub struct LetterFilter {
    /// Only those of this kind; foreign: what netagg did not write
    #[arg(long, value_name = "KIND", value_parser = kind())]
    kind: Option<Kind>,
    /// Only those of events from this partition of KAFKA_TOPIC (a letter may lie in another one of KAFKA_DLQ_TOPIC)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Only those written at this time or later: 2025-10-20T12:34:56Z, 2025-10-20 (in UTC), or 2h (ago)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only those written before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Foreign,
    Known(InvalidKind),
}

impl LetterFilter {
    /// Complains about a filter that no letter can pass.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if since >= until => {
                Err(Failure::Usage(format!("--since {since} is not before --until {until}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Whether the letter is one of those, [`since`](Self::since) aside.
    pub(super) fn admits(&self, letter: &StoredLetter) -> bool {
        let origin = letter.origin.as_ref();
        let kind = origin.map_or(Kind::Foreign, |origin| Kind::Known(origin.kind));
        let partition = origin.map(|origin| origin.source.partition.number);
        self.kind.is_none_or(|wanted| wanted == kind)
            && self.partition.is_none_or(|wanted| Some(wanted) == partition)
            && self.until.is_none_or(|until| letter.record.instant().is_some_and(|at| at < until))
    }
}

fn kind() -> impl TypedValueParser<Value = Kind> {
    let names = InvalidKind::ALL.iter().map(|kind| kind.as_str()).chain([FOREIGN]);
    PossibleValuesParser::new(names).map(|name| {
        let known = InvalidKind::ALL.into_iter().find(|kind| kind.as_str() == name);
        known.map_or(Kind::Foreign, Kind::Known)
    })
}

fn time(text: &str) -> Result<Timestamp, &'static str> {
    let day = || text.parse::<Day>().ok()?.start();
    let ago = || parse_duration(text).map(|ago| SystemClock.now().saturating_sub(ago));
    text.parse().ok().or_else(day).or_else(ago).ok_or(
        "a time such as 2025-10-20T12:34:56Z, a day such as 2025-10-20 (its start in UTC), or a duration before now \
         such as 2h (us ms s m h d) is accepted",
    )
}
