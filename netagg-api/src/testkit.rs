//! The conformance suite of [`ApiKeys`].

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a suite panics where a promise is broken")]

use std::sync::Arc;
use std::time::Duration;

use netagg_core::{Timestamp, UserId};

use crate::auth::{ApiKey, ApiKeyToken, ApiKeys, Principal, Scope};

/// Checks every behaviour that [`ApiKeys`] promises. `fresh` makes an adapter without keys. A broken promise panics.
pub async fn api_keys<K: ApiKeys>(fresh: impl AsyncFn() -> Arc<K>) {
    a_key_comes_back_as_it_was(&*fresh().await).await;
    an_id_is_taken_once(&*fresh().await).await;
    a_revocation_is_for_good(&*fresh().await).await;
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

async fn a_key_comes_back_as_it_was(keys: &dyn ApiKeys) {
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
    keys.create(&plain).await.expect("kept");
    keys.create(&all).await.expect("kept");
    let listed = keys.list().await.expect("listed");
    assert_eq!(listed, [plain, all]);
    assert!(listed[0].matches(&token) && !listed[1].matches(&token));
}

async fn an_id_is_taken_once(keys: &dyn ApiKeys) {
    let (_, first) = key("first");
    let (_, other) = key("other");
    keys.create(&first).await.expect("kept");
    let error = keys.create(&ApiKey { id: first.id.clone(), ..other }).await.expect_err("the id is taken");
    assert!(!error.is_retryable(), "{error}");
    assert_eq!(keys.list().await.expect("listed"), [first]);
}

async fn a_revocation_is_for_good(keys: &dyn ApiKeys) {
    let ((_, kept), (_, revoked)) = (key("kept"), key("revoked"));
    let revoked = ApiKey { created_at: now().saturating_add(Duration::from_secs(1)), ..revoked };
    for key in [&kept, &revoked] {
        keys.create(key).await.expect("kept");
    }
    let at = now().saturating_add(Duration::from_secs(5));
    assert!(keys.revoke(&revoked.id, at).await.expect("revoked"));
    assert!(keys.revoke(&revoked.id, at.saturating_add(Duration::from_secs(5))).await.expect("revoked before"));
    let (_, unknown) = key("unknown");
    assert!(!keys.revoke(&unknown.id, at).await.expect("looked for"));
    assert_eq!(keys.list().await.expect("listed"), [kept, ApiKey { revoked_at: Some(at), ..revoked }]);
}
