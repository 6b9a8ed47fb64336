//! Realistic usage events. Each event is a pure function of the run (seed, users and end) and the number of the event.
//!
//! The verifier can make an event again from its number. So it can verify a run of any length without storing the events.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::weighted::WeightedIndex;
use rand_distr::{Distribution, LogNormal, Zipf};
use uuid::Uuid;

use super::error::LoadError;
use crate::error::BoxError;
use crate::event::{Event, EventFields, EventType, Meta, SourceId, UserId};
use crate::time::Timestamp;

/// The events of a run start in this number of days before its end.
const DAYS: u64 = 45;
/// The weights of the hours of a day: little traffic at night, more in the morning, and most in the evening.
const HOURS: [u32; 24] = [9, 5, 3, 2, 2, 3, 8, 18, 32, 42, 46, 48, 52, 50, 47, 46, 49, 56, 66, 74, 72, 58, 36, 18];
/// The weights of the event types, in the order of [`EventType::ALL`].
const TYPES: [u32; 5] = [14, 14, 5, 9, 58];
/// The number of radio cells.
const CELLS: u32 = 4_000;

/// The events of one run.
#[derive(Clone, Debug)]
pub struct EventModel {
    seed: u64,
    source_id: SourceId,
    end: Timestamp,
    users: Zipf<f64>,
    hours: WeightedIndex<u32>,
    types: WeightedIndex<u32>,
    call_seconds: LogNormal<f64>,
    session_seconds: LogNormal<f64>,
    session_bytes: LogNormal<f64>,
}

impl EventModel {
    /// The model of the run with this `seed` and `users` users. Its events start in the 45 days up to `end`. The same
    /// arguments make the same events. With a [`random_seed`], the run has no event in common with another run.
    ///
    /// # Errors
    /// [`LoadError::Model`] if there are no users.
    pub fn new(seed: u64, users: u64, end: Timestamp) -> Result<Self, LoadError> {
        Self::try_new(seed, users, end).map_err(LoadError::Model)
    }

    fn try_new(seed: u64, users: u64, end: Timestamp) -> Result<Self, BoxError> {
        Ok(Self {
            seed,
            source_id: SourceId::new(format!("generator-{seed:016x}"))?,
            end,
            // A few users have many events, and many users have few events.
            users: Zipf::new(users as f64, 0.6)?,
            hours: WeightedIndex::new(HOURS)?,
            types: WeightedIndex::new(TYPES)?,
            // The medians: a call takes 70 s, and a session takes 5 minutes and 2 MB.
            call_seconds: LogNormal::new(4.25, 1.2)?,
            session_seconds: LogNormal::new(5.7, 1.3)?,
            session_bytes: LogNormal::new(14.5, 2.0)?,
        })
    }

    /// The provider of all events of the run. Each seed has its own provider.
    pub fn source_id(&self) -> &SourceId {
        &self.source_id
    }

    /// Returns the event `number` of the run. It is always the same event.
    ///
    /// # Errors
    /// [`LoadError::Model`] if the model has made an invalid event, which is a defect of the model.
    pub fn event(&self, number: u64) -> Result<Event, LoadError> {
        self.try_event(number).map_err(LoadError::Model)
    }

    fn try_event(&self, number: u64) -> Result<Event, BoxError> {
        let mut random = SmallRng::seed_from_u64(self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let started_at = self.started_at(&mut random);
        let event_type = EventType::ALL[self.types.sample(&mut random)];
        let (duration, up, down) = match event_type {
            EventType::CallOut | EventType::CallIn => (Some(sample(&self.call_seconds, &mut random, 4 * 3_600)), 0, 0),
            EventType::SmsSent | EventType::SmsReceived => (None, 0, 0),
            EventType::Data => {
                let down = u64::from(sample(&self.session_bytes, &mut random, 2_000_000_000));
                let up = down * random.random_range(3..25) / 100;
                (Some(sample(&self.session_seconds, &mut random, 12 * 3_600)), up, down)
            }
        };
        let ended_at = duration.map(|seconds| started_at.saturating_add(Duration::from_secs(u64::from(seconds))));
        let user = 100_000_000 + self.users.sample(&mut random) as u64;
        let cell = random.random_range(0..CELLS);
        let mut id = [0_u8; 10];
        random.fill_bytes(&mut id);
        let millis = u64::try_from(started_at.as_millis())?;
        Ok(Event::new(EventFields {
            event_id: uuid::Builder::from_unix_timestamp_millis(millis, &id).into_uuid(),
            source_id: self.source_id.clone(),
            user_id: UserId::new(user.to_string())?,
            event_type,
            started_at,
            ended_at,
            duration_sec: duration,
            bytes_up: up,
            bytes_down: down,
            meta: Some(Meta::parse(&format!(r#"{{"cell":"250-01-{cell:05}","rat":"{}"}}"#, rat(cell)))?),
        })?)
    }

    /// A random instant in the days of the run. The hour follows [`HOURS`]. Recent days are more likely, because most events
    /// arrive soon after they happen.
    fn started_at(&self, random: &mut SmallRng) -> Timestamp {
        let days_ago = random.random_range(0..DAYS).min(random.random_range(0..DAYS));
        let hour = self.hours.sample(random) as u64;
        let micros = random.random_range(0..3_600_000_000);
        let end_of_day = self.end.saturating_sub(Duration::from_secs(days_ago * 86_400));
        let midnight = end_of_day.day().start().unwrap_or(end_of_day);
        let at = midnight.saturating_add(Duration::from_secs(hour * 3_600) + Duration::from_micros(micros));
        // An instant of today that is still in the future moves to yesterday.
        if at > self.end { at.saturating_sub(Duration::from_secs(86_400)) } else { at }
    }

    /// Returns the value of a record that no service accepts. There are five kinds of defects, chosen by `number` in turn.
    ///
    /// # Errors
    /// The errors of [`event`](Self::event).
    pub fn invalid(&self, number: u64) -> Result<Vec<u8>, LoadError> {
        let valid = String::from_utf8(self.event(number)?.encode()).map_err(|error| LoadError::Model(error.into()))?;
        Ok(match number % 5 {
            0 => valid.replacen(r#""type":""#, r#""type":"X_"#, 1).into_bytes(),
            1 => valid[..valid.len() / 2].to_owned().into_bytes(),
            2 => valid.replacen(r#""started_at":"2"#, r#""started_at":"0"#, 1).into_bytes(),
            3 => valid.replacen(r#""bytes_up":"#, r#""bytes_up":-1,"was":"#, 1).into_bytes(),
            _ => Vec::new(),
        })
    }
}

fn sample(distribution: &LogNormal<f64>, random: &mut SmallRng, max: u32) -> u32 {
    // The cast of a float saturates, and no sample is NaN.
    (distribution.sample(random) as u32).clamp(1, max)
}

/// The radio access technology of a cell.
fn rat(cell: u32) -> &'static str {
    match cell % 10 {
        0 => "2G",
        1 => "3G",
        2..=7 => "4G",
        _ => "5G",
    }
}

/// Returns a random seed that no other run has.
pub fn random_seed() -> u64 {
    Uuid::new_v4().as_u64_pair().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn model() -> EventModel {
        EventModel::new(42, 1_000, "2025-10-20T12:00:00Z".parse().expect("a time")).expect("a model")
    }

    #[test]
    fn an_event_is_made_again_from_its_number() {
        assert_eq!(model().event(7).expect("valid"), model().event(7).expect("valid"));
        let keys: std::collections::HashSet<_> =
            (0..10_000).map(|number| model().event(number).expect("valid").key()).collect();
        assert_eq!(keys.len(), 10_000);
    }

    #[test]
    fn events_are_plausible() {
        let model = model();
        let mut types = BTreeMap::<_, u32>::new();
        let (mut night, mut evening) = (0, 0);
        for number in 0..20_000 {
            let event = model.event(number).expect("valid");
            let fields = event.fields();
            *types.entry(fields.event_type).or_default() += 1;
            assert!(fields.started_at <= model.end);
            match fields.event_type {
                EventType::Data => assert!(fields.bytes_down > 0 && fields.bytes_up < fields.bytes_down.max(2)),
                _ => assert_eq!((fields.bytes_up, fields.bytes_down), (0, 0)),
            }
            let is_message = matches!(fields.event_type, EventType::SmsSent | EventType::SmsReceived);
            assert_eq!(fields.duration_sec.is_none(), is_message);
            assert_eq!(fields.ended_at.is_none(), is_message);
            match fields.started_at.as_micros().rem_euclid(86_400_000_000) / 3_600_000_000 {
                2..=4 => night += 1,
                18..=20 => evening += 1,
                _ => {}
            }
        }
        assert_eq!(types.len(), 5);
        assert!(evening > 10 * night, "evenings must have far more events than nights: {evening} and {night}");
        let size = model.event(1).expect("valid").encode().len();
        assert!((250..=370).contains(&size), "{size} bytes");
    }

    #[test]
    fn invalid_messages_are_invalid() {
        for number in 0..50 {
            let message = model().invalid(number).expect("made");
            let record = crate::Record {
                partition: crate::PartitionId::new("events", 0),
                offset: 0,
                timestamp: Some(model().end.into()),
                key: None,
                value: Some(message.into()),
                headers: Vec::new(),
            };
            assert!(crate::EventLimits::default().admit(&record).is_err(), "{number}");
        }
    }
}
