//! A client of gRPC that leaves the details to whoever tests or measures them.

use std::future::poll_fn;

use axum::http::{Request, Response};
use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use prost::Message;
use tokio::net::TcpStream;

/// What clients of gRPC let a server send before they have read it: with HTTP/2's own 64 KiB, a connection soon stands
/// still.
pub const WINDOW: u32 = 1 << 20;

/// A connection, which many calls share.
#[derive(Clone, Debug)]
pub struct Channel(SendRequest<Bytes>);

impl Channel {
    /// A connection on which the server may send `window` bytes of each answer before they are read.
    ///
    /// # Panics
    /// When there is no server.
    pub async fn open(port: u16, window: u32) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        let mut client = h2::client::Builder::new();
        client.initial_window_size(window).initial_connection_window_size(1 << 24);
        let (send, connection) = client.handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self(send)
    }

    /// The answer to `message`, [framed](frame), as far as its head.
    ///
    /// # Errors
    /// When the connection or the call breaks off.
    pub async fn ask(&self, path: &str, message: Bytes) -> Result<Response<RecvStream>, h2::Error> {
        let request = Request::post(format!("http://test{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let mut ready = self.0.clone().ready().await?;
        let (answer, mut body) = ready.send_request(request, false)?;
        body.send_data(message, true)?;
        answer.await
    }

    /// Calls `path`; how long the framed answer is.
    ///
    /// # Errors
    /// When the connection or the call breaks off.
    ///
    /// # Panics
    /// When the answer is not OK.
    pub async fn call(&self, path: &str, message: Bytes) -> Result<usize, h2::Error> {
        let mut answer = self.ask(path, message).await?.into_body();
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
}

/// A message as [gRPC frames it](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md): a byte that says it is
/// not compressed, its length, and itself.
///
/// # Panics
/// When it is longer than 4 GiB.
#[must_use]
pub fn frame(message: &impl Message) -> Bytes {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.encoded_len()).expect("short").to_be_bytes());
    framed.extend(message.encode_to_vec());
    framed.into()
}
