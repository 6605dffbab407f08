//! Label and field selectors (contract R3.8, R3.9): parsing with Kubernetes'
//! error texts, and matching. Pure.

mod fields;
mod labels;
mod terms;

use std::borrow::Cow;

use crate::status::Failure;
use terms::{Field, FieldTerm, Requirement};

/// Both selectors of a list or watch; the empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldTerm>,
}

/// Requirements of a selector, each of which is asked of every object.
const REQUIREMENTS: usize = 100;
/// Values of all its requirements.
const VALUES: usize = 2_000;

impl Selector {
    /// Parses `labelSelector` and `fieldSelector`; `namespaced` says whether
    /// `metadata.namespace` may be selected on.
    ///
    /// # Errors
    /// 400 for what is none, or has too many requirements or values: a watch keeps it for
    /// as long as it lasts.
    pub fn parse(labels: &str, fields: &str, namespaced: bool) -> Result<Self, Failure> {
        let labels = labels::parse(labels).map_err(Failure::BadRequest)?;
        let fields = fields::parse(fields, namespaced).map_err(Failure::BadRequest)?;
        let values = labels.iter().map(|it| it.values.len()).sum();
        for (number, most, what) in [
            (labels.len(), REQUIREMENTS, "label requirements"),
            (fields.len(), REQUIREMENTS, "field requirements"),
            (values, VALUES, "values"),
        ] {
            if number > most {
                return Err(Failure::BadRequest(format!(
                    "the selector has {number} {what}: must have at most {most}"
                )));
            }
        }
        Ok(Self { labels, fields })
    }

    /// Selects everything.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object with this name, namespace and labels is selected; `label` finds
    /// the value of one.
    pub fn matches<'a>(
        &self,
        namespace: &str,
        name: &str,
        label: impl Fn(&str) -> Option<Cow<'a, str>>,
    ) -> bool {
        self.fields.iter().all(|term| {
            let value = match term.field {
                Field::Name => name,
                Field::Namespace => namespace,
            };
            (value == term.value) == term.equal
        }) && self
            .labels
            .iter()
            .all(|requirement| requirement.matches(label(&requirement.key).as_deref()))
    }

    /// The one name that can match, if the field selector asks for one.
    pub fn exact_name(&self) -> Option<&str> {
        self.fields
            .iter()
            .find(|term| term.field == Field::Name && term.equal)
            .map(|term| term.value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_and_values_are_bounded() {
        let parse = |labels: &str, fields: &str| Selector::parse(labels, fields, true);
        let many = |number: usize| {
            let keys: Vec<String> = (0..number).map(|n| format!("!a{n}")).collect();
            keys.join(",")
        };
        parse(&many(REQUIREMENTS), "").unwrap();
        let refused = parse(&many(REQUIREMENTS + 1), "").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the selector has 101 label requirements: must have at most 100"
        );
        parse(&many(20_000), "").unwrap_err();
        let values = |number: usize| {
            let values: Vec<String> = (0..number).map(|n| format!("v{n}")).collect();
            format!("a in ({})", values.join(","))
        };
        let selector = parse(&values(VALUES), "").unwrap();
        assert!(selector.matches("", "", labels(&[("a", "v1234")])));
        assert!(!selector.matches("", "", labels(&[("a", "v")])));
        parse(&values(VALUES + 1), "").unwrap_err();
        let fields = vec!["metadata.name!=a"; REQUIREMENTS + 1].join(",");
        parse("", &fields).unwrap_err();
    }

    fn labels<'a>(pairs: &[(&str, &'a str)]) -> impl Fn(&str) -> Option<Cow<'a, str>> {
        move |wanted| {
            let pair = pairs.iter().find(|(key, _)| *key == wanted);
            pair.map(|(_, value)| Cow::Borrowed(*value))
        }
    }

    /// R3.9.
    #[test]
    fn label_selectors_match() {
        let set = labels(&[("a", "1"), ("tier", "web"), ("x/y", "")]);
        let cases = [
            ("", true),
            ("a", true),
            ("!a", false),
            ("b", false),
            ("!b", true),
            ("a=1", true),
            ("a==1", true),
            ("a!=1", false),
            ("b!=1", true),
            ("tier in (web, db)", true),
            ("tier notin (web,db)", false),
            ("b notin (x)", true),
            ("a>0", true),
            ("a<1", false),
            ("tier>1", false),
            ("x/y=", true),
            ("x/y in ()", true),
            ("a=1,tier=web", true),
            (" a = 1 , tier != db ", true),
            ("in in (in)", false),
        ];
        for (text, expected) in cases {
            let selector = Selector::parse(text, "", true).unwrap();
            assert_eq!(selector.matches("n", "o", &set), expected, "{text}");
        }
    }

    /// R3.9.
    #[test]
    fn label_selector_errors() {
        let cases = [
            ("a=1=2", "found '=', expected: ',' or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            (
                "(a",
                "found '(', expected: !, identifier, or 'end of string'",
            ),
            (
                "a in x",
                "unable to parse requirement: found 'x' expected: '('",
            ),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "!",
                "unable to parse requirement: found '', expected: identifier",
            ),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ];
        for (text, expected) in cases {
            let failure = Selector::parse(text, "", true).unwrap_err();
            assert_eq!(failure.to_string(), expected, "{text}");
        }
        assert!(Selector::parse("-a=1", "", true).is_err());
        assert!(Selector::parse("a=-", "", true).is_err());
    }

    /// A word that ended where nothing is passed over was empty, and the next one as well, until
    /// no memory was left.
    #[test]
    fn every_character_is_part_of_something() {
        for character in (0..=0x300).filter_map(char::from_u32) {
            let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
            for text in [
                format!("{character}"),
                format!("a{character}"),
                format!("a{character}=b"),
                format!("a in ({character}b)"),
            ] {
                // An answer is all that is asked for.
                let _ = Selector::parse(&text, "", true);
                let _ = Selector::parse("", &text, true);
            }
            assert!(std::time::Instant::now() < end, "{character:?}");
        }
        for blank in ['\u{b}', '\u{c}', '\u{85}', '\u{a0}'] {
            let text = format!("a{blank}=b");
            assert!(Selector::parse(&text, "", true).is_err(), "{blank:?}");
        }
    }

    /// R3.8.
    #[test]
    fn field_selectors() {
        let ok = [
            ("metadata.name=o", true),
            ("metadata.name==o", true),
            ("metadata.name!=o", false),
            ("metadata.namespace=n,metadata.name=o", true),
            ("metadata.namespace!=n", false),
            ("metadata.name=a\\,b", false),
        ];
        for (text, expected) in ok {
            let selector = Selector::parse("", text, true).unwrap();
            assert_eq!(selector.matches("n", "o", |_| None), expected, "{text}");
        }
        let bad = [
            ("spec.x=1", true, "field label not supported: spec.x"),
            (
                "metadata.namespace=x",
                false,
                "field label not supported: metadata.namespace",
            ),
            (
                "what",
                true,
                "invalid selector: 'what'; can't understand 'what'",
            ),
            (
                "metadata.name=\\x",
                true,
                "invalid field selector: invalid escape sequence: \\x",
            ),
        ];
        for (text, namespaced, expected) in bad {
            let failure = Selector::parse("", text, namespaced).unwrap_err();
            assert_eq!(failure.to_string(), expected);
        }
        let selector = Selector::parse("", "metadata.name=o", true).unwrap();
        assert_eq!(selector.exact_name(), Some("o"));
    }
}
