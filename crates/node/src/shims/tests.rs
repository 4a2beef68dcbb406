//! Shims that don't answer as they should.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use membership::lease::Epoch;
use membership::{LeasePage, boottime};
use serde::de::IgnoredAny;

use super::bond::{GREETING, is_marked, mark, marked};
use super::end_strays;
use super::link::Link;
use super::runtime::ShimRuntime;
use crate::container::POD_FOLDER;
use crate::host::Isolation;
use crate::runtime::{RunError, Runtime, Shape};
use crate::shim::wire::{Answer, Outbox, SOCKET, VERSION, encode};

/// Listens as the shim of the pod with this folder, and answers the first question of each connection with that; to the rest it says nothing.
fn pretend(folder: &Path, answer: Option<Answer>, page: Option<&LeasePage>) {
    fs::create_dir_all(folder).unwrap();
    let listener = UnixListener::bind(folder.join(SOCKET)).unwrap();
    let page = page.map(|page| page.file().try_clone_to_owned().unwrap());
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if let Some(answer) = &answer {
                let mut length = [0; 4];
                stream.read_exact(&mut length).unwrap();
                let mut question = vec![0; u32::from_le_bytes(length) as usize];
                stream.read_exact(&mut question).unwrap();
                let (number, _): (u64, IgnoredAny) = serde_json::from_slice(&question).unwrap();
                let files = page.iter().map(|page| page.try_clone().unwrap()).collect();
                let mut out = Outbox::default();
                out.push(encode(number, answer).unwrap(), files);
                out.flush(stream.as_raw_fd()).unwrap();
            }
            open.push(stream);
        }
    });
}

fn hello(version: u32, lease: Option<Epoch>) -> Option<Answer> {
    Some(Answer::Hello { version, lives: Vec::new(), lease })
}

/// A page on which an epoch goes on.
fn page(epoch: Epoch) -> LeasePage {
    let page = LeasePage::create().unwrap();
    page.set(epoch, Some(boottime() + Duration::from_secs(3600)));
    page
}

/// A process of the pod with this folder.
fn process(folder: &Path) -> Child {
    Command::new("sleep").arg("1000").env(POD_FOLDER, folder).spawn().unwrap()
}

fn ended(process: &mut Child) -> bool {
    let ended = process.try_wait().unwrap().is_some();
    let _ = process.kill();
    let _ = process.wait();
    ended
}

#[tokio::test]
async fn a_shim_says_what_it_holds_with_its_lease_or_nothing_is_known_of_it() {
    let above = tempfile::tempdir().unwrap();
    let page = page(7);
    for (name, answer, page, is_known, bound) in [
        ("without", hello(VERSION, None), None, true, None),
        ("with", hello(VERSION, Some(7)), Some(&page), true, Some(7)),
        ("no page", hello(VERSION, Some(7)), None, false, None),
        ("newer", hello(VERSION + 1, None), None, false, None),
        ("silent", None, None, false, None),
    ] {
        let folder = above.path().join(name);
        pretend(&folder, answer, page);
        let (link, told) = Link::open(&folder, None, GREETING).await.unwrap();
        let said = (told.is_some(), link.bond().map(|bond| bond.epoch));
        assert_eq!(said, (is_known, bound), "{name}");
    }
}

#[test]
fn a_bound_pod_is_known_by_its_folder() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("bound");
    for uid in ["bound", "other"] {
        fs::create_dir(above.path().join(uid)).unwrap();
    }
    mark(&folder, true, None).unwrap();
    assert_eq!(marked(above.path()), BTreeSet::from(["bound".to_owned()]));
    mark(&folder, false, None).unwrap();
    mark(&folder, false, None).unwrap();
    assert!(!is_marked(&folder));
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_next_epoch_a_pod_ends_that_may_run_by_a_former_one_and_no_other() {
    let above = tempfile::tempdir().unwrap();
    let pods = above.path().canonicalize().unwrap();
    let (silent, newer, unbound) = (pods.join("silent"), pods.join("newer"), pods.join("unbound"));
    pretend(&silent, None, None);
    pretend(&newer, hello(VERSION + 1, None), None);
    pretend(&unbound, None, None);
    for folder in [&silent, &newer] {
        mark(folder, true, None).unwrap();
    }
    let mut processes = [&silent, &newer, &unbound].map(|folder| process(folder));
    // The present epoch goes on, which may be theirs.
    let known = pods.join("known");
    pretend(&known, hello(VERSION, Some(7)), Some(&page(7)));
    let page = end_strays(pods.clone(), &[]).await.expect("a lease by which something runs");
    assert!(processes.iter_mut().all(|process| process.try_wait().unwrap().is_none()));
    // It is over.
    page.set(8, None);
    assert!(end_strays(pods, &[]).await.is_none());
    assert_eq!(processes.each_mut().map(ended), [true, true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_shim_of_a_former_lease_is_there_the_next_one_waits() {
    let above = tempfile::tempdir().unwrap();
    let pods = above.path().canonicalize().unwrap();
    let page = page(7);
    pretend(&pods.join("u"), hello(VERSION, Some(7)), Some(&page));
    let program = "/nonexistent/shim".into();
    let runtime = ShimRuntime::new(pods, program, Isolation::probe(), None, Some(page)).unwrap();
    assert!(runtime.found().await.is_empty());
    assert_eq!((runtime.bound("u"), runtime.bound("other")), (Some(Some(7)), None));
    assert_eq!(runtime.prepare("u", Shape::Process).await, Ok(Vec::new()));
    runtime.bind("u", Some(8));
    assert!(matches!(runtime.prepare("u", Shape::Process).await, Err(RunError::Lease(_))));
}
