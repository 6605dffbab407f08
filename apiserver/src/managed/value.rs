//! Values as field ownership looks at them: ordered, compared and written.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Number, Value};

/// A total order: numbers by their value, then texts, booleans, lists, maps, null.
pub fn compare(left: &Value, right: &Value) -> Ordering {
    use Value::{Array, Bool, Number, Object, String};
    match (left, right) {
        (Number(a), Number(b)) => numbers(a, b),
        (String(a), String(b)) => a.cmp(b),
        (Bool(a), Bool(b)) => a.cmp(b),
        (Array(a), Array(b)) => {
            let parts = a.iter().zip(b).map(|(a, b)| compare(a, b));
            first_difference(parts).then(a.len().cmp(&b.len()))
        }
        (Object(a), Object(b)) => {
            let parts = a
                .iter()
                .zip(b)
                .map(|((k, v), (l, w))| k.cmp(l).then_with(|| compare(v, w)));
            first_difference(parts).then(a.len().cmp(&b.len()))
        }
        _ => rank(left).cmp(&rank(right)),
    }
}

fn first_difference(mut parts: impl Iterator<Item = Ordering>) -> Ordering {
    parts.find(|part| part.is_ne()).unwrap_or(Ordering::Equal)
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

/// Exactly: an order by rounded values is none among whole numbers that round to the same.
/// What is no `i64` counts as floating point, as Kubernetes reads it.
fn numbers(left: &Number, right: &Number) -> Ordering {
    let float = |number: &Number| number.as_f64().unwrap_or_default();
    match (left.as_i64(), right.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(a), None) => whole_and_float(a, float(right)),
        (None, Some(b)) => whole_and_float(b, float(left)).reverse(),
        // JSON has no NaN.
        (None, None) => {
            let order = float(left).partial_cmp(&float(right));
            order.unwrap_or(Ordering::Equal)
        }
    }
}

fn whole_and_float(whole: i64, float: f64) -> Ordering {
    /// The first that is no `i64`.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if float >= END {
        return Ordering::Less;
    }
    if float < -END {
        return Ordering::Greater;
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "it is whole and between the bounds of the type"
    )]
    let below = float.trunc() as i64;
    let rest = 0.0_f64.partial_cmp(&float.fract());
    whole.cmp(&below).then(rest.unwrap_or(Ordering::Equal))
}

/// Whether two values are the same; 1 and 1.0 are.
pub fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|((k, v), (l, w))| k == l && equal(v, w))
        }
        _ => compare(left, right).is_eq(),
    }
}

/// The JSON form that stands in the keys of FieldsV1: as Go writes it, for the keys of
/// different servers must be the same.
pub fn write_json(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_text(out, text),
        Value::Array(list) => {
            out.push('[');
            for (position, value) in list.iter().enumerate() {
                separate(out, position);
                write_json(out, value);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (position, (key, value)) in map.iter().enumerate() {
                separate(out, position);
                write_text(out, key);
                out.push(':');
                write_json(out, value);
            }
            out.push('}');
        }
    }
}

/// A comma, but before the first.
pub fn separate(out: &mut String, position: usize) {
    if position > 0 {
        out.push(',');
    }
}

fn write_number(out: &mut String, number: &Number) {
    match number.as_i64() {
        Some(whole) => out.push_str(&whole.to_string()),
        None => out.push_str(&float(number.as_f64().unwrap_or_default(), 1e-6, 1e21)),
    }
}

/// A floating point number with the fewest digits; with an exponent outside of the bounds.
fn float(value: f64, from: f64, below: f64) -> String {
    let size = value.abs();
    if size == 0.0 || (from..below).contains(&size) {
        return format!("{value}");
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
        _ => text,
    }
}

/// A JSON string, with what HTML minds escaped.
pub fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

/// A value as paths in messages show it: `"text"`, `80`, `true`.
pub struct Shown<'a>(pub &'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => out.write_str("null"),
            Value::Bool(value) => write!(out, "{value}"),
            Value::Number(number) => out.write_str(&shown_number(number)),
            Value::String(text) => write!(out, "{}", Quoted(text)),
            Value::Array(list) => {
                out.write_str("[")?;
                for (position, value) in list.iter().enumerate() {
                    if position > 0 {
                        out.write_str(",")?;
                    }
                    write!(out, "{}", Shown(value))?;
                }
                out.write_str("]")
            }
            Value::Object(map) => {
                for (key, value) in map {
                    write!(out, "{key}={}", Shown(value))?;
                }
                Ok(())
            }
        }
    }
}

fn shown_number(number: &Number) -> String {
    match number.as_i64() {
        Some(whole) => whole.to_string(),
        None => go_float(number.as_f64().unwrap_or_default()),
    }
}

/// `%v` of a float64: an exponent has two digits at least.
fn go_float(value: f64) -> String {
    let text = float(value, 1e-4, 1e21);
    match text.split_once('e') {
        Some((digits, exponent)) if exponent.len() == 2 => {
            let (sign, digit) = exponent.split_at(1);
            format!("{digits}e{sign}0{digit}")
        }
        _ => text,
    }
}

/// A text in quotes as Go's `%q` shows it.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("\"")?;
        for character in self.0.chars() {
            match character {
                '"' => out.write_str("\\\"")?,
                '\\' => out.write_str("\\\\")?,
                '\u{7}' => out.write_str("\\a")?,
                '\u{8}' => out.write_str("\\b")?,
                '\u{c}' => out.write_str("\\f")?,
                '\n' => out.write_str("\\n")?,
                '\r' => out.write_str("\\r")?,
                '\t' => out.write_str("\\t")?,
                '\u{b}' => out.write_str("\\v")?,
                '\0'..='\u{1f}' | '\u{7f}' => write!(out, "\\x{:02x}", u32::from(character))?,
                '\u{80}'..='\u{a0}' | '\u{ad}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                    write!(out, "\\u{:04x}", u32::from(character))?;
                }
                _ => write!(out, "{character}")?,
            }
        }
        out.write_str("\"")
    }
}

/// How a message shows a value that has the wrong type: as Go prints it.
pub struct Printed<'a> {
    value: &'a Value,
    /// With types and quotes (`%#v`).
    typed: bool,
}

impl<'a> Printed<'a> {
    /// As `%v` does.
    pub fn plain(value: &'a Value) -> Self {
        Self {
            value,
            typed: false,
        }
    }

    /// As `%#v` does.
    pub fn typed(value: &'a Value) -> Self {
        Self { value, typed: true }
    }
}

impl fmt::Display for Printed<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = |value| Printed {
            value,
            typed: self.typed,
        };
        match (self.value, self.typed) {
            (Value::Null, false) => out.write_str("<nil>"),
            (Value::Null, true) => out.write_str("interface {}(nil)"),
            (Value::Bool(value), _) => write!(out, "{value}"),
            (Value::Number(number), _) => out.write_str(&shown_number(number)),
            (Value::String(text), false) => out.write_str(text),
            (Value::String(text), true) => write!(out, "{}", Quoted(text)),
            (Value::Array(list), typed) => {
                out.write_str(if typed { "[]interface {}{" } else { "[" })?;
                for (position, value) in list.iter().enumerate() {
                    if position > 0 {
                        out.write_str(if typed { ", " } else { " " })?;
                    }
                    write!(out, "{}", inner(value))?;
                }
                out.write_str(if typed { "}" } else { "]" })
            }
            (Value::Object(map), typed) => {
                out.write_str(if typed {
                    "map[string]interface {}{"
                } else {
                    "map["
                })?;
                for (position, (key, value)) in map.iter().enumerate() {
                    if position > 0 {
                        out.write_str(if typed { ", " } else { " " })?;
                    }
                    match typed {
                        true => write!(out, "{}:{}", Quoted(key), inner(value))?,
                        false => write!(out, "{key}:{}", inner(value))?,
                    }
                }
                out.write_str(if typed { "}" } else { "]" })
            }
        }
    }
}

/// Go's name for the type of a value that was read from JSON.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Numbers of all forms around the ends of what `f64` and `i64` hold exactly.
    fn number() -> impl Strategy<Value = Value> {
        let base = prop::sample::select(vec![0, 1 << 53, 1 << 62, 1 << 63, u64::MAX - 4]);
        (base, 0..5_u64, 0..4_u8).prop_map(|(base, more, form)| {
            let whole = base.saturating_add(more).saturating_sub(2);
            let negative = i64::try_from(whole).map_or(i64::MIN, |whole| -whole);
            #[allow(clippy::cast_precision_loss, reason = "rounded numbers are the case")]
            match form {
                0 => json!(whole),
                1 => json!(negative),
                2 => json!(whole as f64),
                _ => json!(negative as f64 + 0.5),
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// A sort by an order that is none may panic.
        #[test]
        fn the_order_is_total(mut numbers in prop::collection::vec(number(), 32..64)) {
            for a in &numbers {
                for b in &numbers {
                    prop_assert_eq!(compare(a, b), compare(b, a).reverse(), "{} {}", a, b);
                }
            }
            numbers.sort_by(compare);
            for (at, a) in numbers.iter().enumerate() {
                for b in &numbers[at..] {
                    prop_assert!(compare(a, b).is_le(), "{} {}", a, b);
                }
            }
        }
    }

    #[test]
    fn values_have_one_order() {
        let sorted = [
            json!(-1),
            json!(0.5),
            json!(9),
            json!(10),
            json!("10"),
            json!("9"),
            json!(false),
            json!(true),
            json!([1]),
            json!([1, 2]),
            json!({"a": 1}),
            json!(null),
        ];
        for pair in sorted.windows(2) {
            assert!(compare(&pair[0], &pair[1]).is_lt(), "{pair:?}");
            assert!(!equal(&pair[0], &pair[1]));
        }
        assert!(equal(&json!({"a": [1]}), &json!({"a": [1.0]})));
    }

    #[test]
    fn numbers_and_texts_are_written_as_by_go() {
        let written = |value: Value| {
            let mut out = String::new();
            write_json(&mut out, &value);
            out
        };
        for (value, expected) in [
            (json!(3.0), "3"),
            (json!(1e20), "100000000000000000000"),
            (json!(1e21), "1e+21"),
            (json!(1.5e-7), "1.5e-7"),
            (
                json!("a<b>&\u{8}\u{2028}\"é"),
                r#""a\u003cb\u003e\u0026\u0008\u2028\"é""#,
            ),
            (json!({"a": [null, true]}), r#"{"a":[null,true]}"#),
        ] {
            assert_eq!(written(value), expected);
        }
        assert_eq!(Shown(&json!(1.5e-7)).to_string(), "1.5e-07");
        assert_eq!(Shown(&json!("a\n\u{1}")).to_string(), r#""a\n\x01""#);
        assert_eq!(
            Printed::plain(&json!({"a": [1, "b"]})).to_string(),
            "map[a:[1 b]]"
        );
        assert_eq!(
            Printed::typed(&json!({"a": [null, "b"]})).to_string(),
            r#"map[string]interface {}{"a":[]interface {}{interface {}(nil), "b"}}"#
        );
    }
}
