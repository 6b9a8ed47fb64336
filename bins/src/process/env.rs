//! Environment variables. Each variable is declared once, where it is read, with its default and its meaning.
//!
//! Reading collects every problem instead of stopping at the first problem. The help is printed from the same declarations,
//! so no variable can be missing in the help or in the checks.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::RangeInclusive;
use std::time::Duration;

use netagg_core::HumanDuration;

use super::env_file::EnvFile;
use super::misspelled::{is_link, is_service_link, meant};

/// The file in the working directory that may also set variables.
const ENV_FILE: &str = ".env";
/// The largest accepted size of the file, in bytes.
const MAX_ENV_FILE: u64 = 1 << 20;

/// The longest value that is printed whole, in characters.
const MAX_SHOWN: usize = 80;

/// The variables of a program: their values and their declarations.
#[derive(Debug, Default)]
pub struct Variables {
    values: BTreeMap<String, String>,
    /// Variables whose values are not in UTF-8, and where each is set.
    unreadable: BTreeMap<String, String>,
    declared: Vec<Declared>,
    problems: Vec<EnvError>,
    /// The heading of the variables that are declared next.
    group: &'static str,
    /// Lines of the file that are no assignment: the number and the first word of each.
    left_out: Vec<(usize, String)>,
    /// Whether the variables that are read now have no effect.
    is_ignoring: bool,
    names: VariableNames,
}

/// The variables of all programs that share an environment, for hints about a variable that a program does not know or
/// cannot use.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct VariableNames {
    /// Declares the variables of all programs, by reading them.
    pub declare_all: fn(&mut Variables),
    /// Prefixes that no other program uses.
    pub own_prefixes: &'static [&'static str],
    /// Names that other programs use, and the name of the same setting here.
    pub synonyms: &'static [(&'static str, &'static str)],
    /// Prefixes of variables that another variable overrides, and the other variable.
    pub overrides: &'static [(&'static str, &'static str)],
}

impl Default for VariableNames {
    /// No names.
    fn default() -> Self {
        Self::NONE
    }
}

impl VariableNames {
    /// No names, so no hints.
    pub const NONE: Self = Self { declare_all: |_| {}, own_prefixes: &[], synonyms: &[], overrides: &[] };

    /// The variable that an operator probably means by setting `name` to `value`. Returns `None` if `name` is known, or belongs
    /// to another program.
    pub fn suggestion(&self, name: &str, value: &str) -> Option<String> {
        self.find(name, value, &self.all()).map(str::to_owned)
    }

    fn find<'a>(&self, name: &str, value: &str, known: &'a [String]) -> Option<&'a str> {
        meant(name, value, known, self.own_prefixes, self.synonyms)
    }

    /// The names of all variables. A name that ends with `*` stands for all variables with this prefix.
    pub(crate) fn all(&self) -> Vec<String> {
        let mut variables = Variables::default();
        (self.declare_all)(&mut variables);
        variables.declared.into_iter().map(|declared| declared.name).collect()
    }
}

#[derive(Debug)]
struct Declared {
    group: &'static str,
    name: String,
    default: String,
    meaning: String,
}

/// A variable that cannot be used: its name, its value, and the accepted values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvError {
    name: String,
    /// `None` for a secret.
    value: Option<String>,
    accepted: String,
}

impl EnvError {
    /// The variable `name` with the value `value`, which is not accepted.
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

impl fmt::Display for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value:?}", self.name)?,
            None => write!(f, "{} (value not shown)", self.name)?,
        }
        write!(f, ": accepted: {}", self.accepted)
    }
}

impl Variables {
    /// The variables of the environment and of the file `.env` in the working directory. The environment overrides the file.
    /// An empty variable counts as unset. The module `env_file` describes the rules of the file.
    ///
    /// # Errors
    /// The reason, if a file `.env` exists and cannot be read.
    pub fn from_environment() -> Result<Self, String> {
        let file = read_env_file().map_err(|reason| format!("{ENV_FILE}: {reason}"))?;
        let mut values = BTreeMap::from_iter(file.values);
        let places = file.unreadable.into_iter().map(|(line, name)| (name, format!("line {line} of {ENV_FILE}")));
        let mut unreadable = BTreeMap::from_iter(places);
        for (name, value) in std::env::vars_os() {
            // A name that is not in UTF-8 is no variable of netagg.
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => {
                    unreadable.remove(&name);
                    values.insert(name, value);
                }
                Err(_) => {
                    values.remove(&name);
                    unreadable.insert(name, "the environment".to_owned());
                }
            }
        }
        Ok(Self { unreadable, left_out: file.left_out, ..Self::from_values(values) })
    }

    /// Only these variables, without the environment and the file.
    pub fn from_values(values: impl IntoIterator<Item = (String, String)>) -> Self {
        let values = values.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        Self { values, ..Self::default() }
    }

    /// Uses `names` for hints.
    pub fn with_names(self, names: VariableNames) -> Self {
        Self { names, ..self }
    }

    /// Checks the variables that were read so far.
    ///
    /// # Errors
    /// All their problems.
    pub fn check(&mut self) -> Result<(), Vec<EnvError>> {
        if self.problems.is_empty() { Ok(()) } else { Err(std::mem::take(&mut self.problems)) }
    }

    /// Records a problem, such as a problem of several values together.
    pub fn problem(&mut self, problem: EnvError) {
        if !self.is_ignoring {
            self.problems.push(problem);
        }
    }

    /// Records that both variables `names` have the same `value`, although each needs its own `thing`. The problem names the
    /// first variable that is set, because the operator can change it.
    pub fn same(&mut self, names: [&str; 2], value: &str, thing: &str) {
        let [first, second] = names;
        let (name, other) = if self.has(first) || !self.has(second) { (first, second) } else { (second, first) };
        self.problem(EnvError::new(name, value, format!("another {thing} than {other}")));
    }

    /// Reads variables. If `is_overridden`, they have no effect: they count as unset, and no value is a problem.
    pub fn unless<T>(&mut self, is_overridden: bool, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.is_ignoring;
        self.is_ignoring = before || is_overridden;
        let read = read(self);
        self.is_ignoring = before;
        read
    }

    /// Logs a warning for each variable that looks like a misspelled known variable. Also logs a warning for each line of the
    /// file that starts with a known variable and is no assignment.
    pub(crate) fn warn(&self) {
        let known = self.names.all();
        for (name, value) in &self.values {
            if let Some(meant) = self.names.find(name, value, &known) {
                tracing::warn!(variable = name, "unknown variable, it has no effect; do you mean {meant}?");
            }
        }
        for (line, word) in self.left_out.iter().filter(|(_, word)| known.contains(word)) {
            tracing::warn!(line, variable = word, "{ENV_FILE}: this line has no effect; accepted: NAME=value");
        }
    }

    /// Whether `name` has a value.
    pub fn has(&self, name: &str) -> bool {
        !self.is_ignoring && (self.values.contains_key(name) || self.unreadable.contains_key(name))
    }

    /// Records a problem if the value is not in UTF-8. Using the default instead would surprise the operator.
    fn reject_unreadable(&mut self, name: &str) {
        if let Some(place) = self.unreadable.get(name) {
            self.problem(EnvError::secret(name, format!("text in UTF-8; the value in {place} is not in UTF-8")));
        }
    }

    fn value(&self, name: &str) -> Option<&String> {
        if self.is_ignoring { None } else { self.values.get(name) }
    }

    /// Puts the variables that are declared from here on under `heading` in the help.
    pub fn group(&mut self, heading: &'static str) {
        self.group = heading;
    }

    /// One line for each variable declared, under the headings of their groups: name, default, meaning.
    pub fn help(&self) -> String {
        let width = |text: fn(&Declared) -> &str| self.declared.iter().map(|d| text(d).len()).max().unwrap_or(0);
        let (names, defaults) = (width(|d| &d.name), width(|d| &d.default).min(28));
        let mut help = String::from("Environment variables (also read from .env in the working directory):\n");
        let mut groups: Vec<&str> = Vec::new();
        for Declared { group, .. } in &self.declared {
            if !groups.contains(group) {
                groups.push(group);
            }
        }
        for heading in groups {
            if !heading.is_empty() {
                help.push_str(&format!("\n{heading}:\n"));
            }
            for Declared { name, default, meaning, .. } in self.declared.iter().filter(|d| d.group == heading) {
                help.push_str(&format!("  {name:names$}  {default:defaults$}  {meaning}\n"));
            }
        }
        help
    }

    fn declare(&mut self, name: &str, default: &str, meaning: &str) {
        let default = if default.is_empty() { "-" } else { default };
        self.declared.push(Declared {
            group: self.group,
            name: name.to_owned(),
            default: default.to_owned(),
            meaning: meaning.to_owned(),
        });
    }

    /// The parsed value of `name`. Returns the default if the variable is unset. If the value cannot be parsed, records a
    /// problem and returns the default.
    pub fn parse<T>(
        &mut self,
        name: &str,
        default: &str,
        meaning: &str,
        accepted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        self.declare(name, default, meaning);
        self.reject_unreadable(name);
        if let Some(value) = self.value(name) {
            match parse(value) {
                Some(parsed) => return Some(parsed),
                None => {
                    self.problems.push(EnvError::new(name, value, explain(name, value, accepted, self.names.overrides)))
                }
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
        self.reject_unreadable(name);
        let default = Some(default).filter(|default| !default.is_empty()).map(str::to_owned);
        self.value(name).cloned().or(default)
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

    /// A fraction from 0 to 1.
    pub fn share(&mut self, name: &str, default: f64, meaning: &str) -> f64 {
        let parse = |text: &str| text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
        self.parse(name, &default.to_string(), meaning, "a number from 0 to 1, such as 0.01", parse).unwrap_or(default)
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: &str, default: bool, meaning: &str) -> bool {
        let parse = |text: &str| text.parse().ok();
        self.parse(name, if default { "true" } else { "false" }, meaning, "true or false", parse).unwrap_or(default)
    }

    /// One of `choices`. The first choice is the default.
    pub fn choice(&mut self, name: &str, choices: &[&'static str], meaning: &str) -> &'static str {
        let parse = |text: &str| choices.iter().copied().find(|choice| *choice == text);
        let default = choices.first().copied().unwrap_or_default();
        let accepted = choices.join(", ");
        self.parse(name, default, &format!("{meaning}: {accepted}"), &accepted, parse).unwrap_or(default)
    }

    /// A duration within `range`: an integer and a unit of `us ms s m h d`.
    pub fn duration(
        &mut self,
        name: &str,
        default: Duration,
        range: RangeInclusive<Duration>,
        meaning: &str,
    ) -> Duration {
        let [first, last] = [*range.start(), *range.end()].map(HumanDuration);
        let accepted = format!("{}, from {first} to {last}", HumanDuration::ACCEPTED);
        let parse = |text: &str| text.parse().ok().filter(|HumanDuration(duration)| range.contains(duration));
        let default = HumanDuration(default);
        self.parse(name, &default.to_string(), meaning, &accepted, parse).unwrap_or(default).0
    }

    /// All variables whose names start with `prefix`, without the variables that Kubernetes sets. The help lists them as
    /// `prefix*`.
    pub fn prefixed(&mut self, prefix: &str, meaning: &str) -> Vec<(String, String)> {
        self.declare(&format!("{prefix}*"), "", meaning);
        let found =
            self.values.iter().filter(|(name, value)| name.starts_with(prefix) && !is_service_link(name, value));
        found.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// Reads the file, if it exists. A folder of this name is ignored, because it belongs to another program. Other files, such
/// as a pipe that may never end, are an error.
fn read_env_file() -> Result<EnvFile, String> {
    match std::fs::metadata(ENV_FILE) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(EnvFile::default()),
        Ok(metadata) if metadata.is_dir() => return Ok(EnvFile::default()),
        Ok(metadata) if !metadata.is_file() => return Err("it is not a regular file".to_owned()),
        _ => {}
    }
    let file = File::open(ENV_FILE).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_ENV_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_ENV_FILE {
        return Err(format!("it is too large; accepted: up to {MAX_ENV_FILE} bytes"));
    }
    Ok(EnvFile::parse(&bytes))
}

/// The accepted values. For a value that Kubernetes has set, also its origin and the remedy.
fn explain(name: &str, value: &str, accepted: &str, overrides: &[(&str, &str)]) -> String {
    if !is_link(value) {
        return accepted.to_owned();
    }
    let other = overrides.iter().find(|(prefix, other)| name.starts_with(prefix) && name != *other);
    let other = other.map_or(String::new(), |(_, other)| format!(", or set {other}, which overrides {name}"));
    format!(
        "{accepted}. This value looks like a service link of Kubernetes: set `enableServiceLinks: false` in the pod's \
         spec{other}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(values: &[(&str, &str)]) -> Variables {
        Variables::from_values(values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn every_problem_has_the_name_the_value_and_the_accepted_values() {
        let mut variables = variables(&[("PORT", "70000"), ("RATE", "NaN"), ("WAIT", "5"), ("EMPTY", "")]);
        assert_eq!(variables.port("PORT", 80, "a port"), 80);
        assert_eq!(variables.share("RATE", 0.5, "a share"), 0.5);
        variables.duration(
            "WAIT",
            Duration::from_secs(1),
            Duration::from_millis(1)..=Duration::from_secs(60),
            "a wait",
        );
        assert_eq!(variables.text("EMPTY", "default", "empty is unset"), "default");
        let problems: Vec<_> = variables.check().unwrap_err().iter().map(EnvError::to_string).collect();
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
    fn a_variable_that_another_one_overrides_is_no_problem() {
        let mut variables = variables(&[("PORT", "tcp://10.43.0.7:5432"), ("NAME", "x")]);
        let read = |variables: &mut Variables| (variables.port("PORT", 80, "a port"), variables.text("NAME", "d", ""));
        assert_eq!(variables.unless(true, read), (80, "d".to_owned()));
        assert_eq!(variables.check(), Ok(()));
        assert_eq!(variables.unless(false, read).1, "x");
        assert!(variables.check().is_err());
        assert!(variables.help().contains("a port"), "the help has it although it is overridden");
    }

    #[test]
    fn a_problem_with_a_service_link_names_kubernetes_and_the_remedy() {
        let names = VariableNames { overrides: &[("POSTGRES_", "DATABASE_URL")], ..VariableNames::default() };
        let mut variables =
            variables(&[("POSTGRES_PORT", "tcp://10.43.0.7:5432"), ("API_HTTP_PORT", "tcp://[fd::1]:80")])
                .with_names(names);
        variables.port("POSTGRES_PORT", 5432, "");
        variables.port("API_HTTP_PORT", 8000, "");
        let problems: Vec<_> = variables.check().unwrap_err().iter().map(EnvError::to_string).collect();
        assert!(problems.iter().all(|problem| problem.contains("enableServiceLinks: false")), "{problems:?}");
        assert!(problems[0].contains("set DATABASE_URL") && !problems[1].contains("or set"), "{problems:?}");
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
