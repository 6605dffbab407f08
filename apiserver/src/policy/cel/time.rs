//! Times and durations.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use super::value::{Val, overload};
use super::{Evaluated, error};

/// A duration as CEL writes it.
pub fn shown(duration: SignedDuration) -> String {
    let seconds = duration.as_secs_f64();
    format!("{seconds}s")
}

/// The functions of this library; nothing for others.
pub fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Evaluated<'a>> {
    match (name, args) {
        ("timestamp", [Val::Text(text)]) => {
            return Some(match apiservice::time::read(text) {
                Ok(time) => Ok(Val::Time(time)),
                Err(wrong) => error(wrong.to_string()),
            });
        }
        ("timestamp", [time @ Val::Time(_)]) => return Some(Ok(time.clone())),
        ("timestamp", [Val::Int(seconds)]) => {
            return Some(timed(Timestamp::from_second(*seconds).ok()));
        }
        ("duration", [Val::Text(text)]) => {
            return Some(match apiservice::duration::parse(text) {
                Some(duration) => Ok(Val::Duration(duration)),
                None => error(format!("time: invalid duration {:?}", &**text)),
            });
        }
        ("duration", [of @ Val::Duration(_)]) => return Some(Ok(of.clone())),
        ("_+_", [Val::Time(time), Val::Duration(more)])
        | ("_+_", [Val::Duration(more), Val::Time(time)]) => {
            return Some(timed(time.checked_add(*more).ok()));
        }
        ("_-_", [Val::Time(time), Val::Duration(less)]) => {
            return Some(timed(time.checked_sub(*less).ok()));
        }
        ("_-_", [Val::Time(time), Val::Time(other)]) => {
            return Some(lasting(Some(time.duration_since(*other))));
        }
        ("_+_", [Val::Duration(one), Val::Duration(other)]) => {
            return Some(lasting(one.checked_add(*other)));
        }
        ("_-_", [Val::Duration(one), Val::Duration(other)]) => {
            return Some(lasting(one.checked_sub(*other)));
        }
        _ => {}
    }
    match args {
        [Val::Duration(of)] => {
            let milliseconds = of.as_millis() as i64;
            Some(Ok(Val::Int(match name {
                "getHours" => milliseconds / 3_600_000,
                "getMinutes" => milliseconds / 60_000,
                "getSeconds" => milliseconds / 1_000,
                // All of them, unlike those of a time.
                "getMilliseconds" => milliseconds,
                _ => return None,
            })))
        }
        [Val::Time(time)] => part(name, &time.to_zoned(TimeZone::UTC)),
        [Val::Time(time), Val::Text(zone)] if name.starts_with("get") => match clock(*time, zone) {
            Ok(time) => part(name, &time),
            Err(why) => Some(error(why)),
        },
        _ => None,
    }
}

/// What clocks show in a zone: one with a name, or so many hours and minutes from UTC.
fn clock(time: Timestamp, zone: &str) -> Result<Zoned, String> {
    let Some((hours, minutes)) = zone.split_once(':') else {
        let found = match zone {
            "" | "UTC" => Some(TimeZone::UTC),
            "Local" => Some(TimeZone::try_system().unwrap_or(TimeZone::UTC)),
            // Names are files to Go, and are spelled in one way.
            zone => TimeZone::get(zone)
                .ok()
                .filter(|found| found.iana_name() == Some(zone)),
        };
        let found = found.ok_or_else(|| format!("unknown time zone {zone}"));
        return found.map(|zone| time.to_zoned(zone));
    };
    let number = |text: &str| {
        let number = text.parse::<i64>();
        number.map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minutes = match zone.starts_with('-') {
        true => minutes.saturating_neg(),
        false => minutes,
    };
    let hours = hours.checked_mul(3600);
    let minutes = minutes.checked_mul(60);
    let offset = hours.and_then(|hours| hours.checked_add(minutes?));
    let there = offset.and_then(|offset| time.checked_add(SignedDuration::from_secs(offset)).ok());
    let there = there.ok_or_else(|| TIME.to_owned())?;
    Ok(there.to_zoned(TimeZone::UTC))
}

fn part<'a>(name: &str, time: &Zoned) -> Option<Evaluated<'a>> {
    let number = match name {
        "getFullYear" => i64::from(time.year()),
        "getMonth" => i64::from(time.month()) - 1,
        "getDate" => i64::from(time.day()),
        "getDayOfMonth" => i64::from(time.day()) - 1,
        "getDayOfWeek" => i64::from(time.weekday().to_sunday_zero_offset()),
        "getDayOfYear" => i64::from(time.day_of_year()) - 1,
        "getHours" => i64::from(time.hour()),
        "getMinutes" => i64::from(time.minute()),
        "getSeconds" => i64::from(time.second()),
        "getMilliseconds" => i64::from(time.millisecond()),
        name if name.starts_with("get") => return Some(Err(overload())),
        _ => return None,
    };
    Some(Ok(Val::Int(number)))
}

/// What is said of a time before the year 1, or after 9999.
const TIME: &str = "timestamp overflow";
/// The first second of the year 1.
const FIRST: i64 = -62_135_596_800;

/// Whether it is the first moment that there is, which is Go's zero of a time.
pub fn is_first(time: Timestamp) -> bool {
    Timestamp::from_second(FIRST).is_ok_and(|first| time == first)
}

/// A time, if it is one of the years that there are.
pub fn timed<'a>(time: Option<Timestamp>) -> Evaluated<'a> {
    let time = time.filter(|time| time.as_second() >= FIRST);
    time.map_or_else(|| error(TIME), |time| Ok(Val::Time(time)))
}

/// A duration has as many nanoseconds as an integer holds.
fn lasting<'a>(duration: Option<SignedDuration>) -> Evaluated<'a> {
    let duration = duration.filter(|duration| i64::try_from(duration.as_nanos()).is_ok());
    duration.map_or_else(
        || error("integer overflow"),
        |duration| Ok(Val::Duration(duration)),
    )
}
