//! `/debug/pprof`: CPU and heap profiles of a service, in the format of `go tool pprof`.
//!
//! A CPU profile is taken only during a request for it. Then the system interrupts the process 99 times per second of CPU
//! time, and the profiler records the interrupted stack. It unwinds the stack with the program's own unwind tables. The profiler
//! reads these tables before the first interruption, because a signal handler must not allocate memory or wait. Inside the
//! handler libc only finds the function of an address, which takes no lock with glibc 2.35 and newer.

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

/// Samples per second of CPU time. With 100 the samples could stay in step with work at round intervals.
const FREQUENCY: i32 = 99;

const DEFAULT_SECONDS: u64 = 30;
const MAX_SECONDS: u64 = 60;

/// The maximum number of characters of a wrong query that an error quotes.
const MAX_SHOWN: usize = 80;

/// The routes `/debug/pprof/profile?seconds=N` and `/debug/pprof/heap`, in the format of `go tool pprof`. They are only for
/// operators: merge them into [`ops_router`](super::ops_router), and never serve them to callers of the API.
///
/// A CPU profile takes 1 to 60 seconds, by default 30. A heap profile needs an application whose global allocator is jemalloc
/// with profiling, and which calls [`sample_heap`] at its start. Only one profile is taken at a time.
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
    lock: Mutex<()>,
}

impl Profiler {
    /// Handles `/debug/pprof/profile?seconds=N`. The profile ends if the client disconnects.
    async fn cpu(&self, Query(parameters): Query<Parameters>) -> Result<Response, ProfileError> {
        let seconds = seconds(&parameters)?;
        let _lock = self.lock.try_lock().map_err(|_| ProfileError::Busy)?;
        let begin = || ProfilerGuardBuilder::default().frequency(FREQUENCY).build();
        let running = spawn_blocking(begin).await??;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok(file("profile.pb.gz", spawn_blocking(move || encode(running)).await??))
    }

    /// Handles `/debug/pprof/heap`: the memory in use that was allocated since [`sample_heap`].
    async fn heap(&self, Query(parameters): Query<Parameters>) -> Result<Response, ProfileError> {
        if !parameters.is_empty() {
            return Err(ProfileError::Parameters { found: query(&parameters), accepted: "no parameter".to_owned() });
        }
        let _lock = self.lock.try_lock().map_err(|_| ProfileError::Busy)?;
        let mut control = PROF_CTL.clone().ok_or(ProfileError::NoHeap)?.lock_owned().await;
        if !control.activated() {
            return Err(ProfileError::NoHeap);
        }
        let dump = move || {
            let profile = control.dump_pprof();
            forget_names();
            profile
        };
        Ok(file("heap.pb.gz", spawn_blocking(dump).await??))
    }
}

/// Makes the allocator sample the allocations of this process from now on: one sample per 512 KiB. If the allocator is not
/// jemalloc, or has no profiling, this only writes to the log.
pub async fn sample_heap() {
    let Some(control) = PROF_CTL.as_ref() else {
        tracing::debug!("the allocator was built without heap profiles");
        return;
    };
    if let Err(error) = control.lock().await.activate() {
        tracing::warn!(%error, "cannot enable heap profiles");
    }
}

/// Why a request for a profile failed.
#[derive(Debug)]
enum ProfileError {
    Parameters { found: String, accepted: String },
    Busy,
    NoHeap,
    Failed(BoxError),
}

impl<E: Into<BoxError>> From<E> for ProfileError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl IntoResponse for ProfileError {
    fn into_response(self) -> Response {
        match self {
            Self::Parameters { found, accepted } => {
                (StatusCode::BAD_REQUEST, format!("found {found}; accepted: {accepted}\n"))
            }
            Self::NoHeap => {
                let reason = "this process does not sample its heap; start it with _RJEM_MALLOC_CONF=prof:true\n";
                (StatusCode::NOT_IMPLEMENTED, reason.into())
            }
            Self::Busy => (StatusCode::CONFLICT, "another profile is being taken; retry when it is finished\n".into()),
            Self::Failed(error) => {
                tracing::warn!(%error, "cannot take a profile");
                (StatusCode::INTERNAL_SERVER_ERROR, "cannot take a profile; the log has the reason\n".into())
            }
        }
        .into_response()
    }
}

type Parameters = Vec<(String, String)>;

/// The duration of a CPU profile in seconds, from the parameters.
fn seconds(parameters: &[(String, String)]) -> Result<u64, ProfileError> {
    let seconds = match parameters {
        [] => Some(DEFAULT_SECONDS),
        [(name, value)] if name == "seconds" => value.parse().ok().filter(|value| (1..=MAX_SECONDS).contains(value)),
        _ => None,
    };
    let accepted = || format!("seconds=1 to seconds={MAX_SECONDS}, by default {DEFAULT_SECONDS}");
    seconds.ok_or_else(|| ProfileError::Parameters { found: query(parameters), accepted: accepted() })
}

/// The parameters as text for an error, cut to [`MAX_SHOWN`] characters.
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

/// Frees the symbol tables that were loaded to name functions. They take more memory than the service itself.
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
            seconds(&owned.collect::<Vec<_>>()).map_err(|rejection| match rejection {
                ProfileError::Parameters { found, .. } => found,
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
