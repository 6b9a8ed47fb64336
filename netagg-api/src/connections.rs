//! The connections of a server: it limits how many are open at a time, and closes all of them when it stops.

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
use crate::response_budget::ResponseBudget;
use crate::server_limits::ApiLimits;
#[cfg(feature = "tls")]
use crate::tls::{self, Tls};

/// How long to wait if the process cannot accept a connection, for example because it has no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long a client beyond the limit of connections may take to send its request, and to take the response.
pub(crate) const SPARE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client beyond the limit of connections waits until another connection closes.
const SPARE_WAIT: Duration = Duration::from_secs(1);

/// The first bytes of the requests that a spare connection serves.
const HEALTH_REQUESTS: [&[u8]; 4] = [b"GET /healthz", b"GET /readyz", b"HEAD /healthz", b"HEAD /readyz"];

/// The open connections of one server. The drop closes them.
#[derive(Debug)]
pub(crate) struct Connections {
    permits: ConnectionPermits,
    cut: CancellationToken,
    cut_on_drop: DropGuard,
    limits: ApiLimits,
    #[cfg(feature = "tls")]
    tls: Option<(Tls, Transport)>,
    budget: ResponseBudget,
}

/// The permits for the connections that may be open at a time.
#[derive(Clone, Debug)]
struct ConnectionPermits {
    regular: Arc<Semaphore>,
    /// Permits beyond the limit, only for health requests.
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

    /// Waits for a permit for the next connection: a spare permit if no regular permit is free.
    async fn take(&self) -> Option<ConnectionPermit> {
        tokio::select! {
            biased;
            permit = Arc::clone(&self.regular).acquire_owned() => Some(ConnectionPermit::Regular { _permit: permit.ok()? }),
            permit = Arc::clone(&self.spare).acquire_owned() => Some(ConnectionPermit::Spare { _permit: permit.ok()? }),
        }
    }

    /// Exchanges a spare permit for a regular permit if possible. `first` has the first bytes that the client sent.
    ///
    /// If the client does not send a health request, it waits for a regular permit. It does not wait if less than half of the
    /// spare permits are free, so that health requests still get a connection.
    async fn upgrade(&self, permit: ConnectionPermit, first: &[u8]) -> ConnectionPermit {
        let ConnectionPermit::Spare { .. } = permit else { return permit };
        let regular = Arc::clone(&self.regular).acquire_owned();
        let is_health = HEALTH_REQUESTS.iter().any(|request| first.starts_with(request));
        let wait =
            if is_health || self.spare.available_permits() < self.spares / 2 { Duration::ZERO } else { SPARE_WAIT };
        match tokio::time::timeout(wait, regular).await {
            Ok(Ok(regular)) => ConnectionPermit::Regular { _permit: regular },
            _ => permit,
        }
    }
}

impl Connections {
    /// Unencrypted connections with `limits`.
    pub(crate) fn new(limits: &ApiLimits) -> Self {
        let cut = CancellationToken::new();
        Self {
            permits: ConnectionPermits::new(limits.max_connections, 0),
            cut_on_drop: cut.clone().drop_guard(),
            cut,
            limits: limits.clone(),
            #[cfg(feature = "tls")]
            tls: None,
            budget: ResponseBudget::new(limits.max_untaken_bytes),
        }
    }

    /// These connections, encrypted if `protection` has TLS.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "no TLS without the feature"))]
    pub(crate) fn encrypted_by(self, protection: &Protection, transport: Transport) -> Self {
        Self {
            #[cfg(feature = "tls")]
            tls: protection.tls().map(|tls| (tls.clone(), transport)),
            ..self
        }
    }

    /// These connections, and [`ApiLimits::HEALTH_CONNECTIONS`] spare connections beyond their limit.
    pub(crate) fn with_spares(self) -> Self {
        Self { permits: ConnectionPermits::new(self.limits.max_connections, ApiLimits::HEALTH_CONNECTIONS), ..self }
    }

    /// Accepts connections from `listener` without end, while permits are free. The stream returns a connection only after
    /// its client has sent the first bytes. Otherwise a server might wait for ever for a silent client, even during a shutdown.
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
        let budget = self.budget.clone();
        #[cfg(feature = "tls")]
        let tls = self.tls.clone();
        let ready = accepted.map(move |(stream, address, cut, permit)| {
            #[cfg(feature = "tls")]
            let acceptor = tls.as_ref().map(|(tls, transport)| tls.acceptor(*transport));
            let client = Client { address, budget: budget.for_connection() };
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
                let (stream, first) = wait_for_first_bytes(stream, timeout).await?;
                let permit = permits.upgrade(permit, &first).await;
                let stream = Stream::Plain(stream);
                Some(Connection { stream, client, cut, stalled: None, idle_timeout, permit })
            }
        });
        ready.buffer_unordered(most).filter_map(std::future::ready)
    }

    /// Runs the server until `shutdown`, and then until every connection has closed. Connections that are still open after
    /// [`ApiLimits::stop_timeout`] are closed.
    pub(crate) async fn run<T>(self, serving: impl Future<Output = T>, shutdown: &CancellationToken) -> T {
        let mut serving = pin!(serving);
        let stop_timeout = async {
            shutdown.cancelled().await;
            tokio::time::sleep(self.limits.stop_timeout).await;
        };
        tokio::select! {
            done = &mut serving => return done,
            () = stop_timeout => {}
        }
        tracing::warn!(after = ?self.limits.stop_timeout, "closing the connections that are still open");
        drop(self.cut_on_drop);
        serving.await
    }
}

/// Waits until the client has sent the first bytes of a request, and returns `stream` with these bytes. They stay in
/// `stream`.
async fn wait_for_first_bytes(stream: TcpStream, idle_timeout: Duration) -> Option<(TcpStream, [u8; 16])> {
    let mut first = [0; 16];
    // `peek` and not `readable`, because `readable` may return although no bytes are there.
    let peeked = tokio::time::timeout(idle_timeout, stream.peek(&mut first)).await;
    matches!(peeked, Ok(Ok(1..))).then_some((stream, first))
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Each response is written at once, so a delay to collect more bytes would gain nothing. An error here
                // means that the client has disconnected, and the next read reports that too.
                let _ = stream.set_nodelay(true);
                return (stream, address);
            }
            Err(error) if affects_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; retrying");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether only the connection that was about to be accepted failed, and the listener works.
fn affects_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// An accepted connection. It holds its permit until the drop.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    client: Client,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The timeout for a client that takes no bytes. `None` while the client takes bytes.
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

/// The operations that plain and encrypted streams share.
trait ReadWrite: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> ReadWrite for S {}

impl Connection {
    /// Whether the connection is beyond the limit, and so serves only health requests.
    pub(crate) fn is_spare(&self) -> bool {
        matches!(self.permit, ConnectionPermit::Spare { .. })
    }

    /// The client of this connection.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    fn check_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has stopped")),
            Poll::Pending => Ok(()),
        }
    }

    /// Returns the result of a write, or an error if the client has taken no bytes for the idle timeout.
    ///
    /// Without this timeout such a client would hold its permit and its response for ever. The body of the response cannot
    /// detect the stall, because the server does not poll the body while it cannot write.
    fn check_stalled<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let idle_timeout = self.idle_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle_timeout)));
        stalled.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no bytes")))
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
        self.check_stalled(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_cut(cx)?;
        let written = self.stream().poll_write_vectored(cx, bufs);
        self.check_stalled(cx, written)
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
        self.check_stalled(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream().poll_shutdown(cx);
        self.check_stalled(cx, flushed)
    }
}
