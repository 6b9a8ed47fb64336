//! `netagg keys`: creates, lists and revokes API keys.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use netagg_api::auth::ApiKeys;
use netagg_api::auth::{ApiKey, ApiKeyToken, KeyId, Principal, RateLimit, Scope};
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{Timestamp, UserId};
use netagg_pg::PgConfig;
use serde::Serialize;

use crate::Failure;
use crate::arguments::duration;
use crate::config;
use crate::process::terminal_escape::{json_line, printable};
use crate::process::{Variables, output};
use crate::process::{noteln, outln};
use crate::protection::{api_keys, keys_file};
use crate::run_program::run_command;
use crate::tables::table;

/// The commands for API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Create a key and print it; netagg does not show it again
    Create {
        /// A name for the holder of the key
        #[arg(long, value_parser = name)]
        name: String,
        /// A permission of the key: detail:read or aggregates:read; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<Scope>,
        /// Restrict the key to the data of this user; only with --scope detail:read; default: all users
        #[arg(long, value_name = "USER")]
        user_id: Option<UserId>,
        /// The rate limit of the key, such as 100/s, 600/m or 10000/h; default: API_RATE_LIMIT
        #[arg(long, value_name = "RATE")]
        rate_limit: Option<RateLimit>,
        /// How long the key is valid, such as 90d; default: for ever
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires_in: Option<Duration>,
        /// The file that the keys are kept in; default: API_KEYS_FILE, else PostgreSQL
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List the keys, without their secrets
    List {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        /// The file that the keys are kept in, as for create
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Revoke a key: within 10 s the API rejects it
    Revoke {
        /// The id of the key, as `list` shows it
        id: String,
        /// The file that the keys are kept in, as for create
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

impl KeysCommand {
    pub(crate) fn run(self) -> ExitCode {
        let (Self::Create { file, .. } | Self::List { file, .. } | Self::Revoke { file, .. }) = &self;
        let has_file = file.is_some();
        let configure = |variables: &mut Variables| {
            let file = keys_file(variables);
            let is_file = has_file || file.is_some();
            (variables.unless(is_file, |variables| config::postgres(variables, 2, "netagg-keys")), file)
        };
        run_command(configure, async |(postgres, file), _| self.execute(postgres, file).await)
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When the keys cannot be read or written.
    async fn execute(self, postgres: PgConfig, default_file: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let now = SystemClock.now();
        let stored = |file: Option<PathBuf>| api_keys(file.or(default_file), postgres);
        match self {
            Self::Create { name, scopes, user_id, rate_limit, expires_in, file } => {
                if user_id.is_some() && scopes.contains(&Scope::AggregatesRead) {
                    let reason = "--user-id with --scope aggregates:read: the key of one user would read the totals of \
                                  all users; accepted with --user-id: --scope detail:read";
                    return Err(Failure::Usage(reason.to_owned()));
                }
                if expires_in.is_some_and(|time| time.is_zero()) {
                    let reason =
                        "--expires-in 0s: the key would never be valid; accepted: a longer time, or no --expires-in";
                    return Err(Failure::Usage(reason.to_owned()));
                }
                if output::is_discarded() {
                    const REASON: &str =
                        "stdout is closed or is the null device, so the key would be lost; no key was created";
                    return Err(Failure::Failed(REASON.into()));
                }
                let principal = Principal { name, scopes: scopes.into_iter().collect(), user_id, rate_limit };
                let token = ApiKeyToken::generate()?;
                let expires_at = expires_in.map(|time| now.saturating_add(time));
                let keys = stored(file);
                keys.create(&ApiKey::new(&token, principal, now, expires_at)).await?;
                // The key is alone on stdout, so that a script can store it without showing it.
                outln!("{}", token.reveal());
                if let Err(error) = output::flush() {
                    return Err(revoke_unprinted(&*keys, token.id(), &error).await);
                }
                noteln!("Store this key now: netagg does not show it again. Its id is {}.", token.id());
            }
            Self::List { json, file } => print(&stored(file).list().await?, now, json)?,
            Self::Revoke { id, file } => {
                // clap does not parse this argument, because clap quotes rejected values, and this may be the whole key.
                let id: KeyId = id.parse().map_err(|error| Failure::Usage(format!("ID (value not shown): {error}")))?;
                if !stored(file).revoke(&id, now).await? {
                    let reason = format!("there is no key {id}; `netagg keys list` lists the keys");
                    return Err(Failure::Failed(reason.into()));
                }
                outln!("{id}: revoked");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Revokes a key whose secret could not be printed.
async fn revoke_unprinted(keys: &dyn ApiKeys, id: &KeyId, unprinted: &std::io::Error) -> Failure {
    let reason = format!("stdout: the key could not be printed: {unprinted}");
    let outcome = match keys.revoke(id, SystemClock.now()).await {
        Ok(_) => format!("the key {id} is revoked"),
        Err(error) => format!("it could not be revoked either ({error}): run `netagg keys revoke {id}`"),
    };
    Failure::Failed(format!("{reason}; {outcome}").into())
}

fn name(text: &str) -> Result<String, &'static str> {
    if (1..=100).contains(&text.chars().count()) { Ok(text.to_owned()) } else { Err("accepted: 1 to 100 characters") }
}

/// A key, as a line of `list --json`.
#[derive(Serialize)]
struct Listed<'a> {
    id: &'a KeyId,
    #[serde(flatten)]
    principal: &'a Principal,
    state: &'static str,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

fn print(keys: &[ApiKey], now: Timestamp, json: bool) -> Result<(), Failure> {
    let mut rows = table(["id", "name", "state", "scopes", "user", "rate", "created", "expires"]);
    for key in keys {
        let ApiKey { id, principal, created_at, expires_at, revoked_at, .. } = key;
        let state = match (revoked_at, key.is_valid_at(now)) {
            (Some(_), _) => "revoked",
            (None, true) => "good",
            (None, false) => "expired",
        };
        if json {
            let (created_at, expires_at, revoked_at) = (*created_at, *expires_at, *revoked_at);
            let listed = Listed { id, principal, state, created_at, expires_at, revoked_at };
            outln!("{}", json_line(&listed).map_err(|error| Failure::Failed(error.into()))?);
            continue;
        }
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        rows.add_row([
            id.to_string(),
            printable(principal.name.as_bytes()),
            state.to_owned(),
            principal.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" "),
            or_dash(principal.user_id.as_ref().map(|user| printable(user.as_str().as_bytes()))),
            or_dash(principal.rate_limit.map(|limit| limit.to_string())),
            created_at.to_string(),
            or_dash(expires_at.map(|at| at.to_string())),
        ]);
    }
    if !json {
        outln!("{rows}");
    }
    Ok(())
}
