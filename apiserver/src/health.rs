//! `/livez`, `/readyz`, `/healthz` (R2.32) after rule 2: a server without its database
//! is ready, because failing readiness would freeze namespace deletion everywhere.

use std::fmt::Write;

use http::StatusCode;

/// One check. `Noted` ones are shown by `?verbose` and fail nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub outcome: Outcome,
}

/// What a check found. `?verbose` is open to all, and so are the names of checks; their
/// texts are for callers with an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// Not well, and no reason to send requests elsewhere.
    Noted(String),
    Failed(String),
}

impl Check {
    /// A check that fails with `reason` unless `passed`.
    pub fn of(name: &'static str, passed: bool, reason: &str) -> Check {
        Check {
            name,
            outcome: if passed {
                Outcome::Passed
            } else {
                Outcome::Failed(reason.to_owned())
            },
        }
    }
}

/// In place of a reason.
const WITHHELD: &str = "reason withheld";

/// Whether a path is of one of the health endpoints.
pub fn is_check(path: &str) -> bool {
    let endpoint = path.trim_matches('/').split('/').next();
    matches!(endpoint, Some("readyz" | "livez" | "healthz"))
}

/// The answer of one health endpoint (`readyz`, `livez` or `healthz`) over its checks.
/// `None`: there is no such path. `known`: the caller has an identity.
pub fn answer(
    endpoint: &str,
    single: Option<&str>,
    checks: &[Check],
    query: &[(String, String)],
    known: bool,
) -> Option<(StatusCode, String)> {
    if let Some(single) = single {
        let check = checks.iter().find(|check| check.name == single)?;
        return Some(match &check.outcome {
            Outcome::Passed | Outcome::Noted(_) => (StatusCode::OK, "ok".to_owned()),
            Outcome::Failed(reason) => {
                let reason = if known { reason } else { WITHHELD };
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("internal server error: {reason}\n"),
                )
            }
        });
    }
    let excluded: Vec<&str> = values(query, "exclude");
    let mut lines = String::new();
    let mut failed = false;
    for check in checks {
        // Writing to a String cannot fail.
        let _ = if excluded.contains(&check.name) {
            writeln!(lines, "[+]{} excluded: ok", check.name)
        } else {
            match &check.outcome {
                Outcome::Passed => writeln!(lines, "[+]{} ok", check.name),
                Outcome::Noted(text) => {
                    let text = if known { text } else { WITHHELD };
                    writeln!(lines, "[+]{} ok: {text}", check.name)
                }
                Outcome::Failed(_) => {
                    failed = true;
                    writeln!(lines, "[-]{} failed: {WITHHELD}", check.name)
                }
            }
        };
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !checks.iter().any(|check| check.name == **name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        let _ = writeln!(
            lines,
            "warn: some health checks cannot be excluded: no matches for {}",
            unknown.join(", ")
        );
    }
    let verbose = query.iter().any(|(key, _)| key == "verbose");
    Some(if failed {
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{lines}{endpoint} check failed\n"),
        )
    } else if verbose {
        (StatusCode::OK, format!("{lines}{endpoint} check passed\n"))
    } else {
        (StatusCode::OK, "ok".to_owned())
    })
}

fn values<'a>(query: &'a [(String, String)], key: &str) -> Vec<&'a str> {
    query
        .iter()
        .filter(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::parse_query;

    fn checks() -> Vec<Check> {
        vec![
            Check::of("ping", true, ""),
            Check {
                name: "storage",
                outcome: Outcome::Noted("degraded: disk gone".to_owned()),
            },
            Check::of("shutdown", false, "process is shutting down"),
        ]
    }

    fn ask(single: Option<&str>, query: &str) -> Option<(u16, String)> {
        answer("readyz", single, &checks(), &parse_query(Some(query)), true)
            .map(|(code, text)| (code.as_u16(), text))
    }

    /// R2.32.
    #[test]
    fn failures_are_listed_and_notes_fail_nothing() {
        let (code, text) = ask(None, "").unwrap();
        assert_eq!(code, 500);
        assert_eq!(
            text,
            "[+]ping ok\n[+]storage ok: degraded: disk gone\n[-]shutdown failed: reason withheld\nreadyz check failed\n"
        );
        assert_eq!(ask(None, "exclude=shutdown"), Some((200, "ok".to_owned())));
        let (_, text) = ask(None, "exclude=shutdown&exclude=x&verbose").unwrap();
        assert!(text.contains("[+]shutdown excluded: ok\n"));
        assert!(text.contains("no matches for \"x\"\nreadyz check passed\n"));
    }

    #[test]
    fn reasons_are_for_callers_with_an_identity() {
        let query = parse_query(Some("verbose"));
        for (single, expected) in [
            (None, "[+]storage ok: reason withheld\n"),
            (Some("shutdown"), "internal server error: reason withheld\n"),
        ] {
            let (_, text) = answer("readyz", single, &checks(), &query, false).unwrap();
            assert!(text.contains(expected), "{text}");
            assert!(
                !text.contains("disk gone") && !text.contains("shutting"),
                "{text}"
            );
        }
    }

    /// R2.32.
    #[test]
    fn single_checks() {
        assert_eq!(ask(Some("storage"), ""), Some((200, "ok".to_owned())));
        let (code, text) = ask(Some("shutdown"), "").unwrap();
        assert_eq!(
            (code, text.as_str()),
            (500, "internal server error: process is shutting down\n")
        );
        assert_eq!(ask(Some("nothing"), ""), None);
    }
}
