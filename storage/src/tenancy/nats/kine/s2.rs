//! Reads an S2 stream, with which kine compresses values: Snappy's frames, with blocks of up to
//! 4 MiB and copies that repeat the offset of the one before. Crates that read it take as much
//! memory as a block says that it needs; here whoever reads says how much there may be.
//!
//! The checksums of blocks are not looked at: NATS has its own of each message.

/// What a stream begins with, as S2 and as Snappy: a chunk.
const MAGIC: [&[u8]; 2] = [b"\xff\x06\x00\x00S2sTwO", b"\xff\x06\x00\x00sNaPpY"];
/// Bytes of a checksum.
const CHECKSUM: usize = 4;

/// All of a stream, which has at most this many bytes.
///
/// # Errors
/// What is wrong with it.
pub fn read(stream: &[u8], most: usize) -> Result<Vec<u8>, String> {
    if !MAGIC.iter().any(|magic| stream.starts_with(magic)) {
        return Err("it is not compressed as kine does".to_owned());
    }
    let mut out = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let (&[kind, a, b, c], after) = rest.split_first_chunk().ok_or_else(cut)?;
        let length = u32::from_le_bytes([a, b, c, 0]);
        let length = usize::try_from(length).map_err(|_| cut())?;
        let (chunk, after) = after.split_at_checked(length).ok_or_else(cut)?;
        rest = after;
        match kind {
            0 => block(chunk.get(CHECKSUM..).ok_or_else(cut)?, &mut out, most)?,
            1 => literal(chunk.get(CHECKSUM..).ok_or_else(cut)?, &mut out, most)?,
            0x80..=0xff => {}
            _ => return Err(format!("it has a chunk of the kind {kind}")),
        }
    }
    Ok(out)
}

fn cut() -> String {
    "it ends too early".to_owned()
}

fn literal(bytes: &[u8], out: &mut Vec<u8>, most: usize) -> Result<(), String> {
    admit(out.len(), bytes.len(), most)?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn admit(there: usize, more: usize, most: usize) -> Result<(), String> {
    match more <= most.saturating_sub(there) {
        true => Ok(()),
        false => Err(format!("it has more than {most} bytes")),
    }
}

/// A compressed block: how many bytes it has, and then literals and copies.
fn block(mut rest: &[u8], out: &mut Vec<u8>, most: usize) -> Result<(), String> {
    let length = length(&mut rest)?;
    admit(out.len(), length, most)?;
    let begin = out.len();
    let end = begin + length;
    let mut offset = 0;
    while !rest.is_empty() {
        let tag = number(&mut rest, 1)?;
        let high = tag >> 2;
        let count = match tag & 3 {
            0 => {
                let count = 1 + match high {
                    0..60 => high,
                    _ => number(&mut rest, high - 59)?,
                };
                let (bytes, after) = rest.split_at_checked(count).ok_or_else(cut)?;
                rest = after;
                literal(bytes, out, end)?;
                continue;
            }
            1 => {
                let low = number(&mut rest, 1)?;
                let named = (tag >> 5) << 8 | low;
                if named == 0 {
                    repeated(high & 7, &mut rest)?
                } else {
                    offset = named;
                    4 + (high & 7)
                }
            }
            kind => {
                offset = number(&mut rest, if kind == 2 { 2 } else { 4 })?;
                1 + high
            }
        };
        admit(out.len(), count, end)?;
        copy(out, begin, offset, count)?;
    }
    match out.len() == end {
        true => Ok(()),
        false => Err("a block has not the length that it says".to_owned()),
    }
}

/// How much a copy repeats whose offset is the one before.
fn repeated(code: usize, rest: &mut &[u8]) -> Result<usize, String> {
    Ok(4 + match code {
        5 => number(rest, 1)? + 4,
        6 => number(rest, 2)? + (1 << 8),
        7 => number(rest, 3)? + (1 << 16),
        short => short,
    })
}

/// Copies what was written this far before, which may be what the copy itself writes.
fn copy(out: &mut Vec<u8>, begin: usize, offset: usize, count: usize) -> Result<(), String> {
    let from = out.len().checked_sub(offset);
    let Some(from) = from.filter(|from| offset > 0 && *from >= begin) else {
        return Err("a block copies what it has not".to_owned());
    };
    if offset >= count {
        out.extend_from_within(from..from + count);
        return Ok(());
    }
    for index in from..from + count {
        out.push(out[index]);
    }
    Ok(())
}

/// A number of so many bytes, the lowest first.
fn number(rest: &mut &[u8], bytes: usize) -> Result<usize, String> {
    let (found, after) = rest.split_at_checked(bytes).ok_or_else(cut)?;
    *rest = after;
    Ok(found
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

/// A number of which each byte has seven bits.
fn length(rest: &mut &[u8]) -> Result<usize, String> {
    let mut sum = 0;
    for shift in [0, 7, 14, 21, 28] {
        let byte = number(rest, 1)?;
        sum |= (byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(sum);
        }
    }
    Err("a block says no length".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::io::Write as _;

    use super::*;

    const MOST: usize = 1 << 20;

    fn framed(kind: u8, chunk: &[u8]) -> Vec<u8> {
        let mut all = MAGIC[0].to_vec();
        let length = u32::try_from(chunk.len() + CHECKSUM).unwrap().to_le_bytes();
        all.extend([kind, length[0], length[1], length[2], 0, 0, 0, 0]);
        all.extend(chunk);
        all
    }

    /// By hand: Snappy knows none of these.
    #[test]
    fn copies_that_repeat() {
        let of = |block: &[u8]| read(&framed(0, block), MOST);
        // "ab", then eight of the offset two, and then more of it, in all lengths.
        let mut block = vec![10, 1 << 2, b'a', b'b'];
        block.extend([(4 << 2) | 1, 2]);
        assert_eq!(of(&block).unwrap(), b"ababababab");
        for (code, bytes, count) in [
            (0_u8, &[][..], 4_usize),
            (4, &[], 8),
            (5, &[1], 9),
            (6, &[1, 2], 4 + 256 + 513),
            (7, &[1, 0, 1], 4 + 65536 + 65537),
        ] {
            let whole = 2 + 4 + count;
            let mut block = Vec::new();
            let mut left = whole;
            while left > 127 {
                block.push((left & 0x7f | 0x80) as u8);
                left >>= 7;
            }
            block.push(left as u8);
            block.extend([1 << 2, b'a', b'b', 1, 2, code << 2 | 1, 0]);
            block.extend(bytes);
            let read = of(&block).unwrap();
            assert_eq!(read.len(), whole);
            assert!(read.chunks(2).all(|two| two == &b"ab"[..two.len()]));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for block in [
            &[][..],
            &[5],
            // More than it says, and less.
            &[1, 1 << 2, b'a', b'b'],
            &[3, 1 << 2, b'a', b'b'],
            // A copy of what is not there, and of nothing.
            &[5, 0, b'a', 1, 9],
            &[5, 0, b'a', 1, 0],
            &[5, 0, b'a', 2, 0, 0],
            // Four gigabytes.
            &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, b'a'],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[9, 63 << 2, 1, 0],
        ] {
            assert!(read(&framed(0, block), MOST).is_err(), "{block:?}");
        }
        assert!(read(&framed(2, b"x"), MOST).is_err());
        assert!(read(b"sNaPpY", MOST).is_err());
        let good = framed(1, b"abc");
        assert_eq!(read(&good, 3).unwrap(), b"abc");
        assert!(read(&good, 2).is_err());
        for short in MAGIC[0].len() + 1..good.len() {
            assert!(read(&good[..short], MOST).is_err());
        }
        // A copy does not reach into the block before.
        let mut two = framed(1, b"abc");
        two.extend(&framed(0, &[5, 0, b'd', 1, 3])[MAGIC[0].len()..]);
        assert!(read(&two, MOST).is_err());
    }

    proptest! {
        #[test]
        fn what_snappy_wrote_is_read(text in "(ab|c|.){0,400}", times in 1_usize..60) {
            let text = text.repeat(times);
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            encoder.write_all(text.as_bytes()).unwrap();
            let written = encoder.into_inner().unwrap();
            if text.is_empty() {
                // Nothing at all, not even how it begins.
                prop_assert!(read(&written, MOST).is_err());
            } else {
                prop_assert_eq!(read(&written, MOST).unwrap(), text.as_bytes());
                prop_assert!(read(&written, text.len() - 1).is_err());
            }
        }

        #[test]
        fn nothing_breaks_it(block in proptest::collection::vec(any::<u8>(), 0..200)) {
            let read = read(&framed(0, &block), 1000);
            prop_assert!(read.is_err() || read.unwrap().len() <= 1000);
        }
    }
}
