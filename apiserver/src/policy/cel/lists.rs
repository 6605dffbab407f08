//! Functions of lists. None copies a list to look at it.

use std::cmp::Ordering;

use super::value::{Unusable, Val, overload};
use super::{Evaluated, Run, error, functions};

/// The functions of this library; nothing for others.
pub fn call<'a>(run: &Run<'_, 'a>, name: &str, args: &[Val<'a>]) -> Option<Evaluated<'a>> {
    match (name, args) {
        ("isSorted", [list]) if list.is_list() => Some(is_sorted(run, list)),
        ("sum", [list]) if list.is_list() => Some(sum(run, list)),
        ("min" | "max", [list]) if list.is_list() => Some(extreme(run, name, list)),
        ("sort", [list]) if list.is_list() => Some(sort(run, list)),
        ("flatten", [list]) if list.is_list() => Some(flatten(run, list, 1)),
        ("flatten", [list, Val::Int(levels)]) if list.is_list() => {
            Some(flatten(run, list, *levels))
        }
        ("reverse", [list]) if list.is_list() => Some(reverse(run, list)),
        ("distinct", [list]) if list.is_list() => Some(distinct(run, list)),
        ("slice", [list, Val::Int(from), Val::Int(to)]) if list.is_list() => {
            Some(slice(run, list, *from, *to))
        }
        ("first", [list]) if list.is_list() => Some(optional(list.at(0))),
        ("last", [list]) if list.is_list() => {
            let last = list.length().unwrap_or(0).checked_sub(1);
            Some(optional(last.and_then(|last| list.at(last))))
        }
        ("optional.unwrap" | "unwrapOpt", [list]) if list.is_list() => Some(unwrap(run, list)),
        ("lists.range", [Val::Int(count)]) => Some(range(run, *count)),
        ("indexOf" | "lastIndexOf", [list, item]) if list.is_list() => {
            Some(index_of(run, name, list, item))
        }
        (_, [one, other]) if name.starts_with("sets.") && one.is_list() && other.is_list() => {
            Some(sets(run, name, one, other))
        }
        _ => None,
    }
}

fn is_sorted<'a>(run: &Run<'_, 'a>, list: &Val<'a>) -> Evaluated<'a> {
    for (one, next) in list.listed().zip(list.listed().skip(1)) {
        if one.order(&next, run.budget)? == Some(Ordering::Greater) {
            return Ok(Val::Bool(false));
        }
    }
    Ok(Val::Bool(true))
}

fn sum<'a>(run: &Run<'_, 'a>, list: &Val<'a>) -> Evaluated<'a> {
    let mut items = list.listed();
    let Some(first) = items.next() else {
        return Ok(Val::Int(0));
    };
    items.try_fold(first, |sum, item| {
        run.budget.take(1)?;
        functions::call(run, "_+_", vec![sum, item])
    })
}

/// Lists in the list become their items, so many levels of them.
fn flatten<'a>(run: &Run<'_, 'a>, list: &Val<'a>, levels: i64) -> Evaluated<'a> {
    let Ok(levels) = usize::try_from(levels) else {
        return error("level must be non-negative");
    };
    let mut flat = Vec::new();
    flatten_into(run, &mut flat, list, levels)?;
    Val::list(flat)
}

/// No deeper than values are nested.
fn flatten_into<'a>(
    run: &Run<'_, 'a>,
    flat: &mut Vec<Val<'a>>,
    list: &Val<'a>,
    levels: usize,
) -> Result<(), Unusable> {
    for item in list.listed() {
        match item.is_list() && levels > 0 {
            true => {
                run.budget.take(1)?;
                flatten_into(run, flat, &item, levels - 1)?;
            }
            false => {
                // Twice: a list that grows has room for as many again.
                run.budget.items(2)?;
                flat.push(item);
            }
        }
    }
    Ok(())
}

fn reverse<'a>(run: &Run<'_, 'a>, list: &Val<'a>) -> Evaluated<'a> {
    let length = list.length().unwrap_or(0);
    run.budget.items(length)?;
    Val::list(
        (0..length)
            .rev()
            .filter_map(|place| list.at(place))
            .collect(),
    )
}

fn distinct<'a>(run: &Run<'_, 'a>, list: &Val<'a>) -> Evaluated<'a> {
    let mut kept: Vec<Val<'a>> = Vec::new();
    for item in list.listed() {
        if !has(run, kept.iter().cloned(), &item)? {
            run.budget.items(2)?;
            kept.push(item);
        }
    }
    Val::list(kept)
}

fn optional<'a>(value: Option<Val<'a>>) -> Evaluated<'a> {
    value.map_or(Ok(Val::Optional(None)), Val::some)
}

/// What those of the optionals hold that hold something.
fn unwrap<'a>(run: &Run<'_, 'a>, list: &Val<'a>) -> Evaluated<'a> {
    let mut held = Vec::new();
    for item in list.listed() {
        // Twice: a list that grows has room for as many again.
        run.budget.items(2)?;
        held.extend(item.optional()?);
    }
    Val::list(held)
}

fn slice<'a>(run: &Run<'_, 'a>, list: &Val<'a>, from: i64, to: i64) -> Evaluated<'a> {
    let length = list.length().unwrap_or(0);
    match (usize::try_from(from), usize::try_from(to)) {
        (Ok(from), Ok(to)) if from <= to && to <= length => {
            run.budget.items(to - from)?;
            Val::list((from..to).filter_map(|place| list.at(place)).collect())
        }
        _ => error(format!(
            "cannot slice({from}, {to}), {}",
            match (from, to) {
                _ if from < 0 || to < 0 => "negative indexes not supported".to_owned(),
                _ if from > to => {
                    "start index must be less than or equal to end index".to_owned()
                }
                _ => format!("list is length {length}"),
            }
        )),
    }
}

fn range<'a>(run: &Run<'_, 'a>, count: i64) -> Evaluated<'a> {
    let count = count.max(0);
    run.budget
        .items(usize::try_from(count).unwrap_or(usize::MAX))?;
    Val::list((0..count).map(Val::Int).collect())
}

fn index_of<'a>(run: &Run<'_, 'a>, name: &str, list: &Val<'a>, item: &Val<'a>) -> Evaluated<'a> {
    let mut found = -1;
    for (at, other) in list.listed().enumerate() {
        if item.equal(&other, run.budget)? {
            found = at as i64;
            if name == "indexOf" {
                break;
            }
        }
    }
    Ok(Val::Int(found))
}

fn extreme<'a>(run: &Run<'_, 'a>, name: &str, list: &Val<'a>) -> Evaluated<'a> {
    let wanted = match name {
        "min" => Ordering::Less,
        _ => Ordering::Greater,
    };
    let mut items = list.listed();
    let Some(mut best) = items.next() else {
        return error(format!("{name} called on empty list"));
    };
    for item in items {
        if item.order(&best, run.budget)? == Some(wanted) {
            best = item;
        }
    }
    Ok(best)
}

fn sort<'a>(run: &Run<'_, 'a>, list: &Val<'a>) -> Evaluated<'a> {
    run.budget.items(list.length().unwrap_or(0))?;
    sorted(run, list, list.listed().collect())
}

/// The items of a list in the order of their keys, of which there are as many.
///
/// # Errors
/// For keys that have no order, or are of several types.
pub fn sorted<'a>(run: &Run<'_, 'a>, list: &Val<'a>, keys: Vec<Val<'a>>) -> Evaluated<'a> {
    // Places, and the items in their new order.
    run.budget.items(keys.len().saturating_mul(2))?;
    let Some(first) = keys.first() else {
        return Ok(list.clone());
    };
    if first
        .order(first, run.budget)
        .is_err_and(|why| !why.ends_all())
    {
        return error("list elements must be comparable");
    }
    let mut bytes = 0_usize;
    for key in &keys {
        run.budget.take(1)?;
        if key.type_name() != first.type_name() {
            return error("list elements must have the same type");
        }
        bytes = bytes.saturating_add(key.bytes());
    }
    // What all comparisons take, before the first: a sort cannot be ended.
    let rounds = u64::from(keys.len().ilog2()) + 1;
    run.budget.take(rounds.saturating_mul(keys.len() as u64))?;
    run.budget.take(rounds.saturating_mul(bytes as u64 / 10))?;
    // What is no number comes first: there has to be some order.
    let no_number = |value: &Val<'a>| matches!(value, Val::Double(number) if number.is_nan());
    let mut places: Vec<usize> = (0..keys.len()).collect();
    places.sort_by(|a, b| {
        let (a, b) = (&keys[*a], &keys[*b]);
        let known = a.order_uncounted(b).ok().flatten();
        known.unwrap_or_else(|| no_number(b).cmp(&no_number(a)))
    });
    Val::list(places.into_iter().filter_map(|at| list.at(at)).collect())
}

fn has<'a>(
    run: &Run<'_, 'a>,
    list: impl Iterator<Item = Val<'a>>,
    item: &Val<'a>,
) -> Result<bool, Unusable> {
    for other in list {
        if item.equal(&other, run.budget)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn sets<'a>(run: &Run<'_, 'a>, name: &str, one: &Val<'a>, other: &Val<'a>) -> Evaluated<'a> {
    let all = |of: &Val<'a>, within: &Val<'a>| -> Result<bool, Unusable> {
        for item in of.listed() {
            run.budget.take(1)?;
            if !has(run, within.listed(), &item)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    Ok(Val::Bool(match name {
        "sets.contains" => all(other, one)?,
        "sets.equivalent" => all(one, other)? && all(other, one)?,
        "sets.intersects" => {
            for item in one.listed() {
                run.budget.take(1)?;
                if has(run, other.listed(), &item)? {
                    return Ok(Val::Bool(true));
                }
            }
            false
        }
        _ => return Err(overload()),
    }))
}
