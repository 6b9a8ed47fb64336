//! The page that shows the OpenAPI description in a browser: Swagger UI.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Swagger UI styles its elements by attributes and draws its icons from `data:`. It runs and asks nothing but its own
/// files and the description.
const PAGE_MAY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The route `/docs/`, open to everybody. It shows the description at the path `description`.
pub(super) fn router<S: Clone + Send + Sync + 'static>(description: &'static str) -> Router<S> {
    let page = SwaggerUi::new("/docs").config(Config::new([description]).validator_url("none"));
    Router::from(page).layer(from_fn(page_may))
}

async fn page_may(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, PAGE_MAY);
    response
}
