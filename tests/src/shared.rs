//! Services that all tests of a process share. The first test that needs a service finds it or starts it.

use std::sync::OnceLock;

/// A shared service, or the reason why it could not be started. The failure is kept, so that the other tests fail at once.
pub(crate) type Shared<T> = OnceLock<Result<T, String>>;

/// The value of `cell`. The first call creates the value with `make`.
///
/// # Panics
/// When the value could not be created.
pub(crate) async fn get<T, Made>(cell: &'static Shared<T>, make: fn() -> Made) -> &'static T
where
    T: Send + Sync,
    Made: Future<Output = Result<T, String>> + 'static,
{
    // Each test has its own runtime, which ends with the test. The service must not depend on the runtime of a test.
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

/// An address in the environment. An empty variable counts as unset.
pub(crate) fn from_environment(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}
