//! The virtual routers of one host: which group each is in, and what links and scripts mean for it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::group::{Actions, Group, Phase};
use crate::packet::Advert;
use crate::settings::{Instance, Settings};
use crate::state::{self, Action, Router};
use crate::track::{Fitness, Verdict, fitness};

/// What a link is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// It isn't there, is switched off, or its other end is gone.
    Down,
    /// It carries packets.
    Up {
        /// The host's own address on it, if it has one.
        address: Option<Ipv4Addr>,
    },
}

/// What happens.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A link is like this now.
    Link {
        /// Its name.
        name: &'a str,
        /// What it is like.
        state: LinkState,
    },
    /// A script has ended, or its time has.
    Script {
        /// Which of the settings'.
        index: usize,
        /// Whether it ended in time, and with 0.
        passed: bool,
    },
    /// An advertisement was heard where a virtual router listens. Others' numbers don't matter.
    Heard {
        /// Which of the settings' instances listened.
        instance: usize,
        /// Who sent it.
        from: Ipv4Addr,
        /// What it says.
        advert: &'a Advert,
    },
    /// The [`deadline`](Routers::deadline) has come, or might have.
    Time,
    /// It ends.
    Stop,
}

/// What is to be done, in this order. Instances are named by their places in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send an advertisement of this priority.
    Advertise(usize, u8),
    /// Take the addresses, and tell the link.
    Take(usize),
    /// Give the addresses up.
    Release(usize),
    /// Tell somebody.
    Notify(Notice),
}

/// Whom a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A virtual router.
    Instance,
    /// A group of them.
    Group,
}

/// News for people and their programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whom it is about.
    pub kind: Kind,
    /// Which of the settings' instances or groups.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Where it stands now.
    pub phase: Phase,
    /// Its priority; 0 for groups, as with keepalived.
    pub priority: u8,
}

impl Notice {
    /// The four arguments that keepalived gives its notify scripts (keepalived.conf(5), `notify`): type, name, state and priority.
    pub fn arguments(&self) -> [String; 4] {
        let kind = match self.kind {
            Kind::Instance => "INSTANCE",
            Kind::Group => "GROUP",
        };
        [kind.to_owned(), self.name.clone(), self.phase.name().to_owned(), self.priority.to_string()]
    }
}

impl Phase {
    /// keepalived's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "INIT",
            Phase::Fault => "FAULT",
            Phase::Backup => "BACKUP",
            Phase::Master => "MASTER",
            Phase::Stopped => "STOP",
        }
    }
}

/// The virtual routers of one host.
#[derive(Debug, Clone)]
pub struct Routers {
    instances: Vec<Place>,
    groups: Vec<Several>,
    links: BTreeMap<String, LinkState>,
    verdicts: Vec<Verdict>,
}

/// Where an instance is.
#[derive(Debug, Clone)]
struct Place {
    settings: Instance,
    group: usize,
    member: usize,
    /// The scripts that it goes by: their places, and weights.
    scripts: Vec<(usize, i16)>,
}

#[derive(Debug, Clone)]
struct Several {
    group: Group,
    instances: Vec<usize>,
    /// Which of the settings' groups it is, and its name; none for a virtual router alone.
    name: Option<(usize, String)>,
}

impl Routers {
    /// Those of settings without [`problems`](Settings::problems).
    pub fn new(settings: &Settings) -> Self {
        let place_of = |name: &String| settings.instances.iter().position(|one| one.name == *name);
        let named = settings.groups.iter().enumerate().map(|(at, group)| {
            (group.members.iter().filter_map(place_of).collect::<Vec<_>>(), Some((at, group.name.clone())))
        });
        let in_one = |place: usize| {
            settings.groups.iter().any(|group| group.members.contains(&settings.instances[place].name))
        };
        let alone =
            (0..settings.instances.len()).filter(|place| !in_one(*place)).map(|place| (vec![place], None));
        let groups: Vec<Several> = named
            .chain(alone)
            .map(|(instances, name)| {
                let router = |place: &usize| router(&settings.instances[*place]);
                Several { group: Group::new(instances.iter().map(router)), instances, name }
            })
            .collect();
        let place = |(at, instance): (usize, &Instance)| {
            let mut places = groups.iter().enumerate().flat_map(|(group, several)| {
                several.instances.iter().enumerate().map(move |(member, place)| (*place, group, member))
            });
            let (_, group, member) = places.find(|(place, ..)| *place == at).unwrap_or_default();
            let script = |name: &String| settings.scripts.iter().position(|script| script.name == *name);
            let tracked = instance.track.scripts.iter();
            let scripts = tracked.filter_map(|one| Some((script(&one.name)?, one.weight))).collect();
            Place { settings: instance.clone(), group, member, scripts }
        };
        let instances = settings.instances.iter().enumerate().map(place).collect();
        let verdicts = settings.scripts.iter().map(|script| Verdict::new(script.rise, script.fall)).collect();
        Routers { instances, groups, links: BTreeMap::new(), verdicts }
    }

    /// When [`Event::Time`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.groups.iter().filter_map(|several| several.group.deadline()).min()
    }

    /// Whether this host is master of an instance.
    pub fn is_master(&self, instance: usize) -> bool {
        self.groups[self.instances[instance].group].group.phase() == Phase::Master
    }

    /// What is to be done about an event.
    pub fn on(&mut self, event: Event<'_>, now: Duration) -> Vec<Command> {
        match event {
            Event::Link { name, state } => {
                if self.links.insert(name.to_owned(), state) == Some(state) {
                    return Vec::new();
                }
                let goes_by = |place: &Place| {
                    let tracked = &place.settings.track.interfaces;
                    place.settings.interface == name || tracked.iter().any(|link| link.name == name)
                };
                self.weigh(goes_by, now)
            }
            Event::Script { index, passed } => {
                let Some(verdict) = self.verdicts.get_mut(index) else { return Vec::new() };
                let before = verdict.passes();
                verdict.count(passed);
                if verdict.passes() == before {
                    return Vec::new();
                }
                self.weigh(|place| place.scripts.iter().any(|(script, _)| *script == index), now)
            }
            Event::Heard { instance, from, advert } => {
                let Some(Place { settings, group, member, .. }) = self.instances.get(instance) else {
                    return Vec::new();
                };
                if advert.router_id != settings.router_id {
                    return Vec::new();
                }
                let heard =
                    state::Event::Advert { priority: advert.priority, interval: advert.interval(), from };
                let member = *member;
                self.of(*group, |group| group.heard(member, heard, now))
            }
            Event::Time => self.each(|group| group.time(now)),
            Event::Stop => self.each(|group| group.stop(now)),
        }
    }

    /// Works out anew what those instances may do that `goes_by` means.
    fn weigh(&mut self, goes_by: impl Fn(&Place) -> bool, now: Duration) -> Vec<Command> {
        let mut commands = Vec::new();
        for at in 0..self.instances.len() {
            let place = &self.instances[at];
            if goes_by(place) {
                let (group, member) = (place.group, place.member);
                let (fitness, address) = self.standing(place);
                commands.extend(self.of(group, |group| group.suits(member, fitness, address, now)));
            }
        }
        commands
    }

    fn standing(&self, place: &Place) -> (Fitness, Ipv4Addr) {
        let up = |name: &String| self.links.get(name).map(|state| *state != LinkState::Down);
        let own = match self.links.get(&place.settings.interface) {
            None => None,
            Some(LinkState::Up { address: Some(address) }) => Some(Ok(*address)),
            Some(_) => Some(Err(())),
        };
        let links = place.settings.track.interfaces.iter().map(|link| (link.weight, up(&link.name)));
        let scripts = place.scripts.iter().map(|(script, weight)| (*weight, self.verdicts[*script].passes()));
        let link = [(0, own.map(|own| own.is_ok()))];
        let fitness = fitness(place.settings.priority, link.into_iter().chain(links).chain(scripts));
        (fitness, own.and_then(Result::ok).unwrap_or(Ipv4Addr::UNSPECIFIED))
    }

    fn each(&mut self, step: impl Fn(&mut Group) -> Actions) -> Vec<Command> {
        (0..self.groups.len()).flat_map(|group| self.of(group, &step)).collect()
    }

    /// What a step of a group's means for its instances, and whom to tell about it.
    fn of(&mut self, group: usize, step: impl FnOnce(&mut Group) -> Actions) -> Vec<Command> {
        let Several { group, instances, name } = &mut self.groups[group];
        let before = group.phase();
        let command = |(member, action): (usize, Action)| match action {
            Action::Advertise(priority) => Command::Advertise(instances[member], priority),
            Action::Take => Command::Take(instances[member]),
            Action::Release => Command::Release(instances[member]),
        };
        let mut commands: Vec<Command> = step(group).into_iter().map(command).collect();
        let phase = group.phase();
        if phase == before {
            return commands;
        }
        for (member, index) in instances.iter().copied().enumerate() {
            let name = self.instances[index].settings.name.clone();
            let priority = group.priority(member);
            commands.push(Command::Notify(Notice { kind: Kind::Instance, index, name, phase, priority }));
        }
        if let Some((index, name)) = name {
            let notice = Notice { kind: Kind::Group, index: *index, name: name.clone(), phase, priority: 0 };
            commands.push(Command::Notify(notice));
        }
        commands
    }
}

impl Instance {
    /// What it says as a master of this priority.
    pub fn advert(&self, priority: u8) -> Advert {
        let v4 = |address: &IpAddr| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        };
        // Settings without problems have neither more nor a part of one.
        let centiseconds = u16::try_from(self.advert_interval.as_millis() / 10).unwrap_or(u16::MAX);
        let addresses = self.addresses.iter().filter_map(v4).collect();
        Advert { router_id: self.router_id, priority, centiseconds, addresses }
    }
}

fn router(instance: &Instance) -> Router {
    Router {
        priority: instance.priority,
        interval: instance.advert_interval,
        preempt: instance.preempt,
        // Nothing is sent before the link's own is known.
        address: Ipv4Addr::UNSPECIFIED,
    }
}

#[cfg(test)]
mod tests;
