//! The connections of a server: only so many at a time, and none left once it has stopped.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use crate::auth::Protection;
use crate::client::{Client, Transport};
use crate::room::Room;
use crate::server_limits::ApiLimits;
#[cfg(feature = "tls")]
use crate::tls::{self, Tls};

/// How long to wait when there is nothing left to accept with, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long a client beyond the limit of connections may take to send its request, and to take the answer.
pub(crate) const SPARE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client beyond the limit of connections waits for another one to go.
const SPARE_WAIT: Duration = Duration::from_secs(1);

/// The first bytes of the requests that a spare connection answers.
const HEALTH_REQUESTS: [&[u8]; 4] = [b"GET /healthz", b"GET /readyz", b"HEAD /healthz", b"HEAD /readyz"];

/// The open connections of one server; dropping it cuts them.
#[derive(Debug)]
pub(crate) struct Connections {
    permits: ConnectionPermits,
    cut: CancellationToken,
    cut_on_drop: DropGuard,
    limits: ApiLimits,
    #[cfg(feature = "tls")]
    tls: Option<(Tls, Transport)>,
    answers: Room,
}

/// The connections that may be open at a time.
#[derive(Clone, Debug)]
struct ConnectionPermits {
    regular: Arc<Semaphore>,
    /// Beyond the limit, for requests for health alone.
    spare: Arc<Semaphore>,
    spares: usize,
}

/// The permit of an open connection.
#[derive(Debug)]
enum ConnectionPermit {
    Regular { _permit: OwnedSemaphorePermit },
    Spare { _permit: OwnedSemaphorePermit },
}

impl ConnectionPermits {
    fn new(regular: usize, spares: usize) -> Self {
        Self { regular: Arc::new(Semaphore::new(regular)), spare: Arc::new(Semaphore::new(spares)), spares }
    }

    /// A permit for the next connection: a spare permit if all others are taken.
    async fn take(&self) -> Option<ConnectionPermit> {
        tokio::select! {
            biased;
            permit = Arc::clone(&self.regular).acquire_owned() => Some(ConnectionPermit::Regular { _permit: permit.ok()? }),
            permit = Arc::clone(&self.spare).acquire_owned() => Some(ConnectionPermit::Spare { _permit: permit.ok()? }),
        }
    }

    /// The permit of a connection whose client has sent these `first` bytes. A client that does not ask for health waits
    /// for a regular permit, unless so many wait that health could not be asked for.
    async fn upgrade(&self, permit: ConnectionPermit, first: &[u8]) -> ConnectionPermit {
        let ConnectionPermit::Spare { .. } = permit else { return permit };
        let regular = Arc::clone(&self.regular).acquire_owned();
        let asks_health = HEALTH_REQUESTS.iter().any(|request| first.starts_with(request));
        let wait =
            if asks_health || self.spare.available_permits() < self.spares / 2 { Duration::ZERO } else { SPARE_WAIT };
        match tokio::time::timeout(wait, regular).await {
            Ok(Ok(regular)) => ConnectionPermit::Regular { _permit: regular },
            _ => permit,
        }
    }
}

impl Connections {
    /// The plain connections of a server within `limits`.
    pub(crate) fn new(limits: &ApiLimits) -> Self {
        let cut = CancellationToken::new();
        Self {
            permits: ConnectionPermits::new(limits.max_connections, 0),
            cut_on_drop: cut.clone().drop_guard(),
            cut,
            limits: limits.clone(),
            #[cfg(feature = "tls")]
            tls: None,
            answers: Room::new(limits.max_untaken_bytes),
        }
    }

    /// These connections, encrypted if `protection` says so.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "nothing says so"))]
    pub(crate) fn encrypted_by(self, protection: &Protection, transport: Transport) -> Self {
        Self {
            #[cfg(feature = "tls")]
            tls: protection.tls().map(|tls| (tls.clone(), transport)),
            ..self
        }
    }

    /// These connections, and beyond their limit [`ApiLimits::HEALTH_CONNECTIONS`] spare ones.
    pub(crate) fn with_spares(self) -> Self {
        Self { permits: ConnectionPermits::new(self.limits.max_connections, ApiLimits::HEALTH_CONNECTIONS), ..self }
    }

    /// Accepts from `listener`, as long as there is a permit, without an end. A connection comes out once its client has
    /// begun to speak: a server may wait for ever for one that hasn't, even when it is told to stop.
    pub(crate) fn accept(&self, listener: TcpListener) -> impl futures::Stream<Item = Connection> + Send + use<> {
        let (permits, cut, idle_timeout) = (self.permits.clone(), self.cut.clone(), self.limits.idle_timeout);
        let most = self.limits.max_connections + permits.spares;
        let accepted = futures::stream::unfold((listener, permits.clone()), move |(listener, permits)| {
            let cut = cut.clone();
            async move {
                let permit = permits.take().await?;
                let (stream, address) = accept(&listener).await;
                let cut = Box::pin(cut.cancelled_owned());
                Some(((stream, address, cut, permit), (listener, permits)))
            }
        });
        let answers = self.answers.clone();
        #[cfg(feature = "tls")]
        let tls = self.tls.clone();
        let spoken_to = accepted.map(move |(stream, address, cut, permit)| {
            #[cfg(feature = "tls")]
            let acceptor = tls.as_ref().map(|(tls, transport)| tls.acceptor(*transport));
            let client = Client { address, room: answers.of_another() };
            let permits = permits.clone();
            async move {
                let timeout = match permit {
                    ConnectionPermit::Regular { .. } => idle_timeout,
                    ConnectionPermit::Spare { .. } => idle_timeout.min(SPARE_TIMEOUT),
                };
                #[cfg(feature = "tls")]
                if let Some(acceptor) = acceptor {
                    let stream = tls::encrypted(acceptor, stream, timeout).await?;
                    let permit = permits.upgrade(permit, stream.buffer()).await;
                    let stream = Stream::Encrypted(Box::new(stream));
                    return Some(Connection { stream, client, cut, stalled: None, idle_timeout, permit });
                }
                let (stream, first) = spoken(stream, timeout).await?;
                let permit = permits.upgrade(permit, &first).await;
                let stream = Stream::Plain(stream);
                Some(Connection { stream, client, cut, stalled: None, idle_timeout, permit })
            }
        });
        spoken_to.buffer_unordered(most).filter_map(std::future::ready)
    }

    /// Runs the server to its end, which comes when every connection has closed after `shutdown`; those that have not
    /// within the limit are cut.
    pub(crate) async fn run<T>(self, serving: impl Future<Output = T>, shutdown: &CancellationToken) -> T {
        let mut serving = pin!(serving);
        let too_long = async {
            shutdown.cancelled().await;
            tokio::time::sleep(self.limits.stop_timeout).await;
        };
        tokio::select! {
            done = &mut serving => return done,
            () = too_long => {}
        }
        tracing::warn!(after = ?self.limits.stop_timeout, "cutting the connections that are still open");
        drop(self.cut_on_drop);
        serving.await
    }
}

/// `stream` once its client speaks, and the first bytes of a request.
async fn spoken(stream: TcpStream, idle_timeout: Duration) -> Option<(TcpStream, [u8; 16])> {
    let mut first = [0; 16];
    // Not `readable`: it may say so of one that isn't.
    let begun = tokio::time::timeout(idle_timeout, stream.peek(&mut first)).await;
    matches!(begun, Ok(Ok(1..))).then_some((stream, first))
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // An answer is written whole: nothing is gained by waiting for more. A client that is gone already
                // shows when it is read from.
                let _ = stream.set_nodelay(true);
                return (stream, address);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted for now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A connection, which holds its permit until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    client: Client,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Ends when a client that takes nothing is given up.
    stalled: Option<Pin<Box<Sleep>>>,
    idle_timeout: Duration,
    permit: ConnectionPermit,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Encrypted(Box<tls::Encrypted>),
}

/// What both kinds of streams can.
trait ReadWrite: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> ReadWrite for S {}

impl Connection {
    /// Whether the connection is beyond the limit: it is to answer for health alone.
    pub(crate) fn is_spare(&self) -> bool {
        matches!(self.permit, ConnectionPermit::Spare { .. })
    }

    /// The other end.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    fn check_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has stopped")),
            Poll::Pending => Ok(()),
        }
    }

    /// What came of writing. A client that takes nothing would hold its permit, and its answer, for ever: no server asks
    /// an answer for more while it cannot be written.
    fn unless_stalled<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let idle_timeout = self.idle_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle_timeout)));
        stalled.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }

    fn stream(&mut self) -> Pin<&mut dyn ReadWrite> {
        Pin::new(match &mut self.stream {
            Stream::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Stream::Encrypted(stream) => &mut **stream,
        })
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_cut(cx)?;
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_cut(cx)?;
        let written = self.stream().poll_write(cx, buf);
        self.unless_stalled(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_cut(cx)?;
        let written = self.stream().poll_write_vectored(cx, bufs);
        self.unless_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            #[cfg(feature = "tls")]
            Stream::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream().poll_flush(cx);
        self.unless_stalled(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream().poll_shutdown(cx);
        self.unless_stalled(cx, flushed)
    }
}
