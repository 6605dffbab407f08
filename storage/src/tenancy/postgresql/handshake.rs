//! What comes before TLS.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Length and code of PostgreSQL's SSLRequest.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

pub async fn ask_for_tls(mut tcp: TcpStream) -> io::Result<TcpStream> {
    tcp.write_all(&REQUEST).await?;
    let mut answer = [0];
    tcp.read_exact(&mut answer).await?;
    match answer == *b"S" {
        true => Ok(tcp),
        false => Err(io::Error::other("the server does not offer TLS")),
    }
}
