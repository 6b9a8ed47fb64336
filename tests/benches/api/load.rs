//! A client that needs little processor time, so that the benchmark measures the server.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::grpc::Channel;

/// The bytes that a server may send on a connection before the client reads them. With the HTTP/2 default of 64 KiB, a
/// connection would soon stall.
const WINDOW: u32 = 1 << 20;

/// An HTTP connection that is kept alive.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(64 * 1_024) })
    }

    /// Sends a GET request, and returns the status and the body of the response.
    pub(crate) async fn get(&mut self, path: &str) -> std::io::Result<(u16, &[u8])> {
        let head = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        self.received.clear();
        loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.received[..end]).to_ascii_lowercase();
                let status = head.get(9..12).and_then(|text| text.parse().ok()).expect("a status");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.and_then(|text| text.parse().ok()).expect("a length");
                let whole = end + 4 + length;
                while self.received.len() < whole {
                    self.read_more().await?;
                }
                return Ok((status, &self.received[end + 4..whole]));
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> std::io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// The calls per second of `callers` on `connections`. Each caller calls again when it has the response.
pub(crate) async fn calls(
    port: u16,
    path: &str,
    message: Bytes,
    callers: usize,
    connections: usize,
    time: Duration,
) -> f64 {
    let mut channels = vec![];
    for _ in 0..connections {
        channels.push(Channel::open(port, WINDOW).await);
    }
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for channel in channels.iter().cycle().take(callers) {
        let (channel, path, message) = (channel.clone(), path.to_owned(), message.clone());
        clients.spawn(async move {
            let mut calls = 0_u32;
            while begun.elapsed() < time {
                assert!(call(&channel, &path, message.clone()).await.expect("a response") > 5, "an empty response");
                calls += 1;
            }
            calls
        });
    }
    let calls: u32 = clients.join_all().await.into_iter().sum();
    f64::from(calls) / begun.elapsed().as_secs_f64()
}

/// The path of each request of a load, by the number of the request.
pub(crate) type Paths = Arc<dyn Fn(u64) -> String + Send + Sync>;

/// Always the same path.
pub(crate) fn always(path: &str) -> Paths {
    let path = path.to_owned();
    Arc::new(move |_| path.clone())
}

/// The results of a load.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The duration of each request with a 200 response, in microseconds, sorted.
    accepted: Vec<u64>,
    /// The number of 429 and 503 responses.
    pub(crate) shed: usize,
    /// The number of all other responses and of broken connections.
    pub(crate) failed: usize,
    took: Duration,
}

impl Outcome {
    pub(crate) fn rate(&self) -> f64 {
        self.accepted.len() as f64 / self.took.as_secs_f64()
    }

    /// The latency quantile of the accepted requests, in milliseconds: this share of them was faster.
    pub(crate) fn latency(&self, share: f64) -> f64 {
        let at = (self.accepted.len() as f64 * share) as usize;
        self.accepted.get(at.min(self.accepted.len().saturating_sub(1))).map_or(f64::NAN, |micros| *micros as f64 / 1e3)
    }
}

/// When requests are sent.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// Each connection sends the next request when it has the response.
    Sequential,
    /// This number of requests per second, whether responses come or not. Latency counts from the planned time of a request.
    /// So the latency of a server that stalls contains the time of the requests that wait.
    PerSecond(f64),
    /// This number of requests per second, if the connections are fast enough. Latency counts from the sending of a request.
    AtMost(f64),
}

/// Sends requests over `connections` for `time`.
pub(crate) async fn load(port: u16, paths: Paths, connections: usize, pace: Pace, time: Duration) -> Outcome {
    let next = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let (next, stop, paths) = (next.clone(), stop.clone(), paths.clone());
        clients.spawn(async move {
            let mut outcome = Outcome::default();
            let mut connection = None;
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let mut due = Instant::now();
                if let Pace::PerSecond(rate) | Pace::AtMost(rate) = pace {
                    let planned = begun + Duration::from_secs_f64(number as f64 / rate);
                    if planned > begun + time {
                        break;
                    }
                    sleep_until(planned.into()).await;
                    due = if matches!(pace, Pace::PerSecond(_)) { planned } else { Instant::now() };
                }
                let path = paths(number);
                let answered = timeout(Duration::from_secs(30), async {
                    let open = match connection.take() {
                        Some(open) => open,
                        None => Connection::open(port).await?,
                    };
                    let status = connection.insert(open).get(&path).await?.0;
                    std::io::Result::Ok(status)
                });
                match answered.await {
                    Ok(Ok(200)) => outcome.accepted.push(due.elapsed().as_micros() as u64),
                    Ok(Ok(429 | 503)) => outcome.shed += 1,
                    Ok(Ok(_)) => outcome.failed += 1,
                    _ => {
                        outcome.failed += 1;
                        connection = None;
                    }
                }
            }
            outcome
        });
    }
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let took = begun.elapsed();
    let mut whole = Outcome { took, ..Outcome::default() };
    while let Some(client) = clients.join_next().await {
        let Outcome { accepted, shed, failed, .. } = client.expect("a client");
        whole.accepted.extend(accepted);
        whole.shed += shed;
        whole.failed += failed;
    }
    whole.accepted.sort_unstable();
    whole
}

/// Calls `path`, and returns the length of the framed response. The status must be OK.
async fn call(channel: &Channel, path: &str, message: Bytes) -> Result<usize, h2::Error> {
    let mut answer = channel.ask(path, message).await?.into_body();
    let mut length = 0;
    while let Some(data) = answer.data().await {
        let data = data?;
        length += data.len();
        answer.flow_control().release_capacity(data.len())?;
    }
    let trailers = poll_fn(|context| answer.poll_trailers(context)).await?.expect("trailers");
    assert_eq!(trailers.get("grpc-status").map(|status| status.as_bytes()), Some(&b"0"[..]));
    Ok(length)
}
