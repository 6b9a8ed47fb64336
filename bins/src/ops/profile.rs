//! `/debug/pprof`: where a service spends its time and its memory, as `go tool pprof` reads it.
//!
//! A profile of time is taken only while somebody asks for one. Then the system interrupts the process a hundred times
//! for each second of processor time that it uses, and the interrupted stack is noted, by the program's own unwind
//! tables. They are read before the first interruption: inside of one nothing may be allocated or waited for. What is
//! left to libc there, finding the function of an address, takes no lock with glibc 2.35 and newer.

use std::io::Write;
use std::time::Duration;

use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
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

/// Takes profiles, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Profiler {
    turn: Mutex<()>,
}

impl Profiler {
    /// `/debug/pprof/profile?seconds=N`. A client that goes away ends its profile.
    pub(crate) async fn cpu(&self, Query(parameters): Query<Parameters>) -> Result<Response, Refusal> {
        let seconds = seconds(&parameters)?;
        let _turn = self.turn.try_lock().map_err(|_| Refusal::Busy)?;
        let begin = || ProfilerGuardBuilder::default().frequency(FREQUENCY).build();
        let running = spawn_blocking(begin).await??;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok(file("profile.pb.gz", spawn_blocking(move || encode(running)).await??))
    }

    /// `/debug/pprof/heap`: what is in use of that which was allocated since [`sample_heap`].
    pub(crate) async fn heap(&self, Query(parameters): Query<Parameters>) -> Result<Response, Refusal> {
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

/// Has the allocator sample what it gives, from here on: one allocation in each 512 KiB.
pub(crate) async fn sample_heap() {
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
pub(crate) enum Refusal {
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
