//! Faults that got past inputs of the usual size: readers that have them are found by what their inputs cost.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use fuzz::{Corpus, Growing, Law, Target, run_growing};
use rand::rngs::StdRng;

fn law(base: u64, per_byte: u64) -> Law {
    Law { base, per_byte }
}

/// How a reader breaks a law; nothing if it keeps it.
fn said(grow: fn(&mut StdRng, &Corpus) -> Growing, read: fn(&[u8]), law: Law) -> Option<String> {
    let target = Target { name: "a fault", make: |_, _| Vec::new(), grow, read, law };
    run_growing(&target, &Corpus::default(), 1, |at| at < 1).err().map(|failure| failure.what)
}

fn items(_: &mut StdRng, _: &Corpus) -> Growing {
    Box::new(|times| b"{},".repeat(times))
}

/// A default, and the items that it is set in.
fn defaults(_: &mut StdRng, _: &Corpus) -> Growing {
    Box::new(|times| [b"x".repeat(times), b"\n".to_vec(), b"{},".repeat(times)].concat())
}

#[test]
fn a_cause_for_each_element_is_found() {
    let of_each: fn(&[u8]) = |input| {
        let items = input.chunks(3).enumerate();
        let causes =
            items.map(|(n, _)| format!("spec.list[{n}].name: Required value: {}", "why ".repeat(70)));
        black_box(causes.collect::<Vec<_>>());
    };
    assert!(said(items, of_each, law(1 << 20, 100)).unwrap().contains("are allocated"));
    let of_some: fn(&[u8]) = |input| {
        black_box(input.chunks(3).take(100).map(|_| "why ".repeat(80)).collect::<Vec<_>>());
    };
    assert_eq!(said(items, of_some, law(1 << 20, 100)), None);
}

#[test]
fn a_default_that_is_copied_into_each_element_is_found() {
    let copied: fn(&[u8]) = |input| {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return };
        let items = input[end..].chunks(3).map(|_| input[..end].to_vec());
        items.for_each(|item| drop(black_box(item)));
    };
    assert!(
        said(defaults, copied, law(u64::MAX / 2, 0)).unwrap().contains("are allocated"),
        "by how it grows"
    );
    assert!(
        said(defaults, copied, law(1 << 20, 100)).unwrap().contains("are allocated"),
        "by how much it is"
    );
}
