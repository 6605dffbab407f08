//! Which token a DELETE is about.

use serde_json::Value;

use super::asked::KIND;
use super::secret::{is_id, is_secret};
use crate::decode;
use crate::options::Delete;
use crate::registry::Request;
use crate::status::Failure;

/// What is to go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Revoked {
    pub(super) id: String,
    pub(super) dry_run: bool,
}

impl Revoked {
    /// The query says it (`?token=ID`) or the body: DeleteOptions, with `token` beside
    /// them, or a JoinTokenRequest as it was answered. An id with its secret, pasted by
    /// mistake, is taken as the id.
    pub(super) fn parse(request: &Request) -> Result<Revoked, Failure> {
        let of_query = Delete::from_query(request.query())?;
        let mut given: Vec<String> = request
            .query
            .iter()
            .filter(|(key, value)| key == "token" && !value.is_empty())
            .map(|(_, value)| value.clone())
            .collect();
        let of_body = body(request, &mut given)?;
        let conditions = [&of_body.uid, &of_body.resource_version];
        if conditions.into_iter().any(Option::is_some) {
            return Err(Failure::BadRequest(
                "preconditions are not supported for tokens".to_owned(),
            ));
        }
        let ids: Option<Vec<&str>> = given.iter().map(|token| id(token)).collect();
        let ids = ids.ok_or_else(|| {
            // What was given may be a secret.
            Failure::BadRequest(
                "token must be the id of a token: six of the characters a to z and 0 to 9"
                    .to_owned(),
            )
        })?;
        let Some((first, others)) = ids.split_first() else {
            return Err(Failure::BadRequest(
                "which token? Give its id as ?token=ID, or in a body {\"token\":\"ID\"}; GET \
                 lists the ids"
                    .to_owned(),
            ));
        };
        if others.iter().any(|other| other != first) {
            return Err(Failure::BadRequest(
                "one token at a time: several ids are given".to_owned(),
            ));
        }
        Ok(Revoked {
            id: (*first).to_owned(),
            dry_run: of_query.dry_run || of_body.dry_run,
        })
    }
}

/// The options in the body; tokens that it names are added to those given.
fn body(request: &Request, given: &mut Vec<String>) -> Result<Delete, Failure> {
    if request.body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Delete::default());
    }
    let media = decode::media(&request.headers)?;
    // The decoder's text may quote the body, and a token in it.
    let unreadable = |_: &str| Failure::BadRequest("the body is not readable".to_owned());
    let parsed = decode::parse(media, &request.body).map_err(|error| error.or(unreadable))?;
    let body = parsed.value;
    let is_ours = body["kind"] == KIND;
    for token in [&body["token"], &body["status"]["token"]] {
        match token {
            Value::Null => {}
            Value::String(token) => given.push(token.clone()),
            _ => {
                let text = "token in the body must be a string".to_owned();
                return Err(Failure::BadRequest(text));
            }
        }
    }
    match is_ours {
        true => Ok(Delete::default()),
        false => Delete::from_body(&body),
    }
}

fn id(token: &str) -> Option<&str> {
    let id = match token.split_once('.') {
        Some((id, secret)) => is_secret(secret).then_some(id)?,
        None => token,
    };
    is_id(id).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subresource::join_token::tests::request;

    const WHOLE: &str = "abcdef.0123456789abcdef";

    #[test]
    fn the_id_is_in_the_query_or_in_the_body() {
        let ours = format!(r#"{{"kind":"JoinTokenRequest","status":{{"token":"{WHOLE}"}}}}"#);
        let options = r#"{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"]}"#;
        let whole = format!("token={WHOLE}");
        for (body, query, dry_run) in [
            ("", "token=abcdef", false),
            ("", "token=abcdef&dryRun=All", true),
            ("", &whole, false),
            (options, "token=abcdef", true),
            (r#"{"token":"abcdef"}"#, "", false),
            (r#"{"token":"abcdef","dryRun":["All"]}"#, "", true),
            (r#"{"token":"abcdef"}"#, "token=abcdef&dryRun=All", true),
            (&ours, "", false),
        ] {
            let expected = Revoked {
                id: "abcdef".to_owned(),
                dry_run,
            };
            let found = Revoked::parse(&request(body, query));
            assert_eq!(found.unwrap(), expected, "{body} {query}");
        }
    }

    #[test]
    fn without_an_id_it_is_told_what_to_do_and_no_secret_is_repeated() {
        let secret = "0123456789abcdef";
        let broken = format!(r#"{{"token":"{WHOLE}"#);
        let typed = format!(r#"{{"token":["{WHOLE}"]}}"#);
        let other = format!(r#"{{"kind":"Pod","token":"{WHOLE}"}}"#);
        for (body, query, text) in [
            ("", "", "which token? Give its id as ?token=ID"),
            ("{}", "token=", "which token? Give its id as ?token=ID"),
            ("", "token=0123456789abcdef", "must be the id of a token"),
            (
                "",
                "token=abcdef.0123456789abcde",
                "must be the id of a token",
            ),
            ("", "token=../abc", "must be the id of a token"),
            (
                r#"{"token":"abcdeg"}"#,
                "token=abcdef",
                "one token at a time",
            ),
            (&broken, "", "the body is not readable"),
            (&typed, "", "must be a string"),
            (&other, "", "cannot be handled as a DeleteOptions"),
            (
                r#"{"token":"abcdef","preconditions":{"uid":"u"}}"#,
                "",
                "preconditions are not supported",
            ),
        ] {
            let refused = Revoked::parse(&request(body, query)).unwrap_err();
            assert_eq!(refused.code().as_u16(), 400);
            let refused = refused.to_string();
            assert!(refused.contains(text), "{body} {query}: {refused}");
            assert!(!refused.contains(secret), "{refused}");
        }
    }
}
