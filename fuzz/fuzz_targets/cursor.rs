//! Tests cursors. A cursor continues its own listing after the end of its page. No other listing accepts it, and no other
//! text is accepted as a cursor.

#![no_main]

use std::sync::{Arc, LazyLock};

use futures::executor::block_on;
use libfuzzer_sys::arbitrary::{self, Unstructured};
use libfuzzer_sys::fuzz_target;
use netagg_core::memory::{MemoryAggregateStore, MemoryEventStore};
use netagg_core::ports::EventStore;
use netagg_core::usage::{CursorSecret, DetailPage, DetailRequest, UsageConfig, UsageError, UsageService};
use netagg_core::{Batch, Event, EventFields, EventType, SourceId, Timestamp, UserId};
use uuid::Uuid;

fuzz_target!(|bytes: &[u8]| {
    forge(&String::from_utf8_lossy(bytes));
    // If there are too few bytes for a listing, this part of the test is skipped.
    let _ = turn_the_page(&mut Unstructured::new(bytes));
});

/// The listing whose cursor is among the seeds.
static LISTING: LazyLock<Listing> = LazyLock::new(|| {
    let event = |id: u128| event("provider-1", id, Timestamp::MIN);
    Listing::new([event(1), event(2)], b"secret", DetailRequest { from: Some(Timestamp::MIN), ..all_of("user") })
});

fn forge(text: &str) {
    let cursor = LISTING.first_page().next_cursor;
    LISTING.expect_rejected(text, cursor.as_deref());
}

fn turn_the_page(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let mut events = Vec::new();
    for id in 0..2 {
        let source: String = input.arbitrary::<String>()?.chars().filter(|char| *char != '\0').take(127).collect();
        let started_at = input.int_in_range(Timestamp::MIN.as_micros()..=Timestamp::MAX.as_micros() - 1)?;
        let started_at = Timestamp::from_micros(started_at).expect("in range");
        events.push(event(&format!("{source}."), input.arbitrary::<u128>()? << 1 | id, started_at));
    }
    let events: [Event; 2] = events.try_into().expect("two");
    let secret: [u8; 16] = input.arbitrary()?;
    let request = DetailRequest {
        from: input.ratio(3, 4)?.then_some(Timestamp::MIN),
        event_type: input.arbitrary::<bool>()?.then_some(EventType::Data),
        ..all_of("user")
    };
    let listing = Listing::new(events, &secret, request.clone());
    let first = listing.first_page();
    let Some(cursor) = first.next_cursor else { return Ok(()) };

    let second = listing.turn(&cursor).expect("a cursor of this listing");
    assert_eq!((second.items.len(), second.total_count, second.next_cursor), (1, 2, None));
    assert_ne!(first.items, second.items);
    assert!(first.items[0].fields().started_at >= second.items[0].fields().started_at, "newest first");

    let mut changed = cursor.clone().into_bytes();
    let at = input.choose_index(changed.len())?;
    changed[at] = input.int_in_range(b' '..=b'~')?;
    listing.expect_rejected(&String::from_utf8(changed).expect("ASCII"), Some(&cursor));
    listing.expect_rejected(&cursor[..at], None);
    let mut other_secret = secret;
    other_secret[at % 16] ^= 1;
    listing.with(&other_secret, request.clone()).expect_rejected(&cursor, None);
    let other_type = if request.event_type.is_none() { Some(EventType::Data) } else { None };
    for other in [
        DetailRequest { user_id: UserId::new("user2").expect("valid"), ..request.clone() },
        DetailRequest { event_type: other_type, ..request.clone() },
        DetailRequest { from: Timestamp::from_micros(0), ..request.clone() },
        DetailRequest { to: None, ..request.clone() },
    ] {
        listing.with(&secret, other).expect_rejected(&cursor, None);
    }
    Ok(())
}

/// A listing of two events, with one event per page.
struct Listing {
    events: Arc<MemoryEventStore>,
    service: UsageService,
    request: DetailRequest,
}

impl Listing {
    fn new(events: [Event; 2], secret: &[u8], request: DetailRequest) -> Self {
        let store = Arc::new(MemoryEventStore::default());
        block_on(store.store(&Batch::new(events.map(Into::into).to_vec()))).expect("stored in memory");
        Self::of(store, secret, request)
    }

    fn with(&self, secret: &[u8], request: DetailRequest) -> Self {
        Self::of(self.events.clone(), secret, request)
    }

    fn of(events: Arc<MemoryEventStore>, secret: &[u8], request: DetailRequest) -> Self {
        let config = UsageConfig { cursor_secret: CursorSecret::new(secret), ..UsageConfig::default() };
        let service = UsageService::new(events.clone(), Arc::new(MemoryAggregateStore::default()), config);
        Self { events, service, request }
    }

    fn first_page(&self) -> DetailPage {
        block_on(self.service.user_detail(self.request.clone())).expect("a page")
    }

    fn turn(&self, cursor: &str) -> Result<DetailPage, UsageError> {
        block_on(self.service.user_detail(DetailRequest { cursor: Some(cursor.to_owned()), ..self.request.clone() }))
    }

    /// Checks that the service rejects `text` as a cursor of this listing, unless `text` equals `cursor`.
    fn expect_rejected(&self, text: &str, cursor: Option<&str>) {
        match self.turn(text) {
            Err(UsageError::InvalidQuery(query)) => assert_eq!(query.problems[0].name, "cursor"),
            Ok(_) => assert_eq!(Some(text), cursor),
            Err(error) => panic!("{error}"),
        }
    }
}

fn all_of(user: &str) -> DetailRequest {
    let user_id = UserId::new(user).expect("valid");
    DetailRequest { to: Some(Timestamp::MAX), limit: Some(1), ..DetailRequest::of(user_id) }
}

fn event(source: &str, id: u128, started_at: Timestamp) -> Event {
    let fields = EventFields {
        event_id: Uuid::from_u128(id),
        source_id: SourceId::new(source).expect("valid"),
        user_id: UserId::new("user").expect("valid"),
        event_type: EventType::Data,
        started_at,
        ended_at: None,
        duration_sec: None,
        bytes_up: 0,
        bytes_down: 0,
        meta: None,
    };
    Event::new(fields).expect("valid")
}
