//! Quantities, as Kubernetes writes them: `100m`, `1.5Gi`. They are counted in units of
//! 1e-9, of which those that Kubernetes knows fit.

use super::value::{Unusable, Val, overload};
use super::{Evaluated, error};

const SCALE: i128 = 1_000_000_000;

/// A quantity, in units of 1e-9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

impl Quantity {
    /// As a whole number, rounded up.
    pub fn rounded(self) -> Option<i64> {
        let up = i128::from(self.0 % SCALE > 0);
        i64::try_from(self.0 / SCALE + up).ok()
    }

    /// Reads one; what is finer than 1e-9 is rounded up.
    pub fn parse(text: &str) -> Option<Self> {
        let digits_end = text
            .char_indices()
            .find(|(at, c)| {
                !(c.is_ascii_digit() || *c == '.' || (*at == 0 && matches!(c, '+' | '-')))
            })
            .map_or(text.len(), |(at, _)| at);
        let (number, suffix) = text.split_at(digits_end);
        let negative = number.starts_with('-');
        let number = number.trim_start_matches(['+', '-']);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() || part.contains('.') || number.len() > 40 {
            return None;
        }
        let digits: i128 = format!("{whole}{part}").parse().ok()?;
        let decimals = part.len() as i32;
        let (two, ten) = factor(suffix)?;
        let mut value = digits.checked_mul(two)?;
        let exponent = ten.checked_add(9)?.checked_sub(decimals)?;
        if exponent >= 0 {
            value = value.checked_mul(10_i128.checked_pow(exponent as u32)?)?;
        } else {
            let by = 10_i128.checked_pow(exponent.unsigned_abs())?;
            value = value / by + i128::from(value % by != 0);
        }
        Some(Self(if negative { -value } else { value }))
    }
}

/// What a suffix multiplies by, and the power of ten.
fn factor(suffix: &str) -> Option<(i128, i32)> {
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(at) = binary.iter().position(|known| *known == suffix) {
        return Some((1 << (10 * (at + 1)), 0));
    }
    let decimal = [
        ("", 0),
        ("n", -9),
        ("u", -6),
        ("m", -3),
        ("k", 3),
        ("M", 6),
        ("G", 9),
        ("T", 12),
        ("P", 15),
        ("E", 18),
    ];
    if let Some((_, power)) = decimal.iter().find(|(known, _)| *known == suffix) {
        return Some((1, *power));
    }
    let power = suffix.strip_prefix(['e', 'E'])?;
    let power: i32 = power.parse().ok()?;
    (-30..=30).contains(&power).then_some((1, power))
}

/// The functions of this library; nothing for others.
pub fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Evaluated<'a>> {
    if let ("quantity", [Val::Text(text)]) = (name, args) {
        return Some(match Quantity::parse(text) {
            Some(quantity) => Ok(Val::Quantity(quantity)),
            None => error(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
        });
    }
    if let ("isQuantity", [Val::Text(text)]) = (name, args) {
        return Some(Ok(Val::Bool(Quantity::parse(text).is_some())));
    }
    let Some(Val::Quantity(own)) = args.first() else {
        return None;
    };
    let other = match args.get(1) {
        None => None,
        Some(Val::Quantity(other)) => Some(*other),
        Some(Val::Int(other)) => i128::from(*other).checked_mul(SCALE).map(Quantity),
        Some(_) => return Some(Err(overload())),
    };
    let sum = |sum: Option<i128>| {
        let sum = sum.ok_or_else(|| Unusable::Error("quantity overflow".to_owned()))?;
        Ok(Val::Quantity(Quantity(sum)))
    };
    let whole = (own.0 % SCALE == 0)
        .then(|| i64::try_from(own.0 / SCALE).ok())
        .flatten();
    Some(match (name, other) {
        ("sign", None) => Ok(Val::Int(own.0.signum() as i64)),
        ("isInteger", None) => Ok(Val::Bool(whole.is_some())),
        ("asInteger", None) => match whole {
            Some(whole) => Ok(Val::Int(whole)),
            None => error("cannot convert value to integer"),
        },
        ("asApproximateFloat", None) => Ok(Val::Double(own.0 as f64 / SCALE as f64)),
        ("add", Some(other)) => sum(own.0.checked_add(other.0)),
        ("sub", Some(other)) => sum(own.0.checked_sub(other.0)),
        ("isLessThan", Some(other)) => Ok(Val::Bool(*own < other)),
        ("isGreaterThan", Some(other)) => Ok(Val::Bool(*own > other)),
        ("compareTo", Some(other)) => Ok(Val::Int(own.cmp(&other) as i64)),
        _ => return None,
    })
}
