//! Limits the bytes of responses that clients have not taken yet.
//!
//! A response stays in memory until its client has taken it. An HTTP/2 client may have many responses open on one connection
//! and take none of them. So each response needs a permit for its size, and holds it until the last of its bytes is sent.
//! If the budget has no permit left, the server rejects the request as overloaded.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Bytes, HttpBody};
use axum::http::Response;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which the budget is counted.
const UNIT_BYTES: usize = 1_024;

/// One connection may use the whole budget divided by this number. So a client that takes no bytes cannot block the other
/// clients.
const PER_CONNECTION: usize = 4;

/// The budget of one connection, and the budget that all connections share.
#[derive(Clone, Debug)]
pub(crate) struct ResponseBudget {
    all: Arc<Semaphore>,
    all_units: usize,
    connection: Arc<Semaphore>,
}

/// The part of the budget that one response uses. The drop of the last clone returns it.
#[derive(Clone, Debug)]
pub(crate) struct Permit(#[expect(dead_code, reason = "held, not read")] Arc<[OwnedSemaphorePermit; 2]>);

impl ResponseBudget {
    /// A budget of `bytes` for all connections together.
    pub(crate) fn new(bytes: usize) -> Self {
        let all_units = bytes / UNIT_BYTES;
        Self {
            all: Arc::new(Semaphore::new(all_units)),
            all_units,
            connection: Arc::new(Semaphore::new(all_units / PER_CONNECTION)),
        }
    }

    /// The budget of a new connection. It shares the total with all other connections.
    pub(crate) fn for_connection(&self) -> Self {
        let connection = Arc::new(Semaphore::new(self.all_units / PER_CONNECTION));
        Self { connection, ..self.clone() }
    }

    /// Returns a permit for a response of `bytes`, or `None` if the budget of the connection or the total is used up.
    pub(crate) fn take(&self, bytes: usize) -> Option<Permit> {
        let units = u32::try_from(bytes / UNIT_BYTES + 1).ok()?;
        let take = |budget: &Arc<Semaphore>| budget.clone().try_acquire_many_owned(units).ok();
        Some(Permit(Arc::new([take(&self.connection)?, take(&self.all)?])))
    }
}

/// Moves the permit of a response from its extensions into its body, whose bytes then hold the permit.
pub(crate) fn move_permit_to_body<B>(mut response: Response<B>) -> Response<BodyWithPermit<B>> {
    let permit = response.extensions_mut().remove();
    response.map(|body| BodyWithPermit { body, permit })
}

/// A body that holds the permit of its response.
#[derive(Debug)]
pub(crate) struct BodyWithPermit<B> {
    body: B,
    permit: Option<Permit>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for BodyWithPermit<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let hold = |data| match &self.permit {
            // The bytes hold the permit too, because a server drops a body before it has sent the body's last bytes.
            Some(permit) => Bytes::from_owner(BytesWithPermit { data, _permit: permit.clone() }),
            None => data,
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(hold))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A part of a body that holds the permit until it is sent and dropped.
struct BytesWithPermit {
    data: Bytes,
    _permit: Permit,
}

impl AsRef<[u8]> for BytesWithPermit {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use axum::body::Body;

    use super::*;

    #[test]
    fn one_connection_uses_at_most_a_quarter_of_the_budget() {
        let budget = ResponseBudget::new(64 * UNIT_BYTES);
        let small: Vec<_> = (0..16).map(|_| budget.take(UNIT_BYTES / 2).expect("a permit")).collect();
        assert!(budget.take(0).is_none(), "the quarter of this connection is used up");
        let other = budget.for_connection();
        let large = other.take(16 * UNIT_BYTES - 1).expect("a permit");
        assert!(other.take(0).is_none());
        drop(large.clone());
        assert!(other.take(0).is_none(), "the other clone still holds the permit");
        drop((small, large));
        for budget in [&budget, &other] {
            assert!(budget.take(16 * UNIT_BYTES).is_none(), "the response needs more than a quarter");
            assert!(budget.take(16 * UNIT_BYTES - 1).is_some(), "all permits are returned");
        }
    }

    #[tokio::test]
    async fn the_last_bytes_hold_the_permit_after_the_body_is_dropped() {
        let budget = ResponseBudget::new(4 * UNIT_BYTES);
        let mut response = Response::new(Body::from("answer"));
        response.extensions_mut().insert(budget.take(0).expect("a permit"));
        let mut body = move_permit_to_body(response).into_body();
        assert_eq!(body.size_hint().exact(), Some(6));
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.expect("a frame").expect("no error");
        let bytes = frame.into_data().expect("data");
        drop(body);
        assert!(budget.take(0).is_none(), "the bytes are not sent yet");
        assert_eq!(bytes, "answer");
        drop(bytes);
        assert!(budget.take(0).is_some());
    }

    #[test]
    fn all_connections_share_the_total_budget() {
        let budget = ResponseBudget::new(64 * UNIT_BYTES);
        let connections: Vec<_> = (0..5).map(|_| budget.for_connection()).collect();
        let mut permits: Vec<_> = connections.iter().map(|budget| budget.take(16 * UNIT_BYTES - 1)).collect();
        assert!(permits.pop().is_some_and(|fifth| fifth.is_none()));
        assert!(permits.iter().all(Option::is_some));
        drop(permits);
        assert!(connections[4].take(16 * UNIT_BYTES - 1).is_some());
    }
}
