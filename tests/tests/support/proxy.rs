//! A TCP proxy that simulates network faults: it can delay or stall all traffic, close all connections, or change its target.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A proxy that forwards connections to another port until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    state: watch::Sender<State>,
    /// The number of connections accepted so far.
    accepted: Arc<AtomicU64>,
    _accepting: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    /// The port to which new connections are forwarded.
    target: u16,
    delay: Duration,
    stalls: bool,
    /// Connections of an earlier generation are closed.
    generation: u64,
    /// Connections with a lower number are stalled.
    stalled_below: u64,
}

impl Proxy {
    /// Starts a proxy to the port `target` of this machine.
    ///
    /// # Panics
    /// When no port is free.
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (state, states) =
            watch::channel(State { target, delay: Duration::ZERO, stalls: false, generation: 0, stalled_below: 0 });
        let mut accepting = JoinSet::new();
        let counted = Arc::new(AtomicU64::new(0));
        let accepted = counted.clone();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let Ok((client, _)) = listener.accept().await else { return };
                accepted.store(number + 1, Relaxed);
                connections.spawn(forward(client, number, states.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, state, accepted: counted, _accepting: accepting }
    }

    /// The port to which clients connect.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Stalls all traffic: connections stay open, but no bytes pass.
    pub(crate) fn stall(&self) {
        self.state.send_modify(|state| state.stalls = true);
    }

    /// Stalls the open connections for ever. New connections are not affected.
    pub(crate) fn stall_open(&self) {
        let accepted = self.accepted.load(Relaxed);
        self.state.send_modify(|state| state.stalled_below = accepted);
    }

    /// Delays all traffic by `delay`, in each direction.
    pub(crate) fn slow(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Ends [`Self::stall`] and [`Self::slow`]. Stalled bytes are then forwarded.
    pub(crate) fn pass(&self) {
        self.state.send_modify(|state| (state.stalls, state.delay) = (false, Duration::ZERO));
    }

    /// Closes all connections. New connections are accepted.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }

    /// Closes all connections, and forwards new connections to `target`.
    pub(crate) fn redirect_to(&self, target: u16) {
        self.state.send_modify(|state| state.target = target);
        self.cut();
    }
}

async fn forward(client: TcpStream, number: u64, mut states: watch::Receiver<State>) {
    let State { target, generation, .. } = *states.borrow();
    let Ok(server) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], target))).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = copy(from_client, to_server, number, states.clone()) => {}
        () = copy(from_server, to_client, number, states.clone()) => {}
        _ = states.wait_for(|state| state.generation != generation) => {}
    }
}

/// Copies bytes in one direction until a side closes its connection.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: u64, mut states: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        let delay = states.borrow().delay;
        tokio::time::sleep(delay).await;
        let passes = |state: &State| !state.stalls && number >= state.stalled_below;
        if states.wait_for(passes).await.is_err() || to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}
