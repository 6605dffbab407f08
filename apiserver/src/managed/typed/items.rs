//! How an item of a list is told from the others.

use serde_json::Value;

use crate::managed::path::Element;
use crate::managed::schema::ListKind;

/// The element that stands for an item of a list that is owned by its items.
///
/// # Errors
/// For an item that cannot be told from others.
pub fn element(kind: &ListKind, item: &Value) -> Result<Element, String> {
    match kind {
        ListKind::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        ListKind::Map(keys) => keyed(keys, item),
        ListKind::Set => {
            let why = match item {
                Value::Object(_) => {
                    "associative list without keys has an element that's a map type"
                }
                Value::Array(_) => "not supported: associative list with lists as elements",
                Value::Null => {
                    "associative list without keys has an element that's an explicit null"
                }
                _ => return Ok(Element::Value(item.clone())),
            };
            Err(why.to_owned())
        }
    }
}

fn keyed(keys: &[(String, Option<Value>)], item: &Value) -> Result<Element, String> {
    let fields = match item {
        Value::Object(fields) => fields,
        Value::Null => {
            return Err("associative list with keys may not have a null element".to_owned());
        }
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut present: Vec<(String, Value)> = keys
        .iter()
        .filter_map(|(name, default)| {
            let value = fields.get(name).or(default.as_ref())?;
            Some((name.clone(), value.clone()))
        })
        .collect();
    if present.is_empty() && !keys.is_empty() {
        let names: Vec<String> = keys.iter().map(|(name, _)| format!("{name:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    present.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Element::Key(present))
}

/// The elements of all items; those that have none are left out, for a value that was
/// judged has none of them.
pub fn elements<'a>(
    kind: &ListKind,
    items: &'a [Value],
) -> impl Iterator<Item = (Element, &'a Value)> {
    items
        .iter()
        .filter_map(move |item| Some((element(kind, item).ok()?, item)))
}
