//! JSON pointers (RFC 6901), read as Kubernetes reads them: what a path of an operation leads
//! to.

use serde_json::{Map, Value};

use super::inapplicable::{Inapplicable, missing};
use super::work::Work;

/// Where a path leads: to a key of a map, or to a place in a list.
pub(super) struct Pointed<'a> {
    pub(super) holder: Holder<'a>,
    pub(super) key: String,
}

pub(super) enum Holder<'a> {
    Map(&'a mut Map<String, Value>),
    List(&'a mut Vec<Value>),
}

/// Nothing if there is nothing that could hold it.
pub(super) fn place<'a>(document: &'a mut Value, path: &str) -> Option<Pointed<'a>> {
    let unescape = |segment: &str| segment.replace("~1", "/").replace("~0", "~");
    let (parents, key) = path.rsplit_once('/')?;
    let key = unescape(key);
    // What stands before the first slash is not looked at, as by Kubernetes. The rest is read
    // no further than it leads.
    let mut segments = parents.split('/').skip(1).map(unescape);
    let holder = segments.try_fold(document, |value, segment| child(value, &segment))?;
    let holder = match holder {
        Value::Object(map) => Holder::Map(map),
        Value::Array(list) => Holder::List(list),
        _ => return None,
    };
    Some(Pointed { holder, key })
}

fn child<'a>(value: &'a mut Value, segment: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(map) => map.get_mut(segment),
        Value::Array(list) => {
            let position = position(segment, list.len())?;
            list.get_mut(position)
        }
        _ => None,
    }
}

/// An index into a list of this length; `-1` is the last element (R3.57).
pub(super) fn position(segment: &str, length: usize) -> Option<usize> {
    match segment.strip_prefix('-') {
        Some(back) => length.checked_sub(digits(back)?).filter(|_| back != "0"),
        None => digits(segment),
    }
}

fn digits(text: &str) -> Option<usize> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

impl<'a> Pointed<'a> {
    /// What is there; nothing for a key that a map does not have.
    pub(super) fn get(self) -> Result<Option<&'a Value>, Inapplicable> {
        match self.holder {
            Holder::Map(map) => Ok(map.get(&self.key)),
            Holder::List(list) => {
                let at = position(&self.key, list.len());
                let item = at.and_then(|at| list.get(at));
                item.map(Some).ok_or_else(|| no_index(&self.key))
            }
        }
    }

    pub(super) fn add(self, value: Value, work: &mut Work) -> Result<(), Inapplicable> {
        match self.holder {
            Holder::Map(map) => {
                map.insert(self.key, value);
                Ok(())
            }
            Holder::List(list) => {
                let at = match self.key.as_str() {
                    "-" => Some(list.len()),
                    // Counted in the list as it will be: -1 appends.
                    segment if segment.starts_with('-') => position(segment, list.len() + 1),
                    segment => position(segment, list.len()),
                };
                let at = at.filter(|at| *at <= list.len());
                let at = at.ok_or_else(|| match self.key.parse::<i64>() {
                    Ok(_) => no_index(&self.key),
                    Err(_) => Inapplicable::Operation(format!(
                        "value was not a proper array index: '{key}': {}",
                        no_number(&self.key),
                        key = self.key,
                    )),
                })?;
                work.step(list.len() - at)?;
                list.insert(at, value);
                Ok(())
            }
        }
    }

    pub(super) fn remove(self, work: &mut Work) -> Result<Value, Inapplicable> {
        match self.holder {
            Holder::Map(map) => map
                .remove(&self.key)
                .ok_or_else(|| missing(format!("Unable to remove nonexistent key: {}", self.key))),
            Holder::List(list) => {
                let at = position(&self.key, list.len()).filter(|at| *at < list.len());
                let at = at.ok_or_else(|| no_index(&self.key))?;
                work.step(list.len() - at)?;
                Ok(list.remove(at))
            }
        }
    }
}

fn no_index(key: &str) -> Inapplicable {
    Inapplicable::Operation(match key.parse::<i64>() {
        Ok(index) => format!("Unable to access invalid index: {index}: invalid index referenced"),
        Err(_) => no_number(key),
    })
}

fn no_number(key: &str) -> String {
    format!("strconv.Atoi: parsing {key:?}: invalid syntax")
}
