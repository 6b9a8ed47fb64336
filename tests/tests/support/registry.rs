//! A cargo registry on 127.0.0.1: a sparse index, publishing and downloads, all in memory.

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

/// A running registry; dropping it stops it.
#[derive(Debug)]
pub(crate) struct Registry {
    address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
    server: JoinHandle<()>,
}

/// What was published.
#[derive(Debug)]
struct Shelf {
    address: SocketAddr,
    /// Index entries in the order of their arrival.
    entries: Vec<Value>,
    /// The `.crate` files by name and version.
    files: BTreeMap<(String, String), Bytes>,
    /// How many crates are taken until one is refused.
    until_refusal: Option<usize>,
}

type Shared = State<Arc<Mutex<Shelf>>>;

impl Registry {
    /// The token that publishing needs.
    pub(crate) const TOKEN: &str = "token-of-the-test";

    /// Starts an empty registry on a free port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shelf = Shelf { address, entries: Vec::new(), files: BTreeMap::new(), until_refusal: None };
        let shelf = Arc::new(Mutex::new(shelf));
        let routes = Router::new()
            .route("/index/{*path}", get(index))
            .route("/dl/{name}/{version}/download", get(download))
            .route("/api/v1/crates/new", put(publish))
            .layer(DefaultBodyLimit::max(16 << 20))
            .with_state(Arc::clone(&shelf));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.expect("the registry runs") });
        Self { address, shelf, server }
    }

    /// The address of the index, as `index` in cargo's configuration takes it.
    pub(crate) fn index(&self) -> String {
        format!("sparse+http://{}/index/", self.address)
    }

    /// Takes this many more crates, refuses the next one, and takes all others.
    pub(crate) fn refuse_after(&self, crates: usize) {
        lock(&self.shelf).until_refusal = Some(crates);
    }

    /// The index entries of everything published, oldest first.
    pub(crate) fn entries(&self) -> Vec<Value> {
        lock(&self.shelf).entries.clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// `config.json`, or the entries of a crate, one a line.
async fn index(State(shelf): Shared, Path(path): Path<String>) -> Response {
    let shelf = lock(&shelf);
    if path == "config.json" {
        let address = shelf.address;
        return Json(json!({ "dl": format!("http://{address}/dl"), "api": format!("http://{address}") }))
            .into_response();
    }
    // ne/ta/netagg-core: the folders follow from the name.
    let name = path.rsplit('/').next().unwrap_or_default();
    let lines: String =
        shelf.entries.iter().filter(|entry| entry["name"] == name).map(|entry| format!("{entry}\n")).collect();
    if lines.is_empty() { StatusCode::NOT_FOUND.into_response() } else { lines.into_response() }
}

async fn download(State(shelf): Shared, Path(version): Path<(String, String)>) -> Response {
    let file = lock(&shelf).files.get(&version).cloned();
    file.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}

async fn publish(State(shelf): Shared, headers: HeaderMap, body: Bytes) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|token| token != Registry::TOKEN) {
        return refusal(StatusCode::FORBIDDEN, "this token may not publish");
    }
    let (metadata, file) = sections(&body);
    let metadata: Value = serde_json::from_slice(&metadata).expect("metadata in JSON");
    let mut shelf = lock(&shelf);
    match &mut shelf.until_refusal {
        Some(0) => {
            shelf.until_refusal = None;
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "the registry is out of order");
        }
        Some(crates) => *crates -= 1,
        None => {}
    }
    let entry = entry(&metadata, &file);
    let version = (text(&entry["name"]), text(&entry["vers"]));
    if shelf.files.contains_key(&version) {
        return refusal(StatusCode::CONFLICT, "this version is there already");
    }
    shelf.files.insert(version, file);
    shelf.entries.push(entry);
    Json(json!({})).into_response()
}

/// The two parts of a publishing request, each after its length: metadata and the `.crate` file.
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

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().expect("no handler panicked")
}
