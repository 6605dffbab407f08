//! What comes before TLS.

use std::io;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

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

/// A connection over TLS.
pub async fn begin(
    tls: &TlsConnector,
    host: &str,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, sqlx::Error> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let tcp = ask_for_tls(tcp).await.map_err(|error| match error.kind() {
        io::ErrorKind::Other => sqlx::Error::Tls(error.into()),
        _ => error.into(),
    })?;
    Ok(tls.connect(name, tcp).await?)
}
