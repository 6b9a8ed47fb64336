//! Chromium without a window, which tests control through ChromeDriver.

use std::time::Duration;

use axum::http::Method;
use fantoccini::error::CmdError;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use netagg_testkit::eventually;
use serde_json::{Value, json};
use url::{ParseError, Url};

use super::programs::Process;

/// How long the browser may take for a step on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A browser with one tab and an empty profile.
#[derive(Debug)]
pub(crate) struct Browser {
    tab: Client,
    // Chromium ends with its driver, because a pipe connects them.
    _driver: Process,
}

impl Browser {
    /// Starts a browser with a window of `width` times `height` pixels.
    ///
    /// # Panics
    /// When Chromium or ChromeDriver is not installed.
    pub(crate) async fn start(width: u32, height: u32) -> Self {
        for program in ["chromium", "chromedriver"] {
            let found = std::process::Command::new(program).arg("--version").output();
            assert!(found.is_ok(), "{program} is not installed: run deploy/native/install chromium");
        }
        let driver = Process::shell("exec chromedriver --port=0", [("", ""); 0]);
        let port = eventually(PATIENCE, "ChromeDriver names its port", async || {
            let shown = driver.stdout();
            let port = shown.rsplit_once("started successfully on port ").and_then(|(_, rest)| rest.split_once('.'));
            port.map(|(port, _)| port.to_owned()).ok_or(shown)
        })
        .await;
        let capabilities = json!({
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": [
                "--headless=new",
                // Chromium refuses to run as root with its sandbox.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--remote-debugging-pipe",
                "--lang=en-US",
                format!("--window-size={width},{height}"),
            ] },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("an object") };
        let tab = eventually(PATIENCE, "the browser starts", async || {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(capabilities.clone());
            builder.connect(&format!("http://127.0.0.1:{port}")).await.map_err(|error| format!("{error:?}"))
        })
        .await;
        Self { tab, _driver: driver }
    }

    pub(crate) async fn open(&self, url: &str) {
        self.tab.goto(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// Runs a script in the page, and returns its result.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.tab.execute(script, Vec::new()).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until the expression has the value `expected` in the page.
    pub(crate) async fn until(&self, expression: &str, expected: impl Into<Value>) {
        let (script, expected) = (format!("return {expression}"), expected.into());
        eventually(PATIENCE, expression, async || {
            let found = self.run(&script).await;
            if found == expected { Ok(()) } else { Err(found.to_string()) }
        })
        .await;
    }

    /// Waits until the text of the element contains `part`.
    pub(crate) async fn until_text(&self, selector: &str, part: &str) {
        let script = format!("return document.querySelector({selector:?})?.textContent ?? ''");
        eventually(PATIENCE, &format!("{selector} has the text {part}"), async || {
            let found = self.run(&script).await;
            if found.as_str().is_some_and(|text| text.contains(part)) { Ok(()) } else { Err(found.to_string()) }
        })
        .await;
    }

    pub(crate) async fn click(&self, selector: &str) {
        let element = self.tab.find(Locator::Css(selector)).await.unwrap_or_else(|error| panic!("{selector}: {error}"));
        element.click().await.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Types `keys` into the element.
    pub(crate) async fn enter(&self, selector: &str, keys: &str) {
        let element = self.tab.find(Locator::Css(selector)).await.unwrap_or_else(|error| panic!("{selector}: {error}"));
        element.send_keys(keys).await.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Types `keys` into the element with the focus.
    pub(crate) async fn press(&self, keys: &str) {
        let element = self.tab.active_element().await.expect("an element has the focus");
        element.send_keys(keys).await.unwrap_or_else(|error| panic!("{keys:?}: {error}"));
    }

    /// The messages of the console since the last call: source, level and text.
    pub(crate) async fn console(&self) -> Vec<(String, String, String)> {
        let log = self.send("se/log", json!({ "type": "browser" })).await;
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let entries = log.as_array().expect("a list").iter();
        entries.map(|entry| (text(entry, "source"), text(entry, "level"), text(entry, "message"))).collect()
    }

    /// Shows pages as a phone with a screen of this size does.
    pub(crate) async fn become_phone(&self, width: u32, height: u32) {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 2, "mobile": true });
        self.send("goog/cdp/execute", json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": screen })).await;
    }

    /// Sets the color scheme that the viewer prefers: `light` or `dark`.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.send("goog/cdp/execute", json!({ "cmd": "Emulation.setEmulatedMedia", "params": features })).await;
    }

    /// A command of ChromeDriver that is not in the standard.
    async fn send(&self, path: &'static str, body: Value) -> Value {
        self.tab.issue_cmd(Extension { path, body }).await.unwrap_or_else(|error: CmdError| panic!("{path}: {error}"))
    }
}

#[derive(Debug)]
struct Extension {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Extension {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}
