//! What the bounds on memory come to together. Each is tested where it is kept; a limit on
//! the memory of the process that is lower than their sum ends it when all are reached at
//! once, which strangers can bring about.

use clap::Parser;
use storage::{RING_BYTES, sqlite};

use crate::args::Args;
use crate::object::weight;
use crate::policy::{call, cel, params, questions, resource_quota, review, source};
use crate::subresource::join_token::talk;
use crate::{
    aside, audit, authn, authz, cache, limits, live_bytes, namespaces, pipeline, reviews, run,
    server, stored,
};

/// An answer that is remembered, with its reason.
const TOLD: usize = 1024;
const MIB: usize = 1024 * 1024;
/// The largest message of a handshake, which holds all certificates that a client presents.
const TLS_MESSAGE: usize = 64 * 1024;

/// Code, stacks of threads, documents: about 50 MiB are resident without objects ([benchmarks](../../docs/src/reference/benchmarks.md)).
const PROCESS: usize = 64 * MIB;

/// What an answer takes that waits for its client, beside its body: the stream, its headers.
const WAITING: usize = 4 * 1024;
/// What the tables of a connection take in TLS, with a record that comes.
const TLS_RECORD: usize = 16 * 1024;

/// What a request takes on its way, which this function carries out.
fn under_way<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
    size_of::<F>()
}

/// What each bound allows, in bytes, with the flags that the chart gives.
fn parts(args: &Args) -> Vec<(&'static str, usize)> {
    // A holder alone has half of a pool; each of these controllers has a pool of its own.
    let controllers = limits::CONTROLLERS.len() + 1;
    let answers = args.max_requests_inflight + args.max_mutating_requests_inflight;
    let streams = answers + limits::WATCHES;
    let others_window = server::OTHERS_WINDOW as usize;
    // Those with places, and those that wait: for a revision, a body, the audit log, an answer
    // about rights or about a token.
    let requests = answers
        + args.max_requests_inflight
        + limits::BODIES
        + limits::LOGGED
        + limits::LOGGED_STRANGERS
        + limits::QUESTIONS
        + authn::WAITING
        + authn::LANE
        + authn::LANE_WAITING
        + reviews::AT_ONCE;
    let request = under_way(pipeline::handle::<hyper::body::Incoming>) + limits::HEAD;
    vec![
        ("objects", args.max_bytes as usize),
        ("bodies", limits::WORK),
        ("stored objects that are read", limits::STORED),
        ("the same of controllers", controllers * limits::STORED / 2),
        ("lists of older states", limits::ANSWERS),
        ("kept by answers", live_bytes::SPARE),
        ("replays", limits::REPLAYS * 2 * stored::MAX_STORED),
        ("changes for watches of the database", RING_BYTES),
        ("events for watchers", cache::MAX_BYTES),
        ("frames of watches", cache::frames::MAX_BYTES),
        ("handed to HTTP/2", streams * server::SEND_BUFFER[0]),
        ("requests under way", requests * request),
        ("long requests of nobody yet", limits::HEADS),
        (
            "selectors of watches",
            limits::SELECTORS + limits::WATCHES * limits::SELECTOR * limits::VALUE,
        ),
        ("answers without a place", server::UNPLACED * WAITING),
        ("compressed answers", limits::PACKED * limits::PACKING),
        (
            "TLS",
            args.max_connections * (server::TLS_BUFFER + TLS_RECORD + authn::MAX_CHAIN_BYTES)
                + server::EXCESSIVE * TLS_MESSAGE,
        ),
        ("sent ahead", args.max_connections * others_window),
        (
            "sent ahead by the front proxy",
            server::CONNECTION_WINDOW as usize,
        ),
        ("pages of the database", sqlite::CACHED_BYTES),
        ("policies and webhooks", source::BYTES),
        ("reading one of their expressions", cel::READING),
        (
            "objects that are made by writes",
            aside::AT_ONCE * (weight::TREE + weight::STATUS_TREE + weight::BODY_TREE),
        ),
        (
            "objects that policies make, beside what they were made of",
            aside::AT_ONCE * (weight::TREE + weight::STATUS_TREE),
        ),
        (
            "objects as trees, for answers",
            run::WORKERS * (weight::TREE + weight::STATUS_TREE),
        ),
        ("evaluations", aside::AT_ONCE * cel::MEMORY as usize),
        ("questions of policies", questions::ROOM),
        ("answers of webhooks", call::LARGE),
        (
            "refusals of webhooks",
            args.max_mutating_requests_inflight * review::REFUSAL,
        ),
        (
            "parameters of policies",
            params::PLACES * (params::ANSWER + params::TREE),
        ),
        ("ResourceQuotas", resource_quota::BYTES),
        ("labels of namespaces", namespaces::LABELS),
        (
            "answers of reviews",
            (authz::CAPACITY + authn::TOKEN_CAPACITY) * TOLD,
        ),
        ("answers of tenants", talk::PLACES * talk::ANSWER),
        ("audit events", audit::queue::BYTES),
        ("bodies of audit events", audit::body::ALL),
        ("spans", telemetry::BYTES),
        ("the process", PROCESS),
    ]
}

/// The text of the chart's values from `apiserver:` on.
fn values_of_the_server() -> &'static str {
    let values = include_str!("../../charts/steward/values.yaml");
    let (_, ours) = values.split_once("\napiserver:\n").unwrap();
    ours
}

/// The number after the first of these keys.
fn number<'a>(text: &'a str, key: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
    line.unwrap().trim()
}

#[test]
fn all_bounds_together_fit_in_the_memory_of_the_chart() {
    let ours = values_of_the_server();
    let (_, limit) = ours.split_once("\n    limits:\n").unwrap();
    let limit: usize = number(limit, "memory: ")
        .strip_suffix("Mi")
        .unwrap()
        .parse()
        .unwrap();
    let bytes = number(ours, "bytes:");
    let args = Args::parse_from(["x", "--max-bytes", bytes]);
    let parts = parts(&args);
    let all: usize = parts.iter().map(|(_, bytes)| bytes).sum();
    let page = include_str!("../../docs/src/explanation/limits.md");
    let told = number(page, "All bounds of memory above come to ");
    let told = told.split(' ').next().unwrap().replace(',', "");
    let told: usize = told.parse().unwrap();
    assert!(
        told.abs_diff(all / MIB) <= 8,
        "{} MiB, and limits.md says {told}",
        all / MIB
    );
    assert!(
        all <= limit * MIB,
        "{} MiB of {limit}: {:#?}",
        all / MIB,
        parts
    );
}
