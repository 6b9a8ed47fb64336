//! The variables that say who may ask the API.

use std::path::PathBuf;

use netagg_api::Protection;
use netagg_pg::PgConfig;

use crate::config::ApiAddresses;
use crate::keys::api_keys;
use crate::{Problem, Variables};

/// How callers prove who they are, as `API_AUTH` lists it.
const METHODS: [(&str, Methods); 2] = [("none", Methods { keys: false }), ("keys", Methods { keys: true })];

#[derive(Clone, Copy, Debug)]
struct Methods {
    keys: bool,
}

/// Who may ask, and how it is found out.
#[derive(Debug)]
pub struct ProtectionConfig {
    methods: Methods,
    keys_file: Option<PathBuf>,
}

impl ProtectionConfig {
    /// Reads `API_AUTH` and what it needs, for an API at `addresses`.
    pub fn read(variables: &mut Variables, addresses: &ApiAddresses) -> Self {
        let methods = methods(variables, addresses);
        Self { methods, keys_file: keys_file(variables) }
    }

    /// What guards the servers. The database is that of the keys, unless they are in a file.
    pub fn protection(self, postgres: PgConfig) -> Protection {
        let Self { methods, keys_file } = self;
        let protection = Protection::default();
        if methods.keys { protection.with_keys(api_keys(keys_file, postgres)) } else { protection }
    }
}

/// Makes sure that everybody may ask: for an API over data that was made up, which has no keys to ask for.
pub fn open_only(variables: &mut Variables, addresses: &ApiAddresses) {
    if methods(variables, addresses).keys {
        variables.problem(Problem::new("API_AUTH", "keys", "none: the demonstration knows nobody"));
    }
}

/// Where API keys are kept, if not in PostgreSQL.
pub fn keys_file(variables: &mut Variables) -> Option<PathBuf> {
    let meaning = "a file that the API keys are kept in; default: PostgreSQL";
    variables.optional_text("API_KEYS_FILE", "", meaning).map(PathBuf::from)
}

/// Without `API_AUTH` everybody gets in, as long as that is everybody on this machine.
fn methods(variables: &mut Variables, addresses: &ApiAddresses) -> Methods {
    let names = METHODS.map(|(name, _)| name).join(", ");
    let parse = |text: &str| METHODS.into_iter().find(|(name, _)| *name == text).map(|(_, methods)| methods);
    let meaning = format!("how callers prove who they are: {names}; default: none, on a loopback address only");
    let is_open = !addresses.http.ip().is_loopback();
    let methods = variables.parse("API_AUTH", "", &meaning, &names, parse);
    if methods.is_none() && is_open {
        let accepted = format!("{names}, said so while API_BIND={} is not a loopback address", addresses.http.ip());
        variables.problem(Problem::new("API_AUTH", "", accepted));
    }
    methods.unwrap_or(METHODS[0].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(values: &[(&str, &str)]) -> String {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut variables = Variables::from_values(values);
        let addresses = ApiAddresses::read(&mut variables);
        ProtectionConfig::read(&mut variables, &addresses);
        variables.check().err().unwrap_or_default().iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn nobody_is_let_in_from_afar_by_accident() {
        for bind in ["127.0.0.1", "127.8.0.1", "::1", ""] {
            assert_eq!(problems(&[("API_BIND", bind)]), "", "{bind}");
        }
        for bind in ["0.0.0.0", "::", "10.0.0.1"] {
            let problem = problems(&[("API_BIND", bind)]);
            assert!(problem.starts_with(r#"API_AUTH="": accepted: none, keys"#) && problem.contains(bind), "{problem}");
            for auth in ["none", "keys"] {
                assert_eq!(problems(&[("API_BIND", bind), ("API_AUTH", auth)]), "", "{bind} {auth}");
            }
        }
        assert!(problems(&[("API_AUTH", "password")]).starts_with(r#"API_AUTH="password": accepted: none, keys"#));
    }
}
