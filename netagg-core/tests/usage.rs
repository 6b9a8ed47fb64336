//! Tests the usage service with the adapters in memory: defaults, limits, pages, and the cache.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

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

/// A store that counts its calls.
#[derive(Debug, Default)]
struct Counted<S> {
    inner: S,
    /// The calls that read events, sums or totals.
    reads: AtomicUsize,
    /// The calls that count events.
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

/// A cache that a test can make unavailable, or whose responses a test can make unreadable.
#[derive(Debug, Default)]
struct FaultyCache {
    inner: MemoryCache,
    is_unavailable: AtomicBool,
    is_corrupt: AtomicBool,
    filled: Mutex<Vec<Bytes>>,
}

impl FaultyCache {
    fn check(&self) -> Result<(), Error> {
        if self.is_unavailable.load(SeqCst) { Err(Error::unavailable("cache", "down")) } else { Ok(()) }
    }
}

#[async_trait]
impl Cache for FaultyCache {
    async fn lookup(&self, key: &CacheKey) -> Result<Lookup, Error> {
        self.check()?;
        let found = self.inner.lookup(key).await?;
        Ok(match found {
            Lookup::Hit(response) if self.is_corrupt.load(SeqCst) => {
                // The response looks as if another version of netagg had written it.
                let text = String::from_utf8(response.to_vec()).expect("JSON");
                Lookup::Hit(text.replace("DATA", "data").replace("items", "rows").into())
            }
            found => found,
        })
    }

    async fn fill(&self, ticket: CacheTicket, response: Bytes, ttl: Duration) -> Result<(), Error> {
        self.check()?;
        self.filled.lock().expect("no panic").push(response.clone());
        self.inner.fill(ticket, response, ttl).await
    }

    async fn invalidate(&self, months: &[Month]) -> Result<(), Error> {
        self.inner.invalidate(months).await
    }

    async fn invalidate_all(&self) -> Result<(), Error> {
        self.inner.invalidate_all().await
    }
}

/// A service over stores in memory, with a fixed clock.
struct Fixture {
    events: Arc<Counted<MemoryEventStore>>,
    totals: Arc<Counted<MemoryAggregateStore>>,
    cache: Arc<FaultyCache>,
    service: UsageService,
}

impl Fixture {
    fn new() -> Self {
        let (events, totals) = (Arc::<Counted<MemoryEventStore>>::default(), Arc::<Counted<_>>::default());
        let service = UsageService::new(events.clone(), totals.clone(), config()).with_clock(Arc::new(FixedClock));
        Self { events, totals, cache: Arc::default(), service }
    }

    fn with_cache() -> Self {
        let fixture = Self::new();
        Self { service: fixture.service.with_cache(fixture.cache.clone()), ..fixture }
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

    /// The reads of the event store and of the aggregate store.
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
    let fixture = Fixture::new();
    for (id, started_at) in [
        (1, "2025-10-01T11:59:59.999999Z"),
        (2, "2025-10-01T12:00:00Z"),
        (3, "2025-10-31T11:59:59.999999Z"),
        (4, NOW),
        (5, "2025-09-01T12:00:00Z"),
    ] {
        fixture.put(at(id, started_at)).await;
    }
    let page = fixture.detail(user()).await;
    assert_eq!((page.from, page.to), (time("2025-10-01T12:00:00Z"), time(NOW)));
    assert_eq!((ids(&page), page.total_count, page.next_cursor), (vec![3, 2], 2, None));

    let until = fixture.detail(DetailRequest { to: Some(time("2025-10-01T12:00:00Z")), ..user() }).await;
    assert_eq!((until.from, ids(&until)), (time("2025-09-01T12:00:00Z"), vec![1, 5]));
    let since = fixture.detail(DetailRequest { from: Some(time("2025-09-01T00:00:00Z")), ..user() }).await;
    assert_eq!((since.to, ids(&since)), (time(NOW), vec![3, 2, 1, 5]));
}

#[tokio::test]
async fn a_detail_rejects_invalid_parameters_and_accepts_an_empty_range() {
    let fixture = Fixture::new();
    for limit in [1, MAX_LIMIT] {
        fixture.detail(DetailRequest { limit: Some(limit), ..user() }).await;
    }
    for limit in [0, MAX_LIMIT + 1, u32::MAX] {
        let error = fixture.service.user_detail(DetailRequest { limit: Some(limit), ..user() }).await;
        assert_eq!(problem(error.expect_err("no page")), format!("limit: found {limit}; accepted: 1 to 1000"));
    }
    let (from, to) = (Some(time("2025-10-02T00:00:00Z")), Some(time("2025-10-01T00:00:00Z")));
    let error = fixture.service.user_detail(DetailRequest { from, to, ..user() }).await.expect_err("no page");
    let accepted = "not later than `to`, which is 2025-10-01T00:00:00Z";
    assert_eq!(problem(error), format!("from: found 2025-10-02T00:00:00Z; accepted: {accepted}"));
    let empty = fixture.detail(DetailRequest { from, to: from, ..user() }).await;
    assert_eq!((empty.items, empty.total_count, empty.next_cursor), (vec![], 0, None));
    // A range that ends at the earliest instant, and a range of all time.
    fixture.detail(DetailRequest { to: Some(Timestamp::MIN), ..user() }).await;
    fixture.detail(DetailRequest { from: Some(Timestamp::MIN), to: Some(Timestamp::MAX), ..user() }).await;
}

#[tokio::test]
async fn pages_neither_skip_nor_repeat_while_events_come_in() {
    let fixture = Fixture::new();
    let started = |minute: u128| format!("2025-10-20T12:{minute:02}:00Z");
    for id in 0..20 {
        fixture.put(at(id, &started(id / 2 * 2))).await; // each pair has the same instant
    }
    let mut request = DetailRequest { limit: Some(3), ..user() };
    let mut found = Vec::new();
    for page_number in 0.. {
        let page = fixture.detail(request.clone()).await;
        assert_eq!(page.total_count, 20 + 2 * page_number, "the count is for the whole range, on each page");
        found.extend(ids(&page));
        // One event is newer than all events of the listing, and one is older.
        fixture.put(at(100 + u128::from(page_number), "2025-10-30T00:00:00Z")).await;
        fixture.put(at(200 + u128::from(page_number), "2025-10-20T11:00:00Z")).await;
        request.cursor = page.next_cursor;
        if found.len() >= 20 || request.cursor.is_none() {
            break;
        }
    }
    let expected: Vec<u128> = (0..10).rev().flat_map(|pair| [pair * 2, pair * 2 + 1]).collect();
    assert_eq!(found[..20], expected);
    assert!(request.cursor.is_some(), "the older events follow");
}

#[tokio::test]
async fn a_full_last_page_has_no_next_cursor() {
    let fixture = Fixture::new();
    for id in 0..4 {
        fixture.put(at(id, "2025-10-20T12:00:00Z")).await;
    }
    let first = fixture.detail(DetailRequest { limit: Some(2), ..user() }).await;
    let last = fixture.detail(DetailRequest { limit: Some(2), cursor: first.next_cursor, ..user() }).await;
    assert_eq!((ids(&last), last.next_cursor), (vec![2, 3], None));
    assert_eq!((last.from, last.to), (first.from, first.to), "the default range is fixed by the first page");
}

#[tokio::test]
async fn a_page_ends_before_its_events_exceed_the_maximum_size() {
    let fixture = Fixture::with_cache();
    let meta = format!(r#"{{"a":"{}"}}"#, "x".repeat(1_000_000));
    for id in 0..10 {
        fixture.put(EventTemplate { meta: Some(&meta), ..at(id, "2025-10-20T12:00:00Z") }).await;
    }
    let first = DetailRequest { to: Some(time("2025-10-21T00:00:00Z")), limit: Some(1_000), ..user() };
    for _ in 0..2 {
        // The second time, the pages come from the cache.
        let (mut request, mut found) = (first.clone(), Vec::new());
        loop {
            let page = fixture.detail(request.clone()).await;
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
    assert_eq!(fixture.reads().0, 3);
}

#[tokio::test]
async fn a_stream_has_every_event_once_up_to_its_limit() {
    let fixture = Fixture::new();
    for id in 0..2_500 {
        // A hundred events have the same instant.
        fixture.put(at(id, &format!("2025-10-20T12:{:02}:00Z", id / 100))).await;
    }
    let chunks = |request: DetailRequest| {
        let events = fixture.service.user_events(fixture.service.prepare_detail(request).expect("valid"));
        async move { events.map_ok(|chunk| chunk.len()).try_collect::<Vec<_>>().await.expect("no error") }
    };
    assert_eq!(chunks(user()).await, [1_000, 1_000, 500]);
    assert_eq!(chunks(DetailRequest { limit: Some(7), ..user() }).await, [7]);
    let page = fixture.detail(DetailRequest { limit: Some(400), ..user() }).await;
    let rest = DetailRequest { cursor: page.next_cursor, ..user() };
    assert_eq!(chunks(rest.clone()).await, [1_000, 1_000, 100]);

    let rest = fixture.service.prepare_detail(rest).expect("valid");
    let events = fixture.service.user_events(rest).try_concat().await.expect("no error");
    let mut ids: Vec<_> = page.items.iter().chain(&events).map(|event| event.fields().event_id.as_u128()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..2_500).collect::<Vec<_>>());
    let forged = DetailRequest { cursor: Some("x".to_owned()), ..user() };
    assert!(fixture.service.prepare_detail(forged).is_err());
}

#[tokio::test]
async fn one_error_names_all_invalid_parameters() {
    let fixture = Fixture::new();
    let (from, to) = (Some(time("2025-10-02T00:00:00Z")), Some(time("2025-10-01T00:00:00Z")));
    let request = DetailRequest { from, to, limit: Some(0), cursor: Some("forged".to_owned()), ..user() };
    let query = fixture.service.prepare_detail(request.clone()).expect_err("an invalid request");
    let names: Vec<_> = query.problems.iter().map(|problem| problem.name.as_str()).collect();
    assert_eq!(names, ["limit", "cursor", "from"]);
    assert_eq!(problem(fixture.service.user_detail(request).await.expect_err("an invalid request")), query.to_string());
}

#[tokio::test]
async fn a_cursor_is_bound_to_its_listing() {
    let fixture = Fixture::new();
    for id in 0..3 {
        fixture.put(at(id, "2025-10-20T12:00:00Z")).await;
    }
    let first = DetailRequest { limit: Some(1), event_type: Some(EventType::Data), ..user() };
    let cursor = fixture.detail(first.clone()).await.next_cursor.expect("more");
    let next = DetailRequest { cursor: Some(cursor.clone()), ..first.clone() };
    assert_eq!(ids(&fixture.detail(next.clone()).await), [1]);
    assert_eq!(
        ids(&fixture.detail(DetailRequest { limit: Some(2), ..next.clone() }).await),
        [1, 2],
        "the limit is not part of the cursor"
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
        let error = fixture.service.user_detail(other).await.expect_err("no page");
        let message = problem(error);
        assert!(message.starts_with("cursor: found ") && message.len() < 400, "{message}");
    }
    // An instance with the same secret accepts the cursor. An instance with another secret rejects it.
    let same = UsageService::new(fixture.events.clone(), fixture.totals.clone(), config());
    assert_eq!(ids(&same.user_detail(next.clone()).await.expect("a page")), [1]);
    let other = UsageService::new(fixture.events.clone(), fixture.totals.clone(), UsageConfig::default());
    problem(other.user_detail(next).await.expect_err("no page"));
}

#[tokio::test]
async fn aggregates_default_to_the_last_thirty_days() {
    let fixture = Fixture::new();
    for (id, started_at) in [
        (1, "2025-10-01T23:59:59Z"),
        (2, "2025-10-02T00:00:00Z"),
        (3, "2025-10-31T23:59:59Z"),
        (4, "2025-11-01T00:00:00Z"),
    ] {
        fixture.put(at(id, started_at)).await;
    }
    let dates = |answer: AggregatesAnswer| answer.rows.iter().map(|row| row.date.to_string()).collect::<Vec<_>>();
    let answer = fixture.service.aggregates(last_days(Granularity::Day)).await.expect("totals");
    assert_eq!((answer.from, answer.to), (day("2025-10-02"), day("2025-10-31")));
    assert_eq!(dates(answer), ["2025-10-02", "2025-10-31"]);
    let until = AggregatesRequest { to: Some(day("2025-10-30")), ..last_days(Granularity::Day) };
    assert_eq!(dates(fixture.service.aggregates(until).await.expect("totals")), ["2025-10-01", "2025-10-02"]);
    let months = fixture.service.aggregates(last_days(Granularity::Month)).await.expect("totals");
    assert_eq!((months.rows.len(), months.rows[0].totals.count_events), (1, 3), "the range has whole months");
}

#[tokio::test]
async fn the_day_of_a_month_range_is_ignored() {
    let fixture = Fixture::new();
    fixture.put(at(1, "2025-10-01T00:00:00Z")).await;
    fixture.put(at(2, "2025-10-31T23:59:59Z")).await;
    for (from, to) in [("2025-10-31", "2025-10-01"), ("2025-10-15", "2025-10-15"), ("2025-10-01", "2025-10-31")] {
        let answer = fixture.aggregates(Granularity::Month, from, to).await;
        assert_eq!(answer.rows.len(), 1);
        assert_eq!((answer.rows[0].date, answer.rows[0].totals.count_events), (day("2025-10-01"), 2));
    }
    let error = fixture.service.aggregates(range(Granularity::Month, "2025-11-01", "2025-10-31")).await;
    problem(error.expect_err("reversed"));
}

#[tokio::test]
async fn a_range_of_aggregates_has_at_most_ten_years() {
    let fixture = Fixture::new();
    for (granularity, from, to) in [
        (Granularity::Day, "2015-11-01", "2025-10-31"), // 3,653 days
        (Granularity::Day, "2025-10-31", "2025-10-31"),
        (Granularity::Day, "0001-01-01", "0001-01-01"),
        (Granularity::Month, "2015-11-30", "2025-10-01"), // 120 months
        (Granularity::Month, "2015-11-01", "2025-10-31"),
        (Granularity::Month, "9999-12-31", "9999-12-01"),
    ] {
        fixture.aggregates(granularity, from, to).await;
    }
    for (granularity, from, to, found) in [
        (Granularity::Day, "2015-10-31", "2025-10-31", "2015-10-31 to 2025-10-31, 3654 days"),
        (Granularity::Month, "2015-10-31", "2025-10-01", "2015-10-01 to 2025-10-31, 3684 days"),
        (Granularity::Day, "0001-01-01", "9999-12-31", "0001-01-01 to 9999-12-31, 3652059 days"),
    ] {
        let error = fixture.service.aggregates(range(granularity, from, to)).await.expect_err("too long");
        assert_eq!(problem(error), format!("from: found {found}; accepted: a range of at most 3653 days"));
    }
    let error = fixture.service.aggregates(range(Granularity::Day, "2025-10-02", "2025-10-01")).await;
    let accepted = "not later than `to`, which is 2025-10-01";
    assert_eq!(problem(error.expect_err("reversed")), format!("from: found 2025-10-02; accepted: {accepted}"));
    let first_days = AggregatesRequest { to: Some(day("0001-01-05")), ..last_days(Granularity::Day) };
    assert_eq!(fixture.service.aggregates(first_days).await.expect("totals").from, day("0001-01-01"));
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
async fn days_and_months_follow_the_time_zone() {
    let fixture = Fixture::new();
    for (id, started_at) in [
        (1, "2025-09-30T20:59:59.999999Z"),
        (2, "2025-09-30T21:00:00Z"), // October in Moscow
        (3, "2025-10-26T00:30:00Z"),
        (4, "2025-10-26T22:30:00Z"), // the 26th in Berlin, where this day has 25 hours
        (5, "2025-10-31T21:30:00Z"), // November in Moscow
    ] {
        fixture.put(at(id, started_at)).await;
        fixture.put(EventTemplate { user: "user-2", id: id + 10, ..at(id, started_at) }).await;
    }
    for (zone, granularity, expected) in [
        ("Europe/Moscow", Granularity::Month, vec![("2025-09-01", 1), ("2025-10-01", 3), ("2025-11-01", 1)]),
        ("UTC", Granularity::Month, vec![("2025-09-01", 2), ("2025-10-01", 3)]),
        ("Europe/Berlin", Granularity::Day, vec![("2025-09-30", 2), ("2025-10-26", 2), ("2025-10-31", 1)]),
    ] {
        let request = in_zone(zone, range(granularity, "2025-09-15", "2025-11-15"));
        let scaled =
            |factor: u64| expected.iter().map(|(date, count)| ((*date).to_owned(), factor * count)).collect::<Vec<_>>();
        let all_users = fixture.service.aggregates(request.clone()).await.expect("totals");
        assert_eq!(counts(&all_users), scaled(2), "{zone}");
        assert_eq!(all_users.zone.name(), zone);
        let user = fixture.service.user_aggregates(of_user("user-1", request)).await.expect("totals");
        assert_eq!(counts(&user.totals), scaled(1), "{zone}");
        assert_eq!(user.user_id.as_str(), "user-1");
    }
    // When it is noon of the 31st in UTC, it is already the 1st in Kiritimati.
    let answer = fixture.service.aggregates(in_zone("Pacific/Kiritimati", last_days(Granularity::Day))).await;
    let answer = answer.expect("totals");
    assert_eq!((answer.from, answer.to), (day("2025-10-03"), day("2025-11-01")));
}

#[tokio::test]
async fn totals_of_all_users_in_a_zone_have_at_most_93_days() {
    let fixture = Fixture::new();
    let moscow = |from, to| in_zone("Europe/Moscow", range(Granularity::Day, from, to));
    fixture.service.aggregates(moscow("2025-07-01", "2025-10-01")).await.expect("93 days");
    let error = fixture.service.aggregates(moscow("2025-07-01", "2025-10-02")).await.expect_err("too long");
    let accepted = "a range of at most 93 days (3653 without tz)";
    assert_eq!(problem(error), format!("from: found 2025-07-01 to 2025-10-02, 94 days; accepted: {accepted}"));
    // A single user has few events, so the limit is ten years.
    let decade = moscow("2015-11-01", "2025-10-31");
    fixture.service.user_aggregates(of_user("user-1", decade)).await.expect("3653 days");
    let error = fixture.service.user_aggregates(of_user("user-1", moscow("2015-10-31", "2025-10-31"))).await;
    problem(error.expect_err("too long"));
}

#[tokio::test(start_paused = true)]
async fn totals_from_events_are_cached_as_long_as_pages() {
    let fixture = Fixture::with_cache();
    fixture.put(at(1, "2025-10-20T12:00:00Z")).await;
    for (to, ttl) in [("2025-10-30", config().detail_ttl), ("2025-10-31", config().recent_detail_ttl)] {
        let request = of_user("user-1", range(Granularity::Day, "2025-10-01", to));
        let before = fixture.reads().0;
        let ask = async |request: &UserAggregatesRequest| {
            fixture.service.user_aggregates(request.clone()).await.expect("totals")
        };
        let first = ask(&request).await;
        assert_eq!(counts(&first.totals), [("2025-10-20".to_owned(), 1)]);
        tokio::time::advance(ttl - Duration::from_millis(1)).await;
        assert_eq!(ask(&request).await, first);
        assert_eq!(fixture.reads().0, before + 1, "{to}");
        tokio::time::advance(Duration::from_millis(1)).await;
        ask(&request).await;
        assert_eq!(fixture.reads().0, before + 2, "{to}");
        // Other requests have other responses.
        assert_eq!(
            ask(&UserAggregatesRequest { user_id: UserId::new("user-2").expect("a user"), ..request.clone() })
                .await
                .totals
                .rows,
            []
        );
        assert_eq!(ask(&of_user("user-1", in_zone("Asia/Tokyo", request.totals.clone()))).await.totals.rows.len(), 1);
        let all_users = in_zone("Asia/Tokyo", request.totals);
        fixture.service.aggregates(all_users.clone()).await.expect("totals");
        fixture.service.aggregates(all_users).await.expect("totals");
        assert_eq!(fixture.reads().0, before + 5, "{to}");
    }
}

/// An aggregate store whose reads wait for a permit of `gate`. The first read fails.
#[derive(Debug)]
struct Gated {
    /// The number of reads.
    reads: AtomicUsize,
    gate: tokio::sync::Semaphore,
    through: Option<Timestamp>,
}

#[async_trait]
impl AggregateStore for Gated {
    async fn add(&self, _: &Batch<Contribution>) -> Result<BatchOutcome, Error> {
        Err(Error::unavailable("store", "read-only"))
    }
}

#[async_trait]
impl TotalsReader for Gated {
    async fn totals(&self, _: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
        let reads_before = self.reads.fetch_add(1, SeqCst);
        self.gate.acquire().await.expect("open").forget();
        if reads_before == 0 { Err(Error::unavailable("store", "the first read fails")) } else { Ok(Vec::new()) }
    }

    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        Ok(self.through)
    }
}

fn gated(through: Option<&str>) -> (Arc<Gated>, UsageService, Arc<MemoryCache>) {
    let gate = tokio::sync::Semaphore::new(0);
    let store = Arc::new(Gated { reads: AtomicUsize::new(0), gate, through: through.map(time) });
    let cache = Arc::new(MemoryCache::default());
    let service = UsageService::new(Arc::new(MemoryEventStore::new()), store.clone(), config())
        .with_clock(Arc::new(FixedClock))
        .with_cache(cache.clone());
    (store, service, cache)
}

#[tokio::test(start_paused = true)]
async fn one_of_the_callers_that_miss_the_same_response_loads_it() {
    let (store, service, cache) = gated(None);
    let ask = || {
        let service = service.clone();
        tokio::spawn(async move { service.aggregates(range(Granularity::Day, "2025-10-01", "2025-10-31")).await })
    };
    let yield_to_tasks = async || {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    let mut waiting: Vec<_> = (0..20).map(|_| ask()).collect();
    yield_to_tasks().await;
    assert_eq!(store.reads.load(SeqCst), 1);
    // The first load fails, and another waiter loads.
    store.gate.add_permits(1);
    yield_to_tasks().await;
    assert_eq!(store.reads.load(SeqCst), 2);
    // A caller that comes after an invalidation starts a load of its own.
    cache.invalidate(&["2025-10".parse().expect("a month")]).await.expect("invalidated");
    waiting.push(ask());
    yield_to_tasks().await;
    assert_eq!(store.reads.load(SeqCst), 3);
    store.gate.add_permits(2);
    let mut failed = 0;
    for answer in waiting {
        failed += usize::from(answer.await.expect("joined").is_err());
    }
    assert_eq!((failed, store.reads.load(SeqCst)), (1, 3), "only the caller of the failed load gets the error");
}

#[tokio::test(start_paused = true)]
async fn incomplete_totals_are_cached_for_ten_seconds() {
    for (through, kept) in [
        (None, Duration::from_secs(10)),
        (Some("2025-10-31T23:59:59Z"), Duration::from_secs(10)),
        (Some("2025-11-01T00:00:00Z"), config().day_ttl),
    ] {
        let (store, service, _) = gated(through);
        store.gate.add_permits(10);
        let ask = async || service.aggregates(range(Granularity::Day, "2025-10-01", "2025-10-31")).await;
        ask().await.expect_err("the first read fails");
        let answer = ask().await.expect("totals");
        assert_eq!(answer.complete_through, through.map(time));
        tokio::time::advance(kept - Duration::from_millis(1)).await;
        assert_eq!(ask().await.expect("totals"), answer, "the cached response is the same");
        assert_eq!(store.reads.load(SeqCst), 2, "{through:?}");
        tokio::time::advance(Duration::from_millis(1)).await;
        ask().await.expect("totals");
        assert_eq!(store.reads.load(SeqCst), 3, "{through:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn totals_are_cached_until_one_of_their_months_changes() {
    let fixture = Fixture::with_cache();
    let large = EventTemplate { bytes_up: MAX_BYTES, ..at(1, "2025-10-20T12:00:00Z") };
    fixture.put(large).await;
    fixture.put(EventTemplate { id: 2, ..large }).await;
    fixture.put(EventTemplate { id: 3, ..large }).await;
    let day_totals = async || fixture.aggregates(Granularity::Day, "2025-09-15", "2025-10-31").await;
    let first = day_totals().await;
    assert_eq!(first.rows[0].totals.sum_bytes_up, 3 * u128::from(MAX_BYTES), "exact beyond 64 bits");
    assert_eq!(day_totals().await, first, "the cached response is the same");
    assert_eq!(fixture.reads(), (0, 1));
    // Other requests have other responses.
    let data =
        AggregatesRequest { event_type: Some(EventType::Data), ..range(Granularity::Day, "2025-09-15", "2025-10-31") };
    assert_eq!(fixture.service.aggregates(data).await.expect("totals").rows, first.rows);
    assert_eq!(fixture.aggregates(Granularity::Day, "2025-09-15", "2025-10-19").await.rows, []);
    assert_eq!(fixture.aggregates(Granularity::Month, "2025-09-15", "2025-10-31").await.rows.len(), 1);
    assert_eq!(fixture.reads(), (0, 4));

    fixture.cache.invalidate(&["2025-11".parse().expect("a month")]).await.expect("invalidated");
    day_totals().await;
    assert_eq!(fixture.reads(), (0, 4));
    for month in ["2025-09", "2025-10"] {
        let before = fixture.reads().1;
        fixture.cache.invalidate(&[month.parse().expect("a month")]).await.expect("invalidated");
        day_totals().await;
        day_totals().await;
        assert_eq!(fixture.reads(), (0, before + 1), "{month}");
    }
    tokio::time::advance(config().day_ttl).await;
    let before = fixture.reads().1;
    day_totals().await;
    assert_eq!(fixture.reads(), (0, before + 1), "totals are not cached longer than their TTL");
}

#[tokio::test(start_paused = true)]
async fn cached_totals_do_not_repeat_field_names_in_each_row() {
    let fixture = Fixture::with_cache();
    fixture.put(EventTemplate { bytes_up: 5, bytes_down: 6, ..at(1, "2025-10-20T12:00:00Z") }).await;
    fixture.put(at(2, "2025-10-21T12:00:00Z")).await;
    fixture.aggregates(Granularity::Day, "2025-10-01", "2025-10-31").await;
    let cached = fixture.cache.filled.lock().expect("no panic").pop().expect("a response");
    // If this form changes, the keys need another schema version. Otherwise cached responses cannot be read and are computed
    // again.
    assert_eq!(
        String::from_utf8_lossy(&cached),
        r#"{"complete_through":null,"rows":[["2025-10-20","DATA",1,60,"5","6"],["2025-10-21","DATA",1,60,"0","0"]]}"#
    );
}

#[tokio::test(start_paused = true)]
async fn month_totals_share_a_cached_response_for_all_days_of_the_months() {
    let fixture = Fixture::with_cache();
    fixture.put(at(1, "2025-10-20T12:00:00Z")).await;
    let one = fixture.aggregates(Granularity::Month, "2025-10-05", "2025-10-31").await;
    let other = fixture.aggregates(Granularity::Month, "2025-10-31", "2025-10-05").await;
    assert_eq!((one.rows, fixture.reads()), (other.rows, (0, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_recent_detail_page_is_cached_for_seconds_and_an_older_page_for_minutes() {
    let fixture = Fixture::with_cache();
    let rich = EventTemplate { meta: Some(r#"{"a":1.50}"#), ..at(1, "2025-10-20T12:00:00Z") };
    fixture.put(rich).await;
    let until = |to: &str| DetailRequest { to: Some(time(to)), limit: Some(1), ..user() };
    for (to, ttl) in [
        ("2025-10-31T11:00:00Z", config().detail_ttl),
        ("2025-10-31T11:00:00.000001Z", config().recent_detail_ttl),
        ("2025-12-31T00:00:00Z", config().recent_detail_ttl),
    ] {
        let request = DetailRequest { from: Some(time("2025-10-01T00:00:00Z")), ..until(to) };
        let before = fixture.reads().0;
        let first = fixture.detail(request.clone()).await;
        assert_eq!(fixture.detail(request.clone()).await, first, "the cached response is the same");
        assert_eq!(first.items[0].fields().meta.as_ref().map(|meta| meta.as_json()), Some(r#"{"a":1.50}"#));
        tokio::time::advance(ttl - Duration::from_millis(1)).await;
        fixture.detail(request.clone()).await;
        assert_eq!(fixture.reads().0, before + 1, "{to}");
        tokio::time::advance(Duration::from_millis(1)).await;
        fixture.detail(request).await;
        assert_eq!(fixture.reads().0, before + 2, "{to}");
    }
    // A range that ends now is different for each request. Its response is not cached, because it would only evict others.
    let before = fixture.reads().0;
    fixture.detail(user()).await;
    fixture.detail(user()).await;
    assert_eq!(fixture.reads().0, before + 2);
}

#[tokio::test(start_paused = true)]
async fn cached_pages_differ_by_user_range_type_limit_and_cursor() {
    let fixture = Fixture::with_cache();
    for id in 0..6 {
        fixture.put(at(id, "2025-10-20T12:00:00Z")).await;
    }
    let first = DetailRequest { to: Some(time("2025-10-21T00:00:00Z")), limit: Some(2), ..user() };
    let page = fixture.detail(first.clone()).await;
    let second = DetailRequest { cursor: page.next_cursor, ..first.clone() };
    let third = DetailRequest { cursor: fixture.detail(second.clone()).await.next_cursor, ..first.clone() };
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
            assert_eq!(ids(&fixture.detail(request.clone()).await), expected, "{attempt}: {request:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_counted_once_for_all_its_pages() {
    let fixture = Fixture::with_cache();
    for id in 0..6 {
        fixture.put(at(id, "2025-10-20T12:00:00Z")).await;
    }
    let counts = || fixture.events.counts.swap(0, SeqCst);
    let first = DetailRequest { to: Some(time("2025-10-21T00:00:00Z")), limit: Some(2), ..user() };
    let mut request = first.clone();
    loop {
        let page = fixture.detail(request).await;
        assert_eq!(page.total_count, 6);
        let Some(cursor) = page.next_cursor else { break };
        request = DetailRequest { cursor: Some(cursor), ..first.clone() };
    }
    assert_eq!((fixture.reads().0, counts()), (3, 1));
    fixture.detail(DetailRequest { event_type: Some(EventType::Data), ..first.clone() }).await;
    fixture.detail(DetailRequest { from: first.to, ..first.clone() }).await;
    fixture.detail(DetailRequest { user_id: UserId::new("user-2").expect("a user"), ..first.clone() }).await;
    assert_eq!(counts(), 3, "each other filter is another listing");
    tokio::time::advance(config().detail_ttl).await;
    fixture.detail(first).await;
    assert_eq!(counts(), 1, "a count is cached as long as a page");
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_or_corrupt_cache_never_fails_a_request() {
    let plain = Fixture::new();
    let fixture = Fixture::with_cache();
    for fixture in [&plain, &fixture] {
        fixture.put(at(1, "2025-10-20T12:00:00Z")).await;
    }
    let page = DetailRequest { to: Some(time("2025-10-21T00:00:00Z")), ..user() };
    let expected_page = plain.detail(page.clone()).await;
    let expected_rows = plain.aggregates(Granularity::Day, "2025-10-01", "2025-10-31").await;
    let check = async |state: &str| {
        for _ in 0..2 {
            assert_eq!(fixture.detail(page.clone()).await, expected_page, "{state}");
            let rows = fixture.aggregates(Granularity::Day, "2025-10-01", "2025-10-31").await;
            assert_eq!(rows, expected_rows, "{state}");
        }
    };
    fixture.cache.is_unavailable.store(true, SeqCst);
    check("unavailable").await;
    assert_eq!(fixture.reads(), (2, 2));
    fixture.cache.is_unavailable.store(false, SeqCst);
    check("available again").await;
    assert_eq!(fixture.reads(), (3, 3));
    fixture.cache.is_corrupt.store(true, SeqCst);
    check("corrupt").await;
    assert_eq!(fixture.reads(), (5, 5));
}

#[tokio::test]
async fn the_caller_gets_the_error_of_an_unavailable_store() {
    mockall::mock! {
        #[derive(Debug)]
        Totals {}
        #[async_trait]
        impl AggregateStore for Totals {
            async fn add(&self, batch: &Batch<Contribution>) -> Result<BatchOutcome, Error>;
        }

        #[async_trait]
        impl TotalsReader for Totals {
            async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error>;
        }
    }
    let mut totals = MockTotals::new();
    totals.expect_totals().returning(|_| Err(Error::unavailable("postgres", "down")));
    let service = UsageService::new(Arc::new(MemoryEventStore::new()), Arc::new(totals), config())
        .with_cache(Arc::new(MemoryCache::default()));
    for _ in 0..2 {
        let error = service.aggregates(last_days(Granularity::Day)).await.expect_err("the error of the store");
        assert!(error.is_retryable());
        let UsageError::Store(error) = error else { panic!("{error}") };
        assert_eq!(error.dependency(), Some("postgres"));
    }
}
