//! Sends commands as text to a Redis server.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends `commands`, one per line, to the server at `port` of this machine, and returns its reply.
///
/// # Errors
/// When the server does not reply within 5 s.
pub async fn ask(port: u16, commands: &str) -> Result<String, String> {
    const END: &str = "+PONG\r\n";
    let asking = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(format!("{commands}\r\nPING\r\n").as_bytes()).await?;
        let (mut answer, mut buffer) = (String::new(), [0; 4096]);
        loop {
            match stream.read(&mut buffer).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => answer.push_str(&String::from_utf8_lossy(&buffer[..read])),
            }
            if answer.starts_with(NO_PASSWORD) {
                return Ok(answer);
            }
            if let Some(answer) = answer.strip_suffix(END) {
                return Ok::<_, std::io::Error>(answer.to_owned());
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(5), asking).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(elapsed) => Err(elapsed.to_string()),
    }
}

/// The start of the reply to a client that has not sent a password.
const NO_PASSWORD: &str = "-NOAUTH";

/// Checks that a server replies at `port`, with or without a password.
pub(super) async fn answers(port: u16) -> Result<(), String> {
    let answer = ask(port, "").await?;
    if answer.is_empty() || answer.starts_with(NO_PASSWORD) { Ok(()) } else { Err(answer) }
}

/// Waits until the reply of the server at `port` to `commands` contains all `texts`.
pub(super) async fn until(port: u16, commands: &str, texts: &[&str]) {
    crate::eventually(Duration::from_secs(60), commands, async || {
        let answer = ask(port, commands).await?;
        if texts.iter().all(|text| answer.contains(text)) { Ok(()) } else { Err(answer) }
    })
    .await;
}
