//! Whole numbers as Kubernetes keeps them. It reads a number of JSON as an `int64` if it is
//! written as one, and else as a `float64`, which it writes without fraction and exponent:
//! who puts `2.0` or `1e3` gets `2` and `1000` back, and what has an integer's schema takes
//! them as long as they are exact. Pure.

use serde_json::{Number, Value};

/// Up to here, 2^52, a float that is one off is no whole number. Kubernetes goes to
/// 2^53 - 1; but our parser of JSON makes some numbers of 17 digits the float beside theirs,
/// and none may become another integer than the one that was written.
const EXACT: f64 = 4_503_599_627_370_496.0;

/// The integer that a number is, also when it is written with a fraction or an exponent.
/// Nothing for one that is no `int64`, or no longer exact.
pub fn integer(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let float = number.as_f64().filter(|_| number.is_f64())?;
        // Within these bounds nothing is cut off.
        (float.fract() == 0.0 && float.abs() <= EXACT).then_some(float as i64)
    })
}

/// Rewrites the numbers of a document that are integers as such. What uses the stack is as
/// deep as the document.
pub fn settle(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(integer) = integer(number) {
                *value = Value::from(integer);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(settle),
        Value::Object(fields) => fields.values_mut().for_each(settle),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(text: &str) -> String {
        let mut value: Value = serde_json::from_str(text).unwrap();
        settle(&mut value);
        value.to_string()
    }

    /// What a CustomResourceDefinition of Kubernetes 1.36 takes at an integer, and as what
    /// it gives it back, but for what is beyond [`EXACT`]: the table is of a program that
    /// asked its validator.
    #[test]
    fn whole_numbers_are_those_that_kubernetes_takes() {
        for (text, integer) in [
            ("2", Some("2")),
            ("2.0", Some("2")),
            ("1e3", Some("1000")),
            ("1E3", Some("1000")),
            ("0.0", Some("0")),
            ("-0.0", Some("0")),
            ("1e12", Some("1000000000000")),
            ("-2147483649.0", Some("-2147483649")),
            ("4503599627370495.0", Some("4503599627370495")),
            ("-4503599627370496.0", Some("-4503599627370496")),
            ("9007199254740993", Some("9007199254740993")),
            ("9223372036854775807", Some("9223372036854775807")),
            ("-9223372036854775808", Some("-9223372036854775808")),
            ("2.5", None),
            ("9007199254740991.0", None),
            ("9007199254740992.0", None),
            ("9.223372036854775807e18", None),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("18446744073709551615", None),
            ("18446744073709551616", None),
            ("1e21", None),
            ("1e300", None),
        ] {
            let number: Number = serde_json::from_str(text).unwrap();
            let found = super::integer(&number).map(|found| found.to_string());
            assert_eq!(found.as_deref(), integer, "{text}");
            if let Some(integer) = integer {
                assert_eq!(settled(text), integer);
            }
        }
        assert_eq!(settled("2.5"), "2.5");
        assert_eq!(
            settled(r#"{"a":[1.0,{"b":1e2}]}"#),
            r#"{"a":[1,{"b":100}]}"#
        );
    }
}
