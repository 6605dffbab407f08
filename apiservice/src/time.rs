//! Times as Go reads them. Clients decode the metadata of every object with
//! `time.Parse(time.RFC3339, ...)`, and one time that this does not take breaks the whole
//! list, so that what is kept must pass here. Pure.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::told;

/// What Go calls the form.
const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
/// Bytes of a text that are shown again.
const SHOWN: usize = told::MAX_TEXT / 4;
/// Digits of a fraction of a second that count; Go overlooks further ones.
const NANOSECONDS: usize = 9;

/// Why a text is no time, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    text: String,
    why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// The rest does not begin with this element of the form.
    Element(String, &'static str),
    /// This part of it is beyond what it may be.
    Range(&'static str),
    /// There is more after it.
    Extra(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Quoted(&self.text);
        match &self.why {
            Why::Element(rest, element) => write!(
                out,
                "parsing time {text} as \"{LAYOUT}\": cannot parse {} as \"{element}\"",
                Quoted(rest)
            ),
            Why::Range(part) => write!(out, "parsing time {text}: {part} out of range"),
            Why::Extra(rest) => write!(out, "parsing time {text}: extra text: {}", Quoted(rest)),
        }
    }
}

/// As Go's package of times quotes: bytes that are not of ASCII as numbers.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("\"")?;
        for byte in told::short(self.0, SHOWN).bytes() {
            match byte {
                b'"' | b'\\' => write!(out, "\\{}", char::from(byte))?,
                b' '..=b'~' => write!(out, "{}", char::from(byte))?,
                _ => write!(out, "\\x{byte:02x}")?,
            }
        }
        out.write_str("\"")
    }
}

/// Reads `2026-01-02T03:04:05Z`, also with a fraction or an offset.
///
/// Takes what Go takes, but for what Go itself cannot read again once it has written it in
/// UTC (years that are not 0 to 9999), and the last two days of 9999, which `jiff` has not.
///
/// # Errors
/// What Go says.
pub fn read(text: &str) -> Result<Timestamp, Wrong> {
    let wrong = |why| Wrong {
        text: told::short(text, SHOWN),
        why,
    };
    let mut rest = Rest(text);
    let time = rest.time().map_err(wrong)?;
    match rest.0 {
        "" => {}
        more => return Err(wrong(Why::Extra(told::short(more, SHOWN)))),
    }
    time.timestamp().map_err(wrong)
}

/// What is read of a text so far; the parts are in their ranges, but for the day.
struct Parts {
    year: i16,
    month: i8,
    day: i8,
    hour: i8,
    minute: i8,
    second: i8,
    nanosecond: i32,
    /// Seconds east of UTC.
    offset: i32,
}

impl Parts {
    fn timestamp(&self) -> Result<Timestamp, Why> {
        let local = DateTime::new(
            self.year,
            self.month,
            self.day,
            self.hour,
            self.minute,
            self.second,
            self.nanosecond,
        );
        // All other parts have been judged.
        let local = local.map_err(|_| Why::Range("day"))?;
        let offset = SignedDuration::from_secs(self.offset.into());
        let utc = local.to_zoned(TimeZone::UTC);
        let utc = utc.and_then(|zoned| zoned.timestamp().checked_sub(offset));
        let utc = utc.map_err(|_| Why::Range("year"))?;
        // What Go would write with a sign, and then not read.
        match Offset::UTC.to_datetime(utc).year() {
            0.. => Ok(utc),
            _ => Err(Why::Range("year")),
        }
    }
}

/// What is left to read.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    fn time(&mut self) -> Result<Parts, Why> {
        let year = self.digits(4, 4, "2006")?;
        self.skip("-")?;
        let month = self.part("01", 1..13, "month")?;
        self.skip("-")?;
        let day = self.digits(2, 2, "02")?;
        self.skip("T")?;
        // As Go does, which takes hours of one digit.
        let hour = self.digits(1, 2, "15")?;
        within(hour, 0..24, "hour")?;
        self.skip(":")?;
        let minute = self.part("04", 0..60, "minute")?;
        self.skip(":")?;
        let second = self.part("05", 0..60, "second")?;
        let nanosecond = self.fraction();
        let offset = self.offset()?;
        let small = |part: i32| i8::try_from(part).map_err(|_| Why::Range("day"));
        Ok(Parts {
            year: i16::try_from(year).map_err(|_| Why::Range("year"))?,
            month: small(month)?,
            day: small(day)?,
            hour: small(hour)?,
            minute: small(minute)?,
            second: small(second)?,
            nanosecond,
            offset,
        })
    }

    fn cannot(&self, element: &'static str) -> Why {
        Why::Element(told::short(self.0, SHOWN), element)
    }

    fn skip(&mut self, separator: &'static str) -> Result<(), Why> {
        let rest = self.0.strip_prefix(separator);
        self.0 = rest.ok_or_else(|| self.cannot(separator))?;
        Ok(())
    }

    /// A number of so many digits; no more of them are looked at.
    fn digits(&mut self, least: usize, most: usize, element: &'static str) -> Result<i32, Why> {
        let digits = self.0.bytes().take(most);
        let count = digits.take_while(u8::is_ascii_digit).count();
        if count < least {
            return Err(self.cannot(element));
        }
        let (number, rest) = self.0.split_at(count);
        self.0 = rest;
        // Four digits at most.
        Ok(number.parse().unwrap_or_default())
    }

    fn part(
        &mut self,
        element: &'static str,
        range: std::ops::Range<i32>,
        name: &'static str,
    ) -> Result<i32, Why> {
        let part = self.digits(2, 2, element)?;
        within(part, range, name)
    }

    /// Nanoseconds, if there is a fraction. Go takes a comma as well.
    fn fraction(&mut self) -> i32 {
        let Some(fraction) = self.0.strip_prefix(['.', ',']) else {
            return 0;
        };
        let count = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 {
            return 0;
        }
        let (digits, rest) = fraction.split_at(count);
        self.0 = rest;
        let digits = &digits[..count.min(NANOSECONDS)];
        // Nine digits at most.
        format!("{digits:0<NANOSECONDS$}")
            .parse()
            .unwrap_or_default()
    }

    /// Seconds east of UTC. Offsets of 24 hours and of 60 minutes are taken, as by Go.
    fn offset(&mut self) -> Result<i32, Why> {
        const ELEMENT: &str = "Z07:00";
        if let Some(rest) = self.0.strip_prefix('Z') {
            self.0 = rest;
            return Ok(0);
        }
        let bytes = self.0.as_bytes();
        let sign = match bytes {
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2, ..]
                if [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit()) =>
            {
                *sign
            }
            _ => return Err(self.cannot(ELEMENT)),
        };
        self.0 = &self.0[1..];
        let hours = self.digits(2, 2, ELEMENT)?;
        within(hours, 0..25, "time zone offset hour")?;
        self.skip(":")?;
        let minutes = self.digits(2, 2, ELEMENT)?;
        within(minutes, 0..61, "time zone offset minute")?;
        let seconds = 60 * (60 * hours + minutes);
        Ok(if sign == b'-' { -seconds } else { seconds })
    }
}

fn within(part: i32, range: std::ops::Range<i32>, name: &'static str) -> Result<i32, Why> {
    match range.contains(&part) {
        true => Ok(part),
        false => Err(Why::Range(name)),
    }
}

#[cfg(test)]
mod tests;
