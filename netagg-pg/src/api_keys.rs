//! `api_key`.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use netagg_api::auth::ApiKeys;
use netagg_api::auth::{ApiKey, KeyId, Principal, RateLimit};
use netagg_core::{BoxError, Error, Timestamp, UserId};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::error::PgError;
use crate::postgres::Postgres;

/// Keeps API keys in `api_key`.
#[derive(Clone, Debug)]
pub struct PgApiKeys {
    postgres: Postgres,
}

impl PgApiKeys {
    /// The keys of `postgres`. Not of a replica, which may not know yet that a key is revoked.
    pub fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }
}

#[async_trait]
impl ApiKeys for PgApiKeys {
    async fn list(&self) -> Result<Vec<ApiKey>, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let rows = sqlx::query(include_str!("../queries/api_keys.sql")).fetch_all(&mut *session).await?;
                session.release();
                rows.iter().map(|row| decode(row).map_err(|error| PgError::unreadable("an API key", error))).collect()
            })
            .await
    }

    async fn create(&self, key: &ApiKey) -> Result<(), Error> {
        let ApiKey { id, digest, principal, created_at, expires_at, revoked_at } = key;
        let added = self
            .postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let done = sqlx::query(include_str!("../queries/api_key_add.sql"))
                    .bind(id.as_str())
                    .bind(&digest[..])
                    .bind(&principal.name)
                    .bind(principal.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>())
                    .bind(principal.user_id.as_ref().map(UserId::as_str))
                    .bind(principal.rate_limit.map(|limit| limit.to_string()))
                    .bind(created_at.to_datetime())
                    .bind(expires_at.map(Timestamp::to_datetime))
                    .bind(revoked_at.map(Timestamp::to_datetime))
                    .execute(&mut *session)
                    .await?;
                session.release();
                Ok(done.rows_affected() == 1)
            })
            .await?;
        if added {
            return Ok(());
        }
        Err(Error::Refused { dependency: "postgres", source: format!("there is a key {id} already").into() })
    }

    async fn revoke(&self, id: &KeyId, now: Timestamp) -> Result<bool, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let done = sqlx::query("UPDATE api_key SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1")
                    .bind(id.as_str())
                    .bind(now.to_datetime())
                    .execute(&mut *session)
                    .await?;
                session.release();
                Ok(done.rows_affected() == 1)
            })
            .await
    }
}

fn decode(row: &PgRow) -> Result<ApiKey, BoxError> {
    let at = |index| -> Result<Option<Timestamp>, BoxError> {
        Ok(row.try_get::<Option<DateTime<Utc>>, _>(index)?.map(Timestamp::try_from).transpose()?)
    };
    let principal = Principal {
        name: row.try_get(2)?,
        scopes: row.try_get::<Vec<String>, _>(3)?.iter().map(|scope| scope.parse()).collect::<Result<_, _>>()?,
        user_id: row.try_get::<Option<&str>, _>(4)?.map(UserId::new).transpose()?,
        rate_limit: row.try_get::<Option<&str>, _>(5)?.map(str::parse::<RateLimit>).transpose()?,
    };
    Ok(ApiKey {
        id: row.try_get::<&str, _>(0)?.parse()?,
        digest: row.try_get::<&[u8], _>(1)?.try_into()?,
        principal,
        created_at: at(6)?.ok_or("created_at is missing")?,
        expires_at: at(7)?,
        revoked_at: at(8)?,
    })
}
