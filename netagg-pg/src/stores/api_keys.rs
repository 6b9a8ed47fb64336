//! The store of API keys, in the table `api_key`.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use netagg_api::auth::ApiKeys;
use netagg_api::auth::{ApiKey, KeyId, Principal, RateLimit};
use netagg_core::{BoxError, Error, Timestamp, UserId};
use sqlx::FromRow;

use crate::client::{PgError, Postgres};

/// Stores API keys in `api_key`.
#[derive(Clone, Debug)]
pub struct PgApiKeys {
    postgres: Postgres,
}

impl PgApiKeys {
    /// The keys in `postgres`, which must not be a replica: a replica may still have a key that was just revoked.
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
                let rows: Vec<ApiKeyRow> =
                    sqlx::query_as(include_str!("../../queries/api_keys/list.sql")).fetch_all(&mut *session).await?;
                session.release();
                let key = |row| ApiKey::try_from(row).map_err(|error| PgError::unreadable("an API key", error));
                rows.into_iter().map(key).collect()
            })
            .await
    }

    async fn create(&self, key: &ApiKey) -> Result<(), Error> {
        let ApiKey { id, digest, principal, created_at, expires_at, revoked_at } = key;
        let added = self
            .postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let done = sqlx::query(include_str!("../../queries/api_keys/add.sql"))
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

#[derive(Debug, FromRow)]
struct ApiKeyRow {
    id: String,
    digest: Vec<u8>,
    name: String,
    scopes: Vec<String>,
    user_id: Option<String>,
    rate_limit: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl TryFrom<ApiKeyRow> for ApiKey {
    type Error = BoxError;

    fn try_from(row: ApiKeyRow) -> Result<Self, BoxError> {
        let principal = Principal {
            name: row.name,
            scopes: row.scopes.iter().map(|scope| scope.parse()).collect::<Result<_, _>>()?,
            user_id: row.user_id.map(UserId::new).transpose()?,
            rate_limit: row.rate_limit.map(|limit| limit.parse::<RateLimit>()).transpose()?,
        };
        Ok(Self {
            id: row.id.parse()?,
            digest: row.digest.as_slice().try_into()?,
            principal,
            created_at: Timestamp::try_from(row.created_at)?,
            expires_at: row.expires_at.map(Timestamp::try_from).transpose()?,
            revoked_at: row.revoked_at.map(Timestamp::try_from).transpose()?,
        })
    }
}
