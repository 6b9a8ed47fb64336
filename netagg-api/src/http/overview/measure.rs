//! The amounts that a chart can show.

use std::str::FromStr;

use netagg_core::Totals;

use super::numbers;
use crate::parameters::Wrong;

/// An amount of totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Events,
    Hours,
    Bytes,
}

impl Measure {
    pub(super) const ACCEPTED: &str = "events, hours or bytes";

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Events => "Events",
            Self::Hours => "Hours of calls and sessions",
            Self::Bytes => "Bytes sent and received",
        }
    }

    /// The amount for a chart.
    pub(super) fn value(self, totals: &Totals) -> f64 {
        match self {
            Self::Events => totals.count_events as f64,
            Self::Hours => totals.sum_duration as f64 / 3_600.0,
            Self::Bytes => bytes(totals) as f64,
        }
    }

    /// The amount as text for a table. The number of events is exact.
    pub(super) fn text(self, totals: &Totals) -> String {
        match self {
            Self::Events => numbers::grouped(totals.count_events),
            Self::Hours => numbers::hours(totals.sum_duration),
            Self::Bytes => numbers::bytes(bytes(totals)),
        }
    }

    /// The label of `value` at the axis of a chart. A part of an event or of a byte has none.
    pub(super) fn axis_label(self, value: f64) -> String {
        let is_whole = value.fract() == 0.0;
        match self {
            Self::Events | Self::Bytes if value < 1_000.0 && !is_whole => String::new(),
            Self::Events => numbers::short(value),
            Self::Hours if value > 0.0 && value < 1.0 => format!("{} min", numbers::short(value * 60.0)),
            Self::Hours => format!("{} h", numbers::short(value)),
            Self::Bytes => numbers::bytes(value as u128),
        }
    }
}

fn bytes(totals: &Totals) -> u128 {
    totals.sum_bytes_up.saturating_add(totals.sum_bytes_down)
}

impl FromStr for Measure {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match text {
            "events" => Ok(Self::Events),
            "hours" => Ok(Self::Hours),
            "bytes" => Ok(Self::Bytes),
            _ => Err(Wrong),
        }
    }
}
