//! One host's virtual routers, event by event.

use serde_json::json;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const UP: LinkState = LinkState::Up { address: Some(Ipv4Addr::new(10, 0, 0, 5)) };

/// Three virtual routers: two of a group, one alone that goes by a script and a link.
fn routers() -> Routers {
    let settings: Settings = serde_json::from_value(json!({
        "instances": [
            {"name": "alone", "interface": "eth0", "routerId": 1, "addresses": ["10.0.0.100"],
                "track": {"scripts": [{"name": "check"}], "interfaces": [{"name": "eth9", "weight": 10}]}},
            {"name": "out", "interface": "eth0", "routerId": 2, "addresses": ["10.0.0.101"]},
            {"name": "in", "interface": "eth1", "routerId": 2, "addresses": ["10.1.0.101"]}],
        "groups": [{"name": "both", "members": ["in", "out"]}],
        "scripts": [{"name": "check", "command": ["/bin/true"], "fall": 2}]}))
    .unwrap();
    assert_eq!(settings.problems(), []);
    Routers::new(&settings)
}

fn link(name: &str, state: LinkState) -> Event<'_> {
    Event::Link { name, state }
}

/// Commands as short words.
fn told(commands: Vec<Command>) -> Vec<String> {
    let word = |command| match command {
        Command::Advertise(instance, priority) => format!("{instance} says {priority}"),
        Command::Take(instance) => format!("{instance} takes"),
        Command::Release(instance) => format!("{instance} releases"),
        Command::Notify(notice) => notice.arguments().join(" "),
    };
    commands.into_iter().map(word).collect()
}

#[test]
fn each_waits_for_all_that_it_goes_by() {
    let mut routers = routers();
    let mut on = |event| told(routers.on(event, SECOND));
    assert_eq!(on(link("eth0", UP)), [""; 0]);
    assert_eq!(on(link("eth9", LinkState::Down)), [""; 0], "its weight alone");
    assert_eq!(on(Event::Script { index: 0, passed: true }), ["INSTANCE alone BACKUP 100"]);
    assert_eq!(on(link("eth9", LinkState::Up { address: None })), [""; 0]);
    assert_eq!(
        on(link("eth1", UP)),
        ["INSTANCE in BACKUP 100", "INSTANCE out BACKUP 100", "GROUP both BACKUP 0"]
    );
    assert_eq!(on(Event::Script { index: 7, passed: true }), [""; 0]);
    // 156 and 146 of 256 parts of a second: eth9 counts for the one.
    let alone = SECOND * 4 + SECOND * 146 / 256;
    assert_eq!(routers.deadline(), Some(alone));
    assert_eq!(told(routers.on(Event::Time, alone)), ["0 says 110", "0 takes", "INSTANCE alone MASTER 110"]);
    let both = SECOND * 4 + SECOND * 156 / 256;
    assert_eq!(routers.deadline(), Some(both));
    assert_eq!(
        told(routers.on(Event::Time, both)),
        [
            "2 says 100",
            "2 takes",
            "1 says 100",
            "1 takes",
            "INSTANCE in MASTER 100",
            "INSTANCE out MASTER 100",
            "GROUP both MASTER 0"
        ]
    );
    assert!((0..3).all(|instance| routers.is_master(instance)));
}

/// All of them masters, at 10 s.
fn masters() -> Routers {
    let mut routers = routers();
    for name in ["eth0", "eth1", "eth9"] {
        routers.on(link(name, UP), SECOND);
    }
    routers.on(Event::Script { index: 0, passed: true }, SECOND);
    routers.on(Event::Time, SECOND * 10);
    routers
}

#[test]
fn a_link_that_goes_is_a_fault_of_all_that_go_by_it() {
    let mut routers = masters();
    let on = |routers: &mut Routers, event| told(routers.on(event, SECOND * 10));
    assert_eq!(on(&mut routers, link("eth9", LinkState::Down)), ["0 says 100"], "its weight");
    assert_eq!(
        on(&mut routers, link("eth1", LinkState::Up { address: None })),
        [
            "2 releases",
            "2 says 0",
            "1 releases",
            "1 says 0",
            "INSTANCE in FAULT 100",
            "INSTANCE out FAULT 100",
            "GROUP both FAULT 0"
        ],
        "without an address it can't speak"
    );
    assert_eq!(
        on(&mut routers, link("eth0", LinkState::Down)),
        ["0 releases", "0 says 0", "INSTANCE alone FAULT 100"]
    );
    assert_eq!(on(&mut routers, link("eth0", UP)), ["INSTANCE alone BACKUP 100"]);
    assert_eq!(on(&mut routers, link("eth0", UP)), [""; 0], "nothing new");
}

#[test]
fn a_script_counts_by_its_verdict() {
    let mut routers = masters();
    let mut on = |passed| told(routers.on(Event::Script { index: 0, passed }, SECOND * 10));
    assert_eq!(on(false), [""; 0]);
    assert_eq!(on(true), [""; 0]);
    assert_eq!(on(false), [""; 0]);
    assert_eq!(on(false), ["0 releases", "0 says 0", "INSTANCE alone FAULT 110"]);
    assert_eq!(on(true), ["INSTANCE alone BACKUP 110"]);
}

#[test]
fn an_advertisement_is_for_the_virtual_router_of_its_number_and_link() {
    let mut routers = masters();
    let from = Ipv4Addr::new(10, 0, 0, 9);
    let mut on = |instance, router_id| {
        let advert = Advert { router_id, priority: 200, centiseconds: 100, addresses: vec![] };
        told(routers.on(Event::Heard { instance, from, advert: &advert }, SECOND * 10))
    };
    assert_eq!(on(0, 2), [""; 0]);
    assert_eq!(on(9, 1), [""; 0]);
    assert_eq!(on(0, 1), ["0 releases", "INSTANCE alone BACKUP 110"]);
    let both = on(2, 2);
    assert_eq!(both[..3], ["2 releases", "1 releases", "1 says 0"]);
    assert_eq!(both.last().map(String::as_str), Some("GROUP both BACKUP 0"));
}

#[test]
fn at_the_end_all_is_given_back_and_told() {
    let mut routers = masters();
    let stopped = told(routers.on(Event::Stop, SECOND * 10));
    for wanted in
        ["0 releases", "1 releases", "2 releases", "1 says 0", "INSTANCE alone STOP 110", "GROUP both STOP 0"]
    {
        assert!(stopped.iter().any(|told| told == wanted), "{wanted}: {stopped:?}");
    }
    assert_eq!(routers.deadline(), None);
    assert_eq!(told(routers.on(link("eth0", LinkState::Down), SECOND * 11)), [""; 0]);
}
