//! Principals: the holders of credentials, and the questions that they may ask.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use netagg_core::UserId;

use super::rate_limit::RateLimit;

/// A kind of questions that a principal may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(clippy::exhaustive_enums)]
pub enum Scope {
    /// Single users: their events, and whatever is computed from them.
    #[serde(rename = "detail:read")]
    DetailRead,
    /// Everybody's totals.
    #[serde(rename = "aggregates:read")]
    AggregatesRead,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::DetailRead, Self::AggregatesRead];

    /// As it is written: `detail:read` or `aggregates:read`.
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

/// A text that names no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("detail:read and aggregates:read are accepted")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}

/// The holder of credentials, and the questions that it may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct Principal {
    /// Its name in logs and lists.
    pub name: String,
    /// The questions that it may ask.
    pub scopes: BTreeSet<Scope>,
    /// The only user it may ask about; without it, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// How often it may ask; without it, the limit of the API holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

impl Principal {
    /// Every caller of an API without authentication. It may ask everything.
    pub fn anybody() -> Self {
        Self { name: "anybody".to_owned(), scopes: Scope::ALL.into(), user_id: None, rate_limit: None }
    }

    /// Makes sure that it may ask about what `scope` covers.
    ///
    /// # Errors
    /// When it may not.
    pub fn require(&self, scope: Scope) -> Result<(), Forbidden> {
        if self.scopes.contains(&scope) { Ok(()) } else { Err(Forbidden::Scope(scope)) }
    }

    /// Makes sure that it may ask about `user`.
    ///
    /// # Errors
    /// When it may ask about another user only.
    pub fn require_user(&self, user: &UserId) -> Result<(), Forbidden> {
        if self.user_id.as_ref().is_none_or(|own| own == user) { Ok(()) } else { Err(Forbidden::User) }
    }
}

/// What a principal may not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(clippy::exhaustive_enums)]
pub enum Forbidden {
    /// Anything that this scope covers.
    #[error("this needs the scope {0}")]
    Scope(Scope),
    /// Anything about a user other than its own.
    #[error("these credentials are for another user's own data")]
    User,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_may_what_its_scopes_and_its_user_say() {
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
