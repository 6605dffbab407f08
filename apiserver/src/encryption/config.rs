//! Reading an EncryptionConfiguration (apiserver.config.k8s.io/v1), as kube-apiserver reads
//! it (R9.19). Pure.

use apiservice::field::{Error, Errors, Path};
use apiservice::resource::Resource;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use storage::seal::{Cipher, Key, MAX_NAME, Rule, Sealing};

const VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    resources: Vec<ResourceConfiguration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceConfiguration {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    identity: Option<Identity>,
    kms: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    keys: Vec<NamedKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedKey {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

/// What a file says of the values of these resources. Rules for others are passed over: the
/// file may be kube-apiserver's.
///
/// # Errors
/// A sentence that names each fault with its place. Keys are never in it.
pub fn parse(text: &str, served: &[&'static Resource]) -> Result<Sealing, String> {
    let file: Configuration = serde_saphyr::from_str(text).map_err(|error| unreadable(&error))?;
    if file.kind != KIND {
        return Err(format!("its kind is not {KIND}"));
    }
    if file.api_version != VERSION {
        return Err(format!("its apiVersion is not {VERSION}"));
    }
    let root = Path::new("resources");
    let mut errors = Errors::new();
    if file.resources.is_empty() {
        errors.push(Error::required(&root, "at least one resources is required"));
    }
    let mut rules = Vec::new();
    for (position, one) in file.resources.iter().enumerate() {
        rules.extend(rule(&root.index(position), one, served, &mut errors));
    }
    if errors.is_empty() && rules.is_empty() {
        let names: Vec<String> = served.iter().map(|it| name(it)).collect();
        errors.push(Error::invalid(
            &root,
            "",
            format!(
                "none of them covers {} or *.{}",
                names.join(", "),
                apiservice::GROUP
            ),
        ));
    }
    if !errors.is_empty() {
        let errors: Vec<String> = errors.iter().map(Error::to_string).collect();
        return Err(errors.join(", "));
    }
    Sealing::new(rules).map_err(|position| format!("resources[{position}] has no key"))
}

/// Where a file has not the form of one, and what is there instead. None of the reader's
/// words: they repeat what stands in the file, and with a space or a quote too few a key
/// stands where a field should.
fn unreadable(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as E;
    let place = error.location().map_or_else(String::new, |at| {
        format!("line {}, column {}: ", at.line(), at.column())
    });
    let what = match error.without_snippet() {
        // Names of ours.
        E::SerdeUnknownField { expected, .. } => {
            format!("unknown field, expected one of {}", expected.join(", "))
        }
        E::DuplicateMappingKey { .. } => "a field is given twice".to_owned(),
        E::SerdeInvalidType { .. } | E::SerdeInvalidValue { .. } => {
            "a value is not of the type that it should be".to_owned()
        }
        _ => "it cannot be read as one".to_owned(),
    };
    format!("{place}it is not an {KIND}: {what}")
}

fn name(resource: &Resource) -> String {
    format!("{}.{}", resource.plural, apiservice::GROUP)
}

/// None: it is about resources of others, or has a fault.
fn rule(
    path: &Path,
    of: &ResourceConfiguration,
    served: &[&'static Resource],
    errors: &mut Errors,
) -> Option<Rule> {
    let (resources, providers) = (path.child("resources"), path.child("providers"));
    if of.resources.is_empty() {
        let detail = format!("at least one {resources} is required");
        errors.push(Error::required(&resources, detail));
    }
    for (position, text) in of.resources.iter().enumerate() {
        if let Some(detail) = complaint(text) {
            errors.push(Error::invalid(&resources.index(position), "", detail));
        }
    }
    if of.providers.is_empty() {
        let detail = format!("at least one {providers} is required");
        errors.push(Error::required(&providers, detail));
    }
    let covers = |resource: &&&'static Resource| {
        let any = format!("*.{}", apiservice::GROUP);
        let own = name(resource);
        of.resources
            .iter()
            .any(|it| *it == own || *it == any || it == "*.*")
    };
    let covered: Vec<_> = served.iter().filter(covers).collect();
    if covered.is_empty() {
        return None;
    }
    let before = errors.len();
    let mut keys = Vec::new();
    for (position, one) in of.providers.iter().enumerate() {
        keys.extend(provider(&providers.index(position), one, errors));
    }
    (errors.len() == before).then(|| Rule {
        prefixes: covered
            .iter()
            .map(|it| crate::object::prefix(it, None))
            .collect(),
        keys,
    })
}

fn complaint(resource: &str) -> Option<&'static str> {
    if resource.chars().any(char::is_uppercase) {
        return Some("resource name should not contain capital letters");
    }
    if resource == "*" {
        return Some(
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        );
    }
    let across = resource.strip_suffix(".*").is_some_and(|it| it != "*");
    across.then_some("encrypting the same resource across groups is not supported")
}

fn provider(path: &Path, of: &Provider, errors: &mut Errors) -> Vec<Key> {
    type Make = fn(&[u8]) -> Option<Cipher>;
    const AES: &str = "[16 24 32]";
    let kinds: [(&str, &Option<Keys>, Make, &str); 3] = [
        ("aesgcm", &of.aesgcm, Cipher::aes_gcm, AES),
        ("aescbc", &of.aescbc, Cipher::aes_cbc, AES),
        ("secretbox", &of.secretbox, Cipher::secretbox, "[32]"),
    ];
    let given = kinds.iter().filter(|(_, keys, ..)| keys.is_some()).count()
        + usize::from(of.identity.is_some())
        + usize::from(of.kms.is_some());
    if given != 1 {
        let detail = match given {
            0 => {
                "provider does not contain any of the expected providers: AESGCM, AESCBC, \
                 Secretbox, Identity"
            }
            _ => {
                "more than one provider specified in a single element, should split into \
                 different list elements"
            }
        };
        errors.push(Error::invalid(path, "", detail));
        return Vec::new();
    }
    if of.kms.is_some() {
        let detail = "this server has no provider kms: use aesgcm, aescbc or secretbox";
        errors.push(Error::forbidden(&path.child("kms"), detail));
    }
    let mut all = Vec::new();
    for (kind, keys, make, lengths) in kinds {
        let Some(keys) = keys else { continue };
        let path = path.child(kind).child("keys");
        if keys.keys.is_empty() {
            errors.push(Error::required(&path, "at least one keys is required"));
        }
        for (position, one) in keys.keys.iter().enumerate() {
            match key(one, make, lengths) {
                Ok(key) => all.push(key),
                Err((field, detail)) => {
                    errors.push(Error::invalid(
                        &path.index(position).child(field),
                        "",
                        detail,
                    ));
                }
            }
        }
    }
    all.extend(of.identity.as_ref().map(|_| Key::identity()));
    all
}

fn key(
    of: &NamedKey,
    make: fn(&[u8]) -> Option<Cipher>,
    lengths: &str,
) -> Result<Key, (&'static str, String)> {
    let wrong_name = of.name.is_empty() || of.name.len() > MAX_NAME || of.name.contains(':');
    if wrong_name {
        let detail = format!("must have 1 to {MAX_NAME} bytes and must not contain ':'");
        return Err(("name", detail));
    }
    let secret = STANDARD.decode(of.secret.trim());
    let secret = secret.map_err(|_| ("secret", "secrets must be base64 encoded".to_owned()))?;
    let cipher = make(&secret).ok_or_else(|| {
        let got = secret.len();
        let detail =
            format!("secret is not of the expected length, got {got}, expected one of {lengths}");
        ("secret", detail)
    })?;
    Ok(Key::new(&of.name, cipher))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> Vec<&'static Resource> {
        apiservice::RESOURCES.to_vec()
    }

    fn file(resources: &str) -> String {
        format!("apiVersion: {VERSION}\nkind: {KIND}\nresources:\n{resources}")
    }

    fn parsed(resources: &str) -> Result<bool, String> {
        parse(&file(resources), &served()).map(|it| it.encrypts())
    }

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    /// R9.19.
    #[test]
    fn what_kube_apiserver_takes() {
        for covering in [
            "*.*",
            "'*.steward.butlerlabs.dev'",
            "datastores.steward.butlerlabs.dev",
        ] {
            let covering = covering.trim_matches('\'');
            for provider in ["aesgcm", "aescbc", "secretbox"] {
                let text = format!(
                    "- resources: ['{covering}']\n  providers:\n  - {provider}:\n      keys:\n      \
                     - {{name: key1, secret: {KEY}}}\n  - identity: {{}}\n"
                );
                assert_eq!(parsed(&text), Ok(true), "{text}");
            }
        }
        let plain = "- resources: ['*.*']\n  providers: [identity: {}]\n";
        assert_eq!(parsed(plain), Ok(false));
        // Those of others may have what is not supported here.
        let others = format!(
            "- resources: [secrets]\n  providers: [kms: {{apiVersion: v2, name: x, endpoint: 'unix:///a'}}]\n\
             - resources: ['*.*']\n  providers: [aesgcm: {{keys: [{{name: a, secret: {KEY}}}]}}]\n"
        );
        assert_eq!(parsed(&others), Ok(true));
    }

    #[test]
    fn what_is_wrong_is_told_without_keys() {
        let all = |providers: &str| format!("- resources: ['*.*']\n  providers: [{providers}]\n");
        for (text, why) in [
            (String::new(), "resources: Required value"),
            (
                all("identity: {}").replace("*.*", "*"),
                "resources[0].resources[0]: Invalid value: \"\": use '*.'",
            ),
            (
                all("identity: {}").replace("*.*", "Secrets"),
                "should not contain capital letters",
            ),
            (
                all("identity: {}").replace("*.*", "pods.*"),
                "across groups is not supported",
            ),
            (
                all("identity: {}").replace("*.*", "secrets"),
                "none of them covers",
            ),
            (all(""), "resources[0].providers: Required value"),
            (all("{}"), "does not contain any of the expected providers"),
            (
                all("{identity: {}, aesgcm: {keys: []}}"),
                "more than one provider specified",
            ),
            (
                all("aesgcm: {keys: []}"),
                "providers[0].aesgcm.keys: Required value",
            ),
            (
                all("aesgcm: {keys: [{name: a, secret: AAAA}]}"),
                "expected length, got 3, expected one of [16 24 32]",
            ),
            (
                all("secretbox: {keys: [{name: a, secret: AAAA}]}"),
                "expected one of [32]",
            ),
            (
                all("aesgcm: {keys: [{name: a, secret: '!'}]}"),
                "keys[0].secret: Invalid value: \"\": secrets must be base64",
            ),
            (
                all(&format!(
                    "aesgcm: {{keys: [{{name: 'a:b', secret: {KEY}}}]}}"
                )),
                "must not contain ':'",
            ),
            (
                all(&format!("aesgcm: {{keys: [{{secret: {KEY}}}]}}")),
                "keys[0].name",
            ),
            (
                all("kms: {name: x}"),
                "kms: Forbidden: this server has no provider kms",
            ),
            (
                all(&format!("aesgcm: {{key: {KEY}}}")),
                "line 5, column 24: it is not an EncryptionConfiguration: unknown field, expected one of keys",
            ),
            // A space too few: the key is a part of a name.
            (
                all(&format!("aesgcm: {{keys: [{{name: key2, secret:{KEY}}}]}}")),
                "unknown field, expected one of name, secret",
            ),
            (all(&format!("{KEY}: {{}}")), "unknown field"),
            (
                all(&format!("aesgcm: {{keys: [{{{KEY}: a, {KEY}: a}}]}}")),
                "line 5, column",
            ),
            (
                all(&format!("kms: {{{KEY}: a, {KEY}: a}}")),
                "a field is given twice",
            ),
            (all(&format!("aesgcm: {KEY}")), "line 5, column"),
            (all(&format!("aesgcm: {{keys: {KEY}}}")), "line 5, column"),
            (all(&format!("aesgcm: {{keys: [{KEY}]}}")), "line 5, column"),
            (all(KEY), "line 5, column"),
            (
                all(&format!("aesgcm: {{keys: [{{name: a, secret: [{KEY}]}}]}}")),
                "line 5, column",
            ),
            (
                all(&format!("aesgcm: {{keys: [{{name: a, secret: *{KEY}}}]}}")),
                "line 5, column",
            ),
            (
                all(&format!(
                    "aesgcm: {{keys: [{{name: a, secret: !!{KEY} a}}]}}"
                )),
                "",
            ),
            (
                all(&format!("aesgcm: {{keys: [{{name: a, secret: \"{KEY}}}]}}")),
                "it is not an EncryptionConfiguration",
            ),
            (all("identity: {}").replace("*.*", KEY), "capital letters"),
        ] {
            let told = parsed(&text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
            assert!(!told.contains(KEY) && !told.contains("AAAA"), "{told}");
        }
        let other = file("").replace(VERSION, "v1");
        let told = parse(&other, &served()).unwrap_err();
        assert_eq!(told, format!("its apiVersion is not {VERSION}"));
        for text in [file("").replace(KIND, KEY), KEY.to_owned()] {
            let told = parse(&text, &served()).unwrap_err();
            assert!(told.contains(KIND) && !told.contains(KEY), "{told}");
        }
    }
}
