//! What can be done to a host beside cutting its power.

use std::io;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Cluster, Cut, Error, Wires, on_a_thread, stop};
use crate::component::Component;
use crate::disks::{Ballast, Disks};
use crate::link::Bridge;
use crate::loss::Lost;
use crate::power::Power;
use crate::tree;

/// How much room is left on a disk when its last part is filled, with which the fault begins, in bytes.
const LAST: u64 = 4 << 20;

impl Cluster {
    /// Kills a host's program and nothing else: its pods go on, and the kernel of the host does. [`Cluster::power_on`] starts it again.
    pub async fn kill(&mut self, name: &str) -> Result<Cut, Error> {
        let mut running = self.take_running(name)?;
        let cut = Cut::now();
        running.child.start_kill()?;
        running.ended().await?;
        Ok(cut)
    }

    /// Kills all processes of one kind that a host has beside its program, and nothing else. Whether others follow is the host's affair.
    pub async fn kill_component(&mut self, name: &str, component: Component) -> Result<Cut, Error> {
        let Power::On(running) = &self.host(name)?.power else { return Err(Error::Off(name.into())) };
        let program = running.pid().ok_or_else(|| Error::Off(name.into()))?;
        let found = component.of(program, &running.folder);
        if found.is_empty() {
            return Err(Error::NoComponent { host: name.into(), component });
        }
        let cut = Cut::now();
        on_a_thread(move || tree::kill_these(&found)).await??;
        Ok(cut)
    }

    /// Asks a host to end, as before a planned reboot, and waits for that; what is left of it when `patience` is over is killed.
    pub async fn shut_down(&mut self, name: &str, patience: Duration) -> Result<Cut, Error> {
        let running = self.take_running(name)?;
        let cut = Cut::now();
        stop(running, patience).await?;
        let host = self.host(name)?;
        host.namespace = None;
        let number = host.number;
        if let Wires::Netns(bridge, _) = &self.wires {
            bridge.unplug(number).await?;
        }
        Ok(cut)
    }

    /// Stops a host's program, and nothing else of the host, until [`Cluster::resume`].
    pub fn pause(&mut self, name: &str) -> Result<Cut, Error> {
        let cut = Cut::now();
        self.signal(name, Signal::SIGSTOP)?;
        Ok(cut)
    }

    /// Lets a host's program go on.
    pub fn resume(&mut self, name: &str) -> Result<Cut, Error> {
        let cut = Cut::now();
        self.signal(name, Signal::SIGCONT)?;
        Ok(cut)
    }

    /// Takes a host's link down: both ends know that it is.
    pub async fn link_down(&mut self, name: &str) -> Result<Cut, Error> {
        let number = self.host(name)?.number;
        let cut = Cut::now();
        self.bridge()?.cut(number).await?;
        Ok(cut)
    }

    /// Takes a host's link up again.
    pub async fn link_up(&mut self, name: &str) -> Result<Cut, Error> {
        let number = self.host(name)?.number;
        let cut = Cut::now();
        self.bridge()?.mend(number).await?;
        Ok(cut)
    }

    /// From now on this many of a hundred packets between a host and the other hosts are lost, until [`Cluster::lose_nothing`]. A client that asks
    /// from the switch is heard.
    pub fn lose(&mut self, name: &str, lost: Lost, percent: u8) -> Result<Cut, Error> {
        let number = self.host(name)?.number;
        let cut = Cut::now();
        self.bridge()?.lose(number, lost, percent)?;
        Ok(cut)
    }

    /// No packets are lost any more between a host and the others.
    pub fn lose_nothing(&mut self, name: &str) -> Result<Cut, Error> {
        let number = self.host(name)?.number;
        let cut = Cut::now();
        self.bridge()?.lose_nothing(number)?;
        Ok(cut)
    }

    /// From now on each sync of a host, and of all that runs on it, waits this long before it begins. [`Duration::ZERO`] ends that; what waits then does
    /// so to its end.
    pub fn stall(&mut self, name: &str, time: Duration) -> Result<Cut, Error> {
        let (_, syncs) = self.host(name)?.stalling.as_ref().ok_or(Error::NoStalls)?;
        let cut = Cut::now();
        syncs.wait(time);
        Ok(cut)
    }

    /// Fills a host's disk to the last byte, until [`Cluster::empty`].
    pub async fn fill(&mut self, name: &str) -> Result<Cut, Error> {
        let ballast = self.ballast(name)?;
        let filling = on_a_thread(move || -> io::Result<Cut> {
            ballast.fill(LAST)?;
            let cut = Cut::now();
            ballast.fill(0)?;
            Ok(cut)
        });
        filling.await?.map_err(|why| Error::Fill { host: name.into(), why })
    }

    /// Takes away from a host's disk what [`Cluster::fill`] put there.
    pub async fn empty(&mut self, name: &str) -> Result<Cut, Error> {
        let ballast = self.ballast(name)?;
        let cut = Cut::now();
        let emptied = on_a_thread(move || ballast.remove()).await?;
        emptied.map(|()| cut).map_err(|why| Error::Fill { host: name.into(), why })
    }

    fn ballast(&self, name: &str) -> Result<Ballast, Error> {
        let Disks::Own(disks) = &self.disks else { return Err(Error::NoOwnDisks) };
        disks.ballast(name).ok_or_else(|| Error::NoHost(name.into()))
    }

    fn signal(&mut self, name: &str, signal: Signal) -> Result<(), Error> {
        self.host(name)?;
        let pid = self.pid(name).ok_or_else(|| Error::Off(name.into()))?;
        kill(Pid::from_raw(pid), signal).map_err(|errno| Error::System(errno.into()))
    }

    fn bridge(&self) -> Result<&Bridge, Error> {
        match &self.wires {
            Wires::Netns(bridge, _) => Ok(bridge),
            Wires::Loopback(_) => Err(Error::NoLinks),
        }
    }
}
