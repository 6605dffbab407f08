//! Times and durations.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::value::{Unusable, Val, overload};
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
            let time = Timestamp::from_second(*seconds);
            return Some(time.map(Val::Time).map_err(|_| range()));
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
            return Some(time.checked_add(*more).map(Val::Time).map_err(|_| range()));
        }
        ("_-_", [Val::Time(time), Val::Duration(less)]) => {
            return Some(time.checked_sub(*less).map(Val::Time).map_err(|_| range()));
        }
        ("_-_", [Val::Time(time), Val::Time(other)]) => {
            return Some(Ok(Val::Duration(time.duration_since(*other))));
        }
        ("_+_", [Val::Duration(one), Val::Duration(other)]) => {
            return Some(one.checked_add(*other).map(Val::Duration).ok_or_else(range));
        }
        ("_-_", [Val::Duration(one), Val::Duration(other)]) => {
            return Some(one.checked_sub(*other).map(Val::Duration).ok_or_else(range));
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
                "getMilliseconds" => milliseconds % 1_000,
                _ => return None,
            })))
        }
        [Val::Time(time)] => part(name, *time, TimeZone::UTC),
        [Val::Time(time), Val::Text(zone)] => {
            if !name.starts_with("get") {
                return None;
            }
            let utc = matches!(&**zone, "UTC" | "Z" | "");
            let zone = match utc {
                true => TimeZone::UTC,
                false => match TimeZone::get(zone) {
                    Ok(zone) => zone,
                    Err(_) => return Some(error(format!("unknown time zone {}", &**zone))),
                },
            };
            part(name, *time, zone)
        }
        _ => None,
    }
}

fn part<'a>(name: &str, time: Timestamp, zone: TimeZone) -> Option<Evaluated<'a>> {
    let time = time.to_zoned(zone);
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

fn range() -> Unusable {
    Unusable::Error("range error converting time or duration".to_owned())
}
