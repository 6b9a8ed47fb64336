//! Environment variables: each declared once, where it is read, with its default and meaning.
//!
//! Reading collects every problem instead of stopping at the first, and the same declarations print the help, so that
//! neither can leave a variable out.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// Longest value that is printed whole.
const MAX_SHOWN: usize = 80;

/// The variables of one program: their values, and what was declared of them.
#[derive(Debug, Default)]
pub struct Variables {
    values: BTreeMap<String, String>,
    declared: Vec<Declared>,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct Declared {
    name: String,
    default: String,
    meaning: String,
}

/// A variable that cannot be used: its name, its value and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    name: String,
    /// `None` for a secret.
    value: Option<String>,
    accepted: String,
}

impl Problem {
    /// The variable `name` with the value `value`, which isn't accepted.
    pub fn new(name: &str, value: &str, accepted: impl Into<String>) -> Self {
        let mut shown: String = value.chars().take(MAX_SHOWN).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        Self { name: name.to_owned(), value: Some(shown), accepted: accepted.into() }
    }

    /// The variable `name`, whose value may hold a secret and is not shown.
    pub fn secret(name: &str, accepted: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: None, accepted: accepted.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value:?}", self.name)?,
            None => write!(f, "{} (value not shown)", self.name)?,
        }
        write!(f, ": accepted: {}", self.accepted)
    }
}

impl Variables {
    /// The variables of the environment, and below them those of the file `.env` in the working directory. Empty ones
    /// count as unset.
    ///
    /// # Errors
    /// When there is a `.env` that cannot be read; the message names the line.
    pub fn from_environment() -> Result<Self, String> {
        let mut values = BTreeMap::new();
        if Path::new(".env").exists() {
            let lines = dotenvy::from_path_iter(".env").map_err(|error| format!(".env: {error}"))?;
            for line in lines {
                let (name, value) = line.map_err(|error| match error {
                    // The line may hold a password.
                    dotenvy::Error::LineParse(_, at) => {
                        format!(".env: a line cannot be read (at character {at} of it); accepted: NAME=value")
                    }
                    other => format!(".env: {other}"),
                })?;
                values.insert(name, value);
            }
        }
        // One that isn't Unicode is nobody's here.
        values.extend(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        );
        Ok(Self::from_values(values))
    }

    /// These variables alone.
    pub fn from_values(values: impl IntoIterator<Item = (String, String)>) -> Self {
        let values = values.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        Self { values, ..Self::default() }
    }

    /// What is wrong with the variables read so far.
    ///
    /// # Errors
    /// Every problem.
    pub fn check(&mut self) -> Result<(), Vec<Problem>> {
        if self.problems.is_empty() { Ok(()) } else { Err(std::mem::take(&mut self.problems)) }
    }

    /// Notes a problem that isn't of one value alone.
    pub fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// One line for each variable declared: name, default, meaning.
    pub fn help(&self) -> String {
        let width = |text: fn(&Declared) -> &str| self.declared.iter().map(|d| text(d).len()).max().unwrap_or(0);
        let (names, defaults) = (width(|d| &d.name), width(|d| &d.default).min(28));
        let mut help = String::from("Environment variables (also read from .env in the working directory):\n");
        for Declared { name, default, meaning } in &self.declared {
            help.push_str(&format!("  {name:names$}  {default:defaults$}  {meaning}\n"));
        }
        help
    }

    fn declare(&mut self, name: &str, default: &str, meaning: &str) {
        let default = if default.is_empty() { "-" } else { default };
        self.declared.push(Declared {
            name: name.to_owned(),
            default: default.to_owned(),
            meaning: meaning.to_owned(),
        });
    }

    /// The value of `name`, parsed; the default if it is unset or cannot be parsed, which is a problem.
    pub fn parse<T>(
        &mut self,
        name: &str,
        default: &str,
        meaning: &str,
        accepted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        self.declare(name, default, meaning);
        if let Some(value) = self.values.get(name) {
            match parse(value) {
                Some(parsed) => return Some(parsed),
                None => self.problems.push(Problem::new(name, value, accepted)),
            }
        }
        parse(default)
    }

    /// A text.
    pub fn text(&mut self, name: &str, default: &str, meaning: &str) -> String {
        self.optional_text(name, default, meaning).unwrap_or_default()
    }

    /// A text that may be absent.
    pub fn optional_text(&mut self, name: &str, default: &str, meaning: &str) -> Option<String> {
        self.declare(name, default, meaning);
        let default = Some(default).filter(|default| !default.is_empty()).map(str::to_owned);
        self.values.get(name).cloned().or(default)
    }

    /// A whole number within `range`.
    pub fn number(&mut self, name: &str, default: u64, range: RangeInclusive<u64>, meaning: &str) -> u64 {
        let accepted = format!("an integer from {} to {}", range.start(), range.end());
        let parse = |text: &str| text.parse().ok().filter(|number| range.contains(number));
        self.parse(name, &default.to_string(), meaning, &accepted, parse).unwrap_or(default)
    }

    /// A TCP port.
    pub fn port(&mut self, name: &str, default: u16, meaning: &str) -> u16 {
        self.number(name, u64::from(default), 1..=65_535, meaning) as u16
    }

    /// A share from 0 to 1.
    pub fn share(&mut self, name: &str, default: f64, meaning: &str) -> f64 {
        let parse = |text: &str| text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
        self.parse(name, &default.to_string(), meaning, "a number from 0 to 1, such as 0.01", parse).unwrap_or(default)
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: &str, default: bool, meaning: &str) -> bool {
        let parse = |text: &str| text.parse().ok();
        self.parse(name, if default { "true" } else { "false" }, meaning, "true or false", parse).unwrap_or(default)
    }

    /// One of `choices`, the first being the default.
    pub fn choice(&mut self, name: &str, choices: &[&'static str], meaning: &str) -> &'static str {
        let parse = |text: &str| choices.iter().copied().find(|choice| *choice == text);
        let default = choices.first().copied().unwrap_or_default();
        let accepted = choices.join(", ");
        self.parse(name, default, &format!("{meaning}: {accepted}"), &accepted, parse).unwrap_or(default)
    }

    /// A duration within `range`: an integer and a unit of `us ms s m h d`.
    pub fn duration(&mut self, name: &str, default: &str, range: RangeInclusive<Duration>, meaning: &str) -> Duration {
        let accepted = format!(
            "an integer and a unit (us ms s m h d), from {} to {}",
            show_duration(*range.start()),
            show_duration(*range.end())
        );
        let parse = |text: &str| parse_duration(text).filter(|duration| range.contains(duration));
        self.parse(name, default, meaning, &accepted, parse).unwrap_or_default()
    }

    /// Every variable whose name starts with `prefix`, which is declared as `prefix*`.
    pub fn prefixed(&mut self, prefix: &str, meaning: &str) -> Vec<(String, String)> {
        self.declare(&format!("{prefix}*"), "", meaning);
        let found = self.values.iter().filter(|(name, _)| name.starts_with(prefix));
        found.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

const UNITS: [(&str, u64); 6] =
    [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

/// The duration that an integer and a unit of `us ms s m h d` spell; a zero needs no unit.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
    let (number, unit) = text.split_at(digits);
    let (_, micros) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(Duration::from_micros(number.parse::<u64>().ok()?.checked_mul(*micros)?))
}

/// `duration` in the largest unit that divides it.
pub(crate) fn show_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let (name, unit) =
        UNITS.iter().rev().find(|(_, unit)| micros.is_multiple_of(u128::from(*unit))).unwrap_or(&UNITS[0]);
    if micros == 0 { "0s".to_owned() } else { format!("{}{name}", micros / u128::from(*unit)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(values: &[(&str, &str)]) -> Variables {
        Variables::from_values(values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

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
            assert_eq!(parse_duration(text), Some(Duration::from_micros(micros)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "1.5s", "5 s", "5S", "5min", "99999999999999999999s", "999999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(show_duration(Duration::from_secs(86_400 * 1_825)), "1825d");
        assert_eq!(show_duration(Duration::from_millis(1_500)), "1500ms");
    }

    #[test]
    fn every_problem_is_told_with_name_value_and_what_is_accepted() {
        let mut variables = variables(&[("PORT", "70000"), ("RATE", "NaN"), ("WAIT", "5"), ("EMPTY", "")]);
        assert_eq!(variables.port("PORT", 80, "a port"), 80);
        assert_eq!(variables.share("RATE", 0.5, "a share"), 0.5);
        variables.duration("WAIT", "1s", Duration::from_millis(1)..=Duration::from_secs(60), "a wait");
        assert_eq!(variables.text("EMPTY", "default", "empty is unset"), "default");
        let problems: Vec<_> = variables.check().unwrap_err().iter().map(Problem::to_string).collect();
        assert_eq!(
            problems,
            [
                r#"PORT="70000": accepted: an integer from 1 to 65535"#,
                r#"RATE="NaN": accepted: a number from 0 to 1, such as 0.01"#,
                r#"WAIT="5": accepted: an integer and a unit (us ms s m h d), from 1ms to 1m"#,
            ]
        );
    }

    #[test]
    fn help_names_defaults_and_never_values() {
        let mut variables = variables(&[("PASSWORD", "secret"), ("PORT", "81")]);
        variables.text("PASSWORD", "app_password", "the password");
        variables.port("PORT", 80, "the port");
        let help = variables.help();
        assert!(help.contains("PASSWORD") && help.contains("app_password") && help.contains("the port"), "{help}");
        assert!(!help.contains("secret") && !help.contains("81"), "{help}");
    }
}
