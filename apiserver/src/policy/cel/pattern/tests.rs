use super::translated;

/// All that is found, as the tests of this file have it.
fn found(pattern: &str, text: &str) -> String {
    let translated = translated(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
    let regex = regex::Regex::new(&translated.pattern);
    let regex = regex.unwrap_or_else(|why| panic!("{pattern}: {translated:?}: {why}"));
    let found = regex.find_iter(text).map(|found| found.as_str());
    found.collect::<Vec<_>>().join("|")
}

/// What Go's `FindAllString` says of the same expressions and texts.
#[test]
fn expressions_mean_what_they_mean_in_go() {
    for (pattern, text, expected) in [
        (r"^\d$", "٤", ""),
        (r"\d+", "1٤2", "1|2"),
        (r"\W", "é", "é"),
        (r"\w+", "aé_9", "a|_9"),
        (r"\s", "a\u{a0}b\u{b}c", ""),
        (r"\S+", "a\u{a0}b c", "a\u{a0}b|c"),
        (r"\D", "٤", "٤"),
        (r"\bé", "aé", "é"),
        (r"é\b", "é ", ""),
        (r"\B.", "aé", ""),
        (r"[!@&&#]", "&", "&"),
        (r"[--a]+", "-a~", "-a"),
        (r"[a~~b]+", "a~b", "a~b"),
        (r"[a&&b]+", "ab&", "ab&"),
        (r"[a[b]+", "a[b", "a[b"),
        (r"[]a]+", "]a", "]a"),
        (r"[^]a]", "]ab", "b"),
        (r"[\w-]+", "a-é", "a-"),
        (r"[^\W]+", "aé", "a"),
        (r"[\W\d]+", "é4a", "é4"),
        (r"[^\d\s]+", "٤ 4", "٤"),
        (r"[[:word:]]+", "a_é", "a_"),
        (r"[[:^alpha:]]+", "aé1", "é1"),
        (r"[:alpha:]+", "alpha:z", "alpha:"),
        (r"[[:punct:]]+", "!é~", "!|~"),
        (r"[[:space:]]+", "a\u{b}\u{a0}b", "\u{b}"),
        (r"(?i)k", "k\u{212a}K", "k|\u{212a}|K"),
        (r"(?i)\w+", "\u{212a}ſé", "\u{212a}ſ"),
        (r"(?i)\W", "\u{212a}é", "é"),
        (r"(?i)[^k]", "k\u{212a}x", "x"),
        (r"a(?i)b|c", "aBC", "aB|C"),
        (r"(a(?i)b)C", "aBC aBc", "aBC"),
        (r"(?i:A)b", "ab aB", "ab"),
        (r"(?-i:A)b", "Ab ab", "Ab"),
        (r"\pN+", "1٤Ⅷ", "1٤Ⅷ"),
        (r"\PN+", "a1", "a"),
        (r"\p{^Greek}+", "aα", "a"),
        (r"\p{greek}+", "aαΩ", "αΩ"),
        (r"\p{Lu}\p{Ll}+", "Äöx", "Äöx"),
        (r"(?i)\p{Lu}+", "Äö1", "Äö"),
        (r"[\p{Lu}\d]+", "Ä4ö", "Ä4"),
        (r"\p{Letter}+", "aé1", "aé"),
        (r"\p{any}+", "a\n", "a\n"),
        (r"\p{Cs}", "a", ""),
        (r"\P{Cs}", "a", "a"),
        (r"\Qa.b\E+", "a.bbb axb", "a.bbb"),
        (r"\Q[x", "[x", "[x"),
        (r"\x41\x{e9}\101\0?", "AéA", "AéA"),
        (r"[\x{d800}-\x{e000}]", "\u{e000}a", "\u{e000}"),
        (r"\x{d800}", "a", ""),
        (r"[^\x{d800}]", "a", "a"),
        (r"(?U)a+", "aaa", "a|a|a"),
        (r"(?U)a+?", "aaa", "aaa"),
        (r"a+?", "aaa", "a|a|a"),
        (r"a(?i)*", "aaA", "aa|"),
        (r"a*(?i)*", "aaa", "aaa"),
        (r"a*\Q\E?", "aaa", "aaa"),
        (r"a{,2}", "a{,2}", "a{,2}"),
        (r"a{02}", "a{02}", "a{02}"),
        (r"a{2", "a{2", "a{2"),
        (r"}]", "}]", "}]"),
        (r"x{0}y", "xy", "y"),
        (r"(a{2}){2,}", "aaaaa", "aaaa"),
        (r".", "a\n", "a"),
        (r"(?s).", "a\n", "a|\n"),
        (r"^b", "a\nb", ""),
        (r"(?m)^b$", "a\nb\nc", "b"),
        (r"a\z", "a\n", ""),
        (r"$", "a\n", ""),
        (r"a|", "ba", "|a"),
        (r"(|a)*", "aa", "||"),
        (r"()", "ab", "||"),
        (r"# x", "a# x", "# x"),
        (r"\<a\>", "<a>", "<a>"),
        (r"\_\-\ ", "_- ", "_- "),
        (r"(?P<n>a)(?<m>b)", "ab", "ab"),
    ] {
        assert_eq!(found(pattern, text), expected, "{pattern} {text:?}");
    }
}

/// What Go's `Compile` says, after `error parsing regexp: `.
#[test]
fn what_go_does_not_read_is_refused_in_its_words() {
    for (pattern, expected) in [
        (r"[a--]", r"invalid character class range: `a--`"),
        (r"(", r"missing closing ): `(`"),
        (r"a)", r"unexpected ): `a)`"),
        (r"[a", r"missing closing ]: `[a`"),
        (r"[]", r"missing closing ]: `[]`"),
        (r"\", r"trailing backslash at end of expression: ``"),
        (r"\q", r"invalid escape sequence: `\q`"),
        (r"\1", r"invalid escape sequence: `\1`"),
        (r"\é", r"invalid escape sequence: `\é`"),
        (r"\C", r"invalid escape sequence: `\C`"),
        (r"\Z", r"invalid escape sequence: `\Z`"),
        (r"\E", r"invalid escape sequence: `\E`"),
        (r"[\b]", r"invalid escape sequence: `\b`"),
        (r"[a-\d]", r"invalid escape sequence: `\d`"),
        (r"[b-a]", r"invalid character class range: `b-a`"),
        (r"[[:foo:]]", r"invalid character class range: `[:foo:]`"),
        (r"\p{Foo}", r"invalid character class range: `\p{Foo}`"),
        (
            r"\p{Alphabetic}",
            r"invalid character class range: `\p{Alphabetic}`",
        ),
        (r"\pé", r"invalid character class range: `\pé`"),
        (r"\p{L", r"invalid character class range: `\p{L`"),
        (r"\p", r"invalid character class range: `\p`"),
        (r"*a", r"missing argument to repetition operator: `*`"),
        (r"(*)", r"missing argument to repetition operator: `*`"),
        (r"a|*", r"missing argument to repetition operator: `*`"),
        (r"(?i)*", r"missing argument to repetition operator: `*`"),
        (r"a**", r"invalid nested repetition operator: `**`"),
        (r"a???", r"invalid nested repetition operator: `???`"),
        (r"a{2}{3}", r"invalid nested repetition operator: `{2}{3}`"),
        (r"a{1001}", r"invalid repeat count: `{1001}`"),
        (r"a{2,1}", r"invalid repeat count: `{2,1}`"),
        (r"a{99999999999}", r"invalid repeat count: `{99999999999}`"),
        (r"(a{500}){3}", r"invalid repeat count: `{3}`"),
        (r"((a{10}){10}){11}", r"invalid repeat count: `{11}`"),
        (r"(?=a)", r"invalid or unsupported Perl syntax: `(?=`"),
        (r"(?x)a", r"invalid or unsupported Perl syntax: `(?x`"),
        (r"(?i", r"invalid or unsupported Perl syntax: `(?i`"),
        (r"(?i-)", r"invalid or unsupported Perl syntax: `(?i-)`"),
        (r"(?--i)", r"invalid or unsupported Perl syntax: `(?--`"),
        (r"(?P<n", r"invalid named capture: `(?P<n`"),
        (r"(?P<é>a)", r"invalid named capture: `(?P<é>`"),
        (r"(?P=n)", r"invalid or unsupported Perl syntax: `(?P`"),
        (r"\x", r"invalid escape sequence: `\x`"),
        (r"\xg1", r"invalid escape sequence: `\xg1`"),
        (r"\x{}", r"invalid escape sequence: `\x{}`"),
        (r"\x{110000}", r"invalid escape sequence: `\x{110000`"),
        (r"\x{41", r"invalid escape sequence: `\x{41`"),
    ] {
        assert_eq!(translated(pattern), Err(expected.to_owned()), "{pattern}");
    }
}

/// However it is written, all that is read can be read by the crate, and ends.
#[test]
fn long_expressions_are_read_in_their_length() {
    let began = std::time::Instant::now();
    for part in [
        "(?i)a(?-i)b",
        "a*\\Q\\E",
        "[[:^punct:]]",
        "\\W",
        "(",
        "((?i)",
        "\\x{0000",
    ] {
        let pattern = part.repeat(16 * 1024 / part.len());
        let written = translated(&pattern).map_or(0, |written| written.pattern.len());
        assert!(written < 16 * pattern.len(), "{part}: {written}");
    }
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}

/// As many as are written where case says nothing; letters are none.
#[test]
fn classes_without_case_are_counted() {
    for (pattern, expected) in [
        ("[a-z][0-9]", 0),
        ("(?i)pipe|(app)+", 0),
        ("(?i)[a-z][0-9]", 2),
        ("(?i:[a])[b]", 1),
        ("(?mi)a(?-i)[b]", 0),
        (r"(?i)[\Wa]\pL\d", 4),
    ] {
        let counted = translated(pattern).map(|it| it.folded);
        assert_eq!(counted, Ok(expected), "{pattern}");
    }
}
