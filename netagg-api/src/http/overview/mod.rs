//! The overview page for browsers, at `/`: charts and tables of totals, and the timeline of a user.
//!
//! The page has no data of users, so it is open to every caller. Its script requests fragments of HTML with the key of the
//! viewer. A fragment passes the same checks and limits as the JSON of the same request.

mod chart;
mod html;
mod measure;
mod numbers;
mod timeline;
mod totals;

use askama::Template;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::from_fn;
use axum::routing::get;
use netagg_core::{EventType, Zone};
use tower::util::MapResponseLayer;

use super::etag::Tagged;
use super::layers::hold_permit;
use super::security_headers;
use super::state::Api;

/// The content security policy of the page. It loads only files of this server, and nothing inline.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

const CSS: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");
const JAVASCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");

const STYLE: &str = include_str!("../../../templates/overview/style.css");
const SCRIPT: &str = include_str!("../../../templates/overview/script.js");

#[derive(Template)]
#[template(path = "overview/page.html")]
struct Page<'a> {
    /// The path of the API, without a slash at the end.
    base: &'a str,
    types: [EventType; EventType::ALL.len()],
    accepted_zones: &'static str,
    has_docs: bool,
}

/// The files of the page for browsers, for an API below `base_path`. They have no data and are open to every caller.
///
/// [`Server::with_overview_page`](crate::Server::with_overview_page) serves them with the data. Give them to
/// [`serve_unready`](crate::serve_unready), so that a browser shows an outage at the start of the service.
pub fn overview_page(base_path: &str) -> Router {
    let page = html::render(&Page {
        base: base_path.trim_end_matches('/'),
        types: EventType::ALL,
        accepted_zones: Zone::ACCEPTED,
        has_docs: cfg!(feature = "docs-page"),
    });
    let file = |file: Tagged| get(async move |headers: HeaderMap| file.respond(&headers));
    Router::new()
        .route("/", get(async move |headers: HeaderMap| page.map(|page| page.respond(&headers))))
        .route("/overview/style.css", file(Tagged::new(CSS, Bytes::from_static(STYLE.as_bytes()))))
        .route("/overview/script.js", file(Tagged::new(JAVASCRIPT, Bytes::from_static(SCRIPT.as_bytes()))))
        .layer(MapResponseLayer::new(|response| security_headers::set_policy(response, POLICY)))
}

/// The routes of the fragments, which show the data of users.
pub(super) fn fragments() -> Router<Api> {
    Router::new()
        .route("/overview/totals", get(totals::fragment))
        .route("/overview/timeline", get(timeline::fragment).layer(from_fn(hold_permit)))
}
