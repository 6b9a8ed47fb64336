//! `netagg keys`: who may ask the API.

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
use crate::program::run_command;
use crate::protection::{api_keys, keys_file};
use crate::tables::table;

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and print it, this once
    Create {
        /// What people call its holder
        #[arg(long, value_parser = name)]
        name: String,
        /// What it may ask about, detail:read or aggregates:read; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<Scope>,
        /// The only user whose own data it may ask about, with detail:read alone; any without it
        #[arg(long, value_name = "USER")]
        user_id: Option<UserId>,
        /// How often it may ask, such as 100/s, 600/m or 10000/h; API_RATE_LIMIT without it
        #[arg(long, value_name = "RATE")]
        rate_limit: Option<RateLimit>,
        /// How long it is good, such as 90d; for ever without it
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires_in: Option<Duration>,
        /// Where the keys are kept; API_KEYS_FILE, or PostgreSQL, without it
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List the keys, without their secrets
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// As of create
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Take a key back: within 10 s nobody gets in with it
    Revoke {
        /// What `list` calls it
        id: String,
        /// As of create
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

    /// Does it.
    ///
    /// # Errors
    /// When the keys cannot be read or written.
    async fn execute(self, postgres: PgConfig, default_file: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let now = SystemClock.now();
        let kept = |file: Option<PathBuf>| api_keys(file.or(default_file), postgres);
        match self {
            Self::Create { name, scopes, user_id, rate_limit, expires_in, file } => {
                if user_id.is_some() && scopes.contains(&Scope::AggregatesRead) {
                    let reason = "--user-id with --scope aggregates:read: a user's own key would tell everybody's \
                                  totals; accepted with --user-id: --scope detail:read";
                    return Err(Failure::Usage(reason.to_owned()));
                }
                if expires_in.is_some_and(|time| time.is_zero()) {
                    let reason = "--expires-in 0s: the key would never be good; accepted: a longer time, or none";
                    return Err(Failure::Usage(reason.to_owned()));
                }
                if output::is_discarded() {
                    const REASON: &str =
                        "stdout is closed or the null device, so the key would be lost; no key was made";
                    return Err(Failure::Failed(REASON.into()));
                }
                let principal = Principal { name, scopes: scopes.into_iter().collect(), user_id, rate_limit };
                let token = ApiKeyToken::generate()?;
                let expires_at = expires_in.map(|time| now.saturating_add(time));
                let keys = kept(file);
                keys.create(&ApiKey::new(&token, principal, now, expires_at)).await?;
                // Alone on stdout, so that it can go where it belongs unseen.
                outln!("{}", token.reveal());
                if let Err(error) = output::flush() {
                    return Err(take_back(&*keys, token.id(), &error).await);
                }
                noteln!("Keep it now: only its holder has it from here on. Its id is {}.", token.id());
            }
            Self::List { json, file } => print(&kept(file).list().await?, now, json)?,
            Self::Revoke { id, file } => {
                // Not parsed by clap, which quotes what it refuses: that may be the whole key.
                let id: KeyId = id.parse().map_err(|error| Failure::Usage(format!("ID (value not shown): {error}")))?;
                if !kept(file).revoke(&id, now).await? {
                    return Err(Failure::Failed(format!("there is no key {id}; `netagg keys list` has them").into()));
                }
                outln!("{id}: revoked");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Revokes a key whose secret could not be printed.
async fn take_back(keys: &dyn ApiKeys, id: &KeyId, unprinted: &std::io::Error) -> Failure {
    let reason = format!("stdout: the key could not be printed: {unprinted}");
    let outcome = match keys.revoke(id, SystemClock.now()).await {
        Ok(_) => format!("its id is {id}, and it is revoked"),
        Err(error) => format!("it could not be revoked either ({error}): `netagg keys revoke {id}` does that"),
    };
    Failure::Failed(format!("{reason}; {outcome}").into())
}

fn name(text: &str) -> Result<String, &'static str> {
    if (1..=100).contains(&text.chars().count()) {
        Ok(text.to_owned())
    } else {
        Err("1 to 100 characters are accepted")
    }
}

/// A key as a line of `list --json` has it.
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
