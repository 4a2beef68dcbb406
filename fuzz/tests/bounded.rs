//! Every target over a bounded number of inputs, the same each time.

#![allow(missing_docs, clippy::unwrap_used)]

use fuzz::{Corpus, Requests, run, targets};

const INPUTS: u64 = 300;

#[test]
fn no_input_breaks_a_law() {
    let corpus = Corpus::load().unwrap();
    for target in targets() {
        let tally = run(&target, &corpus, 1, |at| at < INPUTS);
        let tally = tally.unwrap_or_else(|f| {
            panic!("{} seed {}: {}\n{}", f.target, f.seed, f.what, String::from_utf8_lossy(&f.input))
        });
        assert!(tally.inputs >= INPUTS);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn no_request_is_the_servers_fault() {
    let corpus = Corpus::load().unwrap();
    let requests = Requests::new().await.unwrap();
    let mut codes = std::collections::BTreeMap::new();
    for seed in 1..=INPUTS {
        let code = requests.send(&corpus, seed).await;
        let code = code.unwrap_or_else(|f| {
            panic!("{} seed {}: {}\n{}", f.target, f.seed, f.what, String::from_utf8_lossy(&f.input))
        });
        *codes.entry(code).or_insert(0) += 1;
    }
    // Some go through, and others are refused for different reasons.
    assert!(codes.len() >= 6 && codes.contains_key(&200) && codes.contains_key(&201), "{codes:?}");
}
