//! Whether questions can be answered, found out by asking.

use std::time::Duration;

use netagg_core::usage::UsageService;

use crate::auth::Protection;

/// How long the service may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether `service` can be asked now, and `protection` can tell who asks.
pub(crate) async fn can_answer(service: &UsageService, protection: &Protection) -> bool {
    let asked = tokio::time::timeout(TIMEOUT, service.check()).await;
    matches!(asked, Ok(Ok(()))) && protection.check().is_ok()
}
