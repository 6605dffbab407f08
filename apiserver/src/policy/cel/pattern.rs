//! Regular expressions of Go, as policies have them, in the syntax of the crate that matches
//! them here. Pure.
//!
//! What both read alike is read here as well, and written so that it can mean nothing else:
//! to Go `\d`, `\s`, `\w`, `\b` and classes in brackets are of ASCII, `&&`, `--`, `~~` and `[`
//! in a class are characters, there are `\Q...\E` and octal escapes, classes of Unicode
//! have few names, and nothing is repeated more than a thousand times.

/// Characters that mean something to the crate.
const META: &str = r"\.+*?()|[]{}^$#&-~";
/// Matches nothing, in a class and beside one.
const NOTHING: &str = r"\P{any}";
/// How often anything may be repeated, in repetitions of one another as well.
const REPEATED: u32 = 1000;
const SURROGATES: std::ops::RangeInclusive<u32> = 0xD800..=0xDFFF;

const DIGITS: &str = "0-9";
const SPACES: &str = r"\t\n\x0C\r ";
const WORDS: &str = "0-9A-Za-z_";

/// The classes of POSIX.
const NAMED: [(&str, &str); 14] = [
    ("alnum", "0-9A-Za-z"),
    ("alpha", "A-Za-z"),
    ("ascii", r"\x00-\x7F"),
    ("blank", r"\t "),
    ("cntrl", r"\x00-\x1F\x7F"),
    ("digit", DIGITS),
    ("graph", r"\x21-\x7E"),
    ("lower", "a-z"),
    ("print", r"\x20-\x7E"),
    ("punct", r"\x21-\x2F\x3A-\x40\x5B-\x60\x7B-\x7E"),
    ("space", r"\t-\r "),
    ("upper", "A-Z"),
    ("word", WORDS),
    ("xdigit", "0-9A-Fa-f"),
];

/// General categories of Unicode, and their other names without what is between words.
const CATEGORIES: &str = "
    c=other cc=control=cntrl cf=format cn=unassigned co=privateuse
    l=letter lc=casedletter ll=lowercaseletter lm=modifierletter lo=otherletter
    lt=titlecaseletter lu=uppercaseletter
    m=mark=combiningmark mc=spacingmark me=enclosingmark mn=nonspacingmark
    n=number nd=decimalnumber=digit nl=letternumber no=othernumber
    p=punctuation=punct pc=connectorpunctuation pd=dashpunctuation pe=closepunctuation
    pf=finalpunctuation pi=initialpunctuation po=otherpunctuation ps=openpunctuation
    s=symbol sc=currencysymbol sk=modifiersymbol sm=mathsymbol so=othersymbol
    z=separator zl=lineseparator zp=paragraphseparator zs=spaceseparator";

/// Its scripts, in the same way.
const SCRIPTS: &str = "
    adlam ahom anatolianhieroglyphs arabic armenian avestan balinese bamum bassavah batak bengali
    bhaiksuki bopomofo brahmi braille buginese buhid canadianaboriginal carian caucasianalbanian
    chakma cham cherokee chorasmian common coptic cuneiform cypriot cyprominoan cyrillic deseret
    devanagari divesakuru dogra duployan egyptianhieroglyphs elbasan elymaic ethiopic georgian
    glagolitic gothic grantha greek gujarati gunjalagondi gurmukhi han hangul hanifirohingya
    hanunoo hatran hebrew hiragana imperialaramaic inherited inscriptionalpahlavi
    inscriptionalparthian javanese kaithi kannada katakana kawi kayahli kharoshthi
    khitansmallscript khmer khojki khudawadi lao latin lepcha limbu lineara linearb lisu lycian
    lydian mahajani makasar malayalam mandaic manichaean marchen masaramgondi medefaidrin
    meeteimayek mendekikakui meroiticcursive meroitichieroglyphs miao modi mongolian mro multani
    myanmar nabataean nagmundari nandinagari newa newtailue nko nushu nyiakengpuachuehmong ogham
    olchiki oldhungarian olditalic oldnortharabian oldpermic oldpersian oldsogdian
    oldsoutharabian oldturkic olduyghur oriya osage osmanya pahawhhmong palmyrene paucinhau
    phagspa phoenician psalterpahlavi rejang runic samaritan saurashtra sharada shavian siddham
    signwriting sinhala sogdian sorasompeng soyombo sundanese sylotinagri syriac tagalog tagbanwa
    taile taitham taiviet takri tamil tangsa tangut telugu thaana thai tibetan tifinagh tirhuta
    toto ugaritic vai vithkuqi wancho warangciti yezidi yi zanabazarsquare";

/// An expression in the syntax of the crate.
#[derive(Debug, PartialEq, Eq)]
pub struct Translated {
    pub pattern: String,
    /// Classes of characters that are compared without case: the crate looks up each of their
    /// characters, up to a million.
    pub folded: usize,
    /// Classes by their name in Unicode, of which each has up to some hundred ranges.
    pub named: usize,
}

/// The same expression in the syntax of the crate.
///
/// # Errors
/// What Go says of one that it does not read, without what it begins with.
pub fn translated(pattern: &str) -> Result<Translated, String> {
    Reader {
        whole: pattern,
        rest: pattern,
        out: String::with_capacity(2 * pattern.len()),
        flags: Flags::default(),
        folds: false,
        folded: 0,
        named: 0,
        groups: Vec::new(),
        atom: None,
        repeated: 1,
        operator: None,
    }
    .read()
}

#[derive(Clone, Copy, Default)]
struct Flags {
    /// `i`: letters of both cases are the same.
    fold: bool,
    /// `m`: each line begins and ends.
    lines: bool,
    /// `s`: a dot is the end of a line as well.
    any: bool,
    /// `U`: repetitions match as little as they can.
    lazy: bool,
}

/// A group that is open, and what counts again after it.
struct Group {
    start: usize,
    flags: Flags,
    folds: bool,
    repeated: u32,
}

/// What a repetition would repeat.
struct Atom {
    /// Where it begins in what is written.
    start: usize,
    /// How often something in it is repeated.
    repeated: u32,
    is_repetition: bool,
}

struct Reader<'p> {
    whole: &'p str,
    rest: &'p str,
    out: String,
    flags: Flags,
    /// Whether letters of both cases are the same in what is written next.
    folds: bool,
    folded: usize,
    named: usize,
    groups: Vec<Group>,
    atom: Option<Atom>,
    /// How often something of this group is repeated.
    repeated: u32,
    /// Where the operator stands that was read last, if that is a repetition.
    operator: Option<&'p str>,
}

fn wrong(what: &str, of: &str) -> String {
    format!("{what}: `{of}`")
}

/// What was read from `from` on.
fn until<'t>(from: &'t str, rest: &str) -> &'t str {
    from.get(..from.len() - rest.len()).unwrap_or(from)
}

fn write(out: &mut String, one: char) {
    if META.contains(one) {
        out.push('\\');
    }
    out.push(one);
}

impl<'p> Reader<'p> {
    fn read(mut self) -> Result<Translated, String> {
        while let Some(first) = self.rest.chars().next() {
            let at = self.rest;
            let after = &at[first.len_utf8()..];
            let mut operator = None;
            match first {
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.out.push('|');
                    (self.rest, self.atom) = (after, None);
                }
                '^' => self.atom(if self.flags.lines { "(?m:^)" } else { r"\A" }, after),
                '$' => self.atom(if self.flags.lines { "(?m:$)" } else { r"\z" }, after),
                '.' => self.atom(if self.flags.any { "(?s:.)" } else { r"[^\n]" }, after),
                '[' => self.class()?,
                '*' | '+' | '?' => {
                    self.rest = after;
                    self.repeat(at, None)?;
                    operator = Some(at);
                }
                '{' => match counts(at) {
                    None => self.character('{', after),
                    Some((counts, after)) => {
                        self.rest = after;
                        let (least, most) = counts;
                        let most = most.unwrap_or(least);
                        if least > REPEATED || most > REPEATED || least > most {
                            return Err(wrong("invalid repeat count", until(at, after)));
                        }
                        self.repeat(at, Some(counts))?;
                        operator = Some(at);
                    }
                },
                '\\' => self.escaped()?,
                one => self.character(one, after),
            }
            self.operator = operator;
        }
        match self.groups.is_empty() {
            true => Ok(Translated {
                pattern: self.out,
                folded: self.folded,
                named: self.named,
            }),
            false => Err(wrong("missing closing )", self.whole)),
        }
    }

    /// Writes one thing that can be repeated.
    fn atom(&mut self, written: &str, rest: &'p str) {
        if self.folds != self.flags.fold {
            self.folds = self.flags.fold;
            self.out.push_str(if self.folds { "(?i)" } else { "(?-i)" });
        }
        let count = |begin: &str| written.matches(begin).count();
        let named = count(r"\p") + count(r"\P");
        self.named += named;
        if self.folds {
            self.folded += count("[") + named;
        }
        self.atom = Some(Atom {
            start: self.out.len(),
            repeated: 1,
            is_repetition: false,
        });
        self.out.push_str(written);
        self.rest = rest;
    }

    fn character(&mut self, one: char, rest: &'p str) {
        let mut written = String::new();
        write(&mut written, one);
        self.atom(&written, rest);
    }

    /// Repeats what was written last; the operator stands at `at` and was read.
    fn repeat(&mut self, at: &'p str, counts: Option<Counts>) -> Result<(), String> {
        let mut lazy = self.flags.lazy;
        if let Some(rest) = self.rest.strip_prefix('?') {
            (self.rest, lazy) = (rest, !lazy);
        }
        if let Some(before) = self.operator {
            let both = until(before, self.rest);
            return Err(wrong("invalid nested repetition operator", both));
        }
        let operator = until(at, self.rest);
        let missing = || wrong("missing argument to repetition operator", operator);
        let atom = self.atom.as_mut().ok_or_else(missing)?;
        if atom.is_repetition {
            // Something that writes nothing stands between two operators.
            self.out.insert_str(atom.start, "(?:");
            self.out.push(')');
        }
        atom.is_repetition = true;
        match counts {
            None => self.out.extend(at.chars().next()),
            Some((least, most)) => {
                let times = most.unwrap_or(least);
                atom.repeated = match most {
                    Some(0) => 1,
                    _ => atom.repeated * times.max(1),
                };
                if least.max(times) >= 2 && atom.repeated > REPEATED {
                    return Err(wrong("invalid repeat count", operator));
                }
                self.out.push_str(&match most {
                    None => format!("{{{least},}}"),
                    Some(most) => format!("{{{least},{most}}}"),
                });
            }
        }
        self.repeated = self.repeated.max(atom.repeated);
        if lazy {
            self.out.push('?');
        }
        Ok(())
    }

    /// `(`, `(?flags:`, `(?flags)` or `(?P<name>`: what a group is called is not asked for.
    fn open(&mut self) -> Result<(), String> {
        let at = self.rest;
        let Some(perl) = at.strip_prefix("(?") else {
            self.begin(&at[1..]);
            return Ok(());
        };
        let named = perl.strip_prefix("P<").or(perl.strip_prefix('<'));
        if let Some(named) = named.filter(|named| !named.is_empty()) {
            let invalid = |of| wrong("invalid named capture", of);
            let (name, rest) = named.split_once('>').ok_or_else(|| invalid(at))?;
            let plain = |one: char| one == '_' || one.is_ascii_alphanumeric();
            if name.is_empty() || !name.chars().all(plain) {
                return Err(invalid(until(at, rest)));
            }
            self.begin(rest);
            return Ok(());
        }
        let mut letters = perl.chars();
        let (mut flags, mut on, mut any) = (self.flags, true, true);
        while let Some(letter) = letters.next() {
            let flag = match letter {
                'i' => &mut flags.fold,
                'm' => &mut flags.lines,
                's' => &mut flags.any,
                'U' => &mut flags.lazy,
                '-' if on => {
                    (on, any) = (false, false);
                    continue;
                }
                ':' if any => {
                    self.begin(letters.as_str());
                    self.flags = flags;
                    return Ok(());
                }
                ')' if any => {
                    (self.flags, self.rest) = (flags, letters.as_str());
                    return Ok(());
                }
                _ => break,
            };
            (*flag, any) = (on, true);
        }
        let read = until(at, letters.as_str());
        Err(wrong("invalid or unsupported Perl syntax", read))
    }

    fn begin(&mut self, rest: &'p str) {
        self.groups.push(Group {
            start: self.out.len(),
            flags: self.flags,
            folds: self.folds,
            repeated: self.repeated,
        });
        self.out.push_str("(?:");
        (self.atom, self.repeated, self.rest) = (None, 1, rest);
    }

    fn close(&mut self) -> Result<(), String> {
        let unexpected = || wrong("unexpected )", self.whole);
        let group = self.groups.pop().ok_or_else(unexpected)?;
        self.out.push(')');
        self.atom = Some(Atom {
            start: group.start,
            repeated: self.repeated,
            is_repetition: false,
        });
        self.repeated = self.repeated.max(group.repeated);
        (self.flags, self.folds) = (group.flags, group.folds);
        self.rest = &self.rest[1..];
        Ok(())
    }

    /// What begins with a backslash, outside of classes.
    fn escaped(&mut self) -> Result<(), String> {
        let at = self.rest;
        if let Some(rest) = at.strip_prefix(r"\Q") {
            let (quoted, rest) = rest.split_once(r"\E").unwrap_or((rest, ""));
            for one in quoted.chars() {
                self.character(one, rest);
            }
            self.rest = rest;
            return Ok(());
        }
        for (escape, written) in [
            (r"\A", r"\A"),
            (r"\z", r"\z"),
            (r"\b", r"(?-u:\b)"),
            (r"\B", r"(?-u:\B)"),
        ] {
            if let Some(rest) = at.strip_prefix(escape) {
                self.atom(written, rest);
                return Ok(());
            }
        }
        if let Some((class, rest)) = of_unicode(at)? {
            self.atom(&class, rest);
            return Ok(());
        }
        if let Some((negated, class, rest)) = of_perl(at) {
            self.atom(&bracketed(negated, class), rest);
            return Ok(());
        }
        let (code, rest) = escape(at)?;
        match char::from_u32(code) {
            Some(one) => self.character(one, rest),
            None => self.atom(NOTHING, rest),
        }
        Ok(())
    }

    /// A class in brackets.
    fn class(&mut self) -> Result<(), String> {
        let whole = self.rest;
        let mut rest = &whole[1..];
        let mut written = "[".to_owned();
        if let Some(negated) = rest.strip_prefix('^') {
            rest = negated;
            written.push('^');
        }
        let before = written.len();
        // It may have a bracket as the first character.
        let mut first = true;
        while first || !rest.starts_with(']') {
            first = false;
            if let Some((negated, class, after)) = of_posix(rest)? {
                match negated {
                    true => written.push_str(&bracketed(true, class)),
                    false => written.push_str(class),
                }
                rest = after;
            } else if let Some((class, after)) = of_unicode(rest)? {
                written.push_str(&class);
                rest = after;
            } else if let Some((negated, class, after)) = of_perl(rest) {
                match negated {
                    true => written.push_str(&bracketed(true, class)),
                    false => written.push_str(class),
                }
                rest = after;
            } else {
                rest = range(&mut written, rest, whole)?;
            }
        }
        if written.len() == before {
            written.push_str(NOTHING);
        }
        written.push(']');
        self.atom(&written, &rest[1..]);
        Ok(())
    }
}

fn bracketed(negated: bool, class: &str) -> String {
    format!("[{}{class}]", if negated { "^" } else { "" })
}

/// One character of a class, or a range of them; returns what comes after it.
fn range<'t>(written: &mut String, from: &'t str, class: &str) -> Result<&'t str, String> {
    let one = |text: &'t str| match text.chars().next() {
        None => Err(wrong("missing closing ]", class)),
        Some('\\') => escape(text),
        Some(one) => Ok((u32::from(one), &text[one.len_utf8()..])),
    };
    let (low, mut rest) = one(from)?;
    let mut high = low;
    let to = rest.strip_prefix('-');
    if let Some(to) = to.filter(|to| !to.is_empty() && !to.starts_with(']')) {
        (high, rest) = one(to)?;
        if high < low {
            return Err(wrong("invalid character class range", until(from, rest)));
        }
    }
    // No text has surrogates.
    let low = match SURROGATES.contains(&low) {
        true => SURROGATES.end() + 1,
        false => low,
    };
    let high = match SURROGATES.contains(&high) {
        true => SURROGATES.start() - 1,
        false => high,
    };
    if let (Some(low), Some(high)) = (char::from_u32(low), char::from_u32(high))
        && low <= high
    {
        write(written, low);
        if low < high {
            written.push('-');
            write(written, high);
        }
    }
    Ok(rest)
}

/// `\d` and the like: whether it is negated, the class, and what comes after it.
fn of_perl(text: &str) -> Option<(bool, &'static str, &str)> {
    let mut characters = text.strip_prefix('\\')?.chars();
    let name = characters.next()?;
    let class = match name.to_ascii_lowercase() {
        'd' => DIGITS,
        's' => SPACES,
        'w' => WORDS,
        _ => return None,
    };
    Some((name.is_ascii_uppercase(), class, characters.as_str()))
}

/// The same of `[:alpha:]`.
fn of_posix(text: &str) -> Result<Option<(bool, &'static str, &str)>, String> {
    let Some((name, rest)) = text
        .strip_prefix("[:")
        .and_then(|text| text.split_once(":]"))
    else {
        return Ok(None);
    };
    let plain = name.strip_prefix('^');
    let found = NAMED
        .iter()
        .find(|(known, _)| *known == plain.unwrap_or(name));
    match found {
        Some((_, class)) => Ok(Some((plain.is_some(), *class, rest))),
        None => Err(wrong("invalid character class range", until(text, rest))),
    }
}

/// `\pL` or `\p{Greek}`, and what comes after it.
fn of_unicode(text: &str) -> Result<Option<(String, &str)>, String> {
    let (mut negated, named) = match (text.strip_prefix(r"\p"), text.strip_prefix(r"\P")) {
        (Some(named), _) => (false, named),
        (_, Some(named)) => (true, named),
        _ => return Ok(None),
    };
    let unknown = |of| wrong("invalid character class range", of);
    let (mut name, rest) = match named.chars().next() {
        None => return Err(unknown(text)),
        Some('{') => named[1..].split_once('}').ok_or_else(|| unknown(text))?,
        Some(one) => named.split_at(one.len_utf8()),
    };
    if let Some(other) = name.strip_prefix('^') {
        (name, negated) = (other, !negated);
    }
    let between = ['_', '-', ' '];
    let plain = name.replace(between, "").to_ascii_lowercase();
    let is_known = |names: &str| names.split(['=']).any(|known| known == plain);
    let category = CATEGORIES.split_whitespace().find(|names| is_known(names));
    let class = match (plain.as_str(), category) {
        // No text has surrogates.
        ("cs" | "surrogate", _) => {
            negated = !negated;
            "any".to_owned()
        }
        ("any" | "ascii" | "assigned", _) => plain,
        (_, Some(category)) => {
            let short = category.split('=').next().unwrap_or_default();
            format!("gc={short}")
        }
        _ if SCRIPTS.split_whitespace().any(|known| known == plain) => format!("sc={plain}"),
        _ => return Err(unknown(until(text, rest))),
    };
    let letter = if negated { 'P' } else { 'p' };
    Ok(Some((format!(r"\{letter}{{{class}}}"), rest)))
}

/// One character that is escaped, by its number, and what comes after it.
fn escape(text: &str) -> Result<(u32, &str), String> {
    let mut characters = text[1..].chars();
    let Some(first) = characters.next() else {
        return Err(wrong("trailing backslash at end of expression", ""));
    };
    let next = |characters: &std::str::Chars<'_>, radix| {
        let next = characters.clone().next();
        next.and_then(|digit: char| digit.to_digit(radix))
    };
    let code = match first {
        // One digit would be a reference to a group.
        '1'..='7' if next(&characters, 8).is_none() => None,
        '0'..='7' => {
            let mut code = first.to_digit(8).unwrap_or_default();
            for _ in 0..2 {
                let Some(digit) = next(&characters, 8) else {
                    break;
                };
                characters.next();
                code = 8 * code + digit;
            }
            Some(code)
        }
        'x' => hexadecimal(&mut characters),
        'a' => Some(0x07),
        'f' => Some(0x0C),
        'n' => Some(0x0A),
        'r' => Some(0x0D),
        't' => Some(0x09),
        'v' => Some(0x0B),
        one if one.is_ascii() && !one.is_ascii_alphanumeric() => Some(u32::from(one)),
        _ => None,
    };
    let rest = characters.as_str();
    let invalid = || wrong("invalid escape sequence", until(text, rest));
    code.map(|code| (code, rest)).ok_or_else(invalid)
}

/// `41` or `{41}`.
fn hexadecimal(characters: &mut std::str::Chars<'_>) -> Option<u32> {
    let first = characters.next()?;
    if first != '{' {
        let second = characters.next();
        return Some(16 * first.to_digit(16)? + second?.to_digit(16)?);
    }
    let mut code = None;
    loop {
        match characters.next()? {
            '}' => return code,
            digit => {
                let more = 16 * code.unwrap_or(0) + digit.to_digit(16)?;
                code = Some(more).filter(|code| *code <= u32::from(char::MAX));
                code?;
            }
        }
    }
}

/// The least and the most, if there is one.
type Counts = (u32, Option<u32>);

/// `{n}`, `{n,}` or `{n,m}`, and what comes after it; without them a brace is a character.
fn counts(text: &str) -> Option<(Counts, &str)> {
    let (least, rest) = number(&text[1..])?;
    if let Some(rest) = rest.strip_prefix('}') {
        return Some(((least, Some(least)), rest));
    }
    let rest = rest.strip_prefix(',')?;
    if let Some(rest) = rest.strip_prefix('}') {
        return Some(((least, None), rest));
    }
    let (most, rest) = number(rest)?;
    Some(((least, Some(most)), rest.strip_prefix('}')?))
}

/// A number without a zero before it; the largest for one that is too large.
fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|digit: char| !digit.is_ascii_digit());
    let (digits, rest) = text.split_at(end.unwrap_or(text.len()));
    if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    Some((digits.parse().unwrap_or(u32::MAX), rest))
}

#[cfg(test)]
mod tests;
