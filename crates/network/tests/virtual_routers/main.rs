//! Our virtual routers beside keepalived's, in one group, each in a network namespace of its own.

#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
#![allow(clippy::disallowed_methods, reason = "a test measures how long something takes")]

mod lan;

use std::fs;
use std::path::Path;
use std::time::Duration;

use lan::{Lan, Namespace, wait};
use serde_json::{Value, json};

const VIRTUAL: &str = "10.73.0.50";
const INTERVAL: Duration = Duration::from_millis(200);

/// Ours, as the settings of one virtual router.
fn one(priority: u8) -> Value {
    json!({"instances": [{
        "name": "one", "interface": "eth0", "routerId": 51, "priority": priority, "advertInterval": "200ms",
        "addresses": [VIRTUAL]}]})
}

/// keepalived's for the same.
fn theirs(name: &str, bridge: u8, priority: u8, more: &str) -> String {
    let (link, net) = (format!("eth{bridge}"), 73 + bridge);
    format!(
        "vrrp_instance {name} {{\n state BACKUP\n interface {link}\n virtual_router_id 51\n priority {priority}\n \
         advert_int 0.2\n virtual_ipaddress {{\n 10.{net}.0.50/32 dev {link}\n }}\n {more}\n}}\n"
    )
}

/// A program that writes down its arguments, and what it has written.
fn notepad(folder: &Path, name: &str) -> (String, impl Fn() -> Vec<String>) {
    use std::os::unix::fs::PermissionsExt;
    let (program, notes) = (folder.join(name), folder.join(format!("{name}.notes")));
    fs::write(&program, format!("#!/bin/sh\necho \"$*\" >> {}\n", notes.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let read = move || fs::read_to_string(&notes).unwrap_or_default().lines().map(str::to_owned).collect();
    (program.to_str().unwrap().to_owned(), read)
}

/// Of two hosts the one has the address, and the other hasn't.
fn only(has: &Namespace, has_not: &Namespace, address: &str) -> bool {
    has.holds(address) && !has_not.holds(address)
}

#[test]
fn the_higher_priority_leads_in_any_order_of_start_and_an_end_is_announced_as_by_keepalived() {
    let Some(lan) = Lan::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (our_program, our_notes) = notepad(folder.path(), "ours");
    let (their_program, their_notes) = notepad(folder.path(), "theirs");
    let (a, b) = (lan.host(1), lan.host(2));
    let keepalived = b.keepalived(&theirs("one", 0, 100, &format!("notify {their_program}")));
    lan.settles(2, 3, || b.holds(VIRTUAL));

    // A lower one waits, a higher one takes over.
    let mut lower = one(90);
    lower["instances"][0]["notify"] = json!([our_program]);
    let ours = a.ours(lower);
    wait("no notice of the beginning", || our_notes() == ["INSTANCE one BACKUP 90"]);
    lan.forget();
    lan.settles(2, 7, || only(&b, &a, VIRTUAL));
    drop(ours);
    assert_eq!(our_notes(), ["INSTANCE one BACKUP 90", "INSTANCE one STOP 90"]);
    let mut higher = one(150);
    higher["instances"][0]["notify"] = json!([our_program]);
    let ours = a.ours(higher);
    lan.settles(1, 3, || only(&a, &b, VIRTUAL));

    // Ours says by priority 0 that it ends: keepalived follows within its skew.
    lan.forget();
    drop(ours);
    assert!(!a.holds(VIRTUAL));
    let last = loop {
        let said = lan.next();
        if said.priority == 0 && said.host == 1 {
            break said;
        }
    };
    let first = loop {
        let said = lan.next();
        if said.host == 2 {
            break said;
        }
    };
    assert!(first.at - last.at < INTERVAL * 3, "{:?}", first.at - last.at);
    eprintln!("keepalived follows after {:?}", first.at - last.at);
    lan.settles(2, 3, || only(&b, &a, VIRTUAL));

    // And the other way round.
    let _ours = a.ours(one(90));
    lan.settles(2, 5, || only(&b, &a, VIRTUAL));
    lan.forget();
    drop(keepalived);
    let (mut last, mut first) = (None, None);
    while first.is_none() {
        let said = lan.next();
        match said.host {
            2 if said.priority == 0 => last = Some(said.at),
            1 => first = Some(said.at),
            _ => {}
        }
    }
    let took = first.unwrap() - last.expect("keepalived says that it gives up");
    assert!(took < INTERVAL * 3, "{took:?}");
    eprintln!("ours follows after {took:?}");
    lan.settles(1, 3, || only(&a, &b, VIRTUAL));

    // Both have told the same words.
    assert_eq!(
        our_notes()[2..],
        ["INSTANCE one BACKUP 150", "INSTANCE one MASTER 150", "INSTANCE one STOP 150"]
    );
    wait("keepalived's last notice", || their_notes().len() == 5);
    let (backup, master) = ("INSTANCE one BACKUP 100", "INSTANCE one MASTER 100");
    assert_eq!(their_notes(), [backup, master, backup, master, "INSTANCE one STOP 100"]);
}

#[test]
fn without_preemption_a_higher_one_waits_until_the_master_is_gone() {
    let Some(lan) = Lan::new() else { return };
    let (a, b) = (lan.host(1), lan.host(2));
    let keepalived = b.keepalived(&theirs("one", 0, 100, ""));
    lan.settles(2, 3, || b.holds(VIRTUAL));
    let mut patient = one(150);
    patient["instances"][0]["preempt"] = json!(false);
    let ours = a.ours(patient);
    lan.forget();
    // Twice as long as it would have waited for a silent master.
    lan.settles(2, 7, || only(&b, &a, VIRTUAL));
    lan.cut(2, 0);
    lan.settles(1, 3, || only(&a, &b, VIRTUAL));
    // keepalived is lower, and hears ours again.
    lan.mend(2, 0);
    lan.settles(1, 7, || only(&a, &b, VIRTUAL));
    drop(keepalived);

    // keepalived's `nopreempt` leaves ours alone in the same way.
    drop(ours);
    let _ours = a.ours(one(100));
    lan.settles(1, 3, || a.holds(VIRTUAL));
    let keepalived = b.keepalived(&theirs("one", 0, 150, "nopreempt"));
    wait("keepalived doesn't begin", || keepalived.says("Entering BACKUP STATE"));
    lan.forget();
    lan.settles(1, 7, || only(&a, &b, VIRTUAL));
}

#[test]
fn a_host_whose_link_is_gone_is_replaced_by_the_other_and_comes_back() {
    let Some(lan) = Lan::new() else { return };
    let (a, b) = (lan.host(1), lan.host(2));
    let _keepalived = b.keepalived(&theirs("one", 0, 100, ""));
    let ours = a.ours(one(150));
    lan.settles(1, 3, || only(&a, &b, VIRTUAL));
    lan.cut(1, 0);
    lan.settles(2, 3, || only(&b, &a, VIRTUAL));
    lan.mend(1, 0);
    lan.settles(1, 3, || only(&a, &b, VIRTUAL));

    // Somebody takes the address away, or gives it to who isn't master.
    a.ip(&format!("address del {VIRTUAL}/32 dev eth0"));
    wait("the address is not put back", || a.holds(VIRTUAL));
    drop(ours);
    let _ours = a.ours(one(50));
    lan.settles(2, 3, || only(&b, &a, VIRTUAL));
    a.ip(&format!("address add {VIRTUAL}/32 dev eth0"));
    wait("the address stays where it shouldn't be", || !a.holds(VIRTUAL));

    lan.cut(2, 0);
    lan.settles(1, 3, || only(&a, &b, VIRTUAL));
    lan.mend(2, 0);
    lan.settles(2, 3, || only(&b, &a, VIRTUAL));
}

#[test]
fn a_group_moves_whole_and_back_in_both_directions() {
    const SECOND: &str = "10.74.0.50";
    let Some(lan) = Lan::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (program, notes) = notepad(folder.path(), "group");
    let group = "vrrp_sync_group both {\n group {\n out\n in\n }\n}\n";
    let keepalived = |priority| theirs("out", 0, priority, "") + &theirs("in", 1, priority, "") + group;
    let mut settings = one(150);
    settings["instances"][0]["name"] = json!("out");
    let mut inner = settings["instances"][0].clone();
    inner["name"] = json!("in");
    inner["interface"] = json!("eth1");
    inner["addresses"] = json!([SECOND]);
    settings["instances"].as_array_mut().unwrap().push(inner);
    settings["groups"] = json!([{"name": "both", "members": ["out", "in"], "notify": [program]}]);
    let (a, b) = (lan.host(1), lan.host(2));
    let both = |has: &Namespace, not: &Namespace| only(has, not, VIRTUAL) && only(has, not, SECOND);

    let peer = b.keepalived(&keepalived(100));
    let _ours = a.ours(settings);
    lan.settles(1, 3, || both(&a, &b));
    // The link that is cut is the other one.
    lan.cut(1, 1);
    lan.settles(2, 3, || both(&b, &a));
    lan.mend(1, 1);
    lan.settles(1, 3, || both(&a, &b));
    let wanted = [
        "GROUP both BACKUP 0",
        "GROUP both MASTER 0",
        "GROUP both FAULT 0",
        "GROUP both BACKUP 0",
        "GROUP both MASTER 0",
    ];
    wait("the group's notices", || notes() == wanted);
    drop(peer);
    let _peer = b.keepalived(&keepalived(200));
    lan.settles(2, 3, || both(&b, &a));
    lan.cut(2, 1);
    lan.settles(1, 3, || both(&a, &b));
    lan.mend(2, 1);
    lan.settles(2, 3, || both(&b, &a));
}

#[test]
fn a_script_that_fails_costs_its_weight_or_the_part() {
    let Some(lan) = Lan::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let well = folder.path().join("well");
    fs::write(&well, "").unwrap();
    let (a, b) = (lan.host(1), lan.host(2));
    let _keepalived = b.keepalived(&theirs("one", 0, 100, ""));
    let with = |weight: i16| {
        let mut settings = one(150);
        settings["instances"][0]["track"] = json!({"scripts": [{"name": "well", "weight": weight}]});
        settings["scripts"] = json!([
            {"name": "well", "command": ["/usr/bin/test", "-e", well], "interval": "100ms", "fall": 2, "rise": 2}]);
        settings
    };
    for weight in [-60, 0] {
        let _ours = a.ours(with(weight));
        lan.settles(1, 3, || only(&a, &b, VIRTUAL));
        fs::remove_file(&well).unwrap();
        lan.settles(2, 3, || only(&b, &a, VIRTUAL));
        fs::write(&well, "").unwrap();
        lan.settles(1, 3, || only(&a, &b, VIRTUAL));
    }

    // keepalived's own script, which lets ours come first.
    drop(_keepalived);
    let script = format!(
        "vrrp_script well {{\n script \"/usr/bin/test -e {}\"\n interval 1\n weight -100\n fall 1\n}}\n",
        well.display()
    );
    let _keepalived = b.keepalived(&(script + &theirs("one", 0, 200, "track_script {\n well\n }")));
    let _ours = a.ours(one(150));
    lan.settles(2, 3, || only(&b, &a, VIRTUAL));
    fs::remove_file(&well).unwrap();
    lan.settles(1, 3, || only(&a, &b, VIRTUAL));
}
