use super::*;

/// Taken by Go 1.26, and what it then writes in UTC: the table is of a program that asked it.
#[test]
fn what_go_takes_is_taken() {
    for (text, written) in [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05.6Z", "2026-01-02T03:04:05.6Z"),
        (
            "2026-01-02T03:04:05.123456789Z",
            "2026-01-02T03:04:05.123456789Z",
        ),
        (
            "2026-01-02T03:04:05.1234567891Z",
            "2026-01-02T03:04:05.123456789Z",
        ),
        ("2026-01-02T03:04:05,6Z", "2026-01-02T03:04:05.6Z"),
        ("2026-01-02T3:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05+01:00", "2026-01-02T02:04:05Z"),
        ("2026-01-02T03:04:05-01:30", "2026-01-02T04:34:05Z"),
        ("2026-01-02T03:04:05-00:00", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05+24:00", "2026-01-01T03:04:05Z"),
        ("2026-01-02T03:04:05+24:60", "2026-01-01T02:04:05Z"),
        ("2026-01-02T03:04:05+14:60", "2026-01-01T12:04:05Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
        ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-30T22:00:00Z", "9999-12-30T22:00:00Z"),
    ] {
        let read = read(text).map(|time| time.to_string());
        assert_eq!(read.as_deref(), Ok(written), "{text}");
    }
}

/// Refused by Go 1.26, in its words.
#[test]
fn what_go_refuses_is_refused_in_its_words() {
    for (text, rest, element) in [
        ("", "", "2006"),
        ("x", "x", "2006"),
        ("-000001-01-01T00:00:00Z", "-000001-01-01T00:00:00Z", "2006"),
        ("+002026-01-02T03:04:05Z", "+002026-01-02T03:04:05Z", "2006"),
        ("-0001-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "2006"),
        (" 2026-01-02T03:04:05Z", " 2026-01-02T03:04:05Z", "2006"),
        (
            "２026-01-02T03:04:05Z",
            r"\xef\xbc\x92026-01-02T03:04:05Z",
            "2006",
        ),
        ("10000-01-01T00:00:00Z", "0-01-01T00:00:00Z", "-"),
        ("20260102T030405Z", "0102T030405Z", "-"),
        ("2026-1-2T03:04:05Z", "1-2T03:04:05Z", "01"),
        ("2026-W01-5T03:04:05Z", "W01-5T03:04:05Z", "01"),
        ("2026-01-02", "", "T"),
        ("2026-01-02t03:04:05Z", "t03:04:05Z", "T"),
        ("2026-01-02 03:04:05Z", " 03:04:05Z", "T"),
        ("2026-01-02T030405Z", "0405Z", ":"),
        ("2026-01-02T03:04Z", "Z", ":"),
        ("2026-01-02T03:04:05", "", "Z07:00"),
        ("2026-01-02T03:04:05z", "z", "Z07:00"),
        ("2026-01-02T03:04:05.Z", ".Z", "Z07:00"),
        ("2026-01-02T03:04:05+01", "+01", "Z07:00"),
        ("2026-01-02T03:04:05+0100", "+0100", "Z07:00"),
        ("2026-01-02T03:04:05−01:00", r"\xe2\x88\x9201:00", "Z07:00"),
    ] {
        let shown = Quoted(text);
        assert_eq!(
            read(text).unwrap_err().to_string(),
            format!(
                r#"parsing time {shown} as "2006-01-02T15:04:05Z07:00": cannot parse "{rest}" as "{element}""#
            )
        );
    }
    for (text, why) in [
        ("2026-01-02T03:04:05Z ", r#"extra text: " ""#),
        ("2026-01-02T03:04:05Z[UTC]", r#"extra text: "[UTC]""#),
        (
            "2026-01-02T03:04:05+01:00[Europe/Berlin]",
            r#"extra text: "[Europe/Berlin]""#,
        ),
        ("2026-01-02T03:04:05+01:00:00", r#"extra text: ":00""#),
        ("2026-13-01T00:00:00Z", "month out of range"),
        ("2026-00-01T00:00:00Z", "month out of range"),
        ("2026-002T03:04:05Z", "month out of range"),
        ("2026-02-29T00:00:00Z", "day out of range"),
        ("2026-01-02T24:00:00Z", "hour out of range"),
        ("2026-01-02T03:04:60Z", "second out of range"),
        ("2026-01-02T23:59:60Z", "second out of range"),
        (
            "2026-01-02T03:04:05+25:00",
            "time zone offset hour out of range",
        ),
    ] {
        let expected = format!("parsing time \"{text}\": {why}");
        assert_eq!(read(text).unwrap_err().to_string(), expected);
    }
}

/// Taken by Go, which writes the first two as years that it does not take any more; the last
/// is none that Rust's types have.
#[test]
fn what_could_not_be_read_again_is_refused() {
    for text in [
        "0000-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "9999-12-31T23:59:59Z",
    ] {
        let expected = format!("parsing time \"{text}\": year out of range");
        assert_eq!(read(text).unwrap_err().to_string(), expected);
    }
}

/// Of a megabyte little is told.
#[test]
fn what_is_told_is_short() {
    for text in ["x".repeat(1 << 20), format!("2026-{}", "é".repeat(1 << 19))] {
        assert!(read(&text).unwrap_err().to_string().len() < 4 * 1024);
    }
    let digits = format!("2026-01-02T03:04:05.{}Z", "1".repeat(1 << 20));
    assert!(read(&digits).is_ok());
}
