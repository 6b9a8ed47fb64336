//! The page for browsers, in Chromium.

use std::io::Write;
use std::time::Duration;

use netagg_core::EventType;
use netagg_core::testkit::{EventTemplate, event};
use netagg_testkit::{Port, eventually, kafka, postgres, redis};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::installation::{Installation, PATIENCE};
use crate::support::browser::Browser;
use crate::support::programs::Process;

/// The keys of the keyboard in the WebDriver protocol.
const ENTER: &str = "\u{e007}";
const TAB: &str = "\u{e004}";
const LEFT: &str = "\u{e012}";
const RIGHT: &str = "\u{e014}";

/// The rows of the table of totals, newest first: date, the amount of each type, all types, complete.
const ROWS: &str =
    "[...document.querySelectorAll('#totals tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))";

/// A script that returns the texts with too little contrast.
const CONTRAST: &str = include_str!("../support/contrast.js");

/// The demonstration with the API. It has 60 sessions of `ann` and a call of `bob`, and then sends more events, which are at most
/// 30 days old.
struct Demo {
    url: String,
    _process: Process,
    _ports: [Port; 2],
    _file: NamedTempFile,
}

impl Demo {
    async fn start() -> Self {
        let mut file = NamedTempFile::new().expect("a file");
        for minute in 0..60 {
            let session = EventTemplate {
                id: minute + 1,
                user: "ann",
                event_type: EventType::Data,
                started_at: &format!("2025-10-20T10:{minute:02}:00Z"),
                bytes_up: 1_000_000,
                bytes_down: 9_000_000,
                meta: Some(r#"{"cell":"<b>1</b>"}"#),
                ..EventTemplate::default()
            };
            writeln!(file, "{}", line(session)).expect("written");
        }
        let call = EventTemplate {
            id: 100,
            user: "bob",
            started_at: "2025-10-20T22:30:00Z",
            duration_sec: Some(5_400),
            ..EventTemplate::default()
        };
        writeln!(file, "{}", line(call)).expect("written");
        let ports = [Port::reserve(), Port::reserve()];
        let [http, grpc] = ports.each_ref().map(|port| port.number().to_string());
        let variables = [("API_HTTP_PORT", &http), ("API_GRPC_PORT", &grpc)];
        let path = file.path().to_str().expect("a path");
        let process = Process::start("netagg", ["demo", "--serve", "--input", path], variables);
        let url = format!("http://127.0.0.1:{http}/");
        eventually(PATIENCE, "the demonstration ends with the address of the page", async || {
            let shown = process.stdout();
            if shown.trim_end().ends_with(&url) { Ok(()) } else { Err(shown) }
        })
        .await;
        Self { url, _process: process, _ports: ports, _file: file }
    }

    /// The page with these values in its forms.
    fn page(&self, state: &str) -> String {
        format!("{}#{state}", self.url)
    }
}

fn line(template: EventTemplate<'_>) -> String {
    String::from_utf8(event(template).encode()).expect("UTF-8")
}

/// A row of the table of totals.
fn row(date: &str, call_out: &str, data: &str, all: &str) -> Value {
    let zero = match data.split_once(' ') {
        Some(_) => "0 B",
        None if data.contains('.') => "0.0",
        None => "0",
    };
    json!([date, call_out, zero, zero, zero, data, all, "yes"])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_totals_in_three_measures_by_day_and_month_and_in_a_zone() {
    let demo = Demo::start().await;
    let browser = Browser::start(1280, 1000).await;
    browser.open(&demo.page("from=2025-10-19&to=2025-10-21")).await;
    let days = |amounts: [[&str; 3]; 3]| {
        let dates = ["2025-10-21", "2025-10-20", "2025-10-19"];
        let rows = std::iter::zip(dates, amounts).map(|(date, [call_out, data, all])| row(date, call_out, data, all));
        Value::Array(rows.collect())
    };
    let none = ["0", "0", "0"];
    browser.until(ROWS, days([none, ["1", "60", "61"], none])).await;
    browser.click("[value=hours]").await;
    browser.until(ROWS, days([["0.0"; 3], ["1.5", "1.0", "2.5"], ["0.0"; 3]])).await;
    browser.click("[value=bytes]").await;
    browser.until(ROWS, days([["0 B"; 3], ["0 B", "600 MB", "600 MB"], ["0 B"; 3]])).await;

    // The chart has one column for the sessions, and none for the call, which has no bytes.
    let columns = |color: &str| format!("document.querySelectorAll('#totals svg rect[fill=\"{color}\"]').length");
    browser.until(&columns("#8F5FE0"), 1).await;
    browser.until(&columns("#2F7ED8"), 0).await;

    // The call began on the next day in Moscow.
    browser.click("[value=events]").await;
    browser.run("document.querySelector('[name=tz]').value = ''").await;
    browser.enter("[name=tz]", &format!("Europe/Moscow{ENTER}")).await;
    browser.until(ROWS, days([["1", "0", "1"], ["0", "60", "60"], none])).await;
    browser.click("[value=MONTH]").await;
    browser.until(ROWS, json!([row("2025-10", "1", "60", "61")])).await;
    browser.until_text("#totals .summary", "+03:00").await;

    // The address has the choices of the viewer, so a reload shows the same.
    browser.run("location.reload()").await;
    browser.until(ROWS, json!([row("2025-10", "1", "60", "61")])).await;
    assert_eq!(browser.console().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_events_of_a_user_in_pages_and_escapes_them() {
    const TIMES: &str = "[...document.querySelectorAll('#timeline tbody th')].map(cell => cell.textContent)";
    let demo = Demo::start().await;
    let browser = Browser::start(1280, 1000).await;
    browser.open(&demo.page("from=2025-10-20&to=2025-10-20&tz=Asia%2FTokyo")).await;
    browser.enter("[name=user_id]", &format!("ann{ENTER}")).await;
    let page = |from: u32, to: u32| -> Value {
        let times = (to..=from).rev().map(|minute| format!("2025-10-20 19:{minute:02}:00+09:00"));
        times.collect::<Vec<_>>().into()
    };
    browser.until(TIMES, page(59, 35)).await;
    browser.until_text("#timeline .summary", "The user ann has 60 events").await;
    browser.until_text("#timeline tbody td:last-child", r#"{"cell":"<b>1</b>"}"#).await;
    browser.click("#older").await;
    browser.until(TIMES, page(34, 10)).await;
    browser.click("#older").await;
    browser.until(TIMES, page(9, 0)).await;
    browser.until_text("#page-number", "Page 3").await;
    browser.click("#older").await;
    browser.until_text("#page-number", "Page 3").await;
    browser.click("#newer").await;
    browser.until(TIMES, page(34, 10)).await;
    // A second click during the first request requests no further page.
    browser.run("for (const _ of [1, 2, 3]) document.querySelector('#newer').click()").await;
    browser.until(TIMES, page(59, 35)).await;
    browser.until_text("#page-number", "Page 1").await;
    browser.run("for (const _ of [1, 2, 3]) document.querySelector('#older').click()").await;
    browser.until(TIMES, page(34, 10)).await;
    browser.until_text("#page-number", "Page 2").await;

    browser.run("document.querySelector('[name=type]').value = 'SMS_SENT'").await;
    browser.click("#timeline-form button").await;
    browser.until_text("#timeline .summary", "The user ann has no events").await;
    browser.until("document.querySelector('#pages').hidden", true).await;
    assert_eq!(browser.console().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_new_events_without_a_reload_and_keeps_selection_and_input() {
    const SUM: &str = "document.querySelector('#totals tfoot td:nth-last-child(2)').textContent";
    let demo = Demo::start().await;
    let browser = Browser::start(1280, 1000).await;
    browser.open(&demo.page("user_id=ann")).await;
    browser.until_text("#totals .summary", "Complete through").await;
    browser.until_text("#timeline .summary", "The user ann").await;
    // The oldest day of the table gets no more events in the test, and its selection has to stay.
    browser.run("getSelection().selectAllChildren(document.querySelector('#totals tbody tr:last-child th'))").await;
    let number = |text: Value| text.as_str().and_then(|text| text.replace(',', "").parse::<u64>().ok());
    let first = number(browser.run(&format!("return {SUM}")).await).expect("a number");
    eventually(PATIENCE, "the sum of the table grows", async || {
        let now = number(browser.run(&format!("return {SUM}")).await);
        if now > Some(first) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let oldest = browser.run("return document.querySelector('#totals tbody tr:last-child th').textContent").await;
    browser.until("getSelection().toString()", oldest).await;
    // The text that the viewer has not confirmed is in no request.
    browser.enter("[name=user_id]", "1000").await;
    browser.run("document.querySelector('[name=tz]').value = 'Europe/Mos'").await;
    let shown = number(browser.run(&format!("return {SUM}")).await).expect("a number");
    eventually(PATIENCE, "the sum grows again", async || {
        let now = number(browser.run(&format!("return {SUM}")).await);
        if now > Some(shown) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let requests = |part: &str| {
        format!("performance.getEntriesByType('resource').filter(one => one.name.includes('{part}')).length")
    };
    browser.until(&format!("{} > 1", requests("user_id=ann")), true).await;
    browser.until(&requests("user_id=ann1000"), 0).await;
    browser.until(&requests("Mos"), 0).await;
    // Without live updates, two polls pass without a request.
    browser.click("#live").await;
    browser.until("document.querySelector('#live').checked", false).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = browser.run(&format!("return {}", requests("overview/t"))).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(browser.run(&format!("return {}", requests("overview/t"))).await, before);
    assert_eq!(browser.console().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_the_accepted_values_of_a_wrong_input() {
    let demo = Demo::start().await;
    let browser = Browser::start(1280, 1000).await;
    for (state, selector, part) in [
        ("from=2025-10-21&to=2025-10-20", "#totals-error", "from: found 2025-10-21; accepted: "),
        ("from=2025-10-21&to=2025-10-20&user_id=ann", "#timeline-error", "not later than `to`, which is 2025-10-20"),
        ("from=2016-11-30&to=2026-11-29&tz=Europe%2FMoscow", "#totals-error", "a range of at most 93 days"),
        ("from=2016-11-30&to=2026-11-29", "#totals-error", "accepted: a range of at most 400 days"),
        ("tz=Mars", "#totals-error", "tz: found Mars; accepted: UTC or a name of the IANA time zone database"),
        ("user_id=unknown", "#timeline .summary", "The user unknown has no events"),
    ] {
        browser.open("about:blank").await;
        browser.open(&demo.page(state)).await;
        browser.until_text(selector, part).await;
    }
    // A wrong value in the address does not stop the forms.
    browser.open(&demo.page("user_id=ann&type=CALL")).await;
    browser.until_text("#timeline-error", "type: found CALL").await;
    browser.run("document.querySelector('[name=type]').value = 'DATA'").await;
    browser.click("#timeline-form button").await;
    browser.until_text("#timeline .summary", "The user ann has no events").await;
    // After the correction the totals are back.
    browser.open(&demo.page("tz=Mars")).await;
    browser.until("document.querySelector('#totals-error').hidden", false).await;
    browser.open(&demo.page("from=2025-10-20&to=2025-10-20")).await;
    browser.until(ROWS, json!([row("2025-10-20", "1", "60", "61")])).await;
    browser.until("document.querySelector('#totals-error').hidden", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_works_on_a_phone_in_both_color_schemes_and_by_keyboard() {
    const FOCUS: &str =
        "return (e => e.name ? `${e.name}=${e.value}` : e.textContent.slice(0, 8).trim())(document.activeElement)";
    let demo = Demo::start().await;
    let browser = Browser::start(1280, 1000).await;
    browser.become_phone(360, 740).await;
    browser.open(&demo.page("from=2025-10-19&to=2025-10-21&user_id=ann")).await;
    browser.until_text("#timeline .summary", "The user ann has 60 events").await;
    browser.until("document.documentElement.scrollWidth <= 360", true).await;
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        let faint = browser.run(CONTRAST).await;
        assert_eq!(faint, json!([]), "these texts have too little contrast in the {scheme} scheme");
    }
    let unnamed = browser.run(include_str!("../support/unnamed.js")).await;
    assert_eq!(unnamed, json!([]), "these controls have no name for a screen reader");

    // From the time zone on, each control is reached in the order of the page.
    browser.run("document.querySelector('[name=tz]').focus()").await;
    let mut reached = Vec::new();
    for _ in 0..7 {
        browser.press(TAB).await;
        reached.push(browser.run(FOCUS).await);
        let outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle").await;
        assert_eq!(outline, "solid", "{reached:?} shows that it has the focus");
    }
    let expected = ["Show", "granularity=DAY", "measure=events", "Events", "user_id=ann", "type=", "Show"];
    assert_eq!(reached, expected.map(Value::from));
    browser.run("document.querySelector('[value=events]').focus()").await;
    browser.press(RIGHT).await;
    browser.until_text("#totals caption", "Hours of calls and sessions by day").await;
    browser.press(LEFT).await;
    browser.until_text("#totals caption", "Events by day").await;
    browser.run("document.querySelector('#older').focus()").await;
    browser.press(ENTER).await;
    browser.until_text("#page-number", "Page 2").await;
    browser.until("document.activeElement.id", "older").await;
    browser.until_text("#timeline-status", "Page 2").await;
    assert_eq!(browser.console().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_asks_for_a_key_and_keeps_it_in_the_tab() {
    let mut installation = Installation::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    installation.set("API_AUTH", "keys");
    installation.set("API_KEYS_FILE", folder.path().join("keys").to_str().expect("UTF-8"));
    let mut keys = Vec::new();
    for scopes in [&["aggregates:read"][..], &["aggregates:read", "detail:read"]] {
        let scopes = scopes.iter().flat_map(|scope| ["--scope", scope]);
        let arguments: Vec<_> = ["keys", "create", "--name", "viewer"].into_iter().chain(scopes).collect();
        let made = installation.run("netagg", &arguments).await;
        assert_eq!(made.code, 0, "{}", made.stderr);
        keys.push(made.stdout.trim().to_owned());
    }
    let _api = installation.start("api");
    installation.readiness("api", 200).await;
    let browser = Browser::start(1280, 1000).await;
    let url = format!("http://127.0.0.1:{}/", installation.variable("API_HTTP_PORT"));
    browser.open(&format!("{url}#user_id=ann")).await;
    browser.until_text("#key-reason", "The service needs a key").await;
    browser.enter("[name=key]", &format!("netagg_0123456789abcdef_0{ENTER}")).await;
    browser.until_text("#key-reason", "The service does not accept the key").await;
    browser.until("document.activeElement.name", "key").await;
    browser.enter("[name=key]", &format!("…{ENTER}")).await;
    browser.until_text("#key-reason", "punctuation of ASCII").await;
    browser.run("document.querySelector('#key').reset()").await;
    browser.enter("[name=key]", &format!("{}{ENTER}", keys[0])).await;
    browser.until_text("#totals .summary", "No event began").await;
    browser.until_text("#timeline-error", "detail:read").await;
    browser.until("document.activeElement.id", "totals-title").await;
    browser.click("#forget").await;
    browser.until("document.querySelector('#key').hidden", false).await;
    browser.until("document.querySelector('#totals').textContent", "").await;
    browser.enter("[name=key]", &format!("{}{ENTER}", keys[1])).await;
    browser.until_text("#timeline .summary", "The user ann has no events").await;
    browser.run("location.reload()").await;
    browser.until_text("#timeline .summary", "The user ann has no events").await;
    let address = browser.run("return location.href + document.cookie + JSON.stringify(localStorage)").await;
    assert!(!address.to_string().contains("netagg_"), "the key is only in the storage of the tab: {address}");
    browser.until_text("#timeline-status", "The user ann").await;
    browser.click("#forget").await;
    browser.until_text("#key-reason", "The service needs a key").await;
    let texts =
        "document.querySelector('#timeline').textContent + document.querySelector('#timeline-status').textContent";
    browser.until(texts, "").await;
    browser.until("sessionStorage.length", 0).await;
    only_failed_requests(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_an_outage_of_the_database_also_at_the_start_and_can_be_switched_off() {
    let server = postgres::Server::start().await;
    let mut installation = Installation::on(&server.url(), &kafka::brokers().await, &redis::url().await);
    installation.set_up().await;
    server.stop().await;
    let mut api = installation.start("api");
    let browser = Browser::start(1280, 1000).await;
    let url = format!("http://127.0.0.1:{}/", installation.variable("API_HTTP_PORT"));
    // The port opens before the page is there, and a browser that connects before shows its own error.
    eventually(PATIENCE, "the API serves its page while it waits for the database", async || {
        let response = reqwest::get(&url).await.map_err(|error| error.to_string())?;
        if response.status() == 200 { Ok(()) } else { Err(response.status().to_string()) }
    })
    .await;
    browser.open(&url).await;
    browser.until_text("#totals-error", "The service cannot answer now").await;
    server.start_again().await;
    browser.until_text("#totals .summary", "No event began").await;
    browser.until("document.querySelector('#totals-error').hidden", true).await;

    server.stop().await;
    browser.click("[value=hours]").await;
    browser.until_text("#totals-error", "The service cannot answer now").await;
    browser.until_text("#totals .summary", "No event began").await;
    browser.until("document.querySelector('#totals').classList.contains('stale')", true).await;
    assert_eq!(browser.run(CONTRAST).await, json!([]), "these old data have too little contrast");
    // The viewer waits for the hours, so they come also without live updates.
    browser.click("#live").await;
    server.start_again().await;
    browser.until_text("#totals caption", "Hours of calls and sessions").await;
    browser.click("#live").await;
    api.kill();
    browser.until_text("#totals-error", "The service cannot be reached").await;
    only_failed_requests(&browser).await;

    installation.set("API_PAGE", "false");
    let _api = installation.start("api");
    installation.readiness("api", 200).await;
    // During a slow start, the port of the API reports for a moment longer that the API is not ready.
    eventually(PATIENCE, "the API responds on its own port", async || {
        let response = reqwest::get(format!("{url}readyz")).await.map_err(|error| error.to_string())?;
        if response.status() == 200 { Ok(()) } else { Err(response.status().to_string()) }
    })
    .await;
    for path in ["", "overview/style.css", "overview/script.js", "overview/totals?granularity=DAY"] {
        let response = reqwest::get(format!("{url}{path}")).await.expect("a response");
        assert_eq!(response.status(), 404, "{path}");
    }
    assert_eq!(api.code(PATIENCE).await, 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_waits_as_long_as_a_rate_limit_says() {
    let mut installation = Installation::new().await;
    installation.set("API_RATE_LIMIT", "2/h");
    let _api = installation.start("api");
    installation.readiness("api", 200).await;
    let browser = Browser::start(1280, 1000).await;
    browser.open(&format!("http://127.0.0.1:{}/", installation.variable("API_HTTP_PORT"))).await;
    browser.until_text("#totals-error", "The service cannot answer now").await;
    let text = browser.run("return document.querySelector('#totals-error').textContent").await;
    let seconds = text.as_str().and_then(|text| text.rsplit_once("again every ")?.1.strip_suffix(" s.")?.parse().ok());
    assert!(seconds > Some(60), "the next request is accepted after up to half an hour: {text}");
    only_failed_requests(&browser).await;
}

/// Chromium logs each response with an error, and nothing else may be logged.
async fn only_failed_requests(browser: &Browser) {
    let others: Vec<_> = browser.console().await.into_iter().filter(|(source, ..)| source != "network").collect();
    assert_eq!(others, []);
}
