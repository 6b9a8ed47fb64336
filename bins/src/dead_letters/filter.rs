//! Which dead letters a command is about.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{Day, HumanDuration, Timestamp};
use netagg_kafka::{LetterFilter, LetterKind};

use crate::Failure;

/// Which letters; all of these together.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FilterArguments {
    /// Only those of this kind; foreign: what netagg did not write
    #[arg(long, value_name = "KIND", value_parser = kind())]
    kind: Option<LetterKind>,
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

impl FilterArguments {
    /// The filter. Fails if no letter can pass it.
    pub(super) fn filter(&self) -> Result<LetterFilter, Failure> {
        let Self { kind, partition, since, until } = *self;
        match (since, until) {
            (Some(since), Some(until)) if since >= until => {
                Err(Failure::Usage(format!("--since {since} is not before --until {until}")))
            }
            _ => Ok(LetterFilter { kind, partition, since, until }),
        }
    }
}

fn kind() -> impl TypedValueParser<Value = LetterKind> {
    let names = LetterKind::all().map(LetterKind::as_str);
    PossibleValuesParser::new(names)
        .map(|name| LetterKind::all().find(|kind| kind.as_str() == name).unwrap_or(LetterKind::Foreign))
}

fn time(text: &str) -> Result<Timestamp, &'static str> {
    let day = || text.parse::<Day>().ok()?.start();
    let ago = || text.parse().ok().map(|HumanDuration(ago)| SystemClock.now().saturating_sub(ago));
    text.parse().ok().or_else(day).or_else(ago).ok_or(
        "a time such as 2025-10-20T12:34:56Z, a day such as 2025-10-20 (its start in UTC), or a duration before now \
         such as 2h (us ms s m h d) is accepted",
    )
}
