//! Three members of a store in one program: they write, watch, lose their leader, and go on.
//!
//!     cargo run -p store --example three_members
//!
//! A program of yours embeds one member for each of its processes; here all three are in one, so that it can be
//! seen in one window. Each member needs a name, an address that the others reach, a folder of its own, and a
//! certificate for its name from an authority that all of them trust.
#![allow(clippy::disallowed_methods)] // A program has a clock.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pki::{Authority, ClientAuth, Subject, Validity};
use store::{Compare, Condition, Config, Embedded, Event, KeyRange, Op, Store, Txn};

const NAMES: [&str; 3] = ["anna", "ben", "cleo"];

/// The members' configurations. The certificates are made here; rcgen, openssl or your own authority do as well.
fn configs(folder: &Path) -> Result<Vec<Config>, Box<dyn Error>> {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    // Ports that are free at the moment. All listeners are held until all ports are known.
    let taken: Vec<TcpListener> =
        NAMES.iter().map(|_| TcpListener::bind((here, 0))).collect::<Result<_, _>>()?;
    let mut peers: BTreeMap<String, SocketAddr> = BTreeMap::new();
    for (name, listener) in NAMES.iter().zip(&taken) {
        peers.insert((*name).into(), listener.local_addr()?);
    }
    let authority = Authority::create("three members", SystemTime::now())?;
    let trust = authority.trust()?;
    let mut configs = Vec::new();
    for name in NAMES {
        let subject = Subject { common_name: name.into(), organization: None };
        // Members know each other by name: the certificate must be for it.
        let valid = Validity::years(SystemTime::now(), 1);
        let identity = authority.issue(&subject, &[name.to_owned()], &[here], valid)?;
        let server = identity.server_config(&trust, ClientAuth::Required, &[])?;
        let client = identity.client_config(&trust, &[])?;
        configs.push(Config::new(name, "example", peers.clone(), folder.join(name), server, client)?);
    }
    Ok(configs)
}

/// The member that leads, once there is one.
async fn leader(members: &BTreeMap<String, Arc<Embedded>>) -> Result<String, Box<dyn Error>> {
    let any = members.values().next().ok_or("no member is left")?;
    let mut leadership = any.leadership();
    // The old leader's name stays until the others know better: one that is here is asked for.
    let known = leadership.wait_for(|now| now.leader.as_ref().is_some_and(|name| members.contains_key(name)));
    Ok(known.await?.leader.clone().unwrap_or_default())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let configs = configs(folder.path())?;
    let mut members = BTreeMap::new();
    for config in &configs {
        members.insert(config.name.clone(), Embedded::start(config.clone()).await?);
    }
    let first = leader(&members).await?;
    println!("{} members are up, {first} leads", members.len());

    // Writes go to any member; the one that leads orders them.
    let anna = &members["anna"];
    let answer = anna.txn(Txn::put("/colour", "red")).await?;
    println!("anna wrote /colour = red: that is revision {}", answer.revision);

    // A watch tells every change once and in order, also one that was made elsewhere.
    let survivor = NAMES.iter().find(|name| **name != first).ok_or("all members lead")?;
    let mut watcher = members[*survivor].watch(KeyRange::prefix("/"), answer.revision)?;

    // A transaction compares first: this one writes only if nobody has changed the colour since.
    let unchanged = Condition::ModRevision("/colour".into(), Compare::Equal, answer.revision);
    let paint = Txn { conditions: vec![unchanged], ..Txn::put("/colour", "blue") };
    let (once, twice) = (anna.txn(paint.clone()).await?, members["ben"].txn(paint).await?);
    println!("anna painted it blue: {}; ben came too late: {}", once.succeeded, !twice.succeeded);

    // A key with a lease goes when nobody keeps the lease alive.
    let lease = members["cleo"].grant(1).await?;
    let op = Op::Put { key: "/cleo/is-here".into(), value: "yes".into(), lease };
    members["cleo"].txn(Txn { success: vec![op], ..Txn::default() }).await?;

    // The leader is gone: dropped as a crash would end it. The others go on.
    let begun = Instant::now();
    members.remove(&first);
    println!("{first} is gone");
    members[*survivor].txn(Txn::put("/colour", "green")).await?;
    println!(
        "{survivor} wrote green {} ms later; {} leads",
        begun.elapsed().as_millis(),
        leader(&members).await?
    );

    // Everything that happened, as the watch saw it, until the lease has ended.
    'watch: loop {
        let (events, _) = tokio::time::timeout(Duration::from_secs(30), watcher.changes()).await??;
        for event in events {
            let key = String::from_utf8_lossy(event.key()).into_owned();
            match &event {
                Event::Put { current, .. } => {
                    let value = current.value.bytes();
                    let value = String::from_utf8_lossy(&value);
                    println!("  revision {}: {key} = {value}", event.revision());
                }
                Event::Delete { .. } => {
                    println!("  revision {}: {key} is gone, its lease ran out", event.revision());
                    break 'watch;
                }
            }
        }
    }

    // It comes back with what its folder holds, and gets what it missed.
    let config = configs.iter().find(|config| config.name == first).ok_or("no such member")?;
    let back = Embedded::start(config.clone()).await?;
    let state = back.read().await?;
    let colour = state.get(b"/colour").ok_or("the colour is lost")?;
    println!(
        "{first} is back and reads {}, as of revision {}",
        String::from_utf8_lossy(&colour.value.bytes()),
        state.revision()
    );

    // In peace: one that leads hands over first.
    back.shutdown().await;
    for member in members.values() {
        member.shutdown().await;
    }
    Ok(())
}
