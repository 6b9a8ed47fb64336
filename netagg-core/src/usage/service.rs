//! The usage service: ranges, pages and the cache.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::cursor::{Cursor, CursorSecret};
use super::flights::Flights;
use super::periods::Periods;
use super::query::{
    AggregatesAnswer, AggregatesRequest, CURSOR_ACCEPTED, DEFAULT_DAYS, DEFAULT_LIMIT, DetailPage, DetailRequest,
    InvalidParameter, InvalidQuery, MAX_CHUNK_BYTES, MAX_DAYS, MAX_LIMIT, MAX_PAGE_BYTES, MAX_ZONE_DAYS,
    UserAggregatesAnswer, UserAggregatesRequest,
};
use crate::aggregate::{AggregateRow, Granularity, Totals};
use crate::event::{Event, UserId};
use crate::ports::{
    AggregateStore, Cache, CacheKey, Clock, EventStore, Lookup, SumsQuery, SystemClock, TimelineFilter,
    TimelinePosition, TimelineQuery, TotalsQuery,
};
use crate::time::{Day, Month, Timestamp};
use crate::zone::Zone;
use crate::{BoxError, Error};

/// A range that ends after this much before now reaches into the last hour: its events still come in.
const RECENT: Duration = Duration::from_secs(60 * 60);
/// How long totals are kept at most that are not complete to the end of their range, so that they come to say so.
const INCOMPLETE_TTL: Duration = Duration::from_secs(10);
/// How many answers are computed from everybody's events at a time.
const SCANS: usize = 2;

/// How long answers are kept, and the secret of cursors.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct UsageConfig {
    /// Authenticates cursors.
    pub cursor_secret: CursorSecret,
    /// How long a detail page is kept that lies in the past.
    pub detail_ttl: Duration,
    /// How long a detail page is kept whose range reaches into the last hour.
    pub recent_detail_ttl: Duration,
    /// How long daily totals are kept, unless they change.
    pub day_ttl: Duration,
    /// How long monthly totals are kept, unless they change.
    pub month_ttl: Duration,
}

impl Default for UsageConfig {
    fn default() -> Self {
        Self {
            cursor_secret: CursorSecret::random(),
            detail_ttl: Duration::from_secs(5 * 60),
            recent_detail_ttl: Duration::from_secs(2),
            day_ttl: Duration::from_secs(60 * 60),
            month_ttl: Duration::from_secs(6 * 60 * 60),
        }
    }
}

/// Answers what users did and what everybody did, over any stores, with or without a cache.
///
/// Without a cache, or with one that is away, answers are the same and take longer.
#[derive(Clone, Debug)]
pub struct UsageService {
    events: Arc<dyn EventStore>,
    aggregates: Arc<dyn AggregateStore>,
    cache: Option<Arc<dyn Cache>>,
    clock: Arc<dyn Clock>,
    config: UsageConfig,
    flights: Arc<Flights>,
    scans: Arc<Semaphore>,
}

impl UsageService {
    /// A service over `events` and `aggregates`, without a cache.
    pub fn new(events: Arc<dyn EventStore>, aggregates: Arc<dyn AggregateStore>, config: UsageConfig) -> Self {
        Self {
            events,
            aggregates,
            cache: None,
            clock: Arc::new(SystemClock),
            config,
            flights: Arc::default(),
            scans: Arc::new(Semaphore::new(SCANS)),
        }
    }

    /// Keeps answers in `cache`.
    #[must_use]
    pub fn with_cache(self, cache: Arc<dyn Cache>) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Takes the time from `clock`.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Whether questions can be answered now: asks both stores for little.
    ///
    /// # Errors
    /// Why they cannot be.
    pub async fn check(&self) -> Result<(), Error> {
        self.events.complete_through().await?;
        self.aggregates.complete_through().await?;
        Ok(())
    }

    /// A page of a user's events, newest first.
    ///
    /// # Errors
    /// [`Error::InvalidQuery`] for a range upside down, a limit out of range, or a cursor that isn't of this listing;
    /// retryable ones while the store cannot be read.
    pub async fn user_detail(&self, request: DetailRequest) -> Result<DetailPage, Error> {
        let Listing { filter, after, is_recent } = self.listing(&request)?;
        let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
        let (from, to) = (filter.from, filter.to);
        let event_type = request.event_type.map_or("", |event_type| event_type.as_str());
        // A range that ends now names another key each time: only a fixed one can be met again.
        let key = |name: &dyn Fn() -> String| {
            let is_fixed = request.to.is_some() || request.cursor.is_some();
            is_fixed.then(|| CacheKey { name: name(), months: Vec::new() })
        };
        let cursor = request.cursor.as_deref().unwrap_or("");
        // The user last: it may hold anything.
        let page_key = key(&|| format!("page:{from}:{to}:{event_type}:{limit}:{cursor}:{}", request.user_id));
        // Apart from the page: counting takes as long as there are events, and all pages of a listing have one count.
        let count_key = key(&|| format!("count:{from}:{to}:{event_type}:{}", request.user_id));
        let ttl = self.events_ttl(is_recent);
        // One event more than the page tells whether another page follows.
        let query = TimelineQuery { filter: filter.clone(), after, limit: limit + 1, max_bytes: MAX_PAGE_BYTES };
        let page = async { Ok(CachedPage { items: self.events.timeline(&query).await? }) };
        let (CachedPage { mut items }, total_count) = futures::try_join!(
            self.cached(page_key, |_| ttl, page),
            self.cached(count_key, |_| ttl, self.events.count(&filter)),
        )?;
        let bytes: u64 = items.iter().map(Event::size).sum();
        let more = items.len() > limit as usize || bytes > MAX_PAGE_BYTES;
        if more && items.len() > 1 {
            items.pop();
        }
        let next_cursor = items.last().filter(|_| more).map(|last| {
            Cursor { from, to, after: TimelinePosition::of(last) }.seal(&request, &self.config.cursor_secret)
        });
        Ok(DetailPage { user_id: request.user_id, from, to, items, next_cursor, total_count })
    }

    /// All of a user's events that `request` asks for, newest first, chunk by chunk, each read from the store when it is
    /// asked for. Without a limit it goes on to the end of the range; events that come in meanwhile may be in it, none
    /// is in it twice. An error ends the stream: what came before isn't all.
    ///
    /// # Errors
    /// What is wrong with `request`, as of [`user_detail`](Self::user_detail).
    pub fn user_events(
        &self,
        request: &DetailRequest,
    ) -> Result<impl Stream<Item = Result<Vec<Event>, Error>> + Send + use<>, InvalidQuery> {
        let Listing { filter, after, .. } = self.listing(request)?;
        let query = TimelineQuery { filter, after, limit: MAX_LIMIT, max_bytes: MAX_CHUNK_BYTES };
        let events = self.events.clone();
        Ok(futures::stream::try_unfold((query, request.limit), move |(query, left)| {
            let events = events.clone();
            async move {
                let query = TimelineQuery { limit: left.unwrap_or(MAX_LIMIT), ..query };
                if query.limit == 0 {
                    return Ok(None);
                }
                let chunk = events.timeline(&query).await?;
                let Some(last) = chunk.last() else { return Ok(None) };
                let query = TimelineQuery { after: Some(TimelinePosition::of(last)), ..query };
                let left = left.map(|left| left.saturating_sub(chunk.len() as u32));
                Ok(Some((chunk, (query, left))))
            }
        }))
    }

    /// What is wrong with `request`, before it is asked.
    ///
    /// # Errors
    /// Everything that is.
    pub fn check_detail(&self, request: &DetailRequest) -> Result<(), InvalidQuery> {
        self.listing(request).map(drop)
    }

    fn listing(&self, request: &DetailRequest) -> Result<Listing, InvalidQuery> {
        let mut problems = Vec::new();
        if let Some(limit) = request.limit.filter(|limit| !(1..=MAX_LIMIT).contains(limit)) {
            problems.push(InvalidParameter::new("limit", limit.to_string(), format!("1 to {MAX_LIMIT}")));
        }
        let cursor = request.cursor.as_deref().and_then(|text| {
            let cursor = Cursor::open(text, request, &self.config.cursor_secret);
            if cursor.is_none() {
                problems.push(InvalidParameter::new("cursor", text, CURSOR_ACCEPTED));
            }
            cursor
        });
        let now = self.clock.now();
        let (from, to) = match &cursor {
            Some(cursor) => (cursor.from, cursor.to),
            None => {
                let to = request.to.unwrap_or(now);
                let from = request.from.unwrap_or_else(|| to.saturating_sub(days(DEFAULT_DAYS)));
                (from, to)
            }
        };
        if from > to {
            problems.push(upside_down(from.to_string(), to.to_string()));
        }
        if !problems.is_empty() {
            return Err(InvalidQuery::all(problems));
        }
        let filter = TimelineFilter { user_id: request.user_id.clone(), from, to, event_type: request.event_type };
        let is_recent = to > now.saturating_sub(RECENT);
        Ok(Listing { filter, after: cursor.map(|cursor| cursor.after), is_recent })
    }

    /// Everybody's totals by day or month.
    ///
    /// Those of UTC are kept by the aggregate store, and are at most a moment behind it. Those of other zones are computed
    /// from the events, and kept as long as a page of a user's detail.
    ///
    /// # Errors
    /// [`Error::InvalidQuery`] for a range upside down or longer than [`MAX_DAYS`] ([`MAX_ZONE_DAYS`]); retryable ones
    /// while the store cannot be read.
    pub async fn aggregates(&self, request: AggregatesRequest) -> Result<AggregatesAnswer, Error> {
        let max_days = Self::max_days(&request.zone);
        let range = self.range(&request, max_days)?;
        if request.zone != Zone::UTC {
            return self.sums(None, request, range).await;
        }
        let TotalsRange { from, to, first, last } = range;
        let query = TotalsQuery { granularity: request.granularity, from, to, event_type: request.event_type };
        let key = CacheKey {
            name: format!(
                "totals:{}:{first}:{last}:{}",
                request.granularity.as_str(),
                request.event_type.map_or("", |event_type| event_type.as_str()),
            ),
            months: months(first.month(), last.month()),
        };
        let ttl = match request.granularity {
            Granularity::Day => self.config.day_ttl,
            Granularity::Month => self.config.month_ttl,
        };
        let end = Zone::UTC.start_of(last.saturating_add_days(1));
        let totals = self
            .cached(Some(key), |totals: &CachedTotals| totals.ttl(ttl, end), async {
                // Before the rows: what it says of them must hold.
                let complete_through = self.aggregates.complete_through().await?;
                Ok(CachedTotals::new(complete_through, self.aggregates.totals(&query).await?))
            })
            .await?;
        Ok(totals.into_answer(request, from, to))
    }

    /// A user's totals by day or month, computed from the user's events and kept as long as a page of them.
    ///
    /// # Errors
    /// [`Error::InvalidQuery`] for a range upside down or longer than [`MAX_DAYS`]; retryable ones while the store
    /// cannot be read.
    pub async fn user_aggregates(&self, request: UserAggregatesRequest) -> Result<UserAggregatesAnswer, Error> {
        let UserAggregatesRequest { user_id, totals } = request;
        let range = self.range(&totals, MAX_DAYS)?;
        let totals = self.sums(Some(user_id.clone()), totals, range).await?;
        Ok(UserAggregatesAnswer { user_id, totals })
    }

    /// Totals from the events themselves.
    async fn sums(
        &self,
        user_id: Option<UserId>,
        request: AggregatesRequest,
        range: TotalsRange,
    ) -> Result<AggregatesAnswer, Error> {
        let TotalsRange { from, to, first, last } = range;
        let periods = Periods::new(request.granularity, first, last, &request.zone);
        let key = CacheKey {
            // The user last: it may hold anything.
            name: format!(
                "sums:{}:{}:{first}:{last}:{}:{}",
                request.zone,
                request.granularity.as_str(),
                request.event_type.map_or("", |event_type| event_type.as_str()),
                // An empty user is nobody's.
                user_id.as_ref().map_or("", |user_id| user_id.as_str()),
            ),
            months: Vec::new(),
        };
        let ttl = self.events_ttl(periods.end() > self.clock.now().saturating_sub(RECENT));
        let totals = self
            .cached(Some(key), |_| ttl, async {
                let _turn = match user_id {
                    // The semaphore is never closed.
                    None => self.scans.acquire().await.ok(),
                    Some(_) => None,
                };
                let complete_through = self.events.complete_through().await?;
                let rows = if periods.is_empty() {
                    Vec::new()
                } else {
                    let bounds = periods.bounds().to_vec();
                    let query = SumsQuery { user_id, bounds, event_type: request.event_type };
                    periods.rows(self.events.sums(&query).await?)
                };
                Ok(CachedTotals::new(complete_through, rows))
            })
            .await?;
        Ok(totals.into_answer(request, from, to))
    }

    /// How long an answer from the events is kept.
    fn events_ttl(&self, is_recent: bool) -> Duration {
        if is_recent { self.config.recent_detail_ttl } else { self.config.detail_ttl }
    }

    /// What is wrong with `request`, before it is asked.
    ///
    /// # Errors
    /// Everything that is.
    pub fn check_aggregates(&self, request: &AggregatesRequest) -> Result<(), InvalidQuery> {
        self.range(request, Self::max_days(&request.zone)).map(drop)
    }

    /// What is wrong with `request`, before it is asked.
    ///
    /// # Errors
    /// Everything that is.
    pub fn check_user_aggregates(&self, request: &UserAggregatesRequest) -> Result<(), InvalidQuery> {
        self.range(&request.totals, MAX_DAYS).map(drop)
    }

    /// The most days of everybody's totals.
    fn max_days(zone: &Zone) -> u32 {
        if *zone == Zone::UTC { MAX_DAYS } else { MAX_ZONE_DAYS }
    }

    fn range(&self, request: &AggregatesRequest, max_days: u32) -> Result<TotalsRange, InvalidQuery> {
        let to = request.to.unwrap_or_else(|| request.zone.day_of(self.clock.now()));
        // Both ends count: 30 days are 29 apart.
        let from = request.from.unwrap_or_else(|| to.saturating_add_days(1 - i64::from(DEFAULT_DAYS)));
        let (first, last) = match request.granularity {
            Granularity::Day => (from, to),
            Granularity::Month => (from.month().first_day(), to.month().last_day()),
        };
        if first > last {
            return Err(InvalidQuery::all(vec![upside_down(from.to_string(), to.to_string())]));
        }
        let length = last.epoch_days() - first.epoch_days() + 1;
        if length > i64::from(max_days) {
            let found = format!("{first} to {last}, {length} days");
            let of_zone = if max_days < MAX_DAYS { format!(" ({MAX_DAYS} without tz)") } else { String::new() };
            let accepted = format!("a range of at most {max_days} days{of_zone}");
            return Err(InvalidQuery::parameter("from", found, accepted));
        }
        Ok(TotalsRange { from, to, first, last })
    }

    /// The answer kept under `key`, else the one `load` gives, which is then kept for `ttl`. Of those that miss the same
    /// one at once, one loads it. The cache's own errors cost time, never the answer.
    async fn cached<T: Serialize + for<'de> Deserialize<'de>>(
        &self,
        key: Option<CacheKey>,
        ttl: impl Fn(&T) -> Duration,
        load: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let (Some(cache), Some(key)) = (&self.cache, key) else { return load.await };
        let looked_up = |outcome| metrics::counter!("netagg_cache_lookups_total", "outcome" => outcome).increment(1);
        let ticket = match cache.lookup(&key).await {
            Ok(Lookup::Hit(bytes)) => match serde_json::from_slice(&bytes) {
                Ok(answer) => {
                    looked_up("hit");
                    return Ok(answer);
                }
                Err(error) => {
                    tracing::warn!(%error, "a cached answer cannot be read; it is computed anew");
                    looked_up("miss");
                    return load.await;
                }
            },
            Ok(Lookup::Miss(ticket)) => {
                looked_up("miss");
                ticket
            }
            Err(error) => {
                tracing::debug!(%error, "the cache cannot be read");
                looked_up("unavailable");
                return load.await;
            }
        };
        // The ticket names the versions that the lookup saw: who joins gets nothing older than a hit would be.
        let flight = ticket.key().to_owned();
        let mut loaded = None;
        let bytes = self
            .flights
            .join(&flight, async {
                let answer = load.await?;
                let bytes = Bytes::from(serde_json::to_vec(&answer).map_err(|error| Error::internal("cache", error))?);
                if let Err(error) = cache.fill(ticket, bytes.clone(), ttl(&answer)).await {
                    tracing::debug!(%error, "the cache cannot be filled");
                }
                loaded = Some(answer);
                Ok(bytes)
            })
            .await?;
        match loaded {
            Some(answer) => Ok(answer),
            None => serde_json::from_slice(&bytes).map_err(|error| Error::internal("cache", error)),
        }
    }
}

/// The events that a request for detail is about, and where among them it begins.
struct Listing {
    filter: TimelineFilter,
    after: Option<TimelinePosition>,
    /// Whether it reaches into the last hour.
    is_recent: bool,
}

/// The days that a request for totals is about, as asked and in full months.
struct TotalsRange {
    from: Day,
    to: Day,
    first: Day,
    last: Day,
}

fn upside_down(from: String, to: String) -> InvalidParameter {
    InvalidParameter::new("from", from, format!("nothing after `to`, which is {to}"))
}

fn days(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 86_400)
}

fn months(first: Month, last: Month) -> Vec<Month> {
    std::iter::successors(Some(first), |month| Some(month.next())).take_while(|month| *month <= last).collect()
}

/// A page as the cache keeps it; events in the form they came in.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct CachedPage {
    #[serde(deserialize_with = "events")]
    items: Vec<Event>,
}

fn events<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Event>, D::Error> {
    let raw = Vec::<&serde_json::value::RawValue>::deserialize(deserializer)?;
    raw.into_iter().map(|raw| Event::decode(raw.get().as_bytes()).map_err(serde::de::Error::custom)).collect()
}

/// Totals as the cache keeps them.
#[derive(Debug, Serialize, Deserialize)]
struct CachedTotals {
    complete_through: Option<Timestamp>,
    rows: Vec<CachedRow>,
}

impl CachedTotals {
    fn new(complete_through: Option<Timestamp>, rows: Vec<AggregateRow>) -> Self {
        Self { complete_through, rows: rows.into_iter().map(CachedRow).collect() }
    }

    /// How long they are kept, `ttl` at most, if their range ends at `end`.
    fn ttl(&self, ttl: Duration, end: Timestamp) -> Duration {
        if self.complete_through < Some(end) { ttl.min(INCOMPLETE_TTL) } else { ttl }
    }

    fn into_answer(self, request: AggregatesRequest, from: Day, to: Day) -> AggregatesAnswer {
        AggregatesAnswer {
            granularity: request.granularity,
            from,
            to,
            zone: request.zone,
            complete_through: self.complete_through,
            rows: self.rows.into_iter().map(|CachedRow(row)| row).collect(),
        }
    }
}

/// A row of totals on its way to the cache or from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "RowText", try_from = "RowText")]
struct CachedRow(AggregateRow);

/// A row of totals as the cache keeps it: byte sums as text, since JSON readers may lack 128 bits.
#[derive(Debug, Serialize, Deserialize)]
struct RowText(String, String, u64, u64, String, String);

impl From<CachedRow> for RowText {
    fn from(CachedRow(row): CachedRow) -> Self {
        let totals = row.totals;
        Self(
            row.date.to_string(),
            row.event_type.to_string(),
            totals.count_events,
            totals.sum_duration,
            totals.sum_bytes_up.to_string(),
            totals.sum_bytes_down.to_string(),
        )
    }
}

impl TryFrom<RowText> for CachedRow {
    type Error = BoxError;

    fn try_from(text: RowText) -> Result<Self, BoxError> {
        Ok(Self(AggregateRow {
            date: text.0.parse()?,
            event_type: text.1.parse()?,
            totals: Totals {
                count_events: text.2,
                sum_duration: text.3,
                sum_bytes_up: text.4.parse()?,
                sum_bytes_down: text.5.parse()?,
            },
        }))
    }
}
