//! The grammar of field selectors (R3.8), with Kubernetes' error texts.

use super::terms::{Field, FieldTerm};

/// The terms of a selector; all must hold.
pub fn parse(text: &str, namespaced: bool) -> Result<Vec<FieldTerm>, String> {
    let mut terms = Vec::new();
    for part in split_terms(text)
        .into_iter()
        .filter(|part| !part.is_empty())
    {
        let Some((label, equal, value)) = split_term(part) else {
            return Err(format!(
                "invalid selector: '{text}'; can't understand '{part}'"
            ));
        };
        let value = unescape(value)?;
        let field = match label {
            "metadata.name" => Field::Name,
            "metadata.namespace" if namespaced => Field::Namespace,
            other => return Err(format!("field label not supported: {other}")),
        };
        terms.push(FieldTerm {
            field,
            equal,
            value,
        });
    }
    Ok(terms)
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (position, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(part: &str) -> Option<(&str, bool, &str)> {
    let position = part
        .char_indices()
        .map(|(position, _)| position)
        .find(|position| {
            part[*position..].starts_with('=') || part[*position..].starts_with("!=")
        })?;
    let (label, rest) = part.split_at(position);
    let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
        (false, value)
    } else if let Some(value) = rest.strip_prefix("==") {
        (true, value)
    } else {
        (true, &rest[1..])
    };
    Some((label, equal, value))
}

fn unescape(value: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                other => {
                    let sequence: String = std::iter::once('\\').chain(other).collect();
                    return Err(format!(
                        "invalid field selector: invalid escape sequence: {sequence}"
                    ));
                }
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                ));
            }
            c => plain.push(c),
        }
    }
    Ok(plain)
}
