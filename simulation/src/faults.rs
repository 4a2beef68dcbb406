//! What befalls the members, and how it ends.

use rand::Rng;
use rand::seq::IndexedRandom;

use crate::report::Failure;
use crate::weather::{Fault, Weather};
use crate::world::{FASTEST_CLOCK, Moment, World};
use store::parts::Input;

impl World {
    /// The next fault, and when the one after it comes.
    pub fn strike(&mut self) -> Result<(), Failure> {
        let later = self.rng.random_range(1..=self.weather.fault_every.saturating_mul(2));
        self.schedule(later, Moment::Fault);
        let fault = self.weather.fault(&mut self.rng);
        let machines = self.hosts.len();
        let n = self.rng.random_range(0..self.hosts.len());
        let (now, life) = (self.now, self.hosts[n].life);
        let runs = self.hosts[n].running.is_some();
        match fault {
            Fault::Split if machines > 1 => {
                let what = self.network.split(machines, &mut self.rng);
                self.report.fault(what);
                self.tell(|| what.into());
                self.notice_broken_links()?;
            }
            Fault::Mend => self.network.heal(),
            Fault::PowerCut if runs => {
                self.report.fault("power cuts");
                self.hosts[n].disk.cut_after(self.rng.random_range(0..10));
                let later = self.rng.random_range(1..100_000);
                self.schedule(later, Moment::PowerGone(n, life));
            }
            Fault::Kill if runs => {
                self.report.fault("processes killed");
                self.crash(n, false);
            }
            Fault::Pause if runs => {
                self.report.fault("members paused");
                let long = self.rng.random_range(5_000..1_500_000);
                self.hosts[n].paused_until = now + long;
                self.tell(|| format!("n{} stands still for {} ms", n + 1, long / 1000));
                self.schedule(long, Moment::Wake(n, life));
            }
            Fault::Stall => {
                self.report.fault("disks stalled");
                let long = self.rng.random_range(50_000..2_000_000);
                self.hosts[n].stalled_until = now + long;
                self.tell(|| format!("n{}'s disk stalls for {} ms", n + 1, long / 1000));
            }
            Fault::Full => {
                self.report.fault("disks full");
                self.hosts[n].disk.set_room(Some(self.rng.random_range(0..6_000)));
                let long = self.rng.random_range(200_000..3_000_000);
                self.tell(|| format!("n{}'s disk is nearly full for {} ms", n + 1, long / 1000));
                self.schedule(long, Moment::Room(n));
            }
            Fault::Rot => self.rot(n),
            Fault::DiskLost if self.may_lose(n) => {
                self.report.fault("disks lost");
                self.tell(|| format!("n{}'s disk is lost", n + 1));
                self.crash(n, true);
                self.new_disk(n);
            }
            Fault::DiskLost => {}
            Fault::Grow => self.grow()?,
            Fault::Shrink => self.shrink()?,
            Fault::Promote => self.promote()?,
            Fault::Drift => {
                self.report.fault("clocks drift");
                let rates = [0.5, 0.8, 0.99, 1.0, 1.01, 1.25, FASTEST_CLOCK];
                let rate = rates.choose(&mut self.rng).copied().unwrap_or(1.0);
                self.hosts[n].clock.set_rate(now, rate);
                self.tell(|| format!("n{}'s clock runs {rate} times as fast", n + 1));
            }
            Fault::Split | Fault::PowerCut | Fault::Kill | Fault::Pause => {}
        }
        Ok(())
    }

    /// A bit of a member's disk changes while the power is off. As many members as the rest can do without.
    fn rot(&mut self, n: usize) {
        if !self.may_lose(n) {
            return;
        }
        if self.hosts[n].running.is_some() {
            self.crash(n, true);
        }
        let host = &mut self.hosts[n];
        host.rot = host.disk.rot(&mut self.rng);
        if let Some(rot) = host.rot.clone() {
            self.report.fault("bits rotten");
            self.tell(|| format!("n{}: byte {} of {} rots", n + 1, rot.offset, rot.file));
        }
    }

    /// Where a connection broke, its end may notice.
    fn notice_broken_links(&mut self) -> Result<(), Failure> {
        for from in 0..self.hosts.len() {
            for to in 0..self.hosts.len() {
                if from != to && !self.network.carries(from, to) && self.rng.random() {
                    let Some(id) = self.hosts[to].id else { continue };
                    self.give(from, Input::Unreachable(id))?;
                }
            }
        }
        Ok(())
    }

    /// The storm is over: everything works again.
    pub fn heal(&mut self) -> Result<(), Failure> {
        self.weather = Weather::fine();
        self.network.heal();
        let now = self.now;
        for n in 0..self.hosts.len() {
            let host = &mut self.hosts[n];
            host.disk.set_room(None);
            host.stalled_until = 0;
            host.clock.set_rate(now, 1.0);
            if host.paused_until > now {
                host.paused_until = now;
                let life = host.life;
                self.schedule(1, Moment::Wake(n, life));
            }
        }
        self.tell(|| "the storm is over".into());
        Ok(())
    }
}
