use serde_json::{Value, json};

use super::{Budget, Program, Unusable, Val};

fn object() -> Value {
    json!({
        "metadata": {"name": "a", "labels": {"team": "x", "a.b/c": "d"}},
        "spec": {"replicas": 3, "half": 0.5, "ports": [80, 443], "names": ["b", "a", "b"],
            "items": [{"name": "one", "n": 1}, {"name": "two", "n": 2}], "none": null},
    })
}

fn run<'a>(object: &'a Value, source: &str, budget: &Budget) -> Result<Val<'a>, Unusable> {
    let program = Program::compile(source, &["object", "oldObject"]);
    let variables = [("object", Val::from(object)), ("oldObject", Val::Null)];
    program.evaluate(&super::Named(&variables), budget)
}

/// Steps and bytes are bounded, and not time: that depends on the machine.
fn patient() -> Budget {
    let mut budget = Budget::new(super::POLICY);
    budget.until += std::time::Duration::from_secs(60);
    budget
}

fn truth(source: &str) -> Result<bool, String> {
    let object = object();
    match run(&object, source, &patient()) {
        Ok(Val::Bool(value)) => Ok(value),
        Ok(other) => Err(other.shown()),
        Err(why) => Err(why.to_string()),
    }
}

/// What the evaluator of Kubernetes says of the same expressions.
#[test]
fn expressions() {
    let cases = [
        "object.spec.replicas == 3",
        "object.spec.replicas > 2 && object.spec.replicas < 4.5",
        "object.spec.half == 0.5",
        "1 == 1.0",
        "1u == 1",
        "object.metadata.labels['a.b/c'] == 'd'",
        "has(object.spec.none) && object.spec.none == null",
        "!has(object.spec.other)",
        "oldObject == null",
        "size(object.spec.ports) == 2 && object.spec.ports.size() == 2",
        "443 in object.spec.ports && !(1 in object.spec.ports)",
        "'team' in object.metadata.labels",
        "object.spec.ports.all(p, p > 10)",
        "object.spec.ports.exists(p, p == 80)",
        "object.spec.ports.exists_one(p, p == 80)",
        "object.spec.items.map(i, i.n) == [1, 2]",
        "object.spec.items.filter(i, i.n > 1).map(i, i.name) == ['two']",
        "object.spec.items.map(i, i.n > 1, i.name) == ['two']",
        "object.spec.items.map(i, object.spec.ports.map(p, p + i.n)) == [[81, 444], [82, 445]]",
        // One item decides, whatever the others are.
        "object.spec.items.exists(i, i.n == 2 || i.nothing == 1)",
        "[1, 0].exists(i, 2 / i == 2)",
        "[0, 1].exists(i, 2 / i == 2)",
        "false || true",
        "(object.nothing == 1 || true) && !(object.nothing == 1 && false)",
        "object.spec.replicas > 2 ? true : object.nothing",
        "object.metadata.name.startsWith('a') && 'abc'.endsWith('bc') && 'abc'.contains('b')",
        "'abc-12'.matches('^[a-z]+-[0-9]{2}$')",
        "'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22']",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
        "['a', 'b'].join('-') == 'a-b' && 'äb'.charAt(1) == 'b' && 'äbc'.substring(1, 2) == 'b'",
        "'hello'.replace('l', 'L', 1) == 'heLlo' && ' a '.trim() == 'a' && 'Ab'.lowerAscii() == 'ab'",
        "'abcb'.indexOf('b') == 1 && 'abcb'.lastIndexOf('b') == 3 && 'a'.indexOf('x') == -1",
        "'%s is %d, %.2f'.format(['a', 3, 0.5]) == 'a is 3, 0.50'",
        "type(1) == int && type('a') == string && type([]) == list && type(object) == map",
        "int('3') == 3 && string(3) == '3' && double('0.5') == 0.5 && uint(3) == 3u",
        "timestamp('2026-01-02T03:04:05Z').getFullYear() == 2026",
        "timestamp('2026-01-02T3:04:05,5+01:00') == timestamp('2026-01-02T02:04:05.5Z')",
        "timestamp('2026-01-02T03:04:05Z') - timestamp('2026-01-02T03:04:00Z') == duration('5s')",
        "duration('1h30m').getMinutes() == 90 && duration('90m') > duration('1h')",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('1500m').compareTo(quantity('1.5')) == 0",
        "isQuantity('1.5Gi') && !isQuantity('1.5Xi') && quantity('2k').asInteger() == 2000",
        "ip('10.0.0.1').family() == 4 && isIP('::1') && cidr('10.0.0.0/8').containsIP('10.1.2.3')",
        "!cidr('10.0.0.0/8').containsIP(ip('11.1.2.3')) && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
        "object.?spec.?other.orValue('x') == 'x' && object.?spec.?replicas.orValue(1) == 3",
        "object.metadata.?labels[?'team'].orValue('') == 'x' && !object.?nothing.hasValue()",
        "optional.of(1).optMap(x, x + 1).value() == 2",
        "[1, 3, 2].max() == 3 && [1, 2].isSorted() && [1, 2].sum() == 3 && [3, 4].indexOf(4) == 1",
        "sets.contains([1, 2], [1]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 2], [2, 1, 1])",
        "{'a': 1, 'b': 2}.all(k, k < 'c') && {'a': 1}.a == 1 && size({'a': 1}) == 1",
        "object.metadata.labels.all(k, v, size(k) > size(v))",
        "[1, 2].transformList(i, v, i + v) == [1, 3]",
        "cel.bind(n, object.spec.replicas, n * n == 9)",
        "object.metadata.`name` == 'a'",
        "'a' + 'b' == 'ab' && [1] + [2] == [1, 2] && b'a' == bytes('a')",
        "5 / 2 == 2 && -5 % 3 == -2 && 2 * 3 - 1 == 5",
        "object == object && object.spec.items[0] == {'name': 'one', 'n': 1}",
        // As Go's regular expressions: ASCII, and no sets of sets.
        "!'٤'.matches('^\\\\d$') && 'é'.matches('\\\\W') && '&'.matches('[!@&&#]')",
        "'aé 1'.find('\\\\w+') == 'a' && 'é1 ٤2'.findAll('\\\\d') == ['1', '2']",
        "'a.b'.matches('^\\\\Qa.b\\\\E$') && 'a1'.matches('^[[:alpha:]][[:digit:]]$')",
        "'abc'.findAll('[a-c]', -1).size() == 3 && 'abc'.findAll('[a-c]', 0) == []",
        // Durations as a whole, times by their parts.
        "duration('1m1s5ms').getMilliseconds() == 61005 && duration('90s').getSeconds() == 90",
        "duration('-90m').getHours() == -1 && duration('-90m').getMinutes() == -90",
        "timestamp('2026-01-04T23:04:05.678Z').getMilliseconds() == 678",
        "timestamp('2026-01-04T23:04:05Z').getDayOfWeek() == 0 && int(duration('2s')) == 2000000000",
        "timestamp('2026-01-04T23:04:05Z').getHours('+05:30') == 4",
        "timestamp('2026-01-04T23:04:05Z').getMinutes('05:30') == 34",
        "timestamp('2026-01-04T23:04:05Z').getDate('02:00') == 5",
        "timestamp('2026-01-04T00:04:05Z').getMinutes('02:75') == 19",
        "timestamp('2026-01-04T00:04:05Z').getDayOfYear('-00:30') == 2",
        "timestamp('2026-01-04T00:04:05Z').getHours('-08:15') == 15",
        "timestamp('2026-07-04T00:04:05Z').getHours('Europe/Berlin') == 2",
        "timestamp('2026-07-04T00:04:05Z').getHours('') == 0",
        // Characters, and not bytes.
        "'bé'.lastIndexOf('b', 1) == 0 && 'aéé'.lastIndexOf('é', 0) == -1",
        "'aéé'.lastIndexOf('é', 1) == 1 && 'aéé'.lastIndexOf('é') == 2 && 'é'.lastIndexOf('é', 1) == -1",
        "'abc'.indexOf('c', 7) == -1 && 'abc'.indexOf('', 2) == 2 && 'abc'.indexOf('', 7) == 3",
        "'abc'.lastIndexOf('', 2) == 2 && 'abc'.lastIndexOf('') == 3 && ''.lastIndexOf('a') == -1",
        "'éab'.indexOf('b', 1) == 2 && 'a'.lastIndexOf('abc', 0) == -1",
        "'abc'.charAt(3) == '' && 'aéb'.substring(1) == 'éb' && 'aéb'.substring(3) == ''",
        "'aéb'.split('') == ['a', 'é', 'b'] && 'aéb'.split('', 2) == ['a', 'éb'] && ''.split('') == []",
        "'a,b'.split(',', 0) == [] && 'a,b'.split(',', -1) == ['a', 'b'] && ''.split(',') == ['']",
        "'aé'.replace('', '-') == '-a-é-' && 'aa'.replace('a', 'b', -1) == 'bb' && 'a'.replace('a', 'b', 0) == 'a'",
        "ip.isCanonical('10.0.0.1') && ip.isCanonical('2001:db8::1') && !ip.isCanonical('2001:DB8:0::1')",
        "ip.isCanonical('::1.2.3.4') == false && ip.isCanonical('1:0:2:3:4:5:6:7')",
        "ip('10.0.0.1').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast()",
        "!ip('224.0.0.1').isGlobalUnicast() && !ip('fe80::1').isGlobalUnicast() && ip('fd00::1').isGlobalUnicast()",
        "ip('169.254.1.1').isLinkLocalUnicast() && ip('fe80::1').isLinkLocalUnicast() && !ip('fd80::1').isLinkLocalUnicast()",
        "ip('224.0.0.1').isLinkLocalMulticast() && !ip('224.0.1.1').isLinkLocalMulticast() && ip('ff02::1').isLinkLocalMulticast()",
        "cidr('192.168.3.1/24').masked() == cidr('192.168.3.0/24') && cidr('1.2.3.4/0').masked() == cidr('0.0.0.0/0')",
        "string(cidr('2001:db8::1/32').masked()) == '2001:db8::/32' && cidr('::1/128').masked() == cidr('::1/128')",
        "!isCIDR('10.0.0.0/08') && !isCIDR('10.0.0.0/+8') && isCIDR('10.0.0.0/0')",
        "[1, 2, 3].reverse() == [3, 2, 1] && [].reverse() == [] && object.spec.ports.reverse() == [443, 80]",
        "[1, [2, [3, [4]]]].flatten() == [1, 2, [3, [4]]] && [1, [2, [3, [4]]]].flatten(2) == [1, 2, 3, [4]]",
        "[1, [2]].flatten(0) == [1, [2]] && [1, [2, [3]]].flatten(9) == [1, 2, 3]",
        // URLs, versions and named formats; many more are compared with Kubernetes' own in
        // `tests/tests/expressions`.
        "isURL('https://a.b:80/c?d=e') && isURL('/a') && !isURL('a') && !isURL('http://a b') && !isURL('http://[::1')",
        "url('https://u:p@A.b:80/c%20d?e=f#g').getHost() == 'A.b:80' && url('http://[::1]:80').getHostname() == '::1'",
        "url('https://a:80').getPort() == '80' && url('https://a').getPort() == '' && url('HTTPS://a').getScheme() == 'https'",
        "url('http://a/b c').getEscapedPath() == '/b%20c' && url('http://a/%62').getEscapedPath() == '/%62'",
        "url('http://a/?b=1&b=2&c=%20+x&d;=3&e=%z').getQuery() == {'b': ['1', '2'], 'c': ['  x']}",
        "url('http://a/b c') == url('http://a/b%20c') && url('http://a') != url('http://b')",
        "isSemver('1.2.3-a.1+b') && !isSemver('1.2') && isSemver('v1.2', true) && !isSemver('01.2.3')",
        "semver('1.10.0').isGreaterThan(semver('1.9.9')) && semver('1.0.0-a').isLessThan(semver('1.0.0'))",
        "semver('1.0.0-2').compareTo(semver('1.0.0-11')) == -1 && semver('1.0.0+a') == semver('1.0.0+b')",
        "semver('v01.2', true).major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3",
        "format.dns1123Label().validate('a-b') == optional.none() && format.uuid().validate('x').hasValue()",
        "format.dns1123LabelPrefix().validate('a-') == optional.none() && format.date().validate('2021-02-29').hasValue()",
        "format.named('byte').value().validate('aGVsbA==') == optional.none() && !format.named('x').hasValue()",
        "format.datetime().validate('2021-01-01T00:00:00.5+01:00') == optional.none() && format.labelValue().validate('') == optional.none()",
        // Sorting, other macros, and what lists of optionals have.
        "object.spec.items.sortBy(i, -i.n).map(i, i.name) == ['two', 'one'] && [].sortBy(i, i) == []",
        "{'a': 1, 'b': 2}.transformMapEntry(k, v, v > 1, {v: k}) == {2: 'b'}",
        "[1, 2].first() == optional.of(1) && [1, 2].last() == optional.of(2) && [].first() == optional.none()",
        "optional.unwrap([optional.of(1), optional.none()]) == [1] && [optional.none()].unwrapOpt() == []",
        // Messages are their values.
        "google.protobuf.StringValue{value: 'a'} == 'a' && google.protobuf.Int64Value{} == 0",
        "google.protobuf.Duration{seconds: 90} == duration('90s') && google.protobuf.Timestamp{} == timestamp(0)",
        "google.protobuf.Struct{fields: {'a': [1, object.spec.none]}} == {'a': [1.0, null]}",
        "google.protobuf.Value{null_value: google.protobuf.NullValue.NULL_VALUE} == null",
        "type(ip('::1')) == net.IP && type(cidr('::/0')) == net.CIDR",
        "strings.quote('a\\\"b\\nc\\'é') == '\"a\\\\\\\"b\\\\nc\\'é\"'",
    ];
    for source in cases {
        assert_eq!(truth(source), Ok(true), "{source}");
    }
}

#[test]
fn errors_are_in_the_words_of_kubernetes() {
    let cases = [
        (
            "object.spec.other == 1",
            "expression 'object.spec.other == 1' resulted in error: no such key: other",
        ),
        (
            "oldObject.spec == 1",
            "expression 'oldObject.spec == 1' resulted in error: no such key: spec",
        ),
        (
            "object.spec.replicas == 1 && object.spec.other > 1",
            "false",
        ),
        (
            "object.spec.replicas.x == 1",
            "expression 'object.spec.replicas.x == 1' resulted in error: no such key: x",
        ),
        (
            "1 / 0 == 1",
            "expression '1 / 0 == 1' resulted in error: division by zero",
        ),
        (
            "object.spec.ports[7] == 1",
            "expression 'object.spec.ports[7] == 1' resulted in error: index out of bounds: 7",
        ),
        (
            "'a' > 1",
            "expression ''a' > 1' resulted in error: no such overload",
        ),
        (
            "timestamp('20260102T030405Z') == object",
            "expression 'timestamp('20260102T030405Z') == object' resulted in error: parsing time \"20260102T030405Z\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"0102T030405Z\" as \"-\"",
        ),
        (
            "9223372036854775807 + 1 == 0",
            "expression '9223372036854775807 + 1 == 0' resulted in error: integer overflow",
        ),
        (
            "object.spec.ports.all(p, p.x)",
            "expression 'object.spec.ports.all(p, p.x)' resulted in error: no such key: x",
        ),
        (
            "'a'.matches('a**')",
            "expression ''a'.matches('a**')' resulted in error: error parsing regexp: invalid nested repetition operator: `**`",
        ),
        (
            "'abc'.substring(2, 1) == ''",
            "expression ''abc'.substring(2, 1) == ''' resulted in error: invalid substring range. start: 2, end: 1",
        ),
        (
            "'abc'.substring(1, 4) == ''",
            "expression ''abc'.substring(1, 4) == ''' resulted in error: index out of range: 4",
        ),
        (
            "'abc'.indexOf('a', -1) == 0",
            "expression ''abc'.indexOf('a', -1) == 0' resulted in error: index out of range: -1",
        ),
        (
            "[1].flatten(-1) == [1]",
            "expression '[1].flatten(-1) == [1]' resulted in error: level must be non-negative",
        ),
        (
            "timestamp('2026-01-04T00:04:05Z').getHours('Z') == 0",
            "expression 'timestamp('2026-01-04T00:04:05Z').getHours('Z') == 0' resulted in error: unknown time zone Z",
        ),
        (
            "timestamp('9999-01-01T00:00:00Z') - timestamp('0001-01-01T00:00:00Z') == duration('1s')",
            "expression 'timestamp('9999-01-01T00:00:00Z') - timestamp('0001-01-01T00:00:00Z') == duration('1s')' resulted in error: integer overflow",
        ),
        (
            "timestamp(-62135596801) == object",
            "expression 'timestamp(-62135596801) == object' resulted in error: timestamp overflow",
        ),
        (
            "other == 1",
            "compilation error: compilation failed: undeclared reference to 'other' (in container '')",
        ),
        (
            "authorizer.group('').check('get')",
            "compilation error: compilation failed: undeclared reference to 'authorizer.group' (in container '')",
        ),
        (
            "math.greatest(1, 2) == 2",
            "compilation error: compilation failed: undeclared reference to 'math.greatest' (in container '')",
        ),
        (
            "format.nothing().validate('a') == object",
            "compilation error: compilation failed: undeclared reference to 'format.nothing' (in container '')",
        ),
        (
            "url('a') == object",
            "expression 'url('a') == object' resulted in error: URL parse error during conversion from string: parse \"a\": invalid URI for request",
        ),
        (
            "semver('1.2') == object",
            "expression 'semver('1.2') == object' resulted in error: No Major.Minor.Patch elements found",
        ),
        (
            "object.spec.items.sortBy(i, i) == []",
            "expression 'object.spec.items.sortBy(i, i) == []' resulted in error: list elements must be comparable",
        ),
        (
            "object.metadata.labels.sortBy(i, i) == []",
            "expression 'object.metadata.labels.sortBy(i, i) == []' resulted in error: no such overload",
        ),
        (
            "google.protobuf.Int32Value{value: 2147483648} == 1",
            "expression 'google.protobuf.Int32Value{value: 2147483648} == 1' resulted in error: field type conversion error for google.protobuf.Int32Value.value value type: integer overflow",
        ),
        (
            "google.protobuf.Int32Value{number: 1} == 1",
            "compilation error: compilation failed: undefined field 'number'",
        ),
    ];
    for (source, expected) in cases {
        let told = truth(source).map_or_else(|why| why, |value| value.to_string());
        assert_eq!(told, expected, "{source}");
    }
    let unread = truth("object.spec.(").unwrap_err();
    assert!(
        unread.starts_with("compilation error: compilation failed: "),
        "{unread}"
    );
}

/// Comprehensions in comprehensions, texts that double, and lists of lists.
#[test]
fn what_an_evaluation_takes_is_bounded() {
    let many: Vec<u32> = (0..2_000).collect();
    let object = json!({"l": many, "t": "x".repeat(100_000)});
    let over = "operation cancelled: actual cost limit exceeded";
    for source in [
        "object.l.all(a, object.l.all(b, object.l.all(c, true)))",
        "object.l.map(a, object.l).size() == object.l.map(a, object.l.map(b, b)).size()",
        "object.l.all(a, (object.t + object.t + object.t + object.t).size() > 0)",
        "object.l.all(a, object.t.matches('x+x+x+y') || true)",
        "object.l.exists(a, object.l.map(b, a) == object.l.map(b, a) && false)",
        "lists.range(100000000).size() == 0",
    ] {
        let began = std::time::Instant::now();
        let said = run(&object, source, &patient()).unwrap_err();
        let all = said == Unusable::OutOfBudget;
        assert!(all || said.to_string().ends_with(over), "{source}: {said}");
        assert!(
            began.elapsed().as_secs() < 10,
            "{source}: {:?}",
            began.elapsed()
        );
    }
    // All together.
    let mut budget = Budget::new(1_500_000);
    budget.until += std::time::Duration::from_secs(60);
    let source = "object.l.all(a, object.l.all(b, true))";
    let first = "object.l.all(a, object.l.slice(0, 50).map(b, b).size() > 0)";
    assert!(run(&object, first, &budget).is_ok());
    let last = (0..3).map(|_| run(&object, source, &budget));
    assert!(
        last.into_iter()
            .any(|said| said.is_err_and(|why| why == Unusable::OutOfBudget))
    );
}

#[test]
fn what_is_collected_is_not_copied_each_time() {
    let many: Vec<u32> = (0..20_000).collect();
    let object = json!({"l": many});
    let source = "object.l.map(a, a + 1).filter(a, a > 5).size() > 0";
    let said = run(&object, source, &patient());
    assert!(matches!(said, Ok(Val::Bool(true))), "{said:?}");
}

#[test]
fn depth_is_bounded() {
    let nested = format!("{}1{} == 1", "(".repeat(5_000), ")".repeat(5_000));
    assert!(truth(&nested).is_err());
    let long = (0..3_000)
        .map(|n| n.to_string())
        .collect::<Vec<_>>()
        .join(" + ");
    // As deep as it is long, to the parser; whatever it says, it says so.
    let _ = truth(&format!("{long} > 0"));
    let many = vec!["true"; 2_000].join(" && ");
    assert_eq!(truth(&many), Ok(true));
    let chosen = format!("{}true", "true ? true : ".repeat(60));
    assert_eq!(truth(&chosen), Ok(true));
    let lists = format!("{}1{} != 1", "[".repeat(90), "]".repeat(90));
    assert_eq!(truth(&lists), Ok(true));
    let sum = vec!["1"; 150].join(" + ");
    assert_eq!(truth(&format!("{sum} == 150")), Ok(true));
}

/// The stack of a worker of the runtime.
fn on_a_small_stack(what: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    thread.spawn(what).unwrap().join().unwrap();
}

/// As the frames that take most of the stack allow it, with values of all levels on top.
#[test]
fn the_deepest_evaluation_fits_on_the_stack_of_a_worker() {
    on_a_small_stack(|| {
        for (open, close) in [
            ("[0].map(x, ", ")"),
            ("[0].all(x, ", " == 1 || true)"),
            ("{'a': 1}.transformMap(k, v, ", ")"),
            ("optional.of(1).optMap(x, ", ")"),
            ("cel.bind(x, ", ", x)"),
            ("[", "][0]"),
            ("(true ? ", " : 1)"),
            ("dyn(dyn(", "))"),
        ] {
            let times = 90 / open.matches(['(', '[', '{']).count();
            let source = format!("{}1{} != 2", open.repeat(times), close.repeat(times));
            let said = truth(&source);
            let deep = |why: &String| why.ends_with("nested too deep");
            assert!(said.is_ok() || said.as_ref().is_err_and(deep), "{said:?}");
        }
    });
}

#[test]
fn values_are_not_nested_deeper_than_they_may_be() {
    on_a_small_stack(|| {
        let wrap = |open: &str, close: &str, times: usize| {
            format!("{}1{}", open.repeat(times), close.repeat(times))
        };
        for (open, close) in [("[", "]"), ("{'a': ", "}"), ("optional.of(", ")")] {
            let fits = wrap(open, close, super::MAX_NESTED);
            assert_eq!(truth(&format!("{fits} == {fits}")), Ok(true), "{open}");
            let deep = wrap(open, close, super::MAX_NESTED + 1);
            let said = truth(&format!("{deep} == 1")).unwrap_err();
            assert!(said.ends_with("the value is nested too deep"), "{said}");
        }
        let collected = wrap("[0].map(x, ", ")", super::MAX_NESTED + 1);
        let said = truth(&format!("{collected} == 1")).unwrap_err();
        assert!(said.ends_with("nested too deep"), "{said}");
    });
}

/// Steps, and bytes, that an evaluation took.
fn taken(object: &Value, source: &str) -> (u64, u64) {
    let budget = patient();
    let said = run(object, source, &budget);
    assert!(matches!(said, Ok(Val::Bool(true))), "{source}: {said:?}");
    let left = budget.left.borrow();
    (super::POLICY - left.all, super::MEMORY - left.bytes)
}

#[test]
fn bytes_of_values_are_bounded() {
    let many: Vec<u32> = (0..2_000).collect();
    let object = json!({"l": many, "t": "x".repeat(100_000)});
    let memory = "operation cancelled: memory limit exceeded";
    for source in [
        "lists.range(600000).size() > 0",
        "object.l.map(a, object.l + object.l).size() > 0",
        "object.l.map(a, object.l).flatten().size() > 0",
        "[object.l.map(a, object.l)].flatten(2).size() > 0",
        "object.l.map(a, object.l.reverse()).size() > 0",
        "object.l.map(a, object.l.slice(0, 2000)).size() > 0",
        "object.l.map(a, object.l.sort()).size() > 0",
        "object.t.split('').map(a, object.t.split('')).size() > 0",
        "'%s'.format([object.l.map(a, object.t)]).size() > 0",
        "object.l.map(a, object.t).join().size() > 0",
        "object.t.replace('x', 'y'.replace('y', object.t)).size() > 0",
        "object.t.findAll('x').size() + object.t.findAll('x').size() > 0",
        "object.l.map(a, url('http://a/' + object.t)).size() > 0",
        "object.l.map(a, url('http://a/?' + object.t.replace('x', '&x')).getQuery()).size() > 0",
        "object.l.map(a, semver('1.2.3-' + object.t)).size() > 0",
        "object.l.map(a, format.uri().validate(object.t)).size() > 0",
        "object.l.map(a, object.l.sortBy(i, i)).size() > 0",
        "object.l.map(a, object.l.transformMapEntry(i, v, {v: i})).size() > 0",
        "object.l.map(a, google.protobuf.ListValue{values: object.l}).size() > 0",
    ] {
        let said = run(&object, source, &patient()).unwrap_err().to_string();
        let cost = said.contains("cost limit exceeded") || said.contains("cost budget");
        assert!(said.ends_with(memory) || cost, "{source}: {said}");
    }
    for source in [
        "lists.range(600000).size() > 0",
        "object.l.map(a, object.l + object.l) == 1",
    ] {
        let said = run(&object, source, &patient()).unwrap_err().to_string();
        assert!(said.ends_with(memory), "{source}: {said}");
    }
    for (source, least) in [
        ("object.t + object.t != ''", 200_000),
        ("object.t.replace('x', 'yy') != ''", 200_000),
        ("[object.t, object.t].join('-') != ''", 200_000),
        ("'%s'.format([object.t]) != ''", 100_000),
        ("'%x'.format([object.t]) != ''", 200_000),
        ("'%s'.format([object]) != ''", 100_000),
        ("bytes(object.t) + bytes(object.t) != b''", 200_000),
        ("object.t.upperAscii() != ''", 100_000),
        ("object.t.substring(1) != ''", 99_999),
        ("object.t.find('x+') != ''", 100_000),
        ("(object.l + object.l).size() > 0", 4_000 * 32),
        ("object.l.transformMap(i, v, v).size() > 0", 2_000 * 64),
        (
            "object.l.transformMapEntry(i, v, {v: i}).size() > 0",
            2_000 * 64,
        ),
        ("object.l.sortBy(i, i).size() > 0", 2_000 * 64),
        (
            "google.protobuf.ListValue{values: object.l}.size() > 0",
            2_000 * 32,
        ),
        ("url('http://a/' + object.t).getHost() == 'a'", 600_000),
        (
            "url('http://a/?' + object.t).getQuery().size() == 1",
            600_000,
        ),
        ("semver('1.2.3-' + object.t).major() == 1", 200_000),
    ] {
        let bytes = taken(&object, source).1;
        assert!(bytes >= least, "{source}: {bytes}");
    }
    // Literals are shared, and lists looked at where they are.
    let text = "x".repeat(10_000);
    let each = format!("'{text}' != 'y' && 1 in object.l && object.l.size() > 0");
    let shared = format!("object.l.slice(0, 100).all(i, {each})");
    let bytes = taken(&object, &shared).1;
    assert!(bytes < 10_000, "{bytes}");
}

#[test]
fn work_costs_as_much_as_it_is_long() {
    let many: Vec<u32> = (0..2_000).collect();
    let object = json!({"l": many, "t": "x".repeat(100_000), "k": {"n": 1}});
    for (source, least) in [
        ("[object.t, object.t, object.t].sort().size() == 3", 40_000),
        ("[object.t, object.t].max() != ''", 10_000),
        ("[object.t, object.t].isSorted()", 10_000),
        ("bytes(object.t) == bytes(object.t)", 30_000),
        ("object.t.matches('^x+$')", 400_000),
        ("'a'.matches('[a-z]{1000}') || true", 8_000),
        ("'a1'.matches('(?i)[a-z][0-9]')", 20_000),
        ("1999 in object.l", 2_000),
        ("object.l.indexOf(1999) == 1999", 2_000),
        ("object.l.sortBy(i, -i)[0] == 1999", 20_000),
        ("object.l.sortBy(i, object.t).size() == 2000 || true", 1),
        ("isURL('http://a/' + object.t)", 20_000),
        ("!isSemver(object.t)", 20_000),
        ("format.labelValue().validate(object.t).hasValue()", 100_000),
        (
            "url('http://a/' + object.t) == url('http://a/' + object.t)",
            60_000,
        ),
        ("object.l.distinct().slice(0, 1).size() == 1 || true", 1),
    ] {
        if source.contains("distinct") || source.contains("i, object.t") {
            // Two million comparisons; keys of 200 MB.
            assert!(run(&object, source, &patient()).is_err());
            continue;
        }
        let steps = taken(&object, source).0;
        assert!(steps >= least, "{source}: {steps}");
    }
    // Once for all that use it.
    let budget = patient();
    for _ in 0..100 {
        let said = run(&object, "'a'.matches('^[a-z]{1,60}$')", &budget);
        assert!(matches!(said, Ok(Val::Bool(true))), "{said:?}");
    }
    assert_eq!(budget.patterns.borrow().len(), 1);
    let pattern = format!("'a'.matches('{}')", "a|".repeat(10_000));
    assert!(
        truth(&pattern)
            .unwrap_err()
            .contains("more than 16384 bytes")
    );
    // Classes without case are made of all their characters: a second for a thousand.
    let began = std::time::Instant::now();
    for flags in ["i", "mi", "i-s"] {
        let pattern = format!("'a'.matches('(?{flags}){}')", "[\\\\Wa]".repeat(2_000));
        let refused = truth(&pattern).unwrap_err();
        let cost = refused.contains("cost limit exceeded") || refused.contains("cost budget");
        assert!(cost, "{refused}");
    }
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    // Six thousand bytes of ranges in three of a pattern, before it is compiled.
    for class in [r"\\pC", r"\\PC", r"\\p{L}", r"[\\pC]"] {
        let pattern = format!("'a'.matches('{}')", class.repeat(3_000));
        let refused = truth(&pattern).unwrap_err();
        let cost = refused.contains("cost limit exceeded") || refused.contains("cost budget");
        assert!(cost, "{class}: {refused}");
        assert_eq!(truth(&format!("'a'.matches('{class}|a')")), Ok(true));
    }
    // Keys are looked up, and not searched.
    let keys = "lists.range(40000).transformMap(i, v, v)";
    let began = std::time::Instant::now();
    assert_eq!(truth(&format!("{keys}.size() == 40000")), Ok(true));
    let found = format!("cel.bind(m, {keys}, object.l.all(i, m[39999u] == 39999))");
    assert!(taken(&object, &found).0 < 400_000);
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}

/// Numbers of three types have one order, and what is no number a place in it.
#[test]
fn mixed_numbers_have_an_order() {
    for source in [
        "9007199254740993 > 9007199254740992.0 && 9007199254740992 == 9007199254740992.0",
        "-1 > -1.5 && 1 < 1.5 && 2u > 1.5 && 1 == 1.0 && 18446744073709551615u < 1e300",
        "{1: 'a'}[1.0] == 'a' && {1u: 'a'}[1] == 'a' && !(1.5 in {1: 'a'})",
        "[2.0, double('NaN'), 1.5, double('NaN'), 1.0].sort()[4] == 2.0",
    ] {
        assert_eq!(truth(source), Ok(true), "{source}");
    }
}

#[test]
fn the_clock_ends_what_steps_do_not() {
    let object = object();
    let now = std::time::Instant::now();
    let long = "lists.range(20000).all(i, i >= 0)";
    let said = run(&object, long, &Budget::new(super::POLICY).ending(now));
    assert!(matches!(said, Err(Unusable::OutOfBudget)), "{said:?}");
}
