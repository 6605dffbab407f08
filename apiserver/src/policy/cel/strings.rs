//! Functions of texts and lists of them.

use super::value::{Unusable, Val, overload};
use super::{Budget, Evaluated, Pattern, Run, error, pattern};

/// Bytes that a regular expression may be compiled to. It is tried with the first of them
/// that is enough: what compiling and matching take grows with it.
const SIZES: [usize; 4] = [4 << 10, 32 << 10, 256 << 10, 1 << 20];
/// Bytes of a regular expression: those of its tree are some hundred times as many.
const LONGEST: usize = 16 * 1024;
/// Bytes that matching may keep for one.
const CACHE: usize = 256 * 1024;
/// Ranges of a class that Unicode names (the largest has 736), and bytes of one. They are made
/// again for each of the sizes, after those before are gone.
const RANGES: usize = 736;
const RANGE: usize = 8;
/// Steps for a class of characters that is compared without case.
const FOLDED: usize = 10_000;
/// Regular expressions that are kept with a budget.
const PATTERNS: usize = 32;

/// A number as Go writes it: with an exponent from a million on.
pub fn double(value: f64) -> String {
    if !value.is_finite() {
        let infinite = if value > 0.0 { "+Inf" } else { "-Inf" };
        return if value.is_nan() { "NaN" } else { infinite }.to_owned();
    }
    let text = std::format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            std::format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => std::format!("{value}"),
    }
}

impl<'a> Run<'_, 'a> {
    fn pattern(&self, pattern: &str) -> Result<Pattern, Unusable> {
        if let Some(known) = self.budget.patterns.borrow().get(pattern) {
            return Ok(known.clone());
        }
        let broken = |why: String| {
            let why = apiservice::told::cut(why, apiservice::told::MAX_TEXT);
            Unusable::Error(std::format!("error parsing regexp: {why}"))
        };
        if pattern.len() > LONGEST {
            return Err(broken(std::format!("it has more than {LONGEST} bytes")));
        }
        self.budget.look(pattern.len())?;
        let translated = pattern::translated(pattern).map_err(broken)?;
        self.budget.take((FOLDED * translated.folded) as u64)?;
        self.budget.take((RANGES * translated.named) as u64)?;
        self.budget.allocate(RANGES * RANGE * translated.named)?;
        let mut compiled = Err("it is too large".to_owned());
        for size in SIZES {
            let steps = 100 + 10 * pattern.len() + size / 4;
            self.budget.take(steps as u64)?;
            self.budget.allocate(size)?;
            let built = regex::RegexBuilder::new(&translated.pattern)
                .size_limit(size)
                .dfa_size_limit(CACHE.max(size))
                .build();
            compiled = match built {
                Ok(regex) => Ok(Pattern { regex, size }),
                Err(why) => Err(why.to_string()),
            };
            if !compiled
                .as_ref()
                .is_err_and(|why| why.contains("size limit"))
            {
                break;
            }
        }
        let compiled = compiled.map_err(broken)?;
        let mut patterns = self.budget.patterns.borrow_mut();
        if patterns.len() < PATTERNS {
            patterns.insert(pattern.to_owned(), compiled.clone());
        }
        Ok(compiled)
    }

    /// A regular expression, after what it takes to look through a text with it.
    fn pattern_for(&self, pattern: &str, text: &str) -> Result<regex::Regex, Unusable> {
        let Pattern { regex, size } = self.pattern(pattern)?;
        let steps = text.len() as u64 * (size / 1024) as u64;
        self.budget.take(steps)?;
        Ok(regex)
    }

    /// A copy of a text.
    pub(super) fn text(&self, text: &str) -> Evaluated<'a> {
        self.budget.copy(text.len())?;
        Ok(Val::text(text))
    }

    /// A text that is no longer than this.
    fn made(&self, length: usize, make: impl FnOnce() -> String) -> Evaluated<'a> {
        self.budget.copy(length)?;
        Ok(Val::text(make()))
    }
}

fn find_all<'a>(run: &Run<'_, 'a>, text: &str, pattern: &str, most: usize) -> Evaluated<'a> {
    let pattern = run.pattern_for(pattern, text)?;
    let mut all = Vec::new();
    for found in pattern.find_iter(text).take(most) {
        // Each may look through all that comes after it.
        run.budget.take((text.len() - found.start()) as u64 / 16)?;
        run.budget.items(2)?;
        all.push(run.text(found.as_str())?);
    }
    Val::list(all)
}

/// A place in a text, counted in characters, as one in bytes; nothing behind its end.
fn position(text: &str, at: i64) -> Option<usize> {
    place(text, usize::try_from(at).ok()?)
}

fn place(text: &str, at: usize) -> Option<usize> {
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
            let pattern = run.pattern_for(pattern, text);
            pattern.map(|pattern| Val::Bool(pattern.is_match(text)))
        }
        ("find", [Val::Text(text), Val::Text(pattern)]) => {
            run.pattern_for(pattern, text).and_then(|pattern| {
                let found = pattern.find(text);
                run.text(found.map_or("", |found| found.as_str()))
            })
        }
        ("findAll", [Val::Text(text), Val::Text(pattern), rest @ ..]) => {
            let most = match rest {
                [] => usize::MAX,
                [Val::Int(most)] => usize::try_from(*most).unwrap_or(usize::MAX),
                _ => return None,
            };
            find_all(run, text, pattern, most)
        }
        ("charAt", [Val::Text(text), Val::Int(at)]) => match position(text, *at) {
            Some(start) => {
                let one = text[start..].chars().next();
                Ok(Val::text(one.map(String::from).unwrap_or_default()))
            }
            None => out_of_range(*at),
        },
        ("indexOf" | "lastIndexOf", [Val::Text(text), Val::Text(part), rest @ ..]) => {
            match rest {
                [] if name == "indexOf" => Ok(index_of(text, part, 0)),
                [] => Ok(last_index_of(text, part, usize::MAX)),
                [Val::Int(at)] => match usize::try_from(*at) {
                    Err(_) => out_of_range(*at),
                    Ok(at) if name == "indexOf" => Ok(index_of(text, part, at)),
                    // Nothing begins behind the end, and nothing is looked for there.
                    Ok(at)
                        if !part.is_empty()
                            && place(text, at).is_none_or(|at| at == text.len()) =>
                    {
                        Ok(Val::Int(-1))
                    }
                    Ok(at) => Ok(last_index_of(text, part, at)),
                },
                _ => return None,
            }
        }
        ("lowerAscii", [Val::Text(text)]) => run.made(text.len(), || text.to_ascii_lowercase()),
        ("upperAscii", [Val::Text(text)]) => run.made(text.len(), || text.to_ascii_uppercase()),
        ("trim", [Val::Text(text)]) => run.text(text.trim()),
        ("reverse", [Val::Text(text)]) => run.made(text.len(), || text.chars().rev().collect()),
        ("replace", [Val::Text(text), Val::Text(old), Val::Text(new), rest @ ..]) => {
            let most = match rest {
                [] => usize::MAX,
                [Val::Int(most)] => usize::try_from(*most).unwrap_or(usize::MAX),
                _ => return None,
            };
            // What it will take, before it is made.
            let times = text.matches(&**old).take(most).count();
            let made = times.saturating_mul(new.len()).saturating_add(text.len());
            run.made(made, || text.replacen(&**old, new, most))
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
            let (to, end) = match rest {
                [] => (i64::MAX, Some(text.len())),
                [Val::Int(to)] => (*to, position(text, *to)),
                _ => return None,
            };
            match (position(text, *from), end) {
                _ if *from > to => error(std::format!(
                    "invalid substring range. start: {from}, end: {to}"
                )),
                (Some(start), Some(end)) => run.text(&text[start..end]),
                (None, _) => out_of_range(*from),
                (_, None) => out_of_range(to),
            }
        }
        ("jsonpatch.escapeKey", [Val::Text(text)]) => {
            // Each character becomes two at most.
            let room = run.budget.copy(text.len().saturating_mul(2));
            room.map(|()| Val::text(text.replace('~', "~0").replace('/', "~1")))
        }
        ("strings.quote", [Val::Text(text)]) => {
            // Each character becomes two at most.
            run.made(2 * text.len() + 2, || quoted(text))
        }
        ("join", [list, rest @ ..]) if list.is_list() => {
            let by = match rest {
                [] => "",
                [Val::Text(by)] => by,
                _ => return None,
            };
            join(run, list, by)
        }
        ("format", [Val::Text(text), values]) if values.is_list() => format(run, text, values),
        _ => return None,
    })
}

/// Where a part is found first that begins at this character or later. The empty one is found
/// where it is looked for, or at the end.
fn index_of<'a>(text: &str, part: &str, from: usize) -> Val<'a> {
    let from = match place(text, from) {
        None if part.is_empty() => Some(text.len()),
        from => from,
    };
    let found = from.and_then(|from| Some(text[from..].find(part)? + from));
    Val::Int(found.map_or(-1, |at| characters(text, at)))
}

/// Where it is found last that begins at this character or before.
fn last_index_of<'a>(text: &str, part: &str, from: usize) -> Val<'a> {
    let end = place(text, from).and_then(|from| from.checked_add(part.len()));
    let end = end.unwrap_or(text.len()).min(text.len());
    // In the middle of a character no part ends: whatever is found ends before it.
    let end = (0..=end).rev().find(|end| text.is_char_boundary(*end));
    let found = text[..end.unwrap_or(0)].rfind(part);
    Val::Int(found.map_or(-1, |at| characters(text, at)))
}

/// As Go writes it.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for one in text.chars() {
        let escaped = match one {
            '\x07' => 'a',
            '\x08' => 'b',
            '\x0C' => 'f',
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\x0B' => 'v',
            '\\' | '"' => one,
            other => {
                quoted.push(other);
                continue;
            }
        };
        quoted.extend(['\\', escaped]);
    }
    quoted.push('"');
    quoted
}

fn split<'a>(run: &Run<'_, 'a>, text: &str, by: &str, most: usize) -> Evaluated<'a> {
    let mut parts = Vec::new();
    let mut add = |part: &str| {
        // Twice: a list that grows has room for as many again.
        run.budget.items(2)?;
        parts.push(run.text(part)?);
        Ok::<_, Unusable>(())
    };
    if by.is_empty() {
        let (mut rest, mut count) = (text, 1);
        while let Some(first) = rest.chars().next().filter(|_| count < most) {
            let (one, more) = rest.split_at(first.len_utf8());
            add(one)?;
            (rest, count) = (more, count + 1);
        }
        if !rest.is_empty() && most > 0 {
            add(rest)?;
        }
    } else {
        for part in text.splitn(most, by) {
            add(part)?;
        }
    }
    Val::list(parts)
}

fn join<'a>(run: &Run<'_, 'a>, list: &Val<'a>, by: &str) -> Evaluated<'a> {
    let mut joined = Made::new(run.budget);
    for (at, item) in list.listed().enumerate() {
        let Val::Text(item) = item else {
            return Err(overload());
        };
        run.budget.take(1)?;
        if at > 0 {
            joined.push(by)?;
        }
        joined.push(&item)?;
    }
    Ok(Val::text(joined.text))
}

/// A text that is counted before it grows.
struct Made<'b> {
    text: String,
    budget: &'b Budget,
}

impl<'b> Made<'b> {
    fn new(budget: &'b Budget) -> Self {
        let text = String::new();
        Self { text, budget }
    }

    fn push(&mut self, part: &str) -> Result<(), Unusable> {
        self.budget.look(part.len())?;
        // Twice: a text that grows has room for as much again.
        self.budget.allocate(2 * part.len())?;
        self.text.push_str(part);
        Ok(())
    }
}

/// `"%s is %d".format([...])`.
fn format<'a>(run: &Run<'_, 'a>, text: &str, values: &Val<'a>) -> Evaluated<'a> {
    let mut values = values.listed();
    let mut made = Made::new(run.budget);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        made.push(before)?;
        let mut characters = after.chars();
        let mut digits = String::new();
        let verb = loop {
            match characters.next() {
                Some(digit @ ('.' | '0'..='9')) if digits.len() < 4 => digits.push(digit),
                Some(verb) => break verb,
                None => return error("unexpected end of string"),
            }
        };
        rest = characters.as_str();
        run.budget.take(1)?;
        if verb == '%' {
            made.push("%")?;
            continue;
        }
        let Some(value) = values.next() else {
            return error("index 0 out of range");
        };
        let decimals = digits
            .strip_prefix('.')
            .and_then(|digits| digits.parse().ok());
        clause(&mut made, verb, &value, decimals.unwrap_or(6))?;
    }
    made.push(rest)?;
    Ok(Val::text(made.text))
}

/// One value of a formatted text.
fn clause(
    made: &mut Made<'_>,
    verb: char,
    value: &Val<'_>,
    decimals: usize,
) -> Result<(), Unusable> {
    let part = match (verb, value) {
        ('s', value) => return as_text(made, value, 0),
        ('d', Val::Int(_) | Val::Uint(_)) => value.shown(),
        ('f', Val::Double(number)) => grouped(*number, decimals),
        ('e', Val::Double(number)) => scientific(*number),
        ('f' | 'e', Val::Text(text)) => match &**text {
            "NaN" => grouped(f64::NAN, 0),
            "Infinity" => grouped(f64::INFINITY, 0),
            "-Infinity" => grouped(f64::NEG_INFINITY, 0),
            _ => return Err(unformatted(verb, value)),
        },
        ('b', Val::Int(number)) => signed(*number, std::format!("{:b}", number.unsigned_abs())),
        ('b', Val::Uint(number)) => std::format!("{number:b}"),
        ('b', Val::Bool(value)) => u8::from(*value).to_string(),
        ('x', Val::Int(number)) => signed(*number, std::format!("{:x}", number.unsigned_abs())),
        ('X', Val::Int(number)) => signed(*number, std::format!("{:X}", number.unsigned_abs())),
        ('o', Val::Int(number)) => signed(*number, std::format!("{:o}", number.unsigned_abs())),
        ('x', Val::Uint(number)) => std::format!("{number:x}"),
        ('X', Val::Uint(number)) => std::format!("{number:X}"),
        ('o', Val::Uint(number)) => std::format!("{number:o}"),
        ('x' | 'X', Val::Text(_) | Val::Bytes(_)) => {
            let bytes = match value {
                Val::Text(text) => text.as_bytes(),
                Val::Bytes(bytes) => bytes,
                _ => &[],
            };
            made.budget.copy(2 * bytes.len())?;
            match verb {
                'x' => hex::encode(bytes),
                _ => hex::encode_upper(bytes),
            }
        }
        _ => return Err(unformatted(verb, value)),
    };
    made.push(&part)
}

/// Why a value is not formatted so.
fn unformatted(verb: char, value: &Val<'_>) -> Unusable {
    let wanted = match verb {
        's' => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
        }
        'd' => "decimal clause can only be used on integers",
        'f' => "fixed-point clause can only be used on doubles",
        'e' => "scientific clause can only be used on doubles",
        'b' => "only integers and bools can be formatted as binary",
        'x' | 'X' => "only integers, byte buffers, and strings can be formatted as hex",
        'o' => "octal clause can only be used on integers",
        _ => {
            return Unusable::Error(std::format!(
                "could not parse formatting clause: unrecognized formatting clause {:?}",
                verb.to_string()
            ));
        }
    };
    let given = value.type_name();
    Unusable::Error(std::format!(
        "error during formatting: {wanted}, was given {given}"
    ))
}

/// Digits of a number without its sign, with it.
fn signed(number: i64, digits: String) -> String {
    match number < 0 {
        true => std::format!("-{digits}"),
        false => digits,
    }
}

/// As Kubernetes writes numbers for people: `1,234.50`.
fn grouped(number: f64, decimals: usize) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    let sign = if number < 0.0 { "-" } else { "" };
    if number.is_infinite() {
        return std::format!("{sign}∞");
    }
    let digits = std::format!("{:.decimals$}", number.abs());
    let (whole, part) = match digits.find('.') {
        Some(at) => digits.split_at(at),
        None => (digits.as_str(), ""),
    };
    let mut text = sign.to_owned();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text.push_str(part);
    text
}

/// `1.500000×10⁰³`, with six decimals whatever was asked for, as Kubernetes writes it.
fn scientific(number: f64) -> String {
    if !number.is_finite() {
        return grouped(number, 0);
    }
    let text = std::format!("{number:.6e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ("⁻", exponent),
        None => ("", exponent),
    };
    let digits = std::format!("{exponent:0>2}");
    let raised = digits.chars().map(|digit| match digit {
        '0' => '⁰',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '4' => '⁴',
        '5' => '⁵',
        '6' => '⁶',
        '7' => '⁷',
        '8' => '⁸',
        _ => '⁹',
    });
    std::format!("{mantissa}×10{sign}{}", raised.collect::<String>())
}

/// A value in a formatted text; within a list or a map it is written as in an expression.
fn as_text(made: &mut Made<'_>, value: &Val<'_>, depth: usize) -> Result<(), Unusable> {
    made.budget.take(1)?;
    if depth > super::MAX_DEPTH {
        return Err(overload());
    }
    if value.is_list() {
        made.push("[")?;
        for (at, item) in value.listed().enumerate() {
            if at > 0 {
                made.push(", ")?;
            }
            as_text(made, &item, depth + 1)?;
        }
        return made.push("]");
    }
    // Of what is not a text, and stands within something.
    let named = |made: &mut Made<'_>, name: &str, text: &str| match depth {
        0 => made.push(text),
        _ => {
            made.push(name)?;
            made.push("(\"")?;
            made.push(text)?;
            made.push("\")")
        }
    };
    match value {
        Val::Text(text) if depth == 0 => made.push(text),
        Val::Text(text) => {
            // Each character becomes two at most.
            made.budget.copy(2 * text.len() + 2)?;
            made.push(&quoted(text))
        }
        Val::Map(_) | Val::Json(_) => {
            let mut entries = Vec::new();
            for (key, value) in value.pairs().into_iter().flatten() {
                let (mut name, mut text) = (Made::new(made.budget), Made::new(made.budget));
                as_text(&mut name, &key, depth + 1)?;
                as_text(&mut text, &value, depth + 1)?;
                made.budget.allocate(4 * size_of::<String>())?;
                entries.push((name.text, text.text));
            }
            // What comparing them takes; keys are few times the same.
            let rounds = u64::from(entries.len().max(1).ilog2()) + 1;
            made.budget.take(rounds * entries.len() as u64)?;
            entries.sort();
            made.push("{")?;
            for (at, (name, text)) in entries.iter().enumerate() {
                if at > 0 {
                    made.push(", ")?;
                }
                made.push(name)?;
                made.push(":")?;
                made.push(text)?;
            }
            made.push("}")
        }
        Val::Time(time) => named(made, "timestamp", &time.to_string()),
        Val::Duration(duration) => named(made, "duration", &super::time::shown(*duration)),
        Val::Bytes(bytes) => {
            made.budget.copy(3 * bytes.len())?;
            let text = String::from_utf8_lossy(bytes);
            match depth {
                0 => made.push(&text),
                _ => {
                    made.budget.copy(2 * text.len() + 2)?;
                    made.push("b")?;
                    made.push(&quoted(&text))
                }
            }
        }
        Val::Double(number) if depth > 0 && number.is_finite() => {
            made.push(&std::format!("{number:.6}"))
        }
        Val::Double(number) if depth > 0 => made.push(&quoted(&double(*number))),
        Val::Type(name) => made.push(name),
        Val::Null | Val::Bool(_) | Val::Int(_) | Val::Uint(_) | Val::Double(_) => {
            made.push(&value.shown())
        }
        other => Err(unformatted('s', other)),
    }
}
