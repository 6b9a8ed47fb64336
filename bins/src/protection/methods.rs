//! The methods of authentication that `API_AUTH` names.

use crate::process::{EnvError, Variables};

use crate::config::ApiAddresses;

/// How callers prove who they are, as `API_AUTH` lists it.
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
    /// API keys.
    pub(super) keys: bool,
    /// Tokens of an issuer.
    pub(super) tokens: bool,
}

/// Makes sure that everybody may ask: for an API over data that was made up, which has no keys to ask for.
pub fn open_only(variables: &mut Variables, addresses: &ApiAddresses) {
    let methods = methods(variables, addresses);
    if methods.keys || methods.tokens {
        variables.problem(EnvError::new("API_AUTH", methods.name, "none: the demonstration knows nobody"));
    }
}

/// Without `API_AUTH` everybody gets in, as long as that is everybody on this machine.
pub(super) fn methods(variables: &mut Variables, addresses: &ApiAddresses) -> Methods {
    let parse = |text: &str| METHODS.into_iter().find(|methods| methods.name == text);
    let meaning = format!("how callers prove who they are: {ACCEPTED}; default: none, on a loopback address only");
    let is_open = !addresses.http.ip().is_loopback();
    let methods = variables.parse("API_AUTH", "", &meaning, ACCEPTED, parse);
    if methods.is_none() && is_open {
        let accepted = format!("{ACCEPTED}, said so while API_BIND={} is not a loopback address", addresses.http.ip());
        variables.problem(EnvError::new("API_AUTH", "", accepted));
    }
    methods.unwrap_or(METHODS[0])
}
