//! A small gRPC client. A test or a benchmark decides when the client reads.

use axum::http::{Request, Response};
use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use prost::Message;
use tokio::net::TcpStream;

/// A connection that many calls share.
#[derive(Clone, Debug)]
pub(crate) struct Channel(SendRequest<Bytes>);

impl Channel {
    /// Opens a connection. The server may send `window` bytes of each response before the client reads them.
    ///
    /// # Panics
    /// When no server listens on the port.
    pub(crate) async fn open(port: u16, window: u32) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        let mut client = h2::client::Builder::new();
        client.initial_window_size(window).initial_connection_window_size(1 << 24);
        let (send, connection) = client.handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self(send)
    }

    /// Sends `message`, which is [framed](frame), and returns the head of the response.
    ///
    /// # Errors
    /// When the connection or the call fails.
    pub(crate) async fn ask(&self, path: &str, message: Bytes) -> Result<Response<RecvStream>, h2::Error> {
        let request = Request::post(format!("http://test{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let mut ready = self.0.clone().ready().await?;
        let (response, mut body) = ready.send_request(request, false)?;
        body.send_data(message, true)?;
        response.await
    }
}

/// Frames a message for [gRPC](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md): a byte that means "not
/// compressed", the length of the message, and the message.
///
/// # Panics
/// When the message is longer than 4 GiB.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.encoded_len()).expect("short").to_be_bytes());
    framed.extend(message.encode_to_vec());
    framed.into()
}
