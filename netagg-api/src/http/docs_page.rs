//! The page that shows the OpenAPI description in a browser: Swagger UI.

use axum::Router;
use axum::http::HeaderValue;
use tower::util::MapResponseLayer;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::security_headers;

/// The content security policy of the page. Swagger UI uses style attributes and icons from `data:` URLs. It loads only its own
/// files and the description.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The route `/docs/`, open to every caller. It shows the description at the path `description`.
pub(super) fn router<S: Clone + Send + Sync + 'static>(description: &'static str) -> Router<S> {
    let page = SwaggerUi::new("/docs").config(Config::new([description]).validator_url("none"));
    Router::from(page).layer(MapResponseLayer::new(|response| security_headers::set_policy(response, POLICY)))
}
