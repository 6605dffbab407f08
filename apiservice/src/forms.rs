//! The forms of names, labels and annotations, and what Kubernetes says of what has another.

use std::sync::LazyLock;

use regex::Regex;

/// What names a kind takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// A DNS subdomain, as most kinds.
    Subdomain,
    /// A DNS label that begins with a letter, because a Service gets the name.
    ServiceLabel,
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SERVICE_LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const SERVICE_LABEL_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const QUALIFIED_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// A text that must match a pattern as a whole.
struct Form {
    pattern: &'static str,
    regex: LazyLock<Option<Regex>>,
}

macro_rules! form {
    ($pattern:expr) => {
        Form {
            pattern: $pattern,
            // The patterns above are constants that a test compiles.
            regex: LazyLock::new(|| Regex::new(&format!("^(?:{})$", $pattern)).ok()),
        }
    };
}

static LABEL_FORM: Form = form!(LABEL);
static SUBDOMAIN_FORM: Form = form!(SUBDOMAIN);
static SERVICE_LABEL_FORM: Form = form!(SERVICE_LABEL);
static QUALIFIED_FORM: Form = form!(QUALIFIED);
static LABEL_VALUE_FORM: Form = form!(LABEL_VALUE);

impl Form {
    fn takes(&self, text: &str) -> bool {
        self.regex
            .as_ref()
            .is_some_and(|regex| regex.is_match(text))
    }

    /// The complaint about a text, if it does not match.
    fn complaint(&self, text: &str, words: &str, examples: &[&str]) -> Option<String> {
        (!self.takes(text)).then(|| {
            let examples: Vec<String> = examples.iter().map(|one| format!("'{one}'")).collect();
            format!(
                "{words} (e.g. {}, regex used for validation is '{}')",
                examples.join(",  or "),
                self.pattern
            )
        })
    }
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// What is wrong with a DNS-1123 label, such as a namespace's name.
pub fn label_complaints(text: &str) -> Vec<String> {
    let long = (text.len() > 63).then(|| too_long(63));
    let form = LABEL_FORM.complaint(text, LABEL_TEXT, &["my-name", "123-abc"]);
    let form = form.map(|form| match SUBDOMAIN_FORM.takes(text) {
        true => "must not contain dots".to_owned(),
        false => form,
    });
    long.into_iter().chain(form).collect()
}

/// What is wrong with a DNS-1123 subdomain.
pub fn subdomain_complaints(text: &str) -> Vec<String> {
    let long = (text.len() > 253).then(|| too_long(253));
    let form = SUBDOMAIN_FORM.complaint(text, SUBDOMAIN_TEXT, &["example.com"]);
    long.into_iter().chain(form).collect()
}

/// What is wrong with the key of a label or annotation, or with a finalizer.
pub fn qualified_name_complaints(text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let examples = ["MyName", "my.name", "123-abc"];
    let mut all = Vec::new();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                all.push("prefix part must be non-empty".to_owned());
            } else {
                let complaints = subdomain_complaints(prefix);
                all.extend(complaints.iter().map(|one| format!("prefix part {one}")));
            }
            name
        }
        _ => {
            let form = Form::complaint(&QUALIFIED_FORM, "/", QUALIFIED_TEXT, &examples);
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                form.unwrap_or_default()
            )];
        }
    };
    if name.is_empty() {
        all.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        all.push(format!("name part {}", too_long(63)));
    }
    if let Some(form) = QUALIFIED_FORM.complaint(name, QUALIFIED_TEXT, &examples) {
        all.push(format!("name part {form}"));
    }
    all
}

/// What is wrong with the value of a label.
pub fn label_value_complaints(text: &str) -> Vec<String> {
    let long = (text.len() > 63).then(|| too_long(63));
    let examples = ["MyValue", "my_value", "12345"];
    let form = LABEL_VALUE_FORM.complaint(text, LABEL_VALUE_TEXT, &examples);
    long.into_iter().chain(form).collect()
}

impl NameRule {
    /// What is wrong with a name; `prefix` if something will be appended.
    pub fn complaints(self, name: &str, prefix: bool) -> Vec<String> {
        // A prefix may end in a dash, since more follows.
        let masked = match name.strip_suffix('-') {
            Some(start) if prefix && !start.is_empty() => format!("{start}a"),
            _ => name.to_owned(),
        };
        match self {
            Self::Subdomain => subdomain_complaints(&masked),
            Self::ServiceLabel => {
                let long = (masked.len() > 63).then(|| too_long(63));
                let examples = ["my-name", "abc-123"];
                let form = SERVICE_LABEL_FORM.complaint(&masked, SERVICE_LABEL_TEXT, &examples);
                long.into_iter().chain(form).collect()
            }
        }
    }
}
