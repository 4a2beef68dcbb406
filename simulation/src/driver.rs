//! What the engine's threads do for a member, done by the world instead.

use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::MessageType;
use rand::Rng;
use store::parts::{Answer, Disk, Effects, Frame, HEADER, Happening, Image, Input, Outgoing, is_full, save};
use store::{Error, MemberId};

use crate::member::{self, ELECTION, Failed, LOOK, RESERVE, Running, Started, TICK};
use crate::members::is_of_members;
use crate::report::Failure;
use crate::world::{Mistake, Moment, World};

use std::time::Duration;

fn mistake(what: impl Into<String>) -> Failure {
    Failure::new("engine", what)
}

impl World {
    /// The process, if it runs.
    pub fn process(&mut self, n: usize) -> Option<&mut Running> {
        self.hosts[n].running.as_mut()
    }

    /// Starts a member, unless its disk keeps it from it.
    pub fn start(&mut self, n: usize) -> Result<(), Failure> {
        self.start_as(n, None)
    }

    /// Starts a member, under a number that it was just given if that is so.
    pub fn start_as(&mut self, n: usize, admitted: Option<MemberId>) -> Result<(), Failure> {
        if self.hosts[n].absent || self.hosts[n].running.is_some() {
            return Ok(());
        }
        let (seed, now) = (self.rng.random(), self.now);
        let is_dark = self.now < self.weather.storm && self.rng.random_ratio(1, 12);
        let cut = self.rng.random_range(0..25);
        let broken = self.mistake == Some(Mistake::ReusedNumber);
        let host = &mut self.hosts[n];
        host.life += 1;
        host.asks = None;
        if is_dark {
            host.disk.cut_after(cut);
        }
        let life = host.life;
        let mut rot = host.rot.take();
        let joins = host.begun && !broken || n as u64 >= self.sizes.members;
        let empty = if joins { store::Start::Join } else { store::Start::Bootstrap };
        let start = member::Start { n, empty, admitted, seed, clock: host.clock.show(now) };
        let started = member::start(&host.disk, self.sizes, start);
        if let Ok(Started::Newcomer) = &started {
            // A member that asks to be let in anew throws its log away unread.
            rot.take_if(|rot| rot.file.starts_with("log-"));
        }
        match started {
            Ok(_) if rot.is_some() => {
                return Err(Failure::new("rot", format!("n{} starts in spite of {rot:?}", n + 1)));
            }
            Ok(Started::Newcomer) => {
                host.disk.killed();
                return self.ask_to_join(n);
            }
            Ok(Started::Running(running)) => {
                (host.begun, host.id) = (true, Some(running.id));
                let id = running.id;
                host.running = Some(running);
                self.numbered(n, id)?;
            }
            Err(Failed::Damaged(file, offset)) => {
                let rot = rot.filter(|rot| rot.file == file && offset <= rot.offset);
                if rot.is_none() {
                    let what = format!("n{}: {file} is damaged at {offset}, says its start", n + 1);
                    return Err(Failure::new("rot", what));
                }
                self.report.fault("rot found, member rebuilt");
                self.tell(|| format!("n{} refuses to start: {file} is damaged at {offset}", n + 1));
                self.new_disk(n);
                return Ok(());
            }
            Err(Failed::TryAgain) => {
                host.rot = rot;
                if host.disk.is_cut() {
                    host.disk.power_on(&mut self.rng);
                }
                self.schedule(200_000, Moment::Start(n));
                return Ok(());
            }
            Err(Failed::Mistake(what)) => return Err(mistake(what)),
        }
        let host = &self.hosts[n];
        let (tick, look) = (host.clock.wait(TICK), host.clock.wait(LOOK));
        self.tell(|| format!("n{} starts its life {life} as member {:?}", n + 1, self.hosts[n].id));
        self.schedule(tick, Moment::Tick(n, life));
        self.schedule(look, Moment::Look(n, life));
        self.act(n)
    }

    /// Ends a member's process, with or without the power of its machine. What it was writing is there in part.
    pub fn crash(&mut self, n: usize, power: bool) {
        let host = &mut self.hosts[n];
        let Some(mut running) = host.running.take() else { return };
        (host.paused_until, host.busy_until) = (0, 0);
        host.left_changing = running.core.changes_under_way().0 > 0;
        if !host.disk.is_cut() {
            host.disk.cut_after(self.rng.random_range(0..12));
            running.writing.append(&mut running.waiting);
            // Errors are what a power cut looks like from here.
            let written = running.log.append(&running.writing);
            if let Some(image) = running.saving.take().filter(|_| written.is_ok()) {
                let _ = save(&host.disk, image, self.sizes.piece);
            }
        }
        if power {
            host.disk.power_on(&mut self.rng);
        } else {
            host.disk.killed();
        }
        let away = self.rng.random_range(1_000..1_500_000);
        self.tell(|| format!("n{} crashes, {}", n + 1, if power { "power cut" } else { "killed" }));
        for client in 0..self.clients.len() {
            self.give_up(client, n);
        }
        self.schedule(away, Moment::Start(n));
    }

    /// A disk that said no: without power it is a crash. Whether it was one.
    fn failed(&mut self, n: usize, problem: &std::io::Error) -> Result<(), Failure> {
        if self.hosts[n].disk.is_cut() {
            self.report.fault("power went in the middle of writing");
            self.crash(n, true);
            return Ok(());
        }
        Err(mistake(format!("n{}'s disk says {problem}", n + 1)))
    }

    /// Hands a member something, at once or when it goes on.
    pub fn give(&mut self, n: usize, input: Input) -> Result<(), Failure> {
        let is_paused = self.hosts[n].paused_until > self.now;
        let Some(running) = self.process(n) else { return Ok(()) };
        if is_paused {
            running.deferred.push(input);
            return Ok(());
        }
        running.core.handle(input);
        self.act(n)
    }

    pub fn tick(&mut self, n: usize) -> Result<(), Failure> {
        let (now, life) = (self.now, self.hosts[n].life);
        let host = &mut self.hosts[n];
        let clock = host.clock;
        let is_paused = host.paused_until > now;
        let Some(running) = &mut host.running else { return Ok(()) };
        running.missed_tick = is_paused;
        if is_paused {
            return Ok(());
        }
        let local = clock.show(now).saturating_sub(running.started);
        if local + 2 < running.next_tick {
            // The clock has become slower since the tick was planned.
            let wait = clock.wait(running.next_tick - local);
            self.schedule(wait, Moment::Tick(n, life));
            return Ok(());
        }
        let late = local.saturating_sub(running.next_tick);
        if late >= ELECTION {
            running.core.handle(Input::WokeLate);
        }
        let time = Duration::from_micros(local);
        let leader = running.leadership.leader.clone().filter(|_| !running.leadership.is_me);
        let beats = leader.is_some_and(|leader| self.beats(&leader, n));
        let Some(running) = self.process(n) else { return Ok(()) };
        if beats {
            running.core.handle(Input::LeaderBeat(time));
        }
        running.core.handle(Input::Tick(time));
        running.next_tick = if late < TICK { running.next_tick + TICK } else { local + TICK };
        let wait = clock.wait(running.next_tick.saturating_sub(local));
        self.schedule(wait, Moment::Tick(n, life));
        self.act(n)
    }

    /// Whether a member hears the heartbeats of another one: they go on while that one's store is late by its own fault.
    fn beats(&self, of: &str, to: usize) -> bool {
        let Some(from) = (0..self.hosts.len()).find(|n| member::name(*n) == of) else { return false };
        let host = &self.hosts[from];
        let still = host.paused_until > self.now && host.paused_until > host.busy_until;
        host.running.is_some() && !still && self.network.carries(from, to)
    }

    /// The work after a victory: it takes the winner's time.
    fn celebrate(&mut self, n: usize) {
        if self.weather.victory == 0 {
            return;
        }
        let (life, long) = (self.hosts[n].life, self.rng.random_range(0..self.weather.victory));
        self.report.fault("victories that took time");
        let host = &mut self.hosts[n];
        host.busy_until = self.now + long;
        if host.paused_until < host.busy_until {
            host.paused_until = host.busy_until;
            self.schedule(long, Moment::Wake(n, life));
        }
    }

    /// A member that stood still handles what came meanwhile, sees how late it is, and goes on.
    pub fn wake(&mut self, n: usize) -> Result<(), Failure> {
        if self.hosts[n].paused_until > self.now {
            return Ok(());
        }
        let Some(running) = self.process(n) else { return Ok(()) };
        let votes_alone = |running: &Running| running.core.members().votes_alone(running.id);
        let alone = votes_alone(running);
        for input in std::mem::take(&mut running.deferred) {
            running.core.handle(input);
        }
        let due = running.next_tick;
        if running.missed_tick {
            self.tick(n)?;
        } else {
            self.act(n)?;
        }
        let woke_late = self.process(n).is_some_and(|running| running.next_tick >= due + ELECTION + TICK);
        // Of one voter, or two, the other one could not lead without it, whatever it finds changed now.
        let alone = alone || self.process(n).is_some_and(|running| votes_alone(running));
        if !alone && woke_late && self.process(n).is_some_and(|running| running.leadership.is_me) {
            return Err(Failure::new("leader", format!("n{} was away and leads without asking", n + 1)));
        }
        Ok(())
    }

    /// Does what a member's core wants done.
    pub fn act(&mut self, n: usize) -> Result<(), Failure> {
        loop {
            let Some(running) = self.process(n) else { return Ok(()) };
            let effects = running.core.effects();
            if effects.removed {
                return self.removed(n);
            }
            if !self.perform(n, effects)? {
                return Ok(());
            }
        }
    }

    /// Whether the core was told something, so that there may be more to do.
    fn perform(&mut self, n: usize, effects: Effects) -> Result<bool, Failure> {
        if let Some(problem) = effects.fatal {
            return Err(mistake(format!("n{} ends itself: {problem}", n + 1)));
        }
        let mut more = false;
        for outgoing in effects.messages {
            if outgoing.image.is_some() {
                // Handed to the connection in full, or not; whether it arrives nobody can say.
                let to = MemberId(outgoing.message.to);
                let handed = self.machine(to).is_some_and(|m| self.network.carries(n, m));
                self.report.fault("snapshots sent");
                if let Some(running) = self.process(n) {
                    running.core.handle(Input::SnapshotSent(to, handed));
                    more = true;
                }
            }
            self.send(outgoing);
        }
        if !effects.persist.is_empty() {
            let last = effects.persist.last().map_or(0, |step| step.number);
            let early = self.mistake == Some(Mistake::AckBeforeSync);
            if let Some(running) = self.process(n) {
                running.waiting.extend(effects.persist);
                if early {
                    running.core.handle(Input::Persisted(last));
                    more = true;
                }
            }
            self.write(n);
        }
        let (life, now) = (self.hosts[n].life, self.now);
        if let Some(image) = effects.save {
            let later = self.rng.random_range(0..50_000).max(self.hosts[n].stalled_until.saturating_sub(now));
            if let Some(running) = self.process(n) {
                running.saving = Some(image);
            }
            self.schedule(later, Moment::Saved(n, life));
        }
        if let Some(index) = effects.forget
            && let Some(running) = self.process(n)
            && let Err(problem) = running.log.forget(index)
        {
            self.failed(n, &problem)?;
            return Ok(false);
        }
        if let Some(state) = effects.state {
            let Some(running) = &mut self.hosts[n].running else { return Ok(false) };
            let image = running.core.image();
            let shown = std::mem::replace(&mut running.shown, state.revision());
            self.chronicle.publish(running.id, shown, &state, &image)?;
            running.states.send_replace(state);
        }
        if effects.members.is_some() {
            self.members_told(n);
        }
        if let Some(leadership) = effects.leadership {
            let id = self.process(n).map_or(MemberId::NONE, |running| running.id);
            if leadership.is_me {
                self.chronicle.leads(id, leadership.term)?;
            }
            if let Some(running) = self.process(n) {
                running.leadership = leadership;
            }
        }
        for answer in effects.answers {
            match answer {
                Answer::Change(token, result) if is_of_members(token) => {
                    self.members_changed(n, token, result)
                }
                Answer::Change(token, result) => self.changed(token, result),
                Answer::Read(token, result) => self.read(n, token, result.is_ok()),
            }
        }
        for happening in effects.happenings {
            if let Happening::ElectionWon(term) = happening {
                self.report.elections += 1;
                self.tell(|| format!("n{} wins the election of term {term}", n + 1));
                self.celebrate(n);
            }
        }
        Ok(more)
    }

    /// Gives the disk what waits, if it has nothing to do.
    fn write(&mut self, n: usize) {
        let (now, life) = (self.now, self.hosts[n].life);
        let stalled = self.hosts[n].stalled_until.saturating_sub(now).max(self.hosts[n].slowness);
        let sync = self.rng.random_range(0..=self.weather.sync);
        let Some(running) = self.process(n) else { return };
        if running.writing.is_empty() && !running.waiting.is_empty() {
            running.writing = std::mem::take(&mut running.waiting);
            self.schedule(sync.max(stalled), Moment::Written(n, life));
        }
    }

    pub fn written(&mut self, n: usize) -> Result<(), Failure> {
        let Some(running) = self.process(n) else { return Ok(()) };
        let Some(number) = running.writing.last().map(|step| step.number) else { return Ok(()) };
        match running.log.append(&running.writing) {
            Ok(()) => {
                running.writing.clear();
                running.stuck = false;
                self.write(n);
                self.give(n, Input::Persisted(number))
            }
            Err(problem) if is_full(&problem) => {
                running.stuck = true;
                if std::mem::replace(&mut running.roomy, false) {
                    return self.give(n, Input::Space(Err(Error::NoSpace("simulated".into()))));
                }
                Ok(())
            }
            Err(problem) => self.failed(n, &problem),
        }
    }

    pub fn saved(&mut self, n: usize) -> Result<(), Failure> {
        let disk = self.hosts[n].disk.clone();
        let Some(image) = self.process(n).and_then(|running| running.saving.take()) else { return Ok(()) };
        let index = image.index;
        let saved = match save(&disk, image, self.sizes.piece) {
            Ok(_) => Some(index),
            Err(problem) if is_full(&problem) => None,
            Err(problem) => return self.failed(n, &problem),
        };
        self.give(n, Input::SnapshotSaved(saved))
    }

    pub fn look(&mut self, n: usize) -> Result<(), Failure> {
        let (life, wait) = (self.hosts[n].life, self.hosts[n].clock.wait(LOOK));
        self.schedule(wait, Moment::Look(n, life));
        self.knock(n)?;
        let room = match self.hosts[n].disk.free_space() {
            Ok(free) => free >= RESERVE,
            Err(problem) => return self.failed(n, &problem),
        };
        let Some(running) = self.process(n) else { return Ok(()) };
        let stuck = running.stuck;
        if std::mem::replace(&mut running.roomy, room) != room {
            let space = if room { Ok(()) } else { Err(Error::NoSpace("simulated".into())) };
            self.give(n, Input::Space(space))?;
        }
        if stuck { self.written(n) } else { Ok(()) }
    }

    /// Puts a message on its way, as the network is.
    fn send(&mut self, outgoing: Outgoing) {
        let (from, to) = (MemberId(outgoing.message.from), MemberId(outgoing.message.to));
        if !self.machine(from).zip(self.machine(to)).is_some_and(|(from, to)| self.network.carries(from, to))
        {
            self.report.fault("messages lost");
            return;
        }
        let copies = match self.rng.random_range(0..100) {
            n if n < self.weather.lost => 0,
            n if n < self.weather.lost + self.weather.doubled => 2,
            _ => 1,
        };
        match copies {
            0 => self.report.fault("messages lost"),
            2 => self.report.fault("messages doubled"),
            _ => {}
        }
        for _ in 0..copies {
            let late = self.rng.random_range(0..100) < self.weather.late;
            let longest = if late { self.weather.delay * 20 + 50_000 } else { self.weather.delay };
            let delay = self.rng.random_range(50..=longest.max(100));
            if late {
                self.report.fault("messages late");
            }
            let last = self.last_arrival.entry((from, to)).or_default();
            if *last > self.now + delay {
                self.report.fault("messages out of order");
            }
            *last = (*last).max(self.now + delay);
            self.schedule(delay, Moment::Arrival(Box::new(outgoing.clone())));
        }
    }

    /// A message comes out of the wire's encoding.
    pub fn arrive(&mut self, outgoing: Outgoing) -> Result<(), Failure> {
        let (from, to) = (MemberId(outgoing.message.from), MemberId(outgoing.message.to));
        let (Some(sender), Some(receiver)) = (self.machine(from), self.machine(to)) else { return Ok(()) };
        if !self.network.carries(sender, receiver) {
            self.report.fault("messages lost");
            return Ok(());
        }
        self.tell_the_removed(sender, receiver);
        let frame = Frame::Message(outgoing.message).encode();
        self.trace.update(&self.now.to_le_bytes());
        self.trace.update(&frame);
        let Ok(Frame::Message(mut message)) = Frame::decode(Bytes::from(frame).slice(HEADER..)) else {
            return Err(mistake("a message does not survive the wire"));
        };
        if self.mistake == Some(Mistake::NoDedupe) && message.get_msg_type() == MessageType::MsgPropose {
            self.forget_identity(&mut message);
        }
        let piece = self.sizes.piece;
        let sent = |image: Image| {
            let bytes = image.pieces(piece).collect::<Vec<_>>().concat();
            Image::read(&*bytes, bytes.len() as u64)
        };
        let image = outgoing.image.map(sent).transpose().map_err(|problem| mistake(problem.to_string()))?;
        self.give(receiver, Input::Message(message, image))
    }

    /// What is passed on a second time gets an identity of its own, as if nobody kept account of them.
    fn forget_identity(&mut self, message: &mut raft::eraftpb::Message) {
        let mut entries = message.take_entries();
        for entry in entries.iter_mut() {
            if !self.passed_on.insert(entry.context.to_vec())
                && let Ok(mut id) = store::parts::RequestId::decode(entry.context.clone())
            {
                id.sequence += (self.passed_on.len() as u64) << 32;
                self.passed_on.insert(id.encode().to_vec());
                entry.context = id.encode();
            }
        }
        message.set_entries(entries);
    }

    /// What everybody may read on a member.
    pub fn states(&self, n: usize) -> Option<tokio::sync::watch::Receiver<Arc<store::State>>> {
        self.hosts[n].running.as_ref().map(|running| running.states.subscribe())
    }
}
