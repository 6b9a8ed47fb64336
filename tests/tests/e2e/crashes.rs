//! Services die at each crash point. At these points, a wrong order of steps would lose or double records.

use futures::{StreamExt as _, stream};
use netagg_core::crash::CrashPoint;

use super::installation::{Installation, PATIENCE};
use crate::support::programs::Process;

/// The number of records published before the death of a service, and again after it.
const RECORDS: usize = 400;

/// The size of small batches. There are many of them, with duplicates, conflicts and dead letters. They are written with INSERT.
const SMALL: usize = 40;

/// The size of large batches. They are written with COPY.
const LARGE: usize = 2_000;

/// The number of installations that run at the same time.
const AT_ONCE: usize = 4;

/// The exit code after SIGABRT: 128 plus the number of the signal.
const ABORTED: i32 = 134;

/// A service, the crash point where it dies, and how it is brought to this point.
#[derive(Clone, Copy, Debug)]
struct Case {
    service: &'static str,
    is_combined: bool,
    point: CrashPoint,
    provocation: Provocation,
    batch_size: usize,
}

#[derive(Clone, Copy, Debug)]
enum Provocation {
    /// Normal work. The service passes the point this number of times before it dies.
    Work(u32),
    /// A second member, which takes over some of the partitions of the service.
    Rebalance,
    /// SIGTERM in the middle of work.
    Stop,
}

fn cases() -> Vec<Case> {
    use CrashPoint::*;
    use Provocation::{Rebalance, Stop, Work};
    let of = |service: &'static str, batch_size| {
        move |(point, provocation)| Case { service, is_combined: false, point, provocation, batch_size }
    };
    let both = [
        (Fetched, Work(0)),
        (Assigned, Work(0)),
        (Revoked, Rebalance),
        (LedgerEntered, Work(3)),
        (ConflictsMarked, Work(0)),
        (ProgressNoted, Work(2)),
        (Committed, Work(3)),
        (BatchDone, Work(1)),
        (OffsetsCommitted, Work(0)),
        (Stopping, Stop),
        (Drained, Stop),
    ];
    let ingestor = [
        (DeadLettersInFlight, Work(1)),
        (DeadLettersSent, Work(2)),
        (PartitionAttached, Work(1)),
        (PartitionMade, Work(0)),
        (EventsCopied, Work(2)),
    ];
    let aggregator = [(TotalsAdded, Work(2)), (RepairComputed, Work(0)), (RepairApplied, Work(0))];
    let copied = [(LedgerRefused, Work(0)), (LedgerEntered, Work(1))];
    let cases = both.into_iter().chain(ingestor).map(of("ingestor", SMALL));
    let cases = cases.chain(both.into_iter().chain(aggregator).map(of("aggregator", SMALL)));
    let cases = cases.chain(copied.into_iter().chain([(EventsCopied, Work(1))]).map(of("ingestor", LARGE)));
    cases.chain(copied.map(of("aggregator", LARGE))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_at_whatever_point_a_service_dies() {
    stream::iter(cases()).map(dies_and_starts_again).buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// The steps of the combined transaction, and the steps around it.
fn combined_cases() -> Vec<Case> {
    use CrashPoint::*;
    use Provocation::{Rebalance, Stop, Work};
    let points = [
        (Revoked, Rebalance),
        (DeadLettersSent, Work(2)),
        (LedgerEntered, Work(3)),
        (EventsCopied, Work(2)),
        (ProgressNoted, Work(2)),
        (TotalsAdded, Work(2)),
        (Committed, Work(3)),
        (BatchDone, Work(1)),
        (OffsetsCommitted, Work(0)),
        (Drained, Stop),
    ];
    let of = |batch_size| {
        move |(point, provocation)| Case { service: "ingestor", is_combined: true, point, provocation, batch_size }
    };
    let copied = [(LedgerRefused, Work(0)), (EventsCopied, Work(1))];
    points.map(of(SMALL)).into_iter().chain(copied.map(of(LARGE))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_at_whatever_point_a_combined_ingestor_dies() {
    stream::iter(combined_cases()).map(dies_and_starts_again).buffer_unordered(AT_ONCE).collect::<()>().await;
}

#[test]
fn every_crash_point_is_tested() {
    // The module `retention` tests the crash points of a drop, and `mode` tests the crash points of a mode switch.
    let mut tested: Vec<CrashPoint> = cases().into_iter().map(|case| case.point).collect();
    tested.extend(super::retention::CRASH_POINTS);
    tested.extend(super::mode::CRASH_POINTS);
    for point in CrashPoint::ALL {
        assert!(tested.contains(point), "{}", point.as_str());
    }
}

async fn dies_and_starts_again(Case { service, is_combined, point, provocation, batch_size }: Case) {
    let mut installation = if is_combined { Installation::combined().await } else { Installation::new().await };
    for variable in ["INGESTOR_BATCH_SIZE", "AGGREGATOR_BATCH_SIZE"] {
        installation.set(variable, &batch_size.to_string());
    }
    let records = RECORDS.max(3 * batch_size);
    let mut adversary = installation.adversary(1_000 + point as u64);
    adversary.publish(records).await;
    let others = installation.consumers().iter().filter(|other| **other != service);
    let _others: Vec<_> = others.map(|other| installation.start(other)).collect();

    let passes =
        if let Provocation::Work(passes @ 1..) = provocation { format!("{passes}*off->") } else { String::new() };
    let failpoints = format!("{}={passes}return", point.as_str());
    let mut variables = vec![("FAILPOINTS", failpoints.as_str())];
    if batch_size == LARGE {
        // Batches are full, because small batches are not written with COPY. Each batch starts after the commit of the batch
        // before, because the ledger rejects only committed keys: a batch leaves out the keys of batches in flight.
        variables.extend([("INGESTOR_BATCH_TIMEOUT", "1m"), ("AGGREGATOR_BATCH_TIMEOUT", "1m")]);
        variables.extend([("INGESTOR_WORKER_COUNT", "1"), ("AGGREGATOR_WORKER_COUNT", "1")]);
    }
    let mut doomed = installation.start_set(service, &variables);
    let second = match provocation {
        Provocation::Work(_) => None,
        Provocation::Rebalance => {
            // A rebalance takes partitions only from a member that has partitions.
            installation.works(service).await;
            Some(installation.another(service))
        }
        Provocation::Stop => {
            installation.readiness(service, 200).await;
            doomed.terminate();
            None
        }
    };
    let code = doomed.code(PATIENCE).await;
    assert_eq!(
        code,
        ABORTED,
        "{service} must die at {} (it must be built with --all-features)\n{}",
        point.as_str(),
        doomed.stderr()
    );
    adversary.publish(records).await;
    let _survivors: (Option<Process>, Process) = (second, installation.start(service));
    installation.withstood(&adversary).await;
}
