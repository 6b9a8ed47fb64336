//! The text form of durations, in settings and in messages.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const UNITS: [(&str, u64); 6] =
    [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

/// A duration that parses from and prints as text: an integer and a unit of `us ms s m h d`. A zero needs no unit.
///
/// The duration prints in the largest unit that needs no fraction.
///
/// ```
/// use std::time::Duration;
///
/// use netagg_core::HumanDuration;
///
/// let max_age: HumanDuration = "1825d".parse()?;
/// assert_eq!(max_age.0, Duration::from_secs(1_825 * 86_400));
/// assert_eq!(HumanDuration(Duration::from_millis(1_500)).to_string(), "1500ms");
/// assert!("5 s".parse::<HumanDuration>().is_err());
/// # Ok::<(), netagg_core::InvalidDuration>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_structs)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// A description of the accepted texts, for messages to users.
    pub const ACCEPTED: &'static str = "an integer and a unit (us ms s m h d)";
}

/// The error for a text that is not a [`HumanDuration`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is accepted", HumanDuration::ACCEPTED)]
pub struct InvalidDuration(());

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        if micros == 0 {
            return f.write_str("0s");
        }
        let divides = |size: &u64| micros.is_multiple_of(u128::from(*size));
        let (unit, size) = UNITS.into_iter().rev().find(|(_, size)| divides(size)).unwrap_or(UNITS[0]);
        write!(f, "{}{unit}", micros / u128::from(size))
    }
}

impl FromStr for HumanDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let parse = || {
            let digits = text.find(|c: char| !c.is_ascii_digit())?;
            let (number, unit) = text.split_at(digits);
            let (_, size) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
            number.parse::<u64>().ok()?.checked_mul(size)
        };
        parse().map(|micros| Self(Duration::from_micros(micros))).ok_or(InvalidDuration(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_an_integer_and_a_unit() {
        for (text, micros) in [
            ("5us", 5),
            ("20ms", 20_000),
            ("5s", 5_000_000),
            ("2m", 120_000_000),
            ("1h", 3_600_000_000),
            ("0d", 0),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(HumanDuration(Duration::from_micros(micros))), "{text}");
        }
        for text in ["", "5", "s", "-5s", "1.5s", "5 s", "5S", "5min", "99999999999999999999s", "999999999999999d"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_print_as_they_are_configured() {
        for (micros, printed) in [(0, "0s"), (1_500, "1500us"), (90_000_000, "90s"), (157_680_000_000_000, "1825d")] {
            assert_eq!(HumanDuration(Duration::from_micros(micros)).to_string(), printed);
        }
    }
}
