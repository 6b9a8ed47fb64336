//! A cargo registry on 127.0.0.1: sparse index, publishing and downloads, all in memory.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running registry. Dropping the value stops it.
#[derive(Debug)]
pub(crate) struct Registry {
    address: SocketAddr,
    contents: Arc<Mutex<Contents>>,
    server: JoinHandle<()>,
}

/// The published crates.
#[derive(Debug)]
struct Contents {
    address: SocketAddr,
    /// Index entries in the order of their arrival.
    entries: Vec<Value>,
    /// The `.crate` files by name and version.
    files: BTreeMap<(String, String), Bytes>,
    /// How many more crates are accepted before a crate is refused.
    until_refusal: Option<usize>,
}

type Shared = State<Arc<Mutex<Contents>>>;

impl Registry {
    /// The token that is required for publishing.
    pub(crate) const TOKEN: &str = "token-of-the-test";

    /// Starts an empty registry on a free port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let contents = Contents { address, entries: Vec::new(), files: BTreeMap::new(), until_refusal: None };
        let contents = Arc::new(Mutex::new(contents));
        let routes = Router::new()
            .route("/index/{*path}", get(index))
            .route("/dl/{name}/{version}/download", get(download))
            .route("/api/v1/crates/new", put(publish))
            .layer(DefaultBodyLimit::max(16 << 20))
            .with_state(Arc::clone(&contents));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.expect("the registry runs") });
        Self { address, contents, server }
    }

    /// The address of the index, for `index` in the configuration of cargo.
    pub(crate) fn index(&self) -> String {
        format!("sparse+http://{}/index/", self.address)
    }

    /// Accepts this number of crates, refuses the next crate, and accepts all later crates.
    pub(crate) fn refuse_after(&self, crates: usize) {
        lock(&self.contents).until_refusal = Some(crates);
    }

    /// The index entries of all published crates, oldest first.
    pub(crate) fn entries(&self) -> Vec<Value> {
        lock(&self.contents).entries.clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// `config.json`, or the entries of a crate, one per line.
async fn index(State(contents): Shared, Path(path): Path<String>) -> Response {
    let contents = lock(&contents);
    if path == "config.json" {
        let address = contents.address;
        return Json(json!({ "dl": format!("http://{address}/dl"), "api": format!("http://{address}") }))
            .into_response();
    }
    // The path is like ne/ta/netagg-core; the folders follow from the name.
    let name = path.rsplit('/').next().unwrap_or_default();
    let lines: String =
        contents.entries.iter().filter(|entry| entry["name"] == name).map(|entry| format!("{entry}\n")).collect();
    if lines.is_empty() { StatusCode::NOT_FOUND.into_response() } else { lines.into_response() }
}

async fn download(State(contents): Shared, Path(version): Path<(String, String)>) -> Response {
    let file = lock(&contents).files.get(&version).cloned();
    file.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}

async fn publish(State(contents): Shared, headers: HeaderMap, body: Bytes) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|token| token != Registry::TOKEN) {
        return refusal(StatusCode::FORBIDDEN, "this token may not publish");
    }
    let (metadata, file) = sections(&body);
    let metadata: Value = serde_json::from_slice(&metadata).expect("metadata in JSON");
    let mut contents = lock(&contents);
    match &mut contents.until_refusal {
        Some(0) => {
            contents.until_refusal = None;
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "the registry is out of order");
        }
        Some(crates) => *crates -= 1,
        None => {}
    }
    let entry = entry(&metadata, &file);
    let version = (text(&entry["name"]), text(&entry["vers"]));
    if contents.files.contains_key(&version) {
        return refusal(StatusCode::CONFLICT, "this version exists already");
    }
    contents.files.insert(version, file);
    contents.entries.push(entry);
    Json(json!({})).into_response()
}

/// The two parts of a publishing request: metadata and the `.crate` file. Each part follows its length.
fn sections(body: &Bytes) -> (Bytes, Bytes) {
    let section = |at: usize| {
        let start = at + size_of::<u32>();
        let length = u32::from_le_bytes(body[at..start].try_into().expect("four bytes"));
        body.slice(start..start + usize::try_from(length).expect("a length"))
    };
    let metadata = section(0);
    let file = section(size_of::<u32>() + metadata.len());
    (metadata, file)
}

/// An entry of the index. Some of its fields have other names in the metadata of a publishing request.
fn entry(metadata: &Value, file: &[u8]) -> Value {
    let deps = metadata["deps"].as_array().expect("dependencies").iter().map(|dependency| {
        let mut entry = dependency.clone();
        entry["req"] = dependency["version_req"].clone();
        if dependency["explicit_name_in_toml"].is_string() {
            entry["name"] = dependency["explicit_name_in_toml"].clone();
            entry["package"] = dependency["name"].clone();
        }
        entry
    });
    let checksum: String = Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "name": metadata["name"],
        "vers": metadata["vers"],
        "deps": deps.collect::<Vec<_>>(),
        "cksum": checksum,
        "features": metadata["features"],
        "links": metadata["links"],
        "rust_version": metadata["rust_version"],
        "yanked": false,
    })
}

fn refusal(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({ "errors": [{ "detail": detail }] }))).into_response()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn lock(contents: &Mutex<Contents>) -> MutexGuard<'_, Contents> {
    contents.lock().expect("no handler panicked")
}
