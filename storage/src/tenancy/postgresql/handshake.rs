//! A handshake that ends before anybody says who he is.

use std::io;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tenancy::sql::endpoint::Endpoint;

/// Length and code of PostgreSQL's SSLRequest.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

pub async fn shake_hands(endpoint: &Endpoint, tls: &TlsConnector) -> io::Result<()> {
    let name = ServerName::try_from(endpoint.host.clone()).map_err(io::Error::other)?;
    let mut tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    tcp.write_all(&REQUEST).await?;
    let mut answer = [0];
    tcp.read_exact(&mut answer).await?;
    if answer != *b"S" {
        return Err(io::Error::other("the server does not offer TLS"));
    }
    tls.connect(name, tcp).await.map(drop)
}
