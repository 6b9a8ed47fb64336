//! The usage service: it reads pages of events and totals from the stores, through the cache.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tracing::{Instrument, field};

use super::config::UsageConfig;
use super::cursor::Cursor;
use super::error::UsageError;
use super::limits::{DEFAULT_LIMIT, MAX_CHUNK_BYTES, MAX_LIMIT, MAX_PAGE_BYTES};
use super::periods::Periods;
use super::prepared::{PreparedAggregates, PreparedDetail, PreparedUserAggregates, RECENT, TotalsRange};
use super::query::{
    AggregatesAnswer, AggregatesRequest, DetailPage, DetailRequest, InvalidQuery, UserAggregatesAnswer,
    UserAggregatesRequest,
};
use super::single_flight::SingleFlight;
use crate::aggregate::{AggregateRow, Totals};
use crate::event::{Event, UserId};
use crate::granularity::Granularity;
use crate::ports::{
    Cache, CacheKey, Clock, EventStore, Lookup, SumsQuery, SystemClock, TimelinePosition, TimelineQuery, TotalsQuery,
    TotalsReader,
};
use crate::time::{Day, Month, Timestamp};
use crate::zone::Zone;
use crate::{BoxError, Error};

/// The maximum time that totals stay cached if they are not complete up to the end of their range. Afterwards the service reads
/// them again, with a newer `complete_through`.
const INCOMPLETE_TTL: Duration = Duration::from_secs(10);
/// How many responses may be computed from the events of all users at the same time.
const SCANS: usize = 2;

/// Returns the events and totals of a user, and the totals of all users. It works with any stores, with or without a cache.
///
/// Without a cache, or while the cache is unavailable, responses are the same and take longer.
#[derive(Clone, Debug)]
pub struct UsageService {
    events: Arc<dyn EventStore>,
    aggregates: Arc<dyn TotalsReader>,
    cache: Option<Arc<dyn Cache>>,
    clock: Arc<dyn Clock>,
    config: UsageConfig,
    flights: Arc<SingleFlight>,
    scans: Arc<Semaphore>,
}

impl UsageService {
    /// A service over `events` and `aggregates`, without a cache.
    pub fn new(events: Arc<dyn EventStore>, aggregates: Arc<dyn TotalsReader>, config: UsageConfig) -> Self {
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

    /// Caches responses in `cache`.
    #[must_use]
    pub fn with_cache(self, cache: Arc<dyn Cache>) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Uses `clock` for the current time.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Registers the counter of cache lookups at 0. If a counter first appears at its first increment, a query of its rate does
    /// not see this increment. Call this function once, after the recorder is installed.
    pub fn register_metrics() {
        for outcome in ["hit", "miss", "unavailable"] {
            metrics::counter!("netagg_cache_lookups_total", "outcome" => outcome).absolute(0);
        }
    }

    /// Checks that the service can serve requests now, with one small query to each store.
    ///
    /// # Errors
    /// The error of the store that cannot be read.
    pub async fn check(&self) -> Result<(), Error> {
        self.events.complete_through().await?;
        self.aggregates.complete_through().await?;
        Ok(())
    }

    /// Returns a page of a user's events, newest first: [`prepare_detail`](Self::prepare_detail) and
    /// [`detail_page`](Self::detail_page) in one call.
    ///
    /// # Errors
    /// The errors of both methods.
    pub async fn user_detail(&self, request: DetailRequest) -> Result<DetailPage, UsageError> {
        Ok(self.detail_page(self.prepare_detail(request)?).await?)
    }

    /// Validates a request for a user's events.
    ///
    /// # Errors
    /// All invalid parameters: a range whose start is after its end, a limit that is out of range, a cursor of another
    /// listing.
    pub fn prepare_detail(&self, request: DetailRequest) -> Result<PreparedDetail, InvalidQuery> {
        PreparedDetail::new(request, self.clock.now(), &self.config.cursor_secret)
    }

    /// Returns a page of a user's events, newest first.
    ///
    /// # Errors
    /// Retryable errors while the store cannot be read.
    pub async fn detail_page(&self, prepared: PreparedDetail) -> Result<DetailPage, Error> {
        let PreparedDetail { request, filter, after, is_recent } = prepared;
        let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
        let (from, to) = (filter.from, filter.to);
        let event_type = request.event_type.map_or("", |event_type| event_type.as_str());
        // Only a fixed range is cached. A range that ends now would have another key for each request.
        let key = |name: &dyn Fn() -> String| {
            let is_fixed = request.to.is_some() || request.cursor.is_some();
            is_fixed.then(|| CacheKey { name: name(), months: Vec::new() })
        };
        let cursor = request.cursor.as_deref().unwrap_or("");
        // The user is last, because a user id may contain any character.
        let page_key = key(&|| format!("page:{from}:{to}:{event_type}:{limit}:{cursor}:{}", request.user_id));
        // The count has its own key, because all pages of a listing have the same count. The time of counting grows with the
        // number of events.
        let count_key = key(&|| format!("count:{from}:{to}:{event_type}:{}", request.user_id));
        let ttl = self.events_ttl(is_recent);
        // The query asks for one event more than the page has: this event shows whether another page follows.
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

    /// Returns all requested events of a user as a stream of chunks, newest first. The stream reads a chunk from the store when
    /// the caller polls for it. Without a limit, the stream ends at the end of the range.
    ///
    /// The stream may contain events that arrive while it runs. It contains no event twice. An error ends the stream. Then the
    /// chunks before the error do not contain all events.
    pub fn user_events(
        &self,
        prepared: PreparedDetail,
    ) -> impl Stream<Item = Result<Vec<Event>, Error>> + Send + use<> {
        let PreparedDetail { request, filter, after, .. } = prepared;
        let query = TimelineQuery { filter, after, limit: MAX_LIMIT, max_bytes: MAX_CHUNK_BYTES };
        let events = self.events.clone();
        futures::stream::try_unfold((query, request.limit), move |(query, left)| {
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
        })
    }

    /// Returns the totals of all users by day or month: [`prepare_aggregates`](Self::prepare_aggregates) and
    /// [`totals`](Self::totals) in one call.
    ///
    /// # Errors
    /// The errors of both methods.
    pub async fn aggregates(&self, request: AggregatesRequest) -> Result<AggregatesAnswer, UsageError> {
        Ok(self.totals(self.prepare_aggregates(request)?).await?)
    }

    /// Validates a request for the totals of all users.
    ///
    /// # Errors
    /// An error if the start of the range is after its end, or if the range is too long. The maximum is
    /// [`MAX_DAYS`](super::MAX_DAYS), and [`MAX_ZONE_DAYS`](super::MAX_ZONE_DAYS) in a zone other than UTC.
    pub fn prepare_aggregates(&self, request: AggregatesRequest) -> Result<PreparedAggregates, InvalidQuery> {
        PreparedAggregates::of_all_users(request, self.clock.now())
    }

    /// Returns the totals of all users by day or month.
    ///
    /// Totals in UTC come from the aggregate store, and a cached response is at most a moment behind the store. The service
    /// computes totals of other zones from the events. They stay cached as long as a page of a user's detail.
    ///
    /// # Errors
    /// Retryable errors while the store cannot be read.
    pub async fn totals(&self, prepared: PreparedAggregates) -> Result<AggregatesAnswer, Error> {
        let PreparedAggregates { request, range } = prepared;
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
                // Read before the rows, so that the rows contain all events up to this instant.
                let complete_through = self.aggregates.complete_through().await?;
                Ok(CachedTotals::new(complete_through, self.aggregates.totals(&query).await?))
            })
            .await?;
        Ok(totals.into_answer(request, from, to))
    }

    /// Returns the totals of one user by day or month: [`prepare_user_aggregates`](Self::prepare_user_aggregates) and
    /// [`user_totals`](Self::user_totals) in one call.
    ///
    /// # Errors
    /// The errors of both methods.
    pub async fn user_aggregates(&self, request: UserAggregatesRequest) -> Result<UserAggregatesAnswer, UsageError> {
        Ok(self.user_totals(self.prepare_user_aggregates(request)?).await?)
    }

    /// Validates a request for the totals of one user.
    ///
    /// # Errors
    /// An error if the start of the range is after its end, or if the range is longer than [`MAX_DAYS`](super::MAX_DAYS).
    pub fn prepare_user_aggregates(
        &self,
        request: UserAggregatesRequest,
    ) -> Result<PreparedUserAggregates, InvalidQuery> {
        let UserAggregatesRequest { user_id, totals } = request;
        Ok(PreparedUserAggregates { user_id, totals: PreparedAggregates::of_a_user(totals, self.clock.now())? })
    }

    /// Returns the totals of one user by day or month. The service computes them from the user's events. They stay cached as
    /// long as a page of these events.
    ///
    /// # Errors
    /// Retryable errors while the store cannot be read.
    pub async fn user_totals(&self, prepared: PreparedUserAggregates) -> Result<UserAggregatesAnswer, Error> {
        let PreparedUserAggregates { user_id, totals: PreparedAggregates { request, range } } = prepared;
        let totals = self.sums(Some(user_id.clone()), request, range).await?;
        Ok(UserAggregatesAnswer { user_id, totals })
    }

    /// Computes totals from the stored events: of one user, or of all users if `user_id` is `None`.
    async fn sums(
        &self,
        user_id: Option<UserId>,
        request: AggregatesRequest,
        range: TotalsRange,
    ) -> Result<AggregatesAnswer, Error> {
        let TotalsRange { from, to, first, last } = range;
        let periods = Periods::new(request.granularity, first, last, &request.zone);
        let key = CacheKey {
            // The user is last, because a user id may contain any character.
            name: format!(
                "sums:{}:{}:{first}:{last}:{}:{}",
                request.zone,
                request.granularity.as_str(),
                request.event_type.map_or("", |event_type| event_type.as_str()),
                // Without a user, the name ends with an empty text. A user id is never empty.
                user_id.as_ref().map_or("", |user_id| user_id.as_str()),
            ),
            months: Vec::new(),
        };
        let ttl = self.events_ttl(periods.end() > self.clock.now().saturating_sub(RECENT));
        let totals = self
            .cached(Some(key), |_| ttl, async {
                let _permit = match user_id {
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

    /// How long a response that was computed from the events stays cached.
    fn events_ttl(&self, is_recent: bool) -> Duration {
        if is_recent { self.config.recent_detail_ttl } else { self.config.detail_ttl }
    }

    /// Returns the response that is cached under `key`. On a miss, it runs `load` and caches the response for `ttl`. If many
    /// callers miss the same response at once, one of them runs `load`. An error of the cache costs time and never fails the
    /// request. Without a cache or a key, it only runs `load`.
    async fn cached<T: Serialize + for<'de> Deserialize<'de>>(
        &self,
        key: Option<CacheKey>,
        ttl: impl Fn(&T) -> Duration,
        load: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let (Some(cache), Some(key)) = (&self.cache, key) else { return load.await };
        let lookup = tracing::info_span!(
            "cache lookup",
            otel.kind = "client",
            db.system.name = "redis",
            netagg.cache.outcome = field::Empty
        );
        let found = cache.lookup(&key).instrument(lookup.clone()).await;
        let looked_up = |outcome| {
            lookup.record("netagg.cache.outcome", outcome);
            metrics::counter!("netagg_cache_lookups_total", "outcome" => outcome).increment(1);
        };
        let ticket = match found {
            Ok(Lookup::Hit(bytes)) => match serde_json::from_slice(&bytes) {
                Ok(response) => {
                    looked_up("hit");
                    return Ok(response);
                }
                Err(error) => {
                    tracing::warn!(%error, "a cached response cannot be read; it is computed again");
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
        // The flight is keyed by the versions seen at lookup, so joining it never returns data older than a cache hit.
        let flight = ticket.key().to_owned();
        let mut loaded = None;
        let bytes = self
            .flights
            .join(&flight, async {
                let response = load.await?;
                let bytes =
                    Bytes::from(serde_json::to_vec(&response).map_err(|error| Error::internal("cache", error))?);
                if let Err(error) = cache.fill(ticket, bytes.clone(), ttl(&response)).await {
                    tracing::debug!(%error, "the cache cannot be filled");
                }
                loaded = Some(response);
                Ok(bytes)
            })
            .instrument(tracing::info_span!("single flight"))
            .await?;
        match loaded {
            Some(response) => Ok(response),
            None => serde_json::from_slice(&bytes).map_err(|error| Error::internal("cache", error)),
        }
    }
}

fn months(first: Month, last: Month) -> Vec<Month> {
    std::iter::successors(Some(first), |month| Some(month.next())).take_while(|month| *month <= last).collect()
}

/// A page in the form that the cache holds: each event as the JSON of the topic's messages.
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

/// Totals in the form that the cache holds.
#[derive(Debug, Serialize, Deserialize)]
struct CachedTotals {
    complete_through: Option<Timestamp>,
    rows: Vec<CachedRow>,
}

impl CachedTotals {
    fn new(complete_through: Option<Timestamp>, rows: Vec<AggregateRow>) -> Self {
        Self { complete_through, rows: rows.into_iter().map(CachedRow).collect() }
    }

    /// How long these totals stay cached, at most `ttl`. Their range ends at `end`.
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

/// A row of totals that is written to the cache or read from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "RowText", try_from = "RowText")]
struct CachedRow(AggregateRow);

/// A row of totals in the form that the cache holds. Byte sums are text, because a JSON reader may not support 128 bits.
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
