//! `/debug/pprof`: where a service spends its time and its memory, as `go tool pprof` reads it.
//!
//! A profile of time is taken only while somebody asks for one. Then the system interrupts the process a hundred times
//! for each second of processor time that it uses, and the interrupted stack is noted, by the program's own unwind
//! tables. They are read before the first interruption: inside of one nothing may be allocated or waited for. What is
//! left to libc there, finding the function of an address, takes no lock with glibc 2.35 and newer.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use jemalloc_pprof::PROF_CTL;
use netagg_core::BoxError;
use pprof::protos::Message;
use pprof::{ProfilerGuard, ProfilerGuardBuilder};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// Samples for each second of processor time; a hundred would keep in step with what happens at round intervals.
const FREQUENCY: i32 = 99;

const DEFAULT_SECONDS: u64 = 30;
const MAX_SECONDS: u64 = 60;

/// The longest excerpt of a wrong query that is shown.
const MAX_SHOWN: usize = 80;

/// The routes `/debug/pprof/profile?seconds=N` and `/debug/pprof/heap`, which answer as `go tool pprof` reads it. They are for
/// operators: merge them into [`ops_router`](super::ops_router), and never serve them to callers of the API.
///
/// A profile of time takes 1 to 60 seconds, by default 30. A heap profile needs an application whose global allocator is
/// jemalloc with profiling, and [`sample_heap`] at its start. One profile is taken at a time.
pub fn profiles_router() -> Router {
    Router::new()
        .route(
            "/debug/pprof/profile",
            get(async |State(profiler): State<Arc<Profiler>>, parameters: Query<_>| profiler.cpu(parameters).await),
        )
        .route(
            "/debug/pprof/heap",
            get(async |State(profiler): State<Arc<Profiler>>, parameters: Query<_>| profiler.heap(parameters).await),
        )
        .with_state(Arc::new(Profiler::default()))
}

/// Takes profiles, one at a time.
#[derive(Debug, Default)]
struct Profiler {
    turn: Mutex<()>,
}

impl Profiler {
    /// `/debug/pprof/profile?seconds=N`. A client that goes away ends its profile.
    async fn cpu(&self, Query(parameters): Query<Parameters>) -> Result<Response, Refusal> {
        let seconds = seconds(&parameters)?;
        let _turn = self.turn.try_lock().map_err(|_| Refusal::Busy)?;
        let begin = || ProfilerGuardBuilder::default().frequency(FREQUENCY).build();
        let running = spawn_blocking(begin).await??;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok(file("profile.pb.gz", spawn_blocking(move || encode(running)).await??))
    }

    /// `/debug/pprof/heap`: what is in use of that which was allocated since [`sample_heap`].
    async fn heap(&self, Query(parameters): Query<Parameters>) -> Result<Response, Refusal> {
        if !parameters.is_empty() {
            return Err(Refusal::Parameters { found: query(&parameters), accepted: "no parameter".to_owned() });
        }
        let _turn = self.turn.try_lock().map_err(|_| Refusal::Busy)?;
        let mut control = PROF_CTL.clone().ok_or(Refusal::NoHeap)?.lock_owned().await;
        if !control.activated() {
            return Err(Refusal::NoHeap);
        }
        let dump = move || {
            let profile = control.dump_pprof();
            forget_names();
            profile
        };
        Ok(file("heap.pb.gz", spawn_blocking(dump).await??))
    }
}

/// Makes the allocator sample the allocations of this process from now on: one in 512 KiB. Does nothing but log if the allocator
/// is not jemalloc, or has no profiling.
pub async fn sample_heap() {
    let Some(control) = PROF_CTL.as_ref() else {
        tracing::debug!("the allocator was built without heap profiles");
        return;
    };
    if let Err(error) = control.lock().await.activate() {
        tracing::warn!(%error, "there are no heap profiles");
    }
}

/// Why there is no profile.
#[derive(Debug)]
enum Refusal {
    Parameters { found: String, accepted: String },
    Busy,
    NoHeap,
    Failed(BoxError),
}

impl<E: Into<BoxError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Parameters { found, accepted } => {
                (StatusCode::BAD_REQUEST, format!("found {found}; accepted: {accepted}\n"))
            }
            Self::NoHeap => {
                let reason =
                    "this program was not built for heap profiles; start it with _RJEM_MALLOC_CONF=prof:true\n";
                (StatusCode::NOT_IMPLEMENTED, reason.into())
            }
            Self::Busy => (StatusCode::CONFLICT, "another profile is being taken; ask again when it is done\n".into()),
            Self::Failed(error) => {
                tracing::warn!(%error, "no profile can be taken");
                (StatusCode::INTERNAL_SERVER_ERROR, "no profile can be taken; the log says why\n".into())
            }
        }
        .into_response()
    }
}

type Parameters = Vec<(String, String)>;

/// How long to look.
fn seconds(parameters: &[(String, String)]) -> Result<u64, Refusal> {
    let seconds = match parameters {
        [] => Some(DEFAULT_SECONDS),
        [(name, value)] if name == "seconds" => value.parse().ok().filter(|value| (1..=MAX_SECONDS).contains(value)),
        _ => None,
    };
    let accepted = || format!("seconds=1 to seconds={MAX_SECONDS}, by default {DEFAULT_SECONDS}");
    seconds.ok_or_else(|| Refusal::Parameters { found: query(parameters), accepted: accepted() })
}

/// The parameters as they were given, cut if they are long.
fn query(parameters: &[(String, String)]) -> String {
    let query: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    query.join("&").chars().take(MAX_SHOWN).collect()
}

fn encode(running: ProfilerGuard<'static>) -> Result<Vec<u8>, BoxError> {
    let profile = running.report().build().and_then(|report| report.pprof());
    drop(running);
    forget_names();
    let profile = profile?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&profile.encode_to_vec())?;
    Ok(gzip.finish()?)
}

/// Frees the tables that functions were named by, which take more memory than a service.
fn forget_names() {
    backtrace::clear_symbol_cache();
}

fn file(name: &str, content: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (headers, content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_takes_one_to_sixty_seconds() {
        let ask = |query: &[(&str, &str)]| {
            let owned = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            seconds(&owned.collect::<Vec<_>>()).map_err(|refusal| match refusal {
                Refusal::Parameters { found, .. } => found,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(ask(&[]), Ok(30));
        assert_eq!(ask(&[("seconds", "1")]), Ok(1));
        assert_eq!(ask(&[("seconds", "60")]), Ok(60));
        for value in ["", "0", "61", "-1", "1.5", "1s", "99999999999999999999"] {
            assert_eq!(ask(&[("seconds", value)]), Err(format!("seconds={value}")));
        }
        assert_eq!(ask(&[("second", "5")]), Err("second=5".to_owned()));
        assert_eq!(ask(&[("seconds", "5"), ("seconds", "6")]), Err("seconds=5&seconds=6".to_owned()));
        assert_eq!(ask(&[("seconds", &"9".repeat(1_000))]).map_err(|found| found.len()), Err(MAX_SHOWN));
    }
}
