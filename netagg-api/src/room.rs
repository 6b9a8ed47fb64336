//! Room for answers that clients have not taken yet.
//!
//! An answer lies in memory until its client has taken it, and a client of HTTP/2 may have many answers under way on one
//! connection, and take none of them. So each has a place of its size, which it keeps until the last of its bytes is on
//! its way; where there is none, the answer is that too much is asked.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Bytes, HttpBody};
use axum::http::Response;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What room is counted in.
const UNIT_BYTES: usize = 1_024;

/// The part of all room that one connection may use, so that one client that takes nothing does not stand in the way of
/// the others.
const PER_CONNECTION: usize = 4;

/// The room of one connection, and of all of them.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    all: Arc<Semaphore>,
    all_units: usize,
    connection: Arc<Semaphore>,
}

/// Where an answer lies; free again when the last clone is gone.
#[derive(Clone, Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held, not read")] Arc<[OwnedSemaphorePermit; 2]>);

impl Room {
    /// So much of it.
    pub(crate) fn new(bytes: usize) -> Self {
        let all_units = bytes / UNIT_BYTES;
        Self {
            all: Arc::new(Semaphore::new(all_units)),
            all_units,
            connection: Arc::new(Semaphore::new(all_units / PER_CONNECTION)),
        }
    }

    /// The room of another connection.
    pub(crate) fn of_another(&self) -> Self {
        let connection = Arc::new(Semaphore::new(self.all_units / PER_CONNECTION));
        Self { connection, ..self.clone() }
    }

    /// A place for an answer of `bytes`, if there is one.
    pub(crate) fn take(&self, bytes: usize) -> Option<Place> {
        let units = u32::try_from(bytes / UNIT_BYTES + 1).ok()?;
        let take = |room: &Arc<Semaphore>| room.clone().try_acquire_many_owned(units).ok();
        Some(Place(Arc::new([take(&self.connection)?, take(&self.all)?])))
    }
}

/// A body whose bytes keep the place that its response has among its extensions.
pub(crate) fn in_place<B>(mut response: Response<B>) -> Response<Placed<B>> {
    let place = response.extensions_mut().remove();
    response.map(|body| Placed { body, place })
}

/// A body with the place of its bytes.
#[derive(Debug)]
pub(crate) struct Placed<B> {
    body: B,
    place: Option<Place>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Placed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let keep = |data| match &self.place {
            // A server drops a body before it has sent the last of its bytes.
            Some(place) => Bytes::from_owner(ResponseCache { data, _place: place.clone() }),
            None => data,
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(keep))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct ResponseCache {
    data: Bytes,
    _place: Place,
}

impl AsRef<[u8]> for ResponseCache {
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
    fn one_connection_does_not_stand_in_the_way_of_the_others() {
        let room = Room::new(64 * UNIT_BYTES);
        let small: Vec<_> = (0..16).map(|_| room.take(UNIT_BYTES / 2).expect("a place")).collect();
        assert!(room.take(0).is_none(), "its quarter is taken");
        let other = room.of_another();
        let large = other.take(16 * UNIT_BYTES - 1).expect("a place");
        assert!(other.take(0).is_none());
        drop(large.clone());
        assert!(other.take(0).is_none(), "a clone keeps it");
        drop((small, large));
        for room in [&room, &other] {
            assert!(room.take(16 * UNIT_BYTES).is_none(), "more than a quarter");
            assert!(room.take(16 * UNIT_BYTES - 1).is_some(), "nothing is left taken");
        }
    }

    #[tokio::test]
    async fn the_last_bytes_keep_the_place_when_the_body_is_gone() {
        let room = Room::new(4 * UNIT_BYTES);
        let mut answer = Response::new(Body::from("answer"));
        answer.extensions_mut().insert(room.take(0).expect("a place"));
        let mut body = in_place(answer).into_body();
        assert_eq!(body.size_hint().exact(), Some(6));
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.expect("a frame").expect("no error");
        let bytes = frame.into_data().expect("data");
        drop(body);
        assert!(room.take(0).is_none(), "they are not on their way yet");
        assert_eq!(bytes, "answer");
        drop(bytes);
        assert!(room.take(0).is_some());
    }

    #[test]
    fn all_connections_share_the_whole() {
        let room = Room::new(64 * UNIT_BYTES);
        let connections: Vec<_> = (0..5).map(|_| room.of_another()).collect();
        let mut places: Vec<_> = connections.iter().map(|room| room.take(16 * UNIT_BYTES - 1)).collect();
        assert!(places.pop().is_some_and(|fifth| fifth.is_none()));
        assert!(places.iter().all(Option::is_some));
        drop(places);
        assert!(connections[4].take(16 * UNIT_BYTES - 1).is_some());
    }
}
