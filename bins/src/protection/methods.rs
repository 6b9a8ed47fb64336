//! The methods of authentication that `API_AUTH` names.

use crate::process::{EnvError, Variables};

use crate::config::ApiAddresses;

/// How callers may authenticate: the values of `API_AUTH`.
const METHODS: [Methods; 4] = [
    Methods { name: "none", keys: false, tokens: false },
    Methods { name: "keys", keys: true, tokens: false },
    Methods { name: "jwt", keys: false, tokens: true },
    Methods { name: "keys,jwt", keys: true, tokens: true },
];
const ACCEPTED: &str = "none, keys, jwt or both: keys,jwt";

#[derive(Clone, Copy, Debug)]
pub(super) struct Methods {
    pub(super) name: &'static str,
    /// Whether callers authenticate with API keys.
    pub(super) keys: bool,
    /// Whether callers authenticate with the tokens of an issuer.
    pub(super) tokens: bool,
}

/// Reports a problem if `API_AUTH` requires authentication. It is for an API that serves generated data and has no keys.
pub fn open_only(variables: &mut Variables, addresses: &ApiAddresses) {
    let methods = methods(variables, addresses);
    if methods.keys || methods.tokens {
        variables.problem(EnvError::new(
            "API_AUTH",
            methods.name,
            "none, because the demonstration has no API keys and no issuer",
        ));
    }
}

/// Reads `API_AUTH`. Without it the API accepts every caller, but only on a loopback address, so only from this machine.
pub(super) fn methods(variables: &mut Variables, addresses: &ApiAddresses) -> Methods {
    let parse = |text: &str| METHODS.into_iter().find(|methods| methods.name == text);
    let meaning = format!(
        "how callers authenticate: {ACCEPTED}; default: none if API_BIND is a loopback address, otherwise required"
    );
    let is_open = !addresses.http.ip().is_loopback();
    let methods = variables.parse("API_AUTH", "", &meaning, ACCEPTED, parse);
    if methods.is_none() && is_open {
        let reason =
            format!("API_AUTH is required, because API_BIND={} is not a loopback address", addresses.http.ip());
        variables.problem(EnvError::new("API_AUTH", "", format!("{ACCEPTED}; {reason}")));
    }
    methods.unwrap_or(METHODS[0])
}
