//! The connections of a server: only so many at a time, and none left once it has stopped.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::Connected;

use crate::limits::ApiLimits;
use crate::room::Room;
use crate::tls::{Tls, Transport};

/// How long to wait when there is nothing left to accept with, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long a client may take to agree on how to encrypt.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The open connections of one server; dropping it cuts them.
#[derive(Debug)]
pub(crate) struct Connections {
    room: Arc<Semaphore>,
    cut: CancellationToken,
    cut_on_drop: DropGuard,
    limits: ApiLimits,
    tls: Option<(Tls, Transport)>,
    answers: Room,
}

/// The other end of a connection, as an extension of its requests.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// For the answers that it has not taken yet.
    pub(crate) room: Room,
}

impl Connections {
    /// Those of a server within `limits`, encrypted if `tls` says how.
    pub(crate) fn new(limits: &ApiLimits, tls: Option<(Tls, Transport)>) -> Self {
        let cut = CancellationToken::new();
        Self {
            room: Arc::new(Semaphore::new(limits.max_connections)),
            cut_on_drop: cut.clone().drop_guard(),
            cut,
            limits: limits.clone(),
            tls,
            answers: Room::new(limits.max_untaken_bytes),
        }
    }

    /// Accepts from `listener`, as long as there is room, without an end. A connection comes out once its client has
    /// begun to speak: a server may wait for ever for one that hasn't, even when it is told to stop.
    pub(crate) fn accept(&self, listener: TcpListener) -> impl futures::Stream<Item = Connection> + Send + use<> {
        let (room, cut, idle_timeout) = (Arc::clone(&self.room), self.cut.clone(), self.limits.idle_timeout);
        let accepted = futures::stream::unfold(listener, move |listener| {
            let (room, cut) = (Arc::clone(&room), cut.clone());
            async move {
                let place = room.acquire_owned().await.ok()?;
                let (stream, address) = accept(&listener).await;
                let cut = Box::pin(cut.cancelled_owned());
                Some(((stream, address, cut, place), listener))
            }
        });
        let (tls, answers) = (self.tls.clone(), self.answers.clone());
        let spoken_to = accepted.map(move |(stream, address, cut, place)| {
            let acceptor = tls.as_ref().map(|(tls, transport)| tls.acceptor(*transport));
            let client = Client { address, room: answers.of_another() };
            async move {
                let stream = match acceptor {
                    Some(acceptor) => Stream::Encrypted(Box::new(encrypted(acceptor, stream, idle_timeout).await?)),
                    None => Stream::Plain(spoken(stream, idle_timeout).await?),
                };
                Some(Connection { stream, client, cut, stalled: None, idle_timeout, _place: place })
            }
        });
        spoken_to.buffer_unordered(self.limits.max_connections).filter_map(std::future::ready)
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

/// `stream` once its client speaks.
async fn spoken(stream: TcpStream, idle_timeout: Duration) -> Option<TcpStream> {
    // Not `readable`: it may say so of one that isn't.
    let begun = tokio::time::timeout(idle_timeout, stream.peek(&mut [0])).await;
    matches!(begun, Ok(Ok(1..))).then_some(stream)
}

/// `stream` once its client has agreed on how to encrypt, and speaks.
async fn encrypted(acceptor: TlsAcceptor, stream: TcpStream, idle_timeout: Duration) -> Option<Encrypted> {
    // A task of its own: its arithmetic takes a while, and others are waiting.
    let handshake = async move {
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.ok()?.ok()?;
        Some(BufReader::new(stream))
    };
    let Ok(Some(mut stream)) = AbortOnDropHandle::new(tokio::spawn(handshake)).await else {
        metrics::counter!("netagg_tls_handshake_failures_total").increment(1);
        return None;
    };
    let begun = tokio::time::timeout(idle_timeout, stream.fill_buf()).await;
    matches!(begun, Ok(Ok([_, ..]))).then_some(stream)
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

/// A connection that takes its place among the others until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    client: Client,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Ends when a client that takes nothing is given up.
    stalled: Option<Pin<Box<Sleep>>>,
    idle_timeout: Duration,
    _place: OwnedSemaphorePermit,
}

type Encrypted = BufReader<TlsStream<TcpStream>>;

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Encrypted(Box<Encrypted>),
}

/// What both kinds of streams can.
trait ReadWrite: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> ReadWrite for S {}

impl Connection {
    fn check_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has stopped")),
            Poll::Pending => Ok(()),
        }
    }

    /// What came of writing. A client that takes nothing would keep its place, and its answer, for ever: no server asks
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

impl Connected for Connection {
    type ConnectInfo = Client;

    fn connect_info(&self) -> Client {
        self.client.clone()
    }
}
