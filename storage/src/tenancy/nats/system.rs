//! The system account: what the servers are, and which accounts they know.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, RequestErrorKind, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::account::{Found, Wanted};
use super::connection::{Kept, Link, causes};
use super::credentials::Administrator;
use super::token;
use crate::tenancy::TenancyError;

/// Asks the servers as a user of the system account.
pub struct System {
    kept: Kept,
}

/// What a server says of itself.
pub struct Server {
    pub version: String,
    /// Bytes that JetStream stores, and how many it may.
    pub used: u64,
    pub quota: Option<u64>,
}

impl System {
    pub fn new() -> Self {
        System {
            kept: Kept::default(),
        }
    }

    async fn client(
        &self,
        link: &Link,
        administrator: &Administrator,
    ) -> Result<Arc<Client>, TenancyError> {
        match self.kept.get() {
            Some(client) => Ok(client),
            None => Ok(self.kept.keep(link.enter(&administrator.system).await?)),
        }
    }

    async fn ask(
        &self,
        link: &Link,
        administrator: &Administrator,
        subject: String,
        payload: String,
    ) -> Result<Bytes, TenancyError> {
        let client = self.client(link, administrator).await?;
        let subject = subject.replace("{server}", &client.server_info().server_id);
        let asked = client.request(subject.clone(), payload.into()).await;
        self.kept.unless_silent(match asked {
            Ok(answer) => Ok(answer.payload),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                Err(TenancyError::Refused(unanswered(&subject)))
            }
            Err(error) => Err(TenancyError::Unreachable(format!(
                "{subject}: {}",
                causes(&error)
            ))),
        })
    }

    /// What the server is.
    ///
    /// # Errors
    /// [`TenancyError::Refused`] for one in which tenants cannot be kept apart, with what is
    /// to be changed; [`TenancyError::Unauthenticated`] if it does not know our key.
    pub async fn server(
        &self,
        link: &Link,
        administrator: &Administrator,
    ) -> Result<Server, TenancyError> {
        let subject = "$SYS.REQ.SERVER.{server}.VARZ".to_owned();
        let answer = self
            .ask(link, administrator, subject, String::new())
            .await?;
        let answer: Value = serde_json::from_slice(&answer)
            .map_err(|e| TenancyError::Other(format!("the server's variables: {e}")))?;
        let server = examine(&answer["data"], &administrator.operator.public_key())?;
        self.delete_accounts(link, administrator, &[]).await?;
        Ok(server)
    }

    /// The account as the servers have it. All of them answer, those of a cluster too that
    /// have missed something: the newest token counts, and nobody's word that there is none
    /// before all had time for theirs.
    pub async fn account(
        &self,
        link: &Link,
        administrator: &Administrator,
        account: &str,
    ) -> Result<Option<Found>, TenancyError> {
        let client = self.client(link, administrator).await?;
        let subject = format!("$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP");
        let answers = answers(&client, &subject, link.deadline).await;
        let mut newest: Option<Found> = None;
        for token in self.kept.unless_silent(answers)? {
            let found = std::str::from_utf8(&token).ok().and_then(Found::read);
            let Some(found) = found else {
                return Err(TenancyError::Other(format!(
                    "the token of account {account} cannot be read"
                )));
            };
            if newest.as_ref().is_none_or(|it| it.is_older_than(&found)) {
                newest = Some(found);
            }
        }
        Ok(newest)
    }

    /// Makes an account what it should be, unless it is; whether something was to be done.
    pub async fn make(
        &self,
        link: &Link,
        administrator: &Administrator,
        wanted: &Wanted,
        found: Option<&Found>,
    ) -> Result<bool, TenancyError> {
        let operator = &administrator.operator;
        if found.is_some_and(|found| wanted.is(found, operator)) {
            return Ok(false);
        }
        let token = wanted.token(operator, now(), found)?;
        let subject = "$SYS.REQ.CLAIMS.UPDATE".to_owned();
        let answer = self.ask(link, administrator, subject, token).await?;
        accepted(&answer)?;
        Ok(true)
    }

    /// Deletes accounts; those that are not there count as deleted. With none of them it tells
    /// whether we may.
    pub async fn delete_accounts(
        &self,
        link: &Link,
        administrator: &Administrator,
        accounts: &[&str],
    ) -> Result<(), TenancyError> {
        let operator = administrator.operator.public_key();
        let claims = token::Claims {
            subject: &operator,
            name: "steward",
            issued: now(),
            nats: json!({ "accounts": accounts, "type": "generic", "version": 2 }),
            id: token::Id::Once,
        };
        let token = token::sign(&claims, &administrator.operator)?;
        let subject = "$SYS.REQ.CLAIMS.DELETE".to_owned();
        let answer = self.ask(link, administrator, subject, token).await?;
        accepted(&answer)
    }
}

/// How long the servers of a cluster have for their answers after the first of them.
const OTHERS: Duration = Duration::from_millis(250);

/// What is answered, without what is empty. At least one server has to answer.
async fn answers(
    client: &Client,
    subject: &str,
    deadline: Duration,
) -> Result<Vec<Bytes>, TenancyError> {
    let silence = |e: &dyn std::fmt::Display| TenancyError::Unreachable(format!("{subject}: {e}"));
    let is_cluster = client.server_info().cluster.is_some();
    let inbox = client.new_inbox();
    let listening = client.subscribe(inbox.clone()).await;
    let mut listening = listening.map_err(|e| silence(&e))?;
    let asked = client.publish_with_reply(subject.to_owned(), inbox, Bytes::new());
    asked.await.map_err(|e| silence(&e))?;
    let mut found = Vec::new();
    let mut patience = deadline;
    let mut answered = false;
    while let Ok(next) = timeout(patience, listening.next()).await {
        let Some(message) = next else {
            return Err(silence(&"the connection ended"));
        };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(TenancyError::Refused(unanswered(subject)));
        }
        answered = true;
        if !message.payload.is_empty() {
            found.push(message.payload);
        }
        if !is_cluster {
            return Ok(found);
        }
        patience = OTHERS;
    }
    match answered {
        true => Ok(found),
        false => Err(silence(&format!("no answer within {deadline:?}"))),
    }
}

/// Seconds since 1970. Orders the tokens of one account, each of which is newer than the one
/// before whatever the clock says, and ends former passwords: a wrong clock ends them sooner.
pub fn now() -> u64 {
    #[allow(
        clippy::disallowed_methods,
        reason = "the date on a token, which others read, too"
    )]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn unanswered(subject: &str) -> String {
    match subject.contains("CLAIMS") {
        true => "the NATS server does not take accounts from us: it needs a resolver of type \
                 \"full\" in its configuration, with allow_delete: true"
            .to_owned(),
        false => "the NATS server does not answer as to a user of its system account: \
                  basicAuth.username has to hold the credentials of one, and the server has to be \
                  in operator mode, with operator and system_account in its configuration"
            .to_owned(),
    }
}

fn accepted(answer: &[u8]) -> Result<(), TenancyError> {
    let answer: Value = serde_json::from_slice(answer)
        .map_err(|e| TenancyError::Other(format!("the answer about accounts: {e}")))?;
    let Some(error) = answer["error"]["description"].as_str() else {
        return Ok(());
    };
    if error.contains("delete must be enabled") || error.contains("not set up to for delete") {
        return Err(TenancyError::Refused(
            "the NATS server does not let accounts be deleted, so that nothing would be left of \
             tenants but closed accounts: set allow_delete: true in the resolver of its \
             configuration"
                .to_owned(),
        ));
    }
    if error.contains("not trusted") || error.contains("signing key") {
        return Err(untrusted(error));
    }
    Err(TenancyError::Other(error.to_owned()))
}

fn untrusted(why: &str) -> TenancyError {
    TenancyError::Unauthenticated(format!(
        "the key in basicAuth.password is not a signing key of the server's operator ({why})"
    ))
}

/// What the variables of a server say.
fn examine(data: &Value, operator: &str) -> Result<Server, TenancyError> {
    let refused = |why: &str| Err(TenancyError::Refused(why.to_owned()));
    let operators = data["trusted_operators_claim"].as_array();
    let Some(trusted) = operators.and_then(|all| all.first()) else {
        return refused(
            "the NATS server is not in operator mode, so that each tenant cannot have an account \
             of its own: configure operator, system_account and a resolver of type \"full\"",
        );
    };
    let signs = trusted["nats"]["signing_keys"]
        .as_array()
        .is_some_and(|keys| keys.iter().any(|key| key == operator));
    let strict = trusted["nats"]["strict_signing_key_usage"] == true;
    if !signs && (strict || trusted["sub"] != operator) {
        return Err(untrusted("it lists others"));
    }
    let jetstream = &data["jetstream"];
    let Some(config) = jetstream["config"].as_object() else {
        return refused("JetStream of the NATS server is off: enable it in its configuration");
    };
    let quota = config.get("max_storage").and_then(Value::as_u64);
    Ok(Server {
        version: data["version"].as_str().unwrap_or_default().to_owned(),
        used: jetstream["stats"]["storage"].as_u64().unwrap_or(0),
        quota: quota.filter(|bytes| *bytes > 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_do_not_keep_tenants_apart() {
        let with = |operators: Value, jetstream: Value| {
            let data = json!({
                "version": "2.14.10",
                "trusted_operators_claim": operators,
                "jetstream": jetstream,
            });
            examine(&data, "OURS").map(|server| server.quota)
        };
        let jetstream = json!({ "config": { "max_storage": 7 }, "stats": { "storage": 1 } });
        let of = |sub: &str, keys: &[&str], strict: bool| {
            json!([{
                "sub": sub,
                "nats": { "signing_keys": keys, "strict_signing_key_usage": strict },
            }])
        };
        assert_eq!(
            with(of("O", &["OURS"], true), jetstream.clone()),
            Ok(Some(7))
        );
        assert_eq!(with(of("OURS", &[], false), jetstream.clone()), Ok(Some(7)));
        for (operators, jetstream, what) in [
            (Value::Null, jetstream.clone(), "operator mode"),
            (
                of("OURS", &[], true),
                jetstream.clone(),
                "not a signing key",
            ),
            (of("O", &["OTHER"], false), jetstream, "not a signing key"),
            (of("O", &["OURS"], false), json!({}), "JetStream"),
        ] {
            let error = with(operators, jetstream).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
