//! The arguments that select dead letters.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{Day, HumanDuration, Timestamp};
use netagg_kafka::{DlqFilter, DlqKind};

use crate::Failure;

/// The conditions that a dead letter must meet, all of them.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FilterArguments {
    /// Only dead letters of this kind; foreign: messages that netagg did not write
    #[arg(long, value_name = "KIND", value_parser = kind())]
    kind: Option<DlqKind>,
    /// Only dead letters from this partition of KAFKA_TOPIC (they may lie in another partition of KAFKA_DLQ_TOPIC)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Only dead letters written at this time or later: 2025-10-20T12:34:56Z, 2025-10-20 (in UTC), or 2h (ago)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only dead letters written before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
}

impl FilterArguments {
    /// The filter. Fails if the filter excludes all dead letters.
    pub(super) fn filter(&self) -> Result<DlqFilter, Failure> {
        let Self { kind, partition, since, until } = *self;
        match (since, until) {
            (Some(since), Some(until)) if since >= until => {
                Err(Failure::Usage(format!("--since {since} is not before --until {until}")))
            }
            _ => Ok(DlqFilter { kind, partition, since, until }),
        }
    }
}

fn kind() -> impl TypedValueParser<Value = DlqKind> {
    let names = DlqKind::all().map(DlqKind::as_str);
    PossibleValuesParser::new(names)
        .map(|name| DlqKind::all().find(|kind| kind.as_str() == name).unwrap_or(DlqKind::Foreign))
}

fn time(text: &str) -> Result<Timestamp, &'static str> {
    let day = || text.parse::<Day>().ok()?.start();
    let ago = || text.parse().ok().map(|HumanDuration(ago)| SystemClock.now().saturating_sub(ago));
    text.parse().ok().or_else(day).or_else(ago).ok_or(
        "accepted: a time such as 2025-10-20T12:34:56Z, a day such as 2025-10-20 (its start in UTC), or a duration before \
         now such as 2h (us ms s m h d)",
    )
}
