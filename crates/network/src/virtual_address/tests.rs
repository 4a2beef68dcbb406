use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch::{Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::announce::AddressKind;
use crate::netlink::Netlink;
use crate::netlink::tests::{in_namespace, ip, pair};
use crate::{Protocol, keeper};

/// Long enough for any machine; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(20);

fn leader(is_me: bool, term: u64) -> Leadership {
    Leadership { leader: None, term, is_me }
}

fn on_switch() -> (Holder, Entry, Receiver<Option<Entry>>) {
    let target = ([127, 0, 1, 1], 6443).into();
    let address = [127, 0, 0, 100].into();
    let entry = Entry { kind: AddressKind::Vip, address, port: 6443, protocol: Protocol::Tcp, target };
    let announced = Sender::new(None);
    let seen = announced.subscribe();
    (Holder::Switch { entry: entry.clone(), announced }, entry, seen)
}

/// A page that nobody else sees.
fn page() -> LeasePage {
    LeasePage::create().unwrap().leading()
}

/// A store whose members answer, or don't.
fn answering(answers: bool) -> impl Fn() -> BoxFuture<'static, bool> + Send {
    move || Box::pin(std::future::ready(answers))
}

/// A host that is never cut off.
fn never_alone() -> Option<Duration> {
    Some(SOON)
}

/// Follows leadership on a host that is never cut off, and has no connections to end.
fn followed(
    holder: Holder,
    page: &LeasePage,
    asks: impl Fn() -> BoxFuture<'static, bool> + Send + Sync + 'static,
    leadership: &Sender<Leadership>,
    stop: &Sender<bool>,
) -> JoinHandle<()> {
    let (leadership, stop) = (leadership.subscribe(), stop.subscribe());
    tokio::spawn(follow(holder, page.clone(), || {}, asks, never_alone, leadership, stop))
}

async fn sees(seen: &mut Receiver<Option<Entry>>, wanted: Option<&Entry>) {
    let met = timeout(SOON, seen.wait_for(|entry| entry.as_ref() == wanted)).await;
    assert!(met.is_ok(), "{wanted:?} is not announced");
}

#[tokio::test]
async fn an_address_is_held_exactly_while_this_host_leads() {
    let (holder, entry, mut seen) = on_switch();
    let leadership = Sender::new(leader(false, 1));
    let stop = Sender::new(false);
    let watched = seen.clone();
    let farewells = Arc::new(AtomicUsize::new(0));
    let count = farewells.clone();
    let farewell = move || {
        assert!(watched.borrow().is_some(), "the farewell comes before the address goes");
        count.fetch_add(1, Ordering::SeqCst);
    };
    let task = tokio::spawn(follow(
        holder,
        page(),
        farewell,
        answering(true),
        never_alone,
        leadership.subscribe(),
        stop.subscribe(),
    ));
    for term in [2, 4] {
        leadership.send_replace(leader(true, term));
        sees(&mut seen, Some(&entry)).await;
        leadership.send_replace(leader(false, term + 1));
        sees(&mut seen, None).await;
    }
    assert_eq!(farewells.load(Ordering::SeqCst), 2);
    leadership.send_replace(leader(true, 6));
    sees(&mut seen, Some(&entry)).await;
    stop.send_replace(true);
    timeout(SOON, task).await.unwrap().unwrap();
    assert_eq!(*seen.borrow(), None, "given up at the end");
}

#[tokio::test]
async fn an_address_is_taken_anew_when_another_may_have_had_it_in_between() {
    let (holder, entry, mut seen) = on_switch();
    let leadership = Sender::new(leader(true, 1));
    let stop = Sender::new(false);
    followed(holder, &page(), answering(true), &leadership, &stop);
    sees(&mut seen, Some(&entry)).await;
    seen.mark_unchanged();
    // What happened between two looks isn't seen; the term tells it.
    leadership.send_replace(leader(true, 3));
    timeout(SOON, seen.changed()).await.expect("said again").unwrap();
    assert_eq!(seen.borrow().as_ref(), Some(&entry));
}

#[tokio::test]
async fn the_end_of_the_store_is_the_end_of_leading() {
    let (holder, entry, mut seen) = on_switch();
    let leadership = Sender::new(leader(true, 1));
    let stop = Sender::new(false);
    let task = followed(holder, &page(), answering(true), &leadership, &stop);
    sees(&mut seen, Some(&entry)).await;
    drop(leadership);
    sees(&mut seen, None).await;
    timeout(SOON, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn news_all_the_time_keeps_nobody_from_saying_that_the_address_is_held() {
    let (holder, entry, mut seen) = on_switch();
    let leadership = Sender::new(leader(true, 5));
    let stop = Sender::new(false);
    let page = page();
    followed(holder, &page, answering(true), &leadership, &stop);
    sees(&mut seen, Some(&entry)).await;
    let first = page.ends(5);
    assert!(first.is_some());
    let goes_on = async {
        while page.ends(5) == first {
            leadership.send_replace(leader(true, 5));
            sleep(BEAT / 10).await;
        }
    };
    timeout(SOON, goes_on).await.expect("said again");
    assert!(page.ends(5) > first, "it was said again before the time was over");
}

#[tokio::test]
async fn a_program_that_was_away_takes_the_address_again_only_once_it_knows_that_it_leads() {
    let (holder, entry, mut seen) = on_switch();
    let leadership = Sender::new(leader(true, 5));
    let stop = Sender::new(false);
    let page = page();
    let answers = Sender::new(false);
    let asks = {
        let answers = answers.clone();
        move || -> BoxFuture<'static, bool> {
            let mut answers = answers.subscribe();
            Box::pin(async move { answers.wait_for(|answers| *answers).await.is_ok() })
        }
    };
    followed(holder, &page, asks, &leadership, &stop);
    sees(&mut seen, Some(&entry)).await;
    assert!(page.ends(5).is_some());
    // As it is after a pause: its time has passed, and it still believes that it leads.
    page.set(5, Some(boottime()));
    sees(&mut seen, None).await;
    assert_eq!(page.until(), None);
    answers.send_replace(true);
    sees(&mut seen, Some(&entry)).await;
    assert!(page.ends(5).is_some());

    answers.send_replace(false);
    page.set(5, Some(boottime()));
    sees(&mut seen, None).await;
    // It hears that it doesn't, and is elected once more.
    leadership.send_replace(leader(false, 6));
    answers.send_replace(true);
    leadership.send_replace(leader(true, 7));
    sees(&mut seen, Some(&entry)).await;
    assert!(page.ends(7).is_some());
}

#[tokio::test]
async fn a_leader_that_is_cut_off_gives_the_address_up_while_it_still_leads() {
    let (holder, entry, mut seen) = on_switch();
    let leadership = Sender::new(leader(true, 5));
    let stop = Sender::new(false);
    let (company, page) = (Sender::new(Some(BEAT / 10)), page());
    let lasts = {
        let company = company.subscribe();
        move || *company.borrow()
    };
    tokio::spawn(follow(
        holder,
        page.clone(),
        || {},
        answering(true),
        lasts,
        leadership.subscribe(),
        stop.subscribe(),
    ));
    sees(&mut seen, Some(&entry)).await;
    // Nobody tells it: it looks by itself.
    company.send_replace(None);
    sees(&mut seen, None).await;
    assert!(leadership.borrow().is_me && page.ends(5).is_none());
    // As long as it hears nobody it asks nobody either, and takes the address again once a majority says that it leads.
    assert!(timeout(BEAT, seen.changed()).await.is_err());
    company.send_replace(Some(SOON));
    sees(&mut seen, Some(&entry)).await;
}

#[tokio::test]
async fn news_all_the_time_keeps_nobody_from_learning_that_it_leads() {
    let (holder, entry, mut seen) = on_switch();
    let leadership = Sender::new(leader(true, 5));
    let stop = Sender::new(false);
    let page = page();
    let asks = || -> BoxFuture<'static, bool> {
        Box::pin(async {
            sleep(BEAT).await;
            true
        })
    };
    followed(holder, &page, asks, &leadership, &stop);
    sees(&mut seen, Some(&entry)).await;
    page.set(5, Some(boottime()));
    sees(&mut seen, None).await;
    let news = async {
        while !leadership.is_closed() {
            leadership.send_replace(leader(true, 5));
            sleep(BEAT / 10).await;
        }
    };
    tokio::select! {
        () = sees(&mut seen, Some(&entry)) => {}
        () = news => {}
    }
    assert_eq!(seen.borrow().as_ref(), Some(&entry));
}

/// Waits until `eth0` has the virtual address, or hasn't.
async fn is_on_link(wanted: bool) {
    let looks = async {
        while ip("address show").contains("10.73.0.100/32") != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(SOON, looks).await.is_ok(), "it should be {wanted} that the address is here");
}

#[test]
fn an_address_that_others_remove_or_add_is_put_right() {
    if !testing::has("ip") {
        return;
    }
    in_namespace("an_address_that_others_remove", || async {
        let netlink = Netlink::open().unwrap();
        pair(&netlink).await;
        // A former life has left it, and the first try to give it up fails.
        ip("address add 10.73.0.100/32 dev eth0");
        netlink.break_off();
        let (counter, changes) = watch::channel(0);
        tokio::spawn(keeper::listen(counter));
        let address = [10, 73, 0, 100].into();
        let on = OnLink::new(netlink, "eth0".into(), changes);
        let holder = Holder::Link { on, address, keeper: None };
        let leadership = Sender::new(leader(false, 1));
        let stop = Sender::new(false);
        let task = followed(holder, &page(), answering(true), &leadership, &stop);
        is_on_link(false).await;
        for term in [2, 4] {
            ip("address add 10.73.0.100/32 dev eth0");
            is_on_link(false).await;
            leadership.send_replace(leader(true, term));
            is_on_link(true).await;
            ip("address del 10.73.0.100/32 dev eth0");
            is_on_link(true).await;
            // A link that comes again is another one of the same name.
            ip("link del eth0");
            ip("link add eth0 type veth peer name far");
            is_on_link(true).await;
            leadership.send_replace(leader(false, term + 1));
            is_on_link(false).await;
        }
        leadership.send_replace(leader(true, 6));
        is_on_link(true).await;
        stop.send_replace(true);
        timeout(SOON, task).await.unwrap().unwrap();
        is_on_link(false).await;
    });
}
