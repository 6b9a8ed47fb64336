//! A partitioned log with consumer groups, in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::Error;
use crate::ports::{
    Clock, EventPublisher, EventSource, GroupAdmin, GroupOffsets, PartitionLag, SourceEvent, SystemClock,
};
use crate::record::{OutgoingRecord, PartitionId, Position, Record};

/// The maximum number of records that a source delivers at once.
const CHUNK: usize = 1_000;

/// One topic in memory: publishers append records to its partitions, and groups read them.
///
/// The members of a group share the partitions. When a member joins or leaves, the log assigns the partitions again, as Kafka
/// does. A clone is cheap and is the same log.
#[derive(Clone, Debug)]
pub struct MemoryLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    topic: Arc<str>,
    clock: Arc<dyn Clock>,
    /// The maximum number of records that the log holds; `usize::MAX` means no limit.
    capacity: usize,
    state: Mutex<State>,
    /// Signals new records, a new assignment, or the end of the log.
    readable: Notify,
    /// Signals that the log may accept more records.
    writable: Notify,
}

#[derive(Debug)]
struct State {
    partitions: Vec<Partition>,
    groups: HashMap<String, Group>,
    last_member: u64,
    /// The number of records that the log holds.
    held: usize,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Partition {
    /// The offset of the first record that the log still holds.
    first_offset: i64,
    records: VecDeque<Record>,
}

#[derive(Debug, Default)]
struct Group {
    committed: BTreeMap<usize, i64>,
    members: BTreeMap<u64, BTreeSet<usize>>,
}

impl MemoryLog {
    /// An empty log named `topic` that keeps all records.
    pub fn new(topic: &str, partitions: usize) -> Self {
        Self::with_capacity(topic, partitions, usize::MAX)
    }

    /// An empty log named `topic` that drops a record once every group has committed it. While the log holds `capacity`
    /// records, publishers wait. A group that must read all records must join before the first records are dropped.
    pub fn with_capacity(topic: &str, partitions: usize, capacity: usize) -> Self {
        let state = State {
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            groups: HashMap::new(),
            last_member: 0,
            held: 0,
            is_closed: false,
        };
        Self(Arc::new(Inner {
            topic: topic.into(),
            clock: Arc::new(SystemClock),
            capacity,
            state: Mutex::new(state),
            readable: Notify::new(),
            writable: Notify::new(),
        }))
    }

    /// Joins `group` as a new member.
    pub fn source(&self, group: &str) -> MemorySource {
        let mut state = self.0.lock();
        state.last_member += 1;
        let member = state.last_member;
        let partitions = state.partitions.len();
        let group_state = state.groups.entry(group.to_owned()).or_default();
        group_state.members.insert(member, BTreeSet::new());
        group_state.assign(partitions);
        drop(state);
        self.0.readable.notify_waiters();
        MemorySource { log: self.0.clone(), group: group.to_owned(), member, positions: BTreeMap::new(), is_open: true }
    }

    /// Ends the log: its sources end once they have delivered all records of the log.
    pub fn close(&self) {
        self.0.lock().is_closed = true;
        self.0.readable.notify_waiters();
    }

    /// The committed position of `group` in each partition.
    pub fn committed(&self, group: &str) -> Vec<Position> {
        let state = self.0.lock();
        let committed = state.groups.get(group).into_iter().flat_map(|group| &group.committed);
        committed.map(|(&number, &next_offset)| self.0.position(number, next_offset)).collect()
    }

    /// Appends `record` to the end of its partition, with its own timestamp. The call ignores the offset of the record and the
    /// capacity of the log. Use it in tests that need a certain partition or time.
    pub fn append(&self, record: Record) {
        self.0.append(&mut self.0.lock(), record);
        self.0.readable.notify_waiters();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn position(&self, number: usize, next_offset: i64) -> Position {
        Position { partition: self.partition_id(number), next_offset }
    }

    fn partition_id(&self, number: usize) -> PartitionId {
        PartitionId { topic: self.topic.clone(), number: number as i32 }
    }

    fn append(&self, state: &mut State, record: Record) {
        if let Some(partition) = state.partitions.get_mut(record.partition.number as usize) {
            let offset = partition.first_offset + partition.records.len() as i64;
            partition.records.push_back(Record { offset, ..record });
            state.held += 1;
        }
    }

    /// Drops the records that every group has committed, if the capacity of the log is limited.
    fn trim(&self, state: &mut State) {
        if self.capacity == usize::MAX {
            return;
        }
        for (number, partition) in state.partitions.iter_mut().enumerate() {
            let committed = state.groups.values().map(|group| group.committed.get(&number).copied().unwrap_or(0));
            let Some(keep_from) = committed.min() else { return };
            let count = usize::try_from(keep_from - partition.first_offset).unwrap_or(0).min(partition.records.len());
            partition.records.drain(..count);
            partition.first_offset += count as i64;
            state.held -= count;
        }
        self.writable.notify_waiters();
    }
}

impl Group {
    /// Assigns the partitions to the members in turn.
    fn assign(&mut self, partitions: usize) {
        let members = self.members.len();
        for (at, assigned) in self.members.values_mut().enumerate() {
            *assigned = (0..partitions).filter(|partition| partition % members == at).collect();
        }
    }
}

#[async_trait]
impl EventPublisher for MemoryLog {
    async fn publish(&self, records: Vec<OutgoingRecord>) -> Result<(), Error> {
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let writable = self.0.writable.notified();
            tokio::pin!(writable);
            // After this call, the future receives every notification.
            writable.as_mut().enable();
            {
                let mut state = self.0.lock();
                let timestamp = Some(self.0.clock.now().into());
                let partitions = state.partitions.len() as u64;
                while state.held < self.0.capacity
                    && let Some(OutgoingRecord { key, value, headers }) = records.next()
                {
                    let mut hasher = DefaultHasher::new();
                    key.hash(&mut hasher);
                    let partition = self.0.partition_id((hasher.finish() % partitions) as usize);
                    self.0.append(&mut state, Record { partition, offset: 0, timestamp, key, value, headers });
                }
            }
            self.0.readable.notify_waiters();
            if records.peek().is_some() {
                writable.await;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl GroupOffsets for MemoryLog {
    async fn lag(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
        self.lag_in_offsets(group, topic).await
    }

    async fn lag_in_offsets(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
        if *self.0.topic != *topic {
            return Ok(None);
        }
        let state = self.0.lock();
        let group = state.groups.get(group);
        let lag = state.partitions.iter().enumerate().map(|(number, partition)| {
            let committed = group.and_then(|group| group.committed.get(&number).copied());
            let high = partition.first_offset + partition.records.len() as i64;
            PartitionLag {
                number: number as i32,
                committed,
                high,
                lag: high - committed.unwrap_or(partition.first_offset),
            }
        });
        Ok(Some(lag.collect()))
    }

    async fn members(&self, group: &str) -> Result<usize, Error> {
        Ok(self.0.lock().groups.get(group).map_or(0, |group| group.members.len()))
    }
}

#[async_trait]
impl GroupAdmin for MemoryLog {
    async fn commit(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<(), Error> {
        let mut state = self.0.lock();
        let group = state.groups.entry(group.to_owned()).or_default();
        if !group.members.is_empty() {
            return Err(Error::internal("log", "the group has members"));
        }
        if *self.0.topic == *topic {
            group.committed.extend(offsets.iter().map(|&(number, offset)| (number as usize, offset)));
        }
        Ok(())
    }

    async fn delete(&self, group: &str) -> Result<(), Error> {
        let mut state = self.0.lock();
        if state.groups.get(group).is_some_and(|group| !group.members.is_empty()) {
            return Err(Error::internal("log", "the group has members"));
        }
        state.groups.remove(group);
        Ok(())
    }
}

/// A member of a group that reads a [`MemoryLog`]. If it is dropped, it leaves the group without a last commit, as after a
/// crash.
#[derive(Debug)]
pub struct MemorySource {
    log: Arc<Inner>,
    group: String,
    member: u64,
    /// The next offset to read, for each partition that was assigned with [`SourceEvent::Assigned`].
    positions: BTreeMap<usize, i64>,
    is_open: bool,
}

impl MemorySource {
    fn poll(&mut self) -> Option<SourceEvent> {
        let state = self.log.lock();
        let group = state.groups.get(&self.group)?;
        let assigned = group.members.get(&self.member)?;
        let ids = |numbers: &[usize]| numbers.iter().map(|&number| self.log.partition_id(number)).collect();

        let lost: Vec<_> = self.positions.keys().copied().filter(|known| !assigned.contains(known)).collect();
        if !lost.is_empty() {
            self.positions.retain(|number, _| !lost.contains(number));
            return Some(SourceEvent::Revoked(ids(&lost)));
        }
        let gained: Vec<_> = assigned.iter().copied().filter(|number| !self.positions.contains_key(number)).collect();
        if !gained.is_empty() {
            for &number in &gained {
                let committed = group.committed.get(&number).copied().unwrap_or(0);
                self.positions.insert(number, committed.max(state.partitions[number].first_offset));
            }
            return Some(SourceEvent::Assigned(ids(&gained)));
        }

        let mut records = Vec::new();
        for (&number, position) in &mut self.positions {
            let partition = &state.partitions[number];
            let from = usize::try_from(*position - partition.first_offset).unwrap_or(0);
            let chunk = partition.records.range(from.min(partition.records.len())..).take(CHUNK - records.len());
            let before = records.len();
            records.extend(chunk.cloned());
            if let Some(last) = records.get(before..).and_then(<[_]>::last) {
                *position = last.offset + 1;
            }
        }
        if !records.is_empty() {
            return Some(SourceEvent::Records(records));
        }
        state.is_closed.then_some(SourceEvent::End)
    }
}

#[async_trait]
impl EventSource for MemorySource {
    async fn next(&mut self) -> Result<SourceEvent, Error> {
        let log = self.log.clone();
        loop {
            let changed = log.readable.notified();
            tokio::pin!(changed);
            // After this call, the future receives every notification.
            changed.as_mut().enable();
            if let Some(event) = self.poll() {
                return Ok(event);
            }
            changed.await;
        }
    }

    async fn commit(&mut self, positions: &[Position]) -> Result<(), Error> {
        let mut state = self.log.lock();
        if let Some(group) = state.groups.get_mut(&self.group) {
            let assigned = group.members.get(&self.member);
            for Position { partition, next_offset } in positions {
                let number = partition.number as usize;
                if assigned.is_some_and(|assigned| assigned.contains(&number)) {
                    group.committed.insert(number, *next_offset);
                }
            }
        }
        self.log.trim(&mut state);
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Error> {
        self.leave();
        Ok(())
    }
}

impl MemorySource {
    fn leave(&mut self) {
        if std::mem::take(&mut self.is_open) {
            let mut state = self.log.lock();
            let partitions = state.partitions.len();
            if let Some(group) = state.groups.get_mut(&self.group) {
                group.members.remove(&self.member);
                group.assign(partitions);
            }
            drop(state);
            self.log.readable.notify_waiters();
        }
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;

    #[tokio::test]
    async fn the_log_passes_its_suite() {
        testkit::event_source(async |partitions| {
            let log = MemoryLog::new("events", partitions);
            let reader = log.clone();
            (Arc::new(log) as Arc<dyn EventPublisher>, move || Box::new(reader.source("group")) as Box<dyn EventSource>)
        })
        .await;
    }

    #[tokio::test]
    async fn a_full_log_makes_publishers_wait_until_every_group_has_committed() {
        let log = MemoryLog::with_capacity("events", 1, 2);
        let (mut one, mut other) = (log.source("one"), log.source("other"));
        let publish = tokio::spawn({
            let log = log.clone();
            async move { log.publish(vec![OutgoingRecord::default(); 3]).await }
        });
        for source in [&mut one, &mut other] {
            assert!(matches!(source.next().await, Ok(SourceEvent::Assigned(_))));
            assert!(matches!(source.next().await, Ok(SourceEvent::Records(records)) if records.len() == 2));
        }
        let position = [log.0.position(0, 2)];
        one.commit(&position).await.expect("committed");
        assert!(!publish.is_finished());
        other.commit(&position).await.expect("committed");
        publish.await.expect("joined").expect("published");
        assert!(matches!(one.next().await, Ok(SourceEvent::Records(records)) if records[0].offset == 2));
    }
}
