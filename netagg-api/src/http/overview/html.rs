//! HTML as a response.

use askama::Template;
use axum::http::HeaderValue;

use crate::handlers::HandlerError;
use crate::http::etag::Tagged;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Fills in `template`, which escapes all data.
pub(super) fn render(template: &impl Template) -> Result<Tagged, HandlerError> {
    let html = template.render().map_err(|error| {
        tracing::error!(%error, "cannot write a part of the overview page");
        HandlerError::Internal
    })?;
    Ok(Tagged::new(CONTENT_TYPE, html.into()))
}
