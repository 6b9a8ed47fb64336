//! Principals: the holders of credentials, and the requests that they may make.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use netagg_core::UserId;

use super::rate_limit::RateLimit;

/// A kind of requests that a principal may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(clippy::exhaustive_enums)]
pub enum Scope {
    /// Requests about single users: their events, and the totals that are computed from their events.
    #[serde(rename = "detail:read")]
    DetailRead,
    /// Requests for the totals of all users.
    #[serde(rename = "aggregates:read")]
    AggregatesRead,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 2] = [Self::DetailRead, Self::AggregatesRead];

    /// The name of the scope: `detail:read` or `aggregates:read`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DetailRead => "detail:read",
            Self::AggregatesRead => "aggregates:read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error for a text that is not a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("detail:read and aggregates:read are accepted")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}

/// The holder of credentials, and the requests that it may make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct Principal {
    /// The name in logs and lists.
    pub name: String,
    /// The kinds of requests that the principal may make.
    pub scopes: BTreeSet<Scope>,
    /// The only user whose data the principal may read. `None` means all users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The rate limit of the principal. `None` means the rate limit of the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

impl Principal {
    /// The principal of every caller of an API without authentication. It may make all requests.
    pub fn anybody() -> Self {
        Self { name: "anybody".to_owned(), scopes: Scope::ALL.into(), user_id: None, rate_limit: None }
    }

    /// Checks that the principal has `scope`.
    ///
    /// # Errors
    /// If the principal does not have it.
    pub fn require(&self, scope: Scope) -> Result<(), Forbidden> {
        if self.scopes.contains(&scope) { Ok(()) } else { Err(Forbidden::Scope(scope)) }
    }

    /// Checks that the principal may read the data of `user`.
    ///
    /// # Errors
    /// If the principal may read only the data of another user.
    pub fn require_user(&self, user: &UserId) -> Result<(), Forbidden> {
        if self.user_id.as_ref().is_none_or(|own| own == user) { Ok(()) } else { Err(Forbidden::User) }
    }
}

/// Why a principal may not make a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(clippy::exhaustive_enums)]
pub enum Forbidden {
    /// The principal does not have this scope.
    #[error("the request needs the scope {0}")]
    Scope(Scope),
    /// The request is about a user whose data the principal may not read.
    #[error("these credentials are only for the data of another user")]
    User,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_limited_to_its_scopes_and_its_user() {
        let user = |id: &str| UserId::new(id).expect("valid");
        let own = Principal { scopes: [Scope::DetailRead].into(), user_id: Some(user("1")), ..Principal::anybody() };
        assert_eq!(own.require(Scope::DetailRead), Ok(()));
        assert_eq!(own.require(Scope::AggregatesRead), Err(Forbidden::Scope(Scope::AggregatesRead)));
        assert_eq!(own.require_user(&user("1")), Ok(()));
        assert_eq!(own.require_user(&user("11")), Err(Forbidden::User));
        for scope in Scope::ALL {
            assert_eq!(Principal::anybody().require(scope), Ok(()));
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert_eq!("detail:write".parse::<Scope>(), Err(UnknownScope));
        assert_eq!(Principal::anybody().require_user(&user("any")), Ok(()));
    }
}
