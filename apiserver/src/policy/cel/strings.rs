//! Functions of texts and lists of them.

use super::value::{Unusable, Val, overload};
use super::{Evaluated, Run, error};

/// Bytes that a compiled regular expression may take.
const PATTERN: usize = 1 << 20;
/// Regular expressions that one evaluation holds.
const PATTERNS: usize = 32;

/// A number as CEL writes it.
pub fn double(value: f64) -> String {
    format!("{value}")
}

impl Run<'_, '_> {
    fn pattern(&self, pattern: &str) -> Result<regex::Regex, Unusable> {
        if let Some(known) = self.patterns.borrow().get(pattern) {
            return Ok(known.clone());
        }
        self.budget.take(100 + 10 * pattern.len() as u64)?;
        let compiled = regex::RegexBuilder::new(pattern)
            .size_limit(PATTERN)
            .build();
        let compiled = compiled.map_err(|why| {
            let why = apiservice::told::cut(why.to_string(), apiservice::told::MAX_TEXT);
            Unusable::Error(format!("error parsing regexp: {why}"))
        })?;
        let mut patterns = self.patterns.borrow_mut();
        if patterns.len() < PATTERNS {
            patterns.insert(pattern.to_owned(), compiled.clone());
        }
        Ok(compiled)
    }
}

/// A place in a text, counted in characters, as one in bytes.
fn place(text: &str, at: i64) -> Option<usize> {
    let at = usize::try_from(at).ok()?;
    let mut starts = text.char_indices().map(|(start, _)| start);
    let mut places = starts.by_ref().chain([text.len()]);
    places.nth(at)
}

fn characters(text: &str, bytes: usize) -> i64 {
    text[..bytes].chars().count() as i64
}

fn out_of_range<'a>(at: i64) -> Evaluated<'a> {
    error(format!("index out of range: {at}"))
}

/// The functions of this library; nothing for others.
pub fn call<'a>(run: &Run<'_, 'a>, name: &str, args: &[Val<'a>]) -> Option<Evaluated<'a>> {
    Some(match (name, args) {
        ("contains", [Val::Text(text), Val::Text(part)]) => Ok(Val::Bool(text.contains(&**part))),
        ("startsWith", [Val::Text(text), Val::Text(part)]) => {
            Ok(Val::Bool(text.starts_with(&**part)))
        }
        ("endsWith", [Val::Text(text), Val::Text(part)]) => Ok(Val::Bool(text.ends_with(&**part))),
        ("matches", [Val::Text(text), Val::Text(pattern)]) => {
            let pattern = run.pattern(pattern);
            pattern.map(|pattern| Val::Bool(pattern.is_match(text)))
        }
        ("find", [Val::Text(text), Val::Text(pattern)]) => run.pattern(pattern).map(|pattern| {
            let found = pattern.find(text);
            Val::text(found.map_or("", |found| found.as_str()))
        }),
        ("findAll", [Val::Text(text), Val::Text(pattern), rest @ ..]) => {
            let most = match rest {
                [] => usize::MAX,
                [Val::Int(most)] => usize::try_from(*most).unwrap_or(usize::MAX),
                _ => return None,
            };
            run.pattern(pattern).and_then(|pattern| {
                let found = pattern.find_iter(text).take(most);
                let found: Vec<_> = found.map(|found| Val::text(found.as_str())).collect();
                run.budget.take(found.len() as u64)?;
                Val::list(found)
            })
        }
        ("charAt", [Val::Text(text), Val::Int(at)]) => match place(text, *at) {
            Some(start) => {
                let one = text[start..].chars().next();
                Ok(Val::text(one.map(String::from).unwrap_or_default()))
            }
            None => out_of_range(*at),
        },
        ("indexOf" | "lastIndexOf", [Val::Text(text), Val::Text(part), rest @ ..]) => {
            index_of(name, text, part, rest)
        }
        ("lowerAscii", [Val::Text(text)]) => Ok(Val::text(text.to_ascii_lowercase())),
        ("upperAscii", [Val::Text(text)]) => Ok(Val::text(text.to_ascii_uppercase())),
        ("trim", [Val::Text(text)]) => Ok(Val::text(text.trim())),
        ("reverse", [Val::Text(text)]) => Ok(Val::text(text.chars().rev().collect::<String>())),
        ("replace", [Val::Text(text), Val::Text(old), Val::Text(new), rest @ ..]) => {
            let most = match rest {
                [] => usize::MAX,
                [Val::Int(most)] => usize::try_from(*most).unwrap_or(usize::MAX),
                _ => return None,
            };
            // What it will take, before it is made.
            let times = text.matches(&**old).take(most).count();
            let made = text.len() as u64 + times as u64 * new.len() as u64;
            run.budget
                .take(made / 10)
                .map(|()| Val::text(text.replacen(&**old, new, most)))
        }
        ("split", [Val::Text(text), Val::Text(by), rest @ ..]) => {
            let most = match rest {
                [] => usize::MAX,
                [Val::Int(most)] => usize::try_from(*most).unwrap_or(usize::MAX),
                _ => return None,
            };
            split(run, text, by, most)
        }
        ("substring", [Val::Text(text), Val::Int(from), rest @ ..]) => {
            let to = match rest {
                [] => Some(text.len()),
                [Val::Int(to)] => place(text, *to),
                _ => return None,
            };
            match (place(text, *from), to) {
                (Some(from), Some(to)) if from <= to => Ok(Val::text(&text[from..to])),
                _ => out_of_range(*from),
            }
        }
        ("strings.quote", [Val::Text(text)]) => Ok(Val::text(format!("{:?}", &**text))),
        ("join", [list, rest @ ..]) if list.is_list() => {
            let by = match rest {
                [] => "",
                [Val::Text(by)] => by,
                _ => return None,
            };
            join(run, list, by)
        }
        ("format", [Val::Text(text), values]) if values.is_list() => {
            format(run, text, values.items().unwrap_or_default())
        }
        _ => return None,
    })
}

fn index_of<'a>(name: &str, text: &str, part: &str, rest: &[Val<'a>]) -> Evaluated<'a> {
    let found = match (name, rest) {
        ("indexOf", []) => text.find(part),
        ("lastIndexOf", []) => text.rfind(part),
        ("indexOf", [Val::Int(from)]) => {
            let Some(from) = place(text, *from) else {
                return out_of_range(*from);
            };
            text[from..].find(part).map(|at| at + from)
        }
        ("lastIndexOf", [Val::Int(from)]) => {
            let Some(from) = place(text, *from) else {
                return out_of_range(*from);
            };
            let end = (from + part.len()).min(text.len());
            text.get(..end).and_then(|text| text.rfind(part))
        }
        _ => return Err(overload()),
    };
    Ok(Val::Int(found.map_or(-1, |at| characters(text, at))))
}

fn split<'a>(run: &Run<'_, 'a>, text: &str, by: &str, most: usize) -> Evaluated<'a> {
    let parts: Vec<&str> = match (most, by.is_empty()) {
        (0, _) => Vec::new(),
        (_, true) => {
            let mut parts = Vec::new();
            let mut rest = text;
            while let Some(first) = rest.chars().next().filter(|_| parts.len() + 1 < most) {
                let (one, more) = rest.split_at(first.len_utf8());
                parts.push(one);
                rest = more;
            }
            parts.extend((!rest.is_empty()).then_some(rest));
            parts
        }
        (_, false) => text.splitn(most, by).collect(),
    };
    run.budget.take(parts.len() as u64)?;
    Val::list(parts.into_iter().map(Val::text).collect())
}

fn join<'a>(run: &Run<'_, 'a>, list: &Val<'a>, by: &str) -> Evaluated<'a> {
    let mut joined = String::new();
    for (at, item) in list.items().unwrap_or_default().into_iter().enumerate() {
        let Val::Text(item) = item else {
            return Err(overload());
        };
        run.budget.take(1 + (item.len() + by.len()) as u64 / 10)?;
        if at > 0 {
            joined.push_str(by);
        }
        joined.push_str(&item);
    }
    Ok(Val::text(joined))
}

/// `"%s is %d".format([...])`.
fn format<'a>(run: &Run<'_, 'a>, text: &str, values: Vec<Val<'a>>) -> Evaluated<'a> {
    let mut values = values.into_iter();
    let mut made = String::new();
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        if next != '%' {
            made.push(next);
            continue;
        }
        let mut digits = String::new();
        let verb = loop {
            match rest.next() {
                Some(digit @ ('.' | '0'..='9')) if digits.len() < 4 => digits.push(digit),
                Some(verb) => break verb,
                None => return error("unexpected end of string"),
            }
        };
        if verb == '%' {
            made.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            return error("index 0 out of range");
        };
        run.budget.take(1)?;
        let decimals = digits
            .strip_prefix('.')
            .and_then(|digits| digits.parse().ok());
        let part = match (verb, &value) {
            ('s', value) => as_text(run, value, 0)?,
            ('d', Val::Int(_) | Val::Uint(_)) => value.shown(),
            ('f', Val::Double(number)) => std::format!("{number:.*}", decimals.unwrap_or(6)),
            ('f', Val::Int(number)) => std::format!("{:.*}", decimals.unwrap_or(6), *number as f64),
            ('e', Val::Double(number)) => std::format!("{number:.*e}", decimals.unwrap_or(6)),
            ('b', Val::Int(number)) => std::format!("{number:b}"),
            ('b', Val::Bool(value)) => u8::from(*value).to_string(),
            ('x', Val::Int(number)) => std::format!("{number:x}"),
            ('X', Val::Int(number)) => std::format!("{number:X}"),
            ('o', Val::Int(number)) => std::format!("{number:o}"),
            ('x', Val::Text(text)) => hex::encode(text.as_bytes()),
            ('X', Val::Text(text)) => hex::encode_upper(text.as_bytes()),
            _ => {
                return error(std::format!(
                    "could not evaluate formatting clause: %{verb} of {}",
                    value.type_name()
                ));
            }
        };
        run.budget.take(part.len() as u64 / 10)?;
        made.push_str(&part);
    }
    run.budget.take(made.len() as u64 / 10)?;
    Ok(Val::text(made))
}

/// A value in a formatted text.
fn as_text<'a>(run: &Run<'_, 'a>, value: &Val<'a>, depth: usize) -> Result<String, Unusable> {
    run.budget.take(1)?;
    if depth > super::MAX_DEPTH {
        return Err(overload());
    }
    if value.is_list() {
        let items = value.items().unwrap_or_default();
        let items = items.iter().map(|item| as_text(run, item, depth + 1));
        let items: Vec<String> = items.collect::<Result<_, _>>()?;
        return Ok(std::format!("[{}]", items.join(", ")));
    }
    Ok(match value {
        Val::Map(_) | Val::Json(_) => {
            let pairs = value.pairs().unwrap_or_default();
            let mut entries = Vec::with_capacity(pairs.len());
            for (key, value) in &pairs {
                let value = as_text(run, value, depth + 1)?;
                entries.push(std::format!("{}: {value}", key.shown()));
            }
            entries.sort();
            std::format!("{{{}}}", entries.join(", "))
        }
        Val::Time(time) => time.to_string(),
        Val::Duration(duration) => super::time::shown(*duration),
        Val::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.shown(),
    })
}
