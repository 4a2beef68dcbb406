//! Every target over a bounded number of inputs, the same each time.

#![allow(missing_docs, clippy::unwrap_used)]

use fuzz::{Calls, Corpus, Failure, Requests, run, run_growing, targets};

const INPUTS: u64 = 300;
const GROWING: u64 = 40;

fn told(f: &Failure) -> String {
    let input = String::from_utf8_lossy(&f.input).chars().take(4000).collect::<String>();
    format!("{} seed {}: {}\n{input}", f.target, f.seed, f.what)
}

#[test]
fn no_input_breaks_a_law() {
    let corpus = Corpus::load().unwrap();
    for target in targets() {
        let tally = run(&target, &corpus, 1, |at| at < INPUTS).unwrap_or_else(|f| panic!("{}", told(&f)));
        assert!(tally.inputs >= INPUTS);
    }
}

#[test]
fn no_input_that_grows_costs_more_than_its_length() {
    let corpus = Corpus::load().unwrap();
    for target in targets() {
        run_growing(&target, &corpus, 1, |at| at < GROWING).unwrap_or_else(|f| panic!("{}", told(&f)));
    }
}

#[tokio::test(flavor = "current_thread")]
async fn no_request_is_the_servers_fault() {
    let corpus = Corpus::load().unwrap();
    let requests = Requests::new().await.unwrap();
    let mut codes = std::collections::BTreeMap::new();
    for seed in 1..=INPUTS {
        let code = requests.send(&corpus, seed).await.unwrap_or_else(|f| panic!("{}", told(&f)));
        *codes.entry(code).or_insert(0) += 1;
    }
    // Some go through, and others are refused for different reasons.
    assert!(codes.len() >= 6 && codes.contains_key(&200) && codes.contains_key(&201), "{codes:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn no_request_that_grows_costs_more_than_its_length() {
    let corpus = Corpus::load().unwrap();
    let requests = Requests::new().await.unwrap();
    let mut codes = std::collections::BTreeMap::new();
    for seed in 1..=GROWING * 2 {
        let code = requests.send_growing(&corpus, seed).await.unwrap_or_else(|f| panic!("{}", told(&f)));
        *codes.entry(code).or_insert(0) += 1;
    }
    assert!(codes.contains_key(&201), "{codes:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn no_call_ends_etcds_server() {
    let calls = Calls::new().await.unwrap();
    let mut codes = std::collections::BTreeMap::new();
    for seed in 1..=INPUTS {
        let code = calls.send(seed).await.unwrap_or_else(|f| panic!("{}", told(&f)));
        *codes.entry(format!("{code:?}")).or_insert(0) += 1;
    }
    assert!(codes.len() >= 3 && codes.contains_key("Ok"), "{codes:?}");
}
