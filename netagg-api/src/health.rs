//! Checks whether requests can be answered now.

use std::time::Duration;

use netagg_core::usage::UsageService;

use crate::auth::Protection;

/// How long the check of the service may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether `service` can answer requests now, and `protection` can check credentials.
pub(crate) async fn can_answer(service: &UsageService, protection: &Protection) -> bool {
    let asked = tokio::time::timeout(TIMEOUT, service.check()).await;
    matches!(asked, Ok(Ok(()))) && protection.check().is_ok()
}
