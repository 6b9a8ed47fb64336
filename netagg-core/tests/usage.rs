//! The usage service over the memory adapters: defaults, limits, pages, and the cache.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use netagg_core::memory::{MemoryAggregateStore, MemoryCache, MemoryEventStore};
use netagg_core::ports::{
    AggregateStore, Cache, CacheKey, CacheTicket, Clock, EventStore, Lookup, PeriodSums, SumsQuery, TimelineFilter,
    TimelineQuery, TotalsQuery, TotalsReader,
};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::usage::{
    AggregatesAnswer, AggregatesRequest, CursorSecret, DetailPage, DetailRequest, MAX_LIMIT, MAX_PAGE_BYTES,
    UsageConfig, UsageError, UsageService, UserAggregatesRequest,
};
use netagg_core::{
    AggregateRow, Batch, BatchOutcome, Contribution, Day, Error, Event, EventType, Granularity, IdentifiedEvent,
    MAX_BYTES, Month, Timestamp, UserId, Zone,
};

const NOW: &str = "2025-10-31T12:00:00Z";

#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        time(NOW)
    }
}

/// Stores that count how often they are asked.
#[derive(Debug, Default)]
struct Counted<S> {
    inner: S,
    reads: AtomicUsize,
    counts: AtomicUsize,
}

#[async_trait]
impl EventStore for Counted<MemoryEventStore> {
    async fn store(&self, batch: &Batch<IdentifiedEvent>) -> Result<BatchOutcome, Error> {
        self.inner.store(batch).await
    }

    async fn timeline(&self, query: &TimelineQuery) -> Result<Vec<Event>, Error> {
        self.reads.fetch_add(1, SeqCst);
        self.inner.timeline(query).await
    }

    async fn count(&self, filter: &TimelineFilter) -> Result<u64, Error> {
        self.counts.fetch_add(1, SeqCst);
        self.inner.count(filter).await
    }

    async fn sums(&self, query: &SumsQuery) -> Result<Vec<PeriodSums>, Error> {
        self.reads.fetch_add(1, SeqCst);
        self.inner.sums(query).await
    }
}

#[async_trait]
impl AggregateStore for Counted<MemoryAggregateStore> {
    async fn add(&self, batch: &Batch<Contribution>) -> Result<BatchOutcome, Error> {
        self.inner.add(batch).await
    }
}

#[async_trait]
impl TotalsReader for Counted<MemoryAggregateStore> {
    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
        self.reads.fetch_add(1, SeqCst);
        self.inner.totals(query).await
    }
}

/// A cache that is away, or full of what nobody can read, when the test says so.
#[derive(Debug, Default)]
struct Moody {
    inner: MemoryCache,
    is_away: AtomicBool,
    is_corrupt: AtomicBool,
    filled: Mutex<Vec<Bytes>>,
}

impl Moody {
    fn check(&self) -> Result<(), Error> {
        if self.is_away.load(SeqCst) { Err(Error::unavailable("cache", "away")) } else { Ok(()) }
    }
}

#[async_trait]
impl Cache for Moody {
    async fn lookup(&self, key: &CacheKey) -> Result<Lookup, Error> {
        self.check()?;
        let found = self.inner.lookup(key).await?;
        Ok(match found {
            Lookup::Hit(answer) if self.is_corrupt.load(SeqCst) => {
                // As another version of netagg might have written it.
                let text = String::from_utf8(answer.to_vec()).expect("JSON");
                Lookup::Hit(text.replace("DATA", "data").replace("items", "rows").into())
            }
            found => found,
        })
    }

    async fn fill(&self, ticket: CacheTicket, answer: Bytes, ttl: Duration) -> Result<(), Error> {
        self.check()?;
        self.filled.lock().expect("no panic").push(answer.clone());
        self.inner.fill(ticket, answer, ttl).await
    }

    async fn invalidate(&self, months: &[Month]) -> Result<(), Error> {
        self.inner.invalidate(months).await
    }

    async fn invalidate_all(&self) -> Result<(), Error> {
        self.inner.invalidate_all().await
    }
}

struct Stage {
    events: Arc<Counted<MemoryEventStore>>,
    totals: Arc<Counted<MemoryAggregateStore>>,
    cache: Arc<Moody>,
    service: UsageService,
}

impl Stage {
    fn new() -> Self {
        let (events, totals) = (Arc::<Counted<MemoryEventStore>>::default(), Arc::<Counted<_>>::default());
        let service = UsageService::new(events.clone(), totals.clone(), config()).with_clock(Arc::new(FixedClock));
        Self { events, totals, cache: Arc::default(), service }
    }

    fn cached() -> Self {
        let stage = Self::new();
        Self { service: stage.service.with_cache(stage.cache.clone()), ..stage }
    }

    async fn put(&self, template: EventTemplate<'_>) {
        let event = event(template);
        self.totals.add(&Batch::new(vec![Contribution::of(&event)])).await.expect("added");
        self.events.store(&Batch::new(vec![event.into()])).await.expect("stored");
    }

    async fn detail(&self, request: DetailRequest) -> DetailPage {
        self.service.user_detail(request).await.expect("a page")
    }

    async fn aggregates(&self, granularity: Granularity, from: &str, to: &str) -> AggregatesAnswer {
        self.service.aggregates(range(granularity, from, to)).await.expect("totals")
    }

    fn reads(&self) -> (usize, usize) {
        (self.events.reads.load(SeqCst), self.totals.reads.load(SeqCst))
    }
}

fn config() -> UsageConfig {
    UsageConfig::new(CursorSecret::new(*b"secret"))
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn day(text: &str) -> Day {
    text.parse().expect("a day")
}

fn user() -> DetailRequest {
    DetailRequest::of(UserId::new("user-1").expect("a user"))
}

fn last_days(granularity: Granularity) -> AggregatesRequest {
    AggregatesRequest { granularity, from: None, to: None, event_type: None, zone: Zone::UTC }
}

fn range(granularity: Granularity, from: &str, to: &str) -> AggregatesRequest {
    AggregatesRequest { from: Some(day(from)), to: Some(day(to)), ..last_days(granularity) }
}

fn at(id: u128, started_at: &str) -> EventTemplate<'_> {
    EventTemplate { id, started_at, event_type: EventType::Data, ..EventTemplate::default() }
}

fn ids(page: &DetailPage) -> Vec<u128> {
    page.items.iter().map(|event| event.fields().event_id.as_u128()).collect()
}

fn problem(error: UsageError) -> String {
    assert!(!error.is_retryable());
    match error {
        UsageError::InvalidQuery(problem) => problem.to_string(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_detail_defaults_to_the_last_thirty_days() {
    let stage = Stage::new();
    for (id, started_at) in [
        (1, "2025-10-01T11:59:59.999999Z"),
        (2, "2025-10-01T12:00:00Z"),
        (3, "2025-10-31T11:59:59.999999Z"),
        (4, NOW),
        (5, "2025-09-01T12:00:00Z"),
    ] {
        stage.put(at(id, started_at)).await;
    }
    let page = stage.detail(user()).await;
    assert_eq!((page.from, page.to), (time("2025-10-01T12:00:00Z"), time(NOW)));
    assert_eq!((ids(&page), page.total_count, page.next_cursor), (vec![3, 2], 2, None));

    let until = stage.detail(DetailRequest { to: Some(time("2025-10-01T12:00:00Z")), ..user() }).await;
    assert_eq!((until.from, ids(&until)), (time("2025-09-01T12:00:00Z"), vec![1, 5]));
    let since = stage.detail(DetailRequest { from: Some(time("2025-09-01T00:00:00Z")), ..user() }).await;
    assert_eq!((since.to, ids(&since)), (time(NOW), vec![3, 2, 1, 5]));
}

#[tokio::test]
async fn a_detail_refuses_what_makes_no_sense_and_takes_what_is_empty() {
    let stage = Stage::new();
    for limit in [1, MAX_LIMIT] {
        stage.detail(DetailRequest { limit: Some(limit), ..user() }).await;
    }
    for limit in [0, MAX_LIMIT + 1, u32::MAX] {
        let error = stage.service.user_detail(DetailRequest { limit: Some(limit), ..user() }).await;
        assert_eq!(problem(error.expect_err("no page")), format!("limit: found {limit}; accepted: 1 to 1000"));
    }
    let (from, to) = (Some(time("2025-10-02T00:00:00Z")), Some(time("2025-10-01T00:00:00Z")));
    let error = stage.service.user_detail(DetailRequest { from, to, ..user() }).await.expect_err("no page");
    let accepted = "nothing after `to`, which is 2025-10-01T00:00:00Z";
    assert_eq!(problem(error), format!("from: found 2025-10-02T00:00:00Z; accepted: {accepted}"));
    let empty = stage.detail(DetailRequest { from, to: from, ..user() }).await;
    assert_eq!((empty.items, empty.total_count, empty.next_cursor), (vec![], 0, None));
    // Before all time, and as long as all time.
    stage.detail(DetailRequest { to: Some(Timestamp::MIN), ..user() }).await;
    stage.detail(DetailRequest { from: Some(Timestamp::MIN), to: Some(Timestamp::MAX), ..user() }).await;
}

#[tokio::test]
async fn pages_neither_skip_nor_repeat_while_events_come_in() {
    let stage = Stage::new();
    let started = |minute: u128| format!("2025-10-20T12:{minute:02}:00Z");
    for id in 0..20 {
        stage.put(at(id, &started(id / 2 * 2))).await; // in pairs of one instant
    }
    let mut request = DetailRequest { limit: Some(3), ..user() };
    let mut found = Vec::new();
    for page_number in 0.. {
        let page = stage.detail(request.clone()).await;
        assert_eq!(page.total_count, 20 + 2 * page_number, "the whole range, whatever the page");
        found.extend(ids(&page));
        // One newer than all, and one older.
        stage.put(at(100 + u128::from(page_number), "2025-10-30T00:00:00Z")).await;
        stage.put(at(200 + u128::from(page_number), "2025-10-20T11:00:00Z")).await;
        request.cursor = page.next_cursor;
        if found.len() >= 20 || request.cursor.is_none() {
            break;
        }
    }
    let expected: Vec<u128> = (0..10).rev().flat_map(|pair| [pair * 2, pair * 2 + 1]).collect();
    assert_eq!(found[..20], expected);
    assert!(request.cursor.is_some(), "the older ones follow");
}

#[tokio::test]
async fn a_last_page_that_is_full_has_no_next() {
    let stage = Stage::new();
    for id in 0..4 {
        stage.put(at(id, "2025-10-20T12:00:00Z")).await;
    }
    let first = stage.detail(DetailRequest { limit: Some(2), ..user() }).await;
    let last = stage.detail(DetailRequest { limit: Some(2), cursor: first.next_cursor, ..user() }).await;
    assert_eq!((ids(&last), last.next_cursor), (vec![2, 3], None));
    assert_eq!((last.from, last.to), (first.from, first.to), "the default range is fixed by the first page");
}

#[tokio::test]
async fn a_page_ends_before_its_events_take_too_much() {
    let stage = Stage::cached();
    let meta = format!(r#"{{"a":"{}"}}"#, "x".repeat(1_000_000));
    for id in 0..10 {
        stage.put(EventTemplate { meta: Some(&meta), ..at(id, "2025-10-20T12:00:00Z") }).await;
    }
    let first = DetailRequest { to: Some(time("2025-10-21T00:00:00Z")), limit: Some(1_000), ..user() };
    for _ in 0..2 {
        // The second time out of the cache.
        let (mut request, mut found) = (first.clone(), Vec::new());
        loop {
            let page = stage.detail(request.clone()).await;
            assert!(page.items.iter().map(Event::size).sum::<u64>() <= MAX_PAGE_BYTES);
            assert_eq!(page.total_count, 10);
            found.push(ids(&page));
            request.cursor = page.next_cursor;
            if request.cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
    }
    assert_eq!(stage.reads().0, 3);
}

#[tokio::test]
async fn a_stream_has_every_event_once_up_to_its_limit() {
    let stage = Stage::new();
    for id in 0..2_500 {
        // In ties of a hundred.
        stage.put(at(id, &format!("2025-10-20T12:{:02}:00Z", id / 100))).await;
    }
    let chunks = |request: DetailRequest| {
        let events = stage.service.user_events(stage.service.prepare_detail(request).expect("valid"));
        async move { events.map_ok(|chunk| chunk.len()).try_collect::<Vec<_>>().await.expect("no error") }
    };
    assert_eq!(chunks(user()).await, [1_000, 1_000, 500]);
    assert_eq!(chunks(DetailRequest { limit: Some(7), ..user() }).await, [7]);
    let page = stage.detail(DetailRequest { limit: Some(400), ..user() }).await;
    let rest = DetailRequest { cursor: page.next_cursor, ..user() };
    assert_eq!(chunks(rest.clone()).await, [1_000, 1_000, 100]);

    let rest = stage.service.prepare_detail(rest).expect("valid");
    let events = stage.service.user_events(rest).try_concat().await.expect("no error");
    let mut ids: Vec<_> = page.items.iter().chain(&events).map(|event| event.fields().event_id.as_u128()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..2_500).collect::<Vec<_>>());
    let forged = DetailRequest { cursor: Some("x".to_owned()), ..user() };
    assert!(stage.service.prepare_detail(forged).is_err());
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once() {
    let stage = Stage::new();
    let (from, to) = (Some(time("2025-10-02T00:00:00Z")), Some(time("2025-10-01T00:00:00Z")));
    let request = DetailRequest { from, to, limit: Some(0), cursor: Some("forged".to_owned()), ..user() };
    let query = stage.service.prepare_detail(request.clone()).expect_err("wrong");
    let names: Vec<_> = query.problems.iter().map(|problem| problem.name.as_str()).collect();
    assert_eq!(names, ["limit", "cursor", "from"]);
    assert_eq!(problem(stage.service.user_detail(request).await.expect_err("wrong")), query.to_string());
}

#[tokio::test]
async fn a_cursor_is_bound_to_its_listing() {
    let stage = Stage::new();
    for id in 0..3 {
        stage.put(at(id, "2025-10-20T12:00:00Z")).await;
    }
    let first = DetailRequest { limit: Some(1), event_type: Some(EventType::Data), ..user() };
    let cursor = stage.detail(first.clone()).await.next_cursor.expect("more");
    let next = DetailRequest { cursor: Some(cursor.clone()), ..first.clone() };
    assert_eq!(ids(&stage.detail(next.clone()).await), [1]);
    assert_eq!(
        ids(&stage.detail(DetailRequest { limit: Some(2), ..next.clone() }).await),
        [1, 2],
        "a limit is no part"
    );

    let mut forged = cursor.clone().into_bytes();
    forged[10] ^= 1;
    for other in [
        DetailRequest { user_id: UserId::new("user-2").expect("a user"), ..next.clone() },
        DetailRequest { event_type: None, ..next.clone() },
        DetailRequest { event_type: Some(EventType::CallIn), ..next.clone() },
        DetailRequest { from: Some(time("2025-10-01T12:00:00Z")), ..next.clone() },
        DetailRequest { to: Some(time(NOW)), ..next.clone() },
        DetailRequest { cursor: String::from_utf8(forged).ok(), ..next.clone() },
        DetailRequest { cursor: Some(String::new()), ..next.clone() },
        DetailRequest { cursor: Some("x".repeat(100_000)), ..next.clone() },
    ] {
        let error = stage.service.user_detail(other).await.expect_err("no page");
        let message = problem(error);
        assert!(message.starts_with("cursor: found ") && message.len() < 400, "{message}");
    }
    // Another instance with the same secret takes it, one with another doesn't.
    let same = UsageService::new(stage.events.clone(), stage.totals.clone(), config());
    assert_eq!(ids(&same.user_detail(next.clone()).await.expect("a page")), [1]);
    let other = UsageService::new(stage.events.clone(), stage.totals.clone(), UsageConfig::default());
    problem(other.user_detail(next).await.expect_err("no page"));
}

#[tokio::test]
async fn aggregates_default_to_the_last_thirty_days() {
    let stage = Stage::new();
    for (id, started_at) in [
        (1, "2025-10-01T23:59:59Z"),
        (2, "2025-10-02T00:00:00Z"),
        (3, "2025-10-31T23:59:59Z"),
        (4, "2025-11-01T00:00:00Z"),
    ] {
        stage.put(at(id, started_at)).await;
    }
    let dates = |answer: AggregatesAnswer| answer.rows.iter().map(|row| row.date.to_string()).collect::<Vec<_>>();
    let answer = stage.service.aggregates(last_days(Granularity::Day)).await.expect("totals");
    assert_eq!((answer.from, answer.to), (day("2025-10-02"), day("2025-10-31")));
    assert_eq!(dates(answer), ["2025-10-02", "2025-10-31"]);
    let until = AggregatesRequest { to: Some(day("2025-10-30")), ..last_days(Granularity::Day) };
    assert_eq!(dates(stage.service.aggregates(until).await.expect("totals")), ["2025-10-01", "2025-10-02"]);
    let months = stage.service.aggregates(last_days(Granularity::Month)).await.expect("totals");
    assert_eq!((months.rows.len(), months.rows[0].totals.count_events), (1, 3), "whole months");
}

#[tokio::test]
async fn the_day_of_a_month_range_is_ignored() {
    let stage = Stage::new();
    stage.put(at(1, "2025-10-01T00:00:00Z")).await;
    stage.put(at(2, "2025-10-31T23:59:59Z")).await;
    for (from, to) in [("2025-10-31", "2025-10-01"), ("2025-10-15", "2025-10-15"), ("2025-10-01", "2025-10-31")] {
        let answer = stage.aggregates(Granularity::Month, from, to).await;
        assert_eq!(answer.rows.len(), 1);
        assert_eq!((answer.rows[0].date, answer.rows[0].totals.count_events), (day("2025-10-01"), 2));
    }
    let error = stage.service.aggregates(range(Granularity::Month, "2025-11-01", "2025-10-31")).await;
    problem(error.expect_err("upside down"));
}

#[tokio::test]
async fn aggregates_are_given_for_at_most_ten_years() {
    let stage = Stage::new();
    for (granularity, from, to) in [
        (Granularity::Day, "2015-11-01", "2025-10-31"), // 3,653 days
        (Granularity::Day, "2025-10-31", "2025-10-31"),
        (Granularity::Day, "0001-01-01", "0001-01-01"),
        (Granularity::Month, "2015-11-30", "2025-10-01"), // 120 months
        (Granularity::Month, "2015-11-01", "2025-10-31"),
        (Granularity::Month, "9999-12-31", "9999-12-01"),
    ] {
        stage.aggregates(granularity, from, to).await;
    }
    for (granularity, from, to, found) in [
        (Granularity::Day, "2015-10-31", "2025-10-31", "2015-10-31 to 2025-10-31, 3654 days"),
        (Granularity::Month, "2015-10-31", "2025-10-01", "2015-10-01 to 2025-10-31, 3684 days"),
        (Granularity::Day, "0001-01-01", "9999-12-31", "0001-01-01 to 9999-12-31, 3652059 days"),
    ] {
        let error = stage.service.aggregates(range(granularity, from, to)).await.expect_err("too long");
        assert_eq!(problem(error), format!("from: found {found}; accepted: a range of at most 3653 days"));
    }
    let error = stage.service.aggregates(range(Granularity::Day, "2025-10-02", "2025-10-01")).await;
    let accepted = "nothing after `to`, which is 2025-10-01";
    assert_eq!(problem(error.expect_err("upside down")), format!("from: found 2025-10-02; accepted: {accepted}"));
    let first_days = AggregatesRequest { to: Some(day("0001-01-05")), ..last_days(Granularity::Day) };
    assert_eq!(stage.service.aggregates(first_days).await.expect("totals").from, day("0001-01-01"));
}

fn in_zone(zone: &str, request: AggregatesRequest) -> AggregatesRequest {
    AggregatesRequest { zone: zone.parse().expect("a zone"), ..request }
}

fn counts(answer: &AggregatesAnswer) -> Vec<(String, u64)> {
    answer.rows.iter().map(|row| (row.date.to_string(), row.totals.count_events)).collect()
}

fn of_user(user_id: &str, totals: AggregatesRequest) -> UserAggregatesRequest {
    UserAggregatesRequest { user_id: UserId::new(user_id).expect("a user"), totals }
}

#[tokio::test]
async fn days_and_months_are_those_of_the_zone() {
    let stage = Stage::new();
    for (id, started_at) in [
        (1, "2025-09-30T20:59:59.999999Z"),
        (2, "2025-09-30T21:00:00Z"), // October in Moscow
        (3, "2025-10-26T00:30:00Z"),
        (4, "2025-10-26T22:30:00Z"), // still the 26th in Berlin, whose day has 25 hours
        (5, "2025-10-31T21:30:00Z"), // November in Moscow
    ] {
        stage.put(at(id, started_at)).await;
        stage.put(EventTemplate { user: "user-2", id: id + 10, ..at(id, started_at) }).await;
    }
    for (zone, granularity, expected) in [
        ("Europe/Moscow", Granularity::Month, vec![("2025-09-01", 1), ("2025-10-01", 3), ("2025-11-01", 1)]),
        ("UTC", Granularity::Month, vec![("2025-09-01", 2), ("2025-10-01", 3)]),
        ("Europe/Berlin", Granularity::Day, vec![("2025-09-30", 2), ("2025-10-26", 2), ("2025-10-31", 1)]),
    ] {
        let request = in_zone(zone, range(granularity, "2025-09-15", "2025-11-15"));
        let doubled =
            |factor: u64| expected.iter().map(|(date, count)| ((*date).to_owned(), factor * count)).collect::<Vec<_>>();
        let everybody = stage.service.aggregates(request.clone()).await.expect("totals");
        assert_eq!(counts(&everybody), doubled(2), "{zone}");
        assert_eq!(everybody.zone.name(), zone);
        let user = stage.service.user_aggregates(of_user("user-1", request)).await.expect("totals");
        assert_eq!(counts(&user.totals), doubled(1), "{zone}");
        assert_eq!(user.user_id.as_str(), "user-1");
    }
    // At noon UTC of the 31st it is the 1st in Kiritimati.
    let answer = stage.service.aggregates(in_zone("Pacific/Kiritimati", last_days(Granularity::Day))).await;
    let answer = answer.expect("totals");
    assert_eq!((answer.from, answer.to), (day("2025-10-03"), day("2025-11-01")));
}

#[tokio::test]
async fn everybodys_totals_of_a_zone_are_given_for_a_quarter() {
    let stage = Stage::new();
    let moscow = |from, to| in_zone("Europe/Moscow", range(Granularity::Day, from, to));
    stage.service.aggregates(moscow("2025-07-01", "2025-10-01")).await.expect("93 days");
    let error = stage.service.aggregates(moscow("2025-07-01", "2025-10-02")).await.expect_err("too long");
    let accepted = "a range of at most 93 days (3653 without tz)";
    assert_eq!(problem(error), format!("from: found 2025-07-01 to 2025-10-02, 94 days; accepted: {accepted}"));
    // A user has few enough.
    let decade = moscow("2015-11-01", "2025-10-31");
    stage.service.user_aggregates(of_user("user-1", decade)).await.expect("3653 days");
    let error = stage.service.user_aggregates(of_user("user-1", moscow("2015-10-31", "2025-10-31"))).await;
    problem(error.expect_err("too long"));
}

#[tokio::test(start_paused = true)]
async fn totals_from_events_are_cached_as_pages_are() {
    let stage = Stage::cached();
    stage.put(at(1, "2025-10-20T12:00:00Z")).await;
    for (to, ttl) in [("2025-10-30", config().detail_ttl), ("2025-10-31", config().recent_detail_ttl)] {
        let request = of_user("user-1", range(Granularity::Day, "2025-10-01", to));
        let before = stage.reads().0;
        let ask = async |request: &UserAggregatesRequest| {
            stage.service.user_aggregates(request.clone()).await.expect("totals")
        };
        let first = ask(&request).await;
        assert_eq!(counts(&first.totals), [("2025-10-20".to_owned(), 1)]);
        tokio::time::advance(ttl - Duration::from_millis(1)).await;
        assert_eq!(ask(&request).await, first);
        assert_eq!(stage.reads().0, before + 1, "{to}");
        tokio::time::advance(Duration::from_millis(1)).await;
        ask(&request).await;
        assert_eq!(stage.reads().0, before + 2, "{to}");
        // Other questions have other answers.
        assert_eq!(
            ask(&UserAggregatesRequest { user_id: UserId::new("user-2").expect("a user"), ..request.clone() })
                .await
                .totals
                .rows,
            []
        );
        assert_eq!(ask(&of_user("user-1", in_zone("Asia/Tokyo", request.totals.clone()))).await.totals.rows.len(), 1);
        let everybody = in_zone("Asia/Tokyo", request.totals);
        stage.service.aggregates(everybody.clone()).await.expect("totals");
        stage.service.aggregates(everybody).await.expect("totals");
        assert_eq!(stage.reads().0, before + 5, "{to}");
    }
}

/// Totals that wait until they are let go, and count how often they are asked for.
#[derive(Debug)]
struct Gated {
    asked: AtomicUsize,
    gate: tokio::sync::Semaphore,
    through: Option<Timestamp>,
}

#[async_trait]
impl AggregateStore for Gated {
    async fn add(&self, _: &Batch<Contribution>) -> Result<BatchOutcome, Error> {
        Err(Error::unavailable("store", "read only"))
    }
}

#[async_trait]
impl TotalsReader for Gated {
    async fn totals(&self, _: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
        let asked = self.asked.fetch_add(1, SeqCst);
        self.gate.acquire().await.expect("open").forget();
        if asked == 0 { Err(Error::unavailable("store", "at first")) } else { Ok(Vec::new()) }
    }

    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        Ok(self.through)
    }
}

fn gated(through: Option<&str>) -> (Arc<Gated>, UsageService, Arc<MemoryCache>) {
    let gate = tokio::sync::Semaphore::new(0);
    let store = Arc::new(Gated { asked: AtomicUsize::new(0), gate, through: through.map(time) });
    let cache = Arc::new(MemoryCache::default());
    let service = UsageService::new(Arc::new(MemoryEventStore::new()), store.clone(), config())
        .with_clock(Arc::new(FixedClock))
        .with_cache(cache.clone());
    (store, service, cache)
}

#[tokio::test(start_paused = true)]
async fn of_those_who_miss_one_answer_one_loads_it() {
    let (store, service, cache) = gated(None);
    let ask = || {
        let service = service.clone();
        tokio::spawn(async move { service.aggregates(range(Granularity::Day, "2025-10-01", "2025-10-31")).await })
    };
    let settled = async || {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    let mut waiting: Vec<_> = (0..20).map(|_| ask()).collect();
    settled().await;
    assert_eq!(store.asked.load(SeqCst), 1);
    // The first load fails; another of those who wait takes over.
    store.gate.add_permits(1);
    settled().await;
    assert_eq!(store.asked.load(SeqCst), 2);
    // Who comes after a change wants a newer answer.
    cache.invalidate(&["2025-10".parse().expect("a month")]).await.expect("invalidated");
    waiting.push(ask());
    settled().await;
    assert_eq!(store.asked.load(SeqCst), 3);
    store.gate.add_permits(2);
    let mut failed = 0;
    for answer in waiting {
        failed += usize::from(answer.await.expect("joined").is_err());
    }
    assert_eq!((failed, store.asked.load(SeqCst)), (1, 3), "the one that met the failure alone");
}

#[tokio::test(start_paused = true)]
async fn totals_that_are_not_complete_are_asked_for_again_soon() {
    for (through, kept) in [
        (None, Duration::from_secs(10)),
        (Some("2025-10-31T23:59:59Z"), Duration::from_secs(10)),
        (Some("2025-11-01T00:00:00Z"), config().day_ttl),
    ] {
        let (store, service, _) = gated(through);
        store.gate.add_permits(10);
        let ask = async || service.aggregates(range(Granularity::Day, "2025-10-01", "2025-10-31")).await;
        ask().await.expect_err("at first");
        let answer = ask().await.expect("totals");
        assert_eq!(answer.complete_through, through.map(time));
        tokio::time::advance(kept - Duration::from_millis(1)).await;
        assert_eq!(ask().await.expect("totals"), answer, "also from the cache");
        assert_eq!(store.asked.load(SeqCst), 2, "{through:?}");
        tokio::time::advance(Duration::from_millis(1)).await;
        ask().await.expect("totals");
        assert_eq!(store.asked.load(SeqCst), 3, "{through:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn totals_are_cached_until_one_of_their_months_changes() {
    let stage = Stage::cached();
    let large = EventTemplate { bytes_up: MAX_BYTES, ..at(1, "2025-10-20T12:00:00Z") };
    stage.put(large).await;
    stage.put(EventTemplate { id: 2, ..large }).await;
    stage.put(EventTemplate { id: 3, ..large }).await;
    let day_totals = async || stage.aggregates(Granularity::Day, "2025-09-15", "2025-10-31").await;
    let first = day_totals().await;
    assert_eq!(first.rows[0].totals.sum_bytes_up, 3 * u128::from(MAX_BYTES), "exact beyond 64 bits");
    assert_eq!(day_totals().await, first, "also from the cache");
    assert_eq!(stage.reads(), (0, 1));
    // Other questions have other answers.
    let data =
        AggregatesRequest { event_type: Some(EventType::Data), ..range(Granularity::Day, "2025-09-15", "2025-10-31") };
    assert_eq!(stage.service.aggregates(data).await.expect("totals").rows, first.rows);
    assert_eq!(stage.aggregates(Granularity::Day, "2025-09-15", "2025-10-19").await.rows, []);
    assert_eq!(stage.aggregates(Granularity::Month, "2025-09-15", "2025-10-31").await.rows.len(), 1);
    assert_eq!(stage.reads(), (0, 4));

    stage.cache.invalidate(&["2025-11".parse().expect("a month")]).await.expect("invalidated");
    day_totals().await;
    assert_eq!(stage.reads(), (0, 4));
    for month in ["2025-09", "2025-10"] {
        let before = stage.reads().1;
        stage.cache.invalidate(&[month.parse().expect("a month")]).await.expect("invalidated");
        day_totals().await;
        day_totals().await;
        assert_eq!(stage.reads(), (0, before + 1), "{month}");
    }
    tokio::time::advance(config().day_ttl).await;
    let before = stage.reads().1;
    day_totals().await;
    assert_eq!(stage.reads(), (0, before + 1), "and no longer than their time");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_names_nothing_twice() {
    let stage = Stage::cached();
    stage.put(EventTemplate { bytes_up: 5, bytes_down: 6, ..at(1, "2025-10-20T12:00:00Z") }).await;
    stage.put(at(2, "2025-10-21T12:00:00Z")).await;
    stage.aggregates(Granularity::Day, "2025-10-01", "2025-10-31").await;
    let kept = stage.cache.filled.lock().expect("no panic").pop().expect("an answer");
    // Another form needs another schema version in the keys, or is computed anew.
    assert_eq!(
        String::from_utf8_lossy(&kept),
        r#"{"complete_through":null,"rows":[["2025-10-20","DATA",1,60,"5","6"],["2025-10-21","DATA",1,60,"0","0"]]}"#
    );
}

#[tokio::test(start_paused = true)]
async fn month_totals_share_an_answer_whatever_the_day() {
    let stage = Stage::cached();
    stage.put(at(1, "2025-10-20T12:00:00Z")).await;
    let one = stage.aggregates(Granularity::Month, "2025-10-05", "2025-10-31").await;
    let other = stage.aggregates(Granularity::Month, "2025-10-31", "2025-10-05").await;
    assert_eq!((one.rows, stage.reads()), (other.rows, (0, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_detail_page_is_cached_for_minutes_or_seconds_by_how_recent_it_is() {
    let stage = Stage::cached();
    let rich = EventTemplate { meta: Some(r#"{"a":1.50}"#), ..at(1, "2025-10-20T12:00:00Z") };
    stage.put(rich).await;
    let until = |to: &str| DetailRequest { to: Some(time(to)), limit: Some(1), ..user() };
    for (to, ttl) in [
        ("2025-10-31T11:00:00Z", config().detail_ttl),
        ("2025-10-31T11:00:00.000001Z", config().recent_detail_ttl),
        ("2025-12-31T00:00:00Z", config().recent_detail_ttl),
    ] {
        let request = DetailRequest { from: Some(time("2025-10-01T00:00:00Z")), ..until(to) };
        let before = stage.reads().0;
        let first = stage.detail(request.clone()).await;
        assert_eq!(stage.detail(request.clone()).await, first, "also from the cache");
        assert_eq!(first.items[0].fields().meta.as_ref().map(|meta| meta.as_json()), Some(r#"{"a":1.50}"#));
        tokio::time::advance(ttl - Duration::from_millis(1)).await;
        stage.detail(request.clone()).await;
        assert_eq!(stage.reads().0, before + 1, "{to}");
        tokio::time::advance(Duration::from_millis(1)).await;
        stage.detail(request).await;
        assert_eq!(stage.reads().0, before + 2, "{to}");
    }
    // A range that ends now is another one each time: kept, it would only push others out.
    let before = stage.reads().0;
    stage.detail(user()).await;
    stage.detail(user()).await;
    assert_eq!(stage.reads().0, before + 2);
}

#[tokio::test(start_paused = true)]
async fn cached_pages_are_apart_by_user_range_type_limit_and_cursor() {
    let stage = Stage::cached();
    for id in 0..6 {
        stage.put(at(id, "2025-10-20T12:00:00Z")).await;
    }
    let first = DetailRequest { to: Some(time("2025-10-21T00:00:00Z")), limit: Some(2), ..user() };
    let page = stage.detail(first.clone()).await;
    let second = DetailRequest { cursor: page.next_cursor, ..first.clone() };
    let third = DetailRequest { cursor: stage.detail(second.clone()).await.next_cursor, ..first.clone() };
    for (request, expected) in [
        (first.clone(), vec![0, 1]),
        (second, vec![2, 3]),
        (third, vec![4, 5]),
        (DetailRequest { limit: Some(3), ..first.clone() }, vec![0, 1, 2]),
        (DetailRequest { event_type: Some(EventType::CallIn), ..first.clone() }, vec![]),
        (DetailRequest { user_id: UserId::new("user-2").expect("a user"), ..first.clone() }, vec![]),
        (DetailRequest { from: first.to, ..first.clone() }, vec![]),
    ] {
        for attempt in ["computed", "cached"] {
            assert_eq!(ids(&stage.detail(request.clone()).await), expected, "{attempt}: {request:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_counted_once_for_all_its_pages() {
    let stage = Stage::cached();
    for id in 0..6 {
        stage.put(at(id, "2025-10-20T12:00:00Z")).await;
    }
    let counts = || stage.events.counts.swap(0, SeqCst);
    let first = DetailRequest { to: Some(time("2025-10-21T00:00:00Z")), limit: Some(2), ..user() };
    let mut request = first.clone();
    loop {
        let page = stage.detail(request).await;
        assert_eq!(page.total_count, 6);
        let Some(cursor) = page.next_cursor else { break };
        request = DetailRequest { cursor: Some(cursor), ..first.clone() };
    }
    assert_eq!((stage.reads().0, counts()), (3, 1));
    stage.detail(DetailRequest { event_type: Some(EventType::Data), ..first.clone() }).await;
    stage.detail(DetailRequest { from: first.to, ..first.clone() }).await;
    stage.detail(DetailRequest { user_id: UserId::new("user-2").expect("a user"), ..first.clone() }).await;
    assert_eq!(counts(), 3, "others are other listings");
    tokio::time::advance(config().detail_ttl).await;
    stage.detail(first).await;
    assert_eq!(counts(), 1, "a count is as old as a page may be");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_away_or_holds_nonsense_costs_time_and_never_an_answer() {
    let plain = Stage::new();
    let stage = Stage::cached();
    for stage in [&plain, &stage] {
        stage.put(at(1, "2025-10-20T12:00:00Z")).await;
    }
    let page = DetailRequest { to: Some(time("2025-10-21T00:00:00Z")), ..user() };
    let expected_page = plain.detail(page.clone()).await;
    let expected_rows = plain.aggregates(Granularity::Day, "2025-10-01", "2025-10-31").await;
    let check = async |mood: &str| {
        for _ in 0..2 {
            assert_eq!(stage.detail(page.clone()).await, expected_page, "{mood}");
            let rows = stage.aggregates(Granularity::Day, "2025-10-01", "2025-10-31").await;
            assert_eq!(rows, expected_rows, "{mood}");
        }
    };
    stage.cache.is_away.store(true, SeqCst);
    check("away").await;
    assert_eq!(stage.reads(), (2, 2));
    stage.cache.is_away.store(false, SeqCst);
    check("back").await;
    assert_eq!(stage.reads(), (3, 3));
    stage.cache.is_corrupt.store(true, SeqCst);
    check("corrupt").await;
    assert_eq!(stage.reads(), (5, 5));
}

#[tokio::test]
async fn a_store_that_is_away_is_told_to_the_caller() {
    mockall::mock! {
        #[derive(Debug)]
        Away {}
        #[async_trait]
        impl AggregateStore for Away {
            async fn add(&self, batch: &Batch<Contribution>) -> Result<BatchOutcome, Error>;
        }

        #[async_trait]
        impl TotalsReader for Away {
            async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error>;
        }
    }
    let mut away = MockAway::new();
    away.expect_totals().returning(|_| Err(Error::unavailable("postgres", "away")));
    let service = UsageService::new(Arc::new(MemoryEventStore::new()), Arc::new(away), config())
        .with_cache(Arc::new(MemoryCache::default()));
    for _ in 0..2 {
        let error = service.aggregates(last_days(Granularity::Day)).await.expect_err("away");
        assert!(error.is_retryable());
        let UsageError::Store(error) = error else { panic!("{error}") };
        assert_eq!(error.dependency(), Some("postgres"));
    }
}
