//! How claims stand in a NATS: what a search for them costs, what is there after an
//! interruption, and streams as they were before.

mod lab;

use async_nats::Client;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use lab::claim;
use lab::nats::{Nats, ask, connection, enter, granted, start};
use lab::sql::secret;
use nkeys::KeyPair;
use serde_json::{Value, json};
use storage::tenancy::{Access, Claim, Data, Tenancy, TenancyError, connect};

const STREAM: &str = "steward_claims";

fn at(server: &Nats) -> Box<dyn Tenancy> {
    connect(connection(server)).unwrap()
}

async fn prepare(tenancy: &dyn Tenancy, claim: &Claim) -> Result<(), TenancyError> {
    tenancy.prepare(claim, Some(&secret()), Data::New).await
}

fn signed(signer: &KeyPair, payload: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({ "alg": "ed25519-nkey", "typ": "JWT" });
    let signed = format!("{}.{}", part(&header), part(payload));
    let signature = signer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The token of the account with the claims, as the server keeps it.
fn token_of_claims(server: &Nats) -> Value {
    let files = std::fs::read_dir(server.directory().join("accounts")).unwrap();
    let tokens = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let payloads = tokens.map(|token| {
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap());
        serde_json::from_slice::<Value>(&payload.unwrap()).unwrap()
    });
    let mut ours = payloads.filter(|it| it["name"] == "steward");
    ours.next().unwrap()
}

/// In the account with the claims, as who has the operator's key lets himself in. It lasts
/// until Steward connects anew, which takes the key away again.
async fn enter_claims(server: &Nats) -> Client {
    let signer = KeyPair::new_account();
    let mut token = token_of_claims(server);
    let keys = token["nats"]["signing_keys"].as_array_mut().unwrap();
    keys.push(json!(signer.public_key()));
    token["iat"] = json!(token["iat"].as_u64().unwrap() + 1);
    let operator = KeyPair::from_seed(&server.operator).unwrap();
    let system = enter(server, &server.system).await.unwrap();
    let answer = ask(
        &system,
        "$SYS.REQ.CLAIMS.UPDATE",
        &signed(&operator, &token),
    )
    .await;
    assert_eq!(answer.unwrap()["data"]["code"], 200);
    let user = KeyPair::new_user();
    let payload = json!({
        "iat": 1,
        "iss": signer.public_key(),
        "jti": "claims",
        "name": "claims",
        "nats": {
            "data": -1,
            "issuer_account": token["sub"],
            "payload": -1,
            "subs": -1,
            "type": "user",
            "version": 2,
        },
        "sub": user.public_key(),
    });
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        signed(&signer, &payload),
        user.seed().unwrap()
    );
    enter(server, &credentials).await.unwrap()
}

/// Deletes all messages whose subjects are like this.
async fn purge(claims: &Client, subjects: &str) {
    let which = json!({ "filter": subjects }).to_string();
    let purge = format!("$JS.API.STREAM.PURGE.{STREAM}");
    let done = ask(claims, &purge, &which).await.unwrap();
    assert_ne!(done["purged"], 0, "{done}");
}

/// How many messages there are of each kind: entries, schemas, users.
async fn counts(claims: &Client) -> [usize; 3] {
    let all = json!({ "subjects_filter": "claims.>" }).to_string();
    let info = format!("$JS.API.STREAM.INFO.{STREAM}");
    let info = ask(claims, &info, &all).await.unwrap();
    let subjects: Vec<String> = match info["state"]["subjects"].as_object() {
        Some(subjects) => subjects.keys().cloned().collect(),
        None => Vec::new(),
    };
    let of = |kind: &str| subjects.iter().filter(|it| it.starts_with(kind)).count();
    ["claims.of.", "claims.schema.", "claims.user."].map(of)
}

/// Makes the stream what it was before there were entries.
async fn make_former(claims: &Client) {
    purge(claims, "claims.of.>").await;
    let info = format!("$JS.API.STREAM.INFO.{STREAM}");
    let mut config = ask(claims, &info, "").await.unwrap()["config"].clone();
    let metadata = config["metadata"].as_object_mut().unwrap();
    assert!(metadata.remove("steward.butlerlabs.dev/claims").is_some());
    let update = format!("$JS.API.STREAM.UPDATE.{STREAM}");
    ask(claims, &update, &config.to_string()).await.unwrap();
}

/// Messages that the server got from clients so far, which are requests. JetStream's own count
/// and its advisories leave out those that read a message.
async fn requests(server: &Nats) -> u64 {
    let system = enter(server, &server.system).await.unwrap();
    let id = system.server_info().server_id;
    let answer = ask(&system, &format!("$SYS.REQ.SERVER.{id}.VARZ"), "").await;
    answer.unwrap()["data"]["in_msgs"].as_u64().unwrap()
}

/// Claims without what stands under them, as they are written.
async fn put(claims: &Client, claim: &Claim, with_entry: bool) {
    let record = serde_json::to_string(claim).unwrap();
    let hex = |text: &str| {
        text.bytes()
            .map(|it| format!("{it:02x}"))
            .collect::<String>()
    };
    let (uid, schema, user) = (hex(&claim.uid), hex(&claim.schema), hex(&claim.user));
    let entry = format!("claims.of.{uid}.{schema}.{user}");
    let names = [
        format!("claims.schema.{schema}"),
        format!("claims.user.{user}"),
    ];
    for subject in with_entry.then_some(entry).into_iter().chain(names) {
        ask(claims, &subject, &record).await.unwrap();
    }
}

/// rule 17: a search costs what the tenant has. A change of leader searches for all of them.
#[tokio::test]
async fn a_search_among_many_is_a_few_requests() {
    const MOST: u64 = 10;
    let server = start();
    let tenancy = at(&server);
    let a = claim("1", "a", "u");
    prepare(&*tenancy, &a).await.unwrap();
    let all = enter_claims(&server).await;
    let others: Vec<Claim> = (0..300)
        .map(|it| claim(&format!("other-{it}"), &format!("s{it}"), &format!("u{it}")))
        .collect();
    for other in &others {
        put(&all, other, true).await;
    }
    assert_eq!(counts(&all).await, [301; 3]);

    // The first of a process, and those after it; of who has something, and who has not.
    let fresh = at(&server);
    for (uid, expected) in [
        ("1", vec![granted(&a)]),
        ("other-150", vec![others[150].clone()]),
        ("1", vec![granted(&a)]),
        ("nobody", vec![]),
    ] {
        let before = requests(&server).await;
        assert_eq!(fresh.claims(uid).await, Ok(expected));
        let cost = requests(&server).await - before;
        assert!((1..=MOST).contains(&cost), "{cost} requests for {uid}");
    }
    // So does all else that goes by a claim.
    let before = requests(&server).await;
    assert_eq!(fresh.check(&a, Some(&secret())).await, Ok(Access::Exact));
    let cost = requests(&server).await - before;
    assert!((1..=MOST).contains(&cost), "{cost} requests for a look");
    assert_eq!(fresh.claimants().await.unwrap().len(), 301);
}

/// A stream of before has no entries: they are added once, and nobody is overlooked.
#[tokio::test]
async fn claims_of_before_are_found() {
    let server = start();
    let tenancy = at(&server);
    let (a, b) = (claim("1", "a", "u"), claim("1", "b", "v"));
    for claim in [&a, &b] {
        prepare(&*tenancy, claim).await.unwrap();
    }
    let all = enter_claims(&server).await;
    for it in 0..100 {
        let other = claim(&format!("other-{it}"), &format!("s{it}"), &format!("u{it}"));
        put(&all, &other, false).await;
    }
    // Nor did claims say how many copies there are.
    put(&all, &a, false).await;
    make_former(&all).await;
    assert_eq!(counts(&all).await, [0, 102, 102]);

    // Several at once, as after a change of leader.
    let fresh = at(&server);
    let looks = ["1", "other-0", "other-99"].map(|uid| fresh.claims(uid));
    let found = futures::future::try_join_all(looks).await.unwrap();
    assert_eq!(found[0], [granted(&b), a.clone()], "as they were written");
    assert_eq!([found[1].len(), found[2].len()], [1, 1]);
    let all = enter_claims(&server).await;
    assert_eq!(counts(&all).await, [102; 3]);
    // It is noted, and not done again.
    let next = at(&server);
    let before = requests(&server).await;
    let found = next.claims("1").await;
    assert_eq!(found, Ok(vec![granted(&b), a.clone()]));
    let cost = requests(&server).await - before;
    // Those for the two claims that it has, and those of who connects.
    assert!(cost <= 13, "{cost} requests");

    // They are held as ever.
    let outdated = next.check(&a, Some(&secret())).await;
    assert_eq!(outdated, Ok(Access::Outdated));
    next.prepare(&a, Some(&secret()), Data::Kept).await.unwrap();
    assert_eq!(next.check(&a, Some(&secret())).await, Ok(Access::Exact));
    let found = next.claims("1").await;
    assert_eq!(found, Ok(vec![granted(&b), granted(&a)]));
    let taken = prepare(&*next, &claim("2", "a", "w")).await;
    assert!(
        matches!(taken, Err(TenancyError::SchemaTaken { .. })),
        "{taken:?}"
    );
    next.revoke(&a).await.unwrap();
    next.drop_data(&a).await.unwrap();
    next.release(&a).await.unwrap();
    let all = enter_claims(&server).await;
    assert_eq!(counts(&all).await, [101; 3], "all of it is given back");
}

/// Whoever claims or gives back may end between any two writes.
#[tokio::test]
async fn an_interruption_hides_no_name() {
    let server = start();
    let tenancy = at(&server);
    let (a, first) = (claim("1", "a", "u"), claim("0", "first", "first"));
    prepare(&*tenancy, &first).await.unwrap();
    prepare(&*tenancy, &a).await.unwrap();

    // The schema alone: found, taken up again, and given back.
    let hex_of_u = "75";
    for gone_on in [true, false] {
        let all = enter_claims(&server).await;
        purge(&all, &format!("claims.user.{hex_of_u}")).await;
        assert_eq!(at(&server).claims("1").await, Ok(vec![granted(&a)]));
        if gone_on {
            prepare(&*tenancy, &a).await.unwrap();
            assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
            tenancy.revoke(&a).await.unwrap();
            tenancy.drop_data(&a).await.unwrap();
        } else {
            tenancy.release(&a).await.unwrap();
            let all = enter_claims(&server).await;
            assert_eq!(counts(&all).await, [1; 3]);
        }
    }

    // The entry alone holds nothing: not for this tenant, and not against another one.
    let all = enter_claims(&server).await;
    let b = claim("1", "b", "v");
    put(&all, &b, true).await;
    purge(&all, "claims.schema.62").await;
    purge(&all, "claims.user.76").await;
    assert_eq!(counts(&all).await, [2, 1, 1]);
    let tenancy = at(&server);
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    assert_eq!(tenancy.check(&b, None).await, Ok(Access::Unclaimed));
    let other = claim("2", "b", "v");
    prepare(&*tenancy, &other).await.unwrap();
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    assert_eq!(tenancy.claims("2").await, Ok(vec![granted(&other)]));
    tenancy.revoke(&other).await.unwrap();
    tenancy.drop_data(&other).await.unwrap();
    tenancy.release(&other).await.unwrap();
    prepare(&*tenancy, &b).await.unwrap();
    assert_eq!(tenancy.claims("1").await, Ok(vec![granted(&b)]));
}

/// Interrupted with one of the names, of which another tenant got the other one since.
#[tokio::test]
async fn half_a_claim_is_given_back_whoever_has_the_other_half() {
    let server = start();
    let tenancy = at(&server);
    prepare(&*tenancy, &claim("0", "first", "first"))
        .await
        .unwrap();
    let all = enter_claims(&server).await;
    let half = claim("1", "a", "u");
    put(&all, &half, true).await;
    purge(&all, "claims.user.75").await;
    let tenancy = at(&server);
    let other = claim("2", "b", "u");
    prepare(&*tenancy, &other).await.unwrap();

    assert_eq!(tenancy.claims("1").await, Ok(vec![half.clone()]));
    let taken = prepare(&*tenancy, &half).await;
    assert!(
        matches!(taken, Err(TenancyError::SchemaTaken { .. })),
        "{taken:?}"
    );
    tenancy.revoke(&half).await.unwrap();
    tenancy.drop_data(&half).await.unwrap();
    assert_eq!(tenancy.remaining(&half).await, Ok(0));
    tenancy.release(&half).await.unwrap();
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    assert_eq!(
        tenancy.check(&other, Some(&secret())).await,
        Ok(Access::Exact)
    );
    prepare(&*tenancy, &claim("3", "a", "w")).await.unwrap();
    // Nothing of it was the other's.
    let all = enter_claims(&server).await;
    let get = format!("$JS.API.STREAM.MSG.GET.{STREAM}");
    let last = r#"{"last_by_subj":"claims.user.75"}"#;
    let user = ask(&all, &get, last).await.unwrap();
    let data = user["message"]["data"].as_str().unwrap();
    let record: Value = serde_json::from_slice(&STANDARD.decode(data).unwrap()).unwrap();
    assert_eq!(record["uid"], "2");
}
