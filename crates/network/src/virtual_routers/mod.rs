//! Virtual routers (VRRP) on this host: what the room `vrrp` decides, carried out. Its edge lies here because links, addresses and
//! their announcement do.
//!
//! One task has all virtual routers, so that what comes together is decided together: it listens to the others, keeps the time,
//! and has the addresses where they should be. Others look at the links and run the programs.

mod driver;
mod links;
mod programs;
mod socket;

use std::net::Ipv4Addr;

use tasks::SpawnIn;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::info_span;

use crate::netlink::Netlink;
use crate::on_link::OnLink;
use crate::{Error, keeper};
use driver::Driver;
use programs::Notifier;

/// The results of scripts that may wait for the driver.
const RESULTS: usize = 64;

/// The virtual routers of this host, running. [`stop`](VirtualRouters::stop) ends them in order; dropped, they keep their addresses until the
/// next start.
#[derive(Debug)]
pub struct VirtualRouters {
    stop: watch::Sender<bool>,
    /// Closed once they have ended.
    ended: watch::Receiver<()>,
    _running: JoinSet<()>,
}

impl VirtualRouters {
    /// Takes part in the virtual routers of `settings`, which must have no [`problems`](vrrp::Settings::problems). `elsewhere` are
    /// the first and the last of addresses that come and go on this host's links without them: nothing is said in their name. Scripts and
    /// programs that hear of changes run on `programs`: to make a process takes time, which the caller's runtime should have for nothing else.
    ///
    /// # Errors
    /// If the kernel lets this program neither speak VRRP nor see to addresses.
    pub fn start(
        settings: vrrp::Settings,
        elsewhere: &[(Ipv4Addr, Ipv4Addr)],
        programs: &Handle,
    ) -> Result<VirtualRouters, Error> {
        socket::permitted()?;
        let (stop, stopped) = watch::channel(false);
        let mut running = JoinSet::new();
        let (counter, changes) = watch::channel(0);
        running.spawn_in(info_span!("listen to the kernel"), keeper::listen(counter));
        let (looks, seen) = watch::channel(None);
        running.spawn_in(
            info_span!("look at links"),
            links::look(links::named(&settings), looks, changes.clone()),
        );
        let (results, outcomes) = mpsc::channel(RESULTS);
        for (index, script) in settings.scripts.iter().enumerate() {
            let span = info_span!("script", name = script.name);
            running.spawn_in_on(span, programs::check(index, script.clone(), results.clone()), programs);
        }
        let notifier = Notifier::new(&settings, programs);
        let on = |instance: &vrrp::Instance| {
            Ok(OnLink::new(Netlink::open()?, instance.interface.clone(), changes.clone()))
        };
        let on = settings.instances.iter().map(on).collect::<Result<Vec<_>, Error>>()?;
        let driver = Driver::new(settings, elsewhere, on, notifier);
        let (ending, ended) = watch::channel(());
        tasks::spawn(info_span!("virtual routers"), async move {
            driver.run(seen, outcomes, stopped).await;
            drop(ending);
        });
        Ok(VirtualRouters { stop, ended, _running: running })
    }

    /// Gives the addresses back, tells the others, and waits for the last notices to be delivered.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}
