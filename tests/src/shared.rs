//! Services that all tests of a process share: found or started once, by the first test that asks.

use std::sync::OnceLock;

/// What became of a shared service. A failure is kept too, so that the other tests fail at once.
pub(crate) type Shared<T> = OnceLock<Result<T, String>>;

/// The value of `cell`, made by `make` if this is the first call.
///
/// # Panics
/// When it could not be made.
pub(crate) async fn get<T, Made>(cell: &'static Shared<T>, make: fn() -> Made) -> &'static T
where
    T: Send + Sync,
    Made: Future<Output = Result<T, String>> + 'static,
{
    // Each test has a runtime of its own, which ends with it: the service must not depend on any of them.
    let made = tokio::task::spawn_blocking(move || {
        cell.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| error.to_string())?.block_on(make())
        })
    });
    match made.await.expect("starting a service does not panic") {
        Ok(service) => service,
        Err(error) => panic!("{error}"),
    }
}

/// An address in the environment; empty is unset.
pub(crate) fn from_environment(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}
