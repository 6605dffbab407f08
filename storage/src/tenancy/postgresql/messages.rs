//! Heads of PostgreSQL's messages: a letter, and a length that counts itself.

use crate::tenancy::sql::metered::Heads;

/// Bytes of a head.
const HEAD: usize = 5;

/// Where a stream of messages is.
#[derive(Debug, Default)]
pub struct Announced {
    head: [u8; HEAD],
    /// How much of the head is there.
    have: usize,
    /// Bytes of the message that are still to come.
    rest: usize,
}

impl Heads for Announced {
    fn announced(&mut self, mut piece: &[u8]) -> usize {
        let mut longest = 0;
        while !piece.is_empty() {
            if self.rest > 0 {
                let passed = self.rest.min(piece.len());
                self.rest -= passed;
                piece = &piece[passed..];
                continue;
            }
            self.head[self.have] = piece[0];
            self.have += 1;
            piece = &piece[1..];
            if self.have == HEAD {
                let [_, length @ ..] = self.head;
                let length = u32::from_be_bytes(length) as usize;
                self.rest = length.saturating_sub(HEAD - 1);
                self.have = 0;
                longest = longest.max(length);
            }
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes come, what is announced is seen before it is passed on.
    #[test]
    fn heads_are_found_in_any_pieces() {
        let mut stream = Vec::new();
        for length in [4_u32, 9, 4, 300, 70_000, 4] {
            stream.push(b'D');
            stream.extend(length.to_be_bytes());
            stream.extend(vec![0xff; length as usize - 4]);
        }
        stream.extend([b'E', 0x40, 0, 0, 0]);
        for piece in [1, 2, 3, 5, 7, 4096, stream.len()] {
            let mut heads = Announced::default();
            let mut announced: Vec<usize> = stream
                .chunks(piece)
                .map(|piece| heads.announced(piece))
                .collect();
            assert_eq!(announced.pop(), Some(1 << 30), "{piece}");
            let most = announced.into_iter().max().unwrap_or(70_000);
            assert_eq!(most, 70_000, "{piece}");
        }
    }
}
