//! The conformance suite of [`ApiKeys`].

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "the suite panics if an adapter breaks the contract"
)]

use std::sync::Arc;
use std::time::Duration;

use netagg_core::{Timestamp, UserId};

use crate::auth::{ApiKey, ApiKeyToken, ApiKeys, Principal, Scope};

/// Checks every behaviour that [`ApiKeys`] promises. `fresh` makes an adapter without keys.
///
/// # Panics
/// If the adapter breaks a promise.
pub async fn api_keys<K: ApiKeys>(fresh: impl AsyncFn() -> Arc<K>) {
    a_listed_key_equals_the_created_key(&*fresh().await).await;
    an_id_is_used_only_once(&*fresh().await).await;
    a_revocation_is_permanent(&*fresh().await).await;
}

fn now() -> Timestamp {
    "2025-10-31T12:00:00.123456Z".parse().expect("valid")
}

fn key(name: &str) -> (ApiKeyToken, ApiKey) {
    let token = ApiKeyToken::generate().expect("random numbers");
    let principal = Principal { name: name.to_owned(), ..Principal::anybody() };
    let key = ApiKey::new(&token, principal, now(), None);
    (token, key)
}

async fn a_listed_key_equals_the_created_key(keys: &dyn ApiKeys) {
    assert_eq!(keys.list().await.expect("listed"), []);
    let (token, plain) = key("plain");
    let (_, second) = key("second");
    let all = ApiKey {
        principal: Principal {
            name: "все \"поля\"\n".to_owned(),
            scopes: [Scope::DetailRead].into(),
            user_id: Some(UserId::new("7 ж").expect("valid")),
            rate_limit: Some("600/m".parse().expect("valid")),
        },
        created_at: now().saturating_add(Duration::from_secs(1)),
        expires_at: Some(now().saturating_add(Duration::from_secs(90))),
        ..second
    };
    keys.create(&plain).await.expect("created");
    keys.create(&all).await.expect("created");
    let listed = keys.list().await.expect("listed");
    assert_eq!(listed, [plain, all]);
    assert!(listed[0].matches(&token) && !listed[1].matches(&token));
}

async fn an_id_is_used_only_once(keys: &dyn ApiKeys) {
    let (_, first) = key("first");
    let (_, other) = key("other");
    keys.create(&first).await.expect("created");
    let error = keys.create(&ApiKey { id: first.id.clone(), ..other }).await.expect_err("the id is in use");
    assert!(!error.is_retryable(), "{error}");
    assert_eq!(keys.list().await.expect("listed"), [first]);
}

async fn a_revocation_is_permanent(keys: &dyn ApiKeys) {
    let ((_, kept), (_, revoked)) = (key("kept"), key("revoked"));
    let revoked = ApiKey { created_at: now().saturating_add(Duration::from_secs(1)), ..revoked };
    for key in [&kept, &revoked] {
        keys.create(key).await.expect("created");
    }
    let at = now().saturating_add(Duration::from_secs(5));
    assert!(keys.revoke(&revoked.id, at).await.expect("revoked"));
    assert!(keys.revoke(&revoked.id, at.saturating_add(Duration::from_secs(5))).await.expect("already revoked"));
    let (_, unknown) = key("unknown");
    assert!(!keys.revoke(&unknown.id, at).await.expect("revoke of an unknown id"));
    assert_eq!(keys.list().await.expect("listed"), [kept, ApiKey { revoked_at: Some(at), ..revoked }]);
}
