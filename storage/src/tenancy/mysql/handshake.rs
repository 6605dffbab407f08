//! What comes before TLS.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The server can speak TLS, and we shall.
const TLS: u16 = 0x0800;
/// What the protocol since MySQL 4.1 needs.
const PROTOCOL: u16 = 0x0200 | 0x8000;
/// A greeting is a hundred bytes.
const LARGEST: usize = 4096;

pub async fn ask_for_tls(mut tcp: TcpStream) -> io::Result<TcpStream> {
    let mut head = [0; 4];
    tcp.read_exact(&mut head).await?;
    let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
    if length > LARGEST {
        return Err(io::Error::other("this is no greeting of MySQL"));
    }
    let mut greeting = vec![0; length];
    tcp.read_exact(&mut greeting).await?;
    if capabilities(&greeting).is_none_or(|capabilities| capabilities & TLS == 0) {
        return Err(io::Error::other("the server does not offer TLS"));
    }
    tcp.write_all(&request()).await?;
    Ok(tcp)
}

/// The lower half of what the server says that it can do: behind its version, the number of
/// the connection and eight bytes of salt.
fn capabilities(greeting: &[u8]) -> Option<u16> {
    let (10, rest) = greeting.split_first()? else {
        return None;
    };
    let end = rest.iter().position(|byte| *byte == 0)?;
    let at = end + 1 + 4 + 8 + 1;
    let bytes = rest.get(at..at + 2)?;
    Some(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// The packet that asks for TLS: what we can do, the largest packet, a character set.
fn request() -> [u8; 36] {
    let mut packet = [0; 36];
    packet[0] = 32;
    packet[3] = 1;
    packet[4..6].copy_from_slice(&(TLS | PROTOCOL).to_le_bytes());
    packet[11] = 1;
    packet[12] = 45;
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings() {
        let mut greeting = vec![10];
        greeting.extend(b"10.11\0");
        greeting.extend([0; 13]);
        greeting.extend([0x00, 0x08]);
        assert_eq!(capabilities(&greeting), Some(TLS));
        assert_eq!(capabilities(&greeting[..20]), None);
        assert_eq!(capabilities(&[0xff, 1, 2]), None);
        assert_eq!(capabilities(&[]), None);
    }
}
