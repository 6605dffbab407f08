//! Operators and functions.

use std::cmp::Ordering;
use std::rc::Rc;

use super::value::{Val, no_overload};
use super::{
    Evaluated, Run, address, authorizer, error, formats, lists, quantity, semver, strings, time,
    url,
};

/// All that may be called.
const KNOWN: &[&str] = &[
    "!_",
    "-_",
    "@in",
    "@not_strictly_false",
    "_!=_",
    "_%_",
    "_&&_",
    "_*_",
    "_+_",
    "_-_",
    "_/_",
    "_<=_",
    "_<_",
    "_==_",
    "_>=_",
    "_>_",
    "_?._",
    "_?_:_",
    "_[?_]",
    "_[_]",
    "_||_",
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "string",
    "timestamp",
    "type",
    "uint",
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "find",
    "findAll",
    "charAt",
    "indexOf",
    "lastIndexOf",
    "lowerAscii",
    "upperAscii",
    "trim",
    "reverse",
    "replace",
    "split",
    "substring",
    "join",
    "format",
    "strings.quote",
    "jsonpatch.escapeKey",
    "isSorted",
    "sum",
    "min",
    "max",
    "flatten",
    "distinct",
    "first",
    "last",
    "sort",
    "slice",
    "lists.range",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "optional.of",
    "optional.none",
    "optional.ofNonZeroValue",
    "optional.unwrap",
    "unwrapOpt",
    "hasValue",
    "value",
    "or",
    "orValue",
    "isIP",
    "ip",
    "family",
    "ip.isCanonical",
    "isLoopback",
    "isUnspecified",
    "isGlobalUnicast",
    "isLinkLocalUnicast",
    "isLinkLocalMulticast",
    "isCIDR",
    "cidr",
    "prefixLength",
    "masked",
    "containsIP",
    "containsCIDR",
    "quantity",
    "isQuantity",
    "sign",
    "isInteger",
    "asInteger",
    "asApproximateFloat",
    "add",
    "sub",
    "isLessThan",
    "isGreaterThan",
    "compareTo",
    "url",
    "isURL",
    "getScheme",
    "getHost",
    "getHostname",
    "getPort",
    "getEscapedPath",
    "getQuery",
    "semver",
    "isSemver",
    "major",
    "minor",
    "patch",
    "format.named",
    "validate",
    "path",
    "group",
    "serviceAccount",
    "resource",
    "subresource",
    "namespace",
    "name",
    "fieldSelector",
    "labelSelector",
    "check",
    "allowed",
    "errored",
    "error",
    "reason",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];

/// Steps to look up a time zone.
const ZONE: u64 = 2_000;

/// Whether there is such a function.
pub fn is_known(name: &str) -> bool {
    let format = || name.strip_prefix("format.").and_then(formats::named);
    KNOWN.contains(&name) || format().is_some()
}

/// Calls a function; of a method, the first value is what it is called on.
pub fn call<'a>(run: &Run<'_, 'a>, name: &str, values: Vec<Val<'a>>) -> Evaluated<'a> {
    if let Some(Val::Failed(why)) = values.iter().find(|value| matches!(value, Val::Failed(_))) {
        return error(&**why);
    }
    for value in &values {
        run.budget.look(value.bytes())?;
    }
    if name.starts_with("get") && values.len() == 2 {
        // Time zones are read from files.
        run.budget.take(ZONE)?;
    }
    let libraries = || {
        strings::call(run, name, &values)
            .or_else(|| time::call(name, &values))
            .or_else(|| quantity::call(name, &values))
            .or_else(|| address::call(name, &values))
            .or_else(|| url::call(run, name, &values))
            .or_else(|| semver::call(run, name, &values))
            .or_else(|| formats::call(run, name, &values))
            .or_else(|| authorizer::call(run, name, &values))
            .or_else(|| lists::call(run, name, &values))
    };
    if let Some(value) = libraries() {
        return value;
    }
    match (name, values.as_slice()) {
        ("!_", [Val::Bool(value)]) => Ok(Val::Bool(!value)),
        ("-_", [Val::Int(value)]) => checked(value.checked_neg().map(Val::Int)),
        ("-_", [Val::Double(value)]) => Ok(Val::Double(-value)),
        ("_==_", [one, other]) => one.equal(other, run.budget).map(Val::Bool),
        ("_!=_", [one, other]) => Ok(Val::Bool(!one.equal(other, run.budget)?)),
        ("_<_", [one, other]) => compare(run, one, other, |order| order == Ordering::Less),
        ("_<=_", [one, other]) => compare(run, one, other, |order| order != Ordering::Greater),
        ("_>_", [one, other]) => compare(run, one, other, |order| order == Ordering::Greater),
        ("_>=_", [one, other]) => compare(run, one, other, |order| order != Ordering::Less),
        ("_[_]", [of, key]) => index(of, key),
        ("_[?_]" | "_?._", [of, key]) => optional_index(of, key),
        ("@in", [item, list]) => contained(run, item, list),
        ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [one, other]) => arithmetic(run, name, one, other),
        ("size", [value]) => match value.size() {
            Some(size) => Ok(Val::Int(size as i64)),
            None => no_overload(),
        },
        ("type", [value]) => Ok(Val::Type(value.type_name())),
        ("dyn", [value]) => Ok(value.clone()),
        ("bool" | "int" | "uint" | "double" | "string" | "bytes", [value]) => {
            convert(run, name, value)
        }
        ("optional.none", []) => Ok(Val::Optional(None)),
        ("optional.of", [value]) => Val::some(value.clone()),
        ("optional.ofNonZeroValue", [value]) => {
            let zero = match value {
                Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) => true,
                Val::Double(value) => *value == 0.0,
                Val::Duration(value) => value.is_zero(),
                Val::Time(time) => time::is_first(*time),
                other => other.size() == Some(0),
            };
            match zero {
                true => Ok(Val::Optional(None)),
                false => Val::some(value.clone()),
            }
        }
        ("hasValue", [Val::Optional(value)]) => Ok(Val::Bool(value.is_some())),
        ("value", [Val::Optional(Some(value))]) => Ok(value.as_ref().clone()),
        ("value", [Val::Optional(None)]) => error("optional.none() dereference"),
        _ => no_overload(),
    }
}

fn checked(value: Option<Val<'_>>) -> Evaluated<'_> {
    value.map_or_else(|| error("integer overflow"), Ok)
}

fn compare<'a>(
    run: &Run<'_, 'a>,
    one: &Val<'a>,
    other: &Val<'a>,
    holds: fn(Ordering) -> bool,
) -> Evaluated<'a> {
    if let (Val::Quantity(_), Val::Quantity(_)) = (one, other) {
        return no_overload();
    }
    Ok(Val::Bool(one.order(other, run.budget)?.is_some_and(holds)))
}

fn index<'a>(of: &Val<'a>, key: &Val<'a>) -> Evaluated<'a> {
    if let Val::Optional(_) = of {
        return optional_index(of, key);
    }
    let found = of.get(key)?;
    found.map_or_else(
        || match of.is_list() {
            true => error(format!("index out of bounds: {}", key.shown())),
            false => error(format!("no such key: {}", key.shown())),
        },
        Ok,
    )
}

fn optional_index<'a>(of: &Val<'a>, key: &Val<'a>) -> Evaluated<'a> {
    let found = match of {
        Val::Optional(None) => None,
        Val::Optional(Some(inner)) => inner.get(key)?,
        other => other.get(key)?,
    };
    Ok(Val::Optional(found.map(Rc::new)))
}

fn contained<'a>(run: &Run<'_, 'a>, item: &Val<'a>, list: &Val<'a>) -> Evaluated<'a> {
    if !list.is_list() {
        return Ok(Val::Bool(list.get(item)?.is_some()));
    }
    for other in list.listed() {
        if item.equal(&other, run.budget)? {
            return Ok(Val::Bool(true));
        }
    }
    Ok(Val::Bool(false))
}

fn arithmetic<'a>(run: &Run<'_, 'a>, name: &str, one: &Val<'a>, other: &Val<'a>) -> Evaluated<'a> {
    match (name, one, other) {
        ("_/_", _, Val::Int(0) | Val::Uint(0)) => error("division by zero"),
        ("_%_", _, Val::Int(0) | Val::Uint(0)) => error("modulus by zero"),
        (_, Val::Int(a), Val::Int(b)) => checked(
            match name {
                "_+_" => a.checked_add(*b),
                "_-_" => a.checked_sub(*b),
                "_*_" => a.checked_mul(*b),
                "_/_" => a.checked_div(*b),
                _ => a.checked_rem(*b),
            }
            .map(Val::Int),
        ),
        (_, Val::Uint(a), Val::Uint(b)) => checked(
            match name {
                "_+_" => a.checked_add(*b),
                "_-_" => a.checked_sub(*b),
                "_*_" => a.checked_mul(*b),
                "_/_" => a.checked_div(*b),
                _ => a.checked_rem(*b),
            }
            .map(Val::Uint),
        ),
        (_, Val::Double(a), Val::Double(b)) => Ok(Val::Double(match name {
            "_+_" => a + b,
            "_-_" => a - b,
            "_*_" => a * b,
            "_/_" => a / b,
            _ => return no_overload(),
        })),
        ("_+_", Val::Text(a), Val::Text(b)) => {
            run.budget.copy(a.len() + b.len())?;
            Ok(Val::text([&**a, &**b].concat()))
        }
        ("_+_", Val::Bytes(a), Val::Bytes(b)) => {
            run.budget.copy(a.len() + b.len())?;
            Ok(Val::Bytes([&a[..], &b[..]].concat().into()))
        }
        ("_+_", a, b) if a.is_list() && b.is_list() => {
            let length = a.length().unwrap_or(0) + b.length().unwrap_or(0);
            run.budget.items(length)?;
            let mut both = Vec::with_capacity(length);
            both.extend(a.listed());
            both.extend(b.listed());
            Val::list(both)
        }
        _ => no_overload(),
    }
}

fn convert<'a>(run: &Run<'_, 'a>, name: &str, value: &Val<'a>) -> Evaluated<'a> {
    let range = || error("range error converting to integer");
    // What is made is no longer than this.
    run.budget.copy(value.bytes().max(64))?;
    match (name, value) {
        ("bool", Val::Bool(_))
        | ("int", Val::Int(_))
        | ("uint", Val::Uint(_))
        | ("double", Val::Double(_))
        | ("string", Val::Text(_))
        | ("bytes", Val::Bytes(_)) => Ok(value.clone()),
        ("bool", Val::Text(text)) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Val::Bool(false)),
            _ => error("type conversion error from 'string' to 'bool'"),
        },
        ("int", Val::Uint(number)) => {
            i64::try_from(*number).map_or_else(|_| range(), |n| Ok(Val::Int(n)))
        }
        ("int", Val::Double(number)) => match number.is_finite() && number.abs() < 9.2e18 {
            true => Ok(Val::Int(*number as i64)),
            false => range(),
        },
        ("int", Val::Text(text)) => text.parse().map_or_else(
            |_| {
                error(format!(
                    "strconv.ParseInt: parsing {:?}: invalid syntax",
                    &**text
                ))
            },
            |number| Ok(Val::Int(number)),
        ),
        ("int", Val::Duration(duration)) => {
            i64::try_from(duration.as_nanos()).map_or_else(|_| range(), |n| Ok(Val::Int(n)))
        }
        ("int", Val::Time(time)) => Ok(Val::Int(time.as_second())),
        ("uint", Val::Int(number)) => {
            u64::try_from(*number).map_or_else(|_| range(), |n| Ok(Val::Uint(n)))
        }
        ("uint", Val::Text(text)) => text.parse().map_or_else(
            |_| {
                error(format!(
                    "strconv.ParseUint: parsing {:?}: invalid syntax",
                    &**text
                ))
            },
            |number| Ok(Val::Uint(number)),
        ),
        ("uint", Val::Double(number)) => match (0.0..1.8e19).contains(number) {
            true => Ok(Val::Uint(*number as u64)),
            false => range(),
        },
        ("double", Val::Int(number)) => Ok(Val::Double(*number as f64)),
        ("double", Val::Uint(number)) => Ok(Val::Double(*number as f64)),
        ("double", Val::Text(text)) => text.parse().map_or_else(
            |_| {
                error(format!(
                    "strconv.ParseFloat: parsing {:?}: invalid syntax",
                    &**text
                ))
            },
            |number| Ok(Val::Double(number)),
        ),
        ("string", Val::Time(time)) => Ok(Val::text(time.to_string())),
        ("string", Val::Duration(duration)) => Ok(Val::text(time::shown(*duration))),
        ("string", Val::Ip(address)) => Ok(Val::text(address.to_string())),
        ("string", Val::Cidr(block)) => {
            Ok(Val::text(format!("{}/{}", block.address, block.length)))
        }
        ("string", Val::Bytes(bytes)) => std::str::from_utf8(bytes).map_or_else(
            |_| error("invalid UTF-8 in bytes, cannot convert to string"),
            |text| Ok(Val::text(text)),
        ),
        ("string", Val::Bool(_) | Val::Int(_) | Val::Uint(_) | Val::Double(_)) => {
            Ok(Val::text(value.shown()))
        }
        ("bytes", Val::Text(text)) => Ok(Val::Bytes(text.as_bytes().into())),
        _ => no_overload(),
    }
}
