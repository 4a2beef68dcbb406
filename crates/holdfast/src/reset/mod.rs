//! `holdfast reset`: this machine is no host any more. What `init`, `join` and the host made on it goes.

mod machine;
mod membership;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use config::{HostConfig, NetConfig};
use install::{Layout, Stage};
use objects::AddressPool;

use self::membership::Membership;
use crate::host::node_dir;
use crate::host_process::{Process, hosts_of};
use crate::install::Folders;
use crate::restore::BUILDING;
use crate::tell::{say, show};
use crate::unit::Systemd;

/// Within which time those start a service again that see it end: runit waits for a second, s6 too.
const STARTED_AGAIN: Duration = Duration::from_secs(3);
/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of `holdfast reset`.
#[derive(clap::Args)]
#[command(
    after_help = "Without --yes it only says what it would remove. Safe to repeat: what was interrupted is finished. To let a host's pods go elsewhere first:\n\n  kubectl drain NAME --ignore-daemonsets"
)]
pub struct Args {
    /// Do it
    #[arg(long)]
    yes: bool,
    /// Also where the cluster loses its majority by it, or nobody can tell
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    folders: Folders,
}

/// What there is of a host on this machine.
struct Remains {
    layout: Layout,
    config: Option<Box<HostConfig>>,
    service: Option<Systemd>,
    processes: Vec<Process>,
    /// In the order in which they go: what says who the host is goes last, so that an interrupted reset can be finished.
    files: Vec<PathBuf>,
}

/// Says what there is, and removes it if that is asked for.
pub async fn reset(args: Args) -> anyhow::Result<()> {
    let remains = Remains::find(&args.folders)?;
    if remains.is_nothing() {
        return show("Nothing of a host is on this machine.\n");
    }
    let membership = remains.membership().await;
    show(&remains.list(&membership))?;
    anyhow::ensure!(args.yes, "nothing was removed: the same with --yes does it");
    if let Some(why) = membership.against() {
        anyhow::ensure!(args.force, "{why}; nothing was removed (--force does it all the same)");
        say!("{why}: it is forced");
    }
    remains.remove(&membership, args.force).await
}

impl Remains {
    fn find(folders: &Folders) -> anyhow::Result<Self> {
        let layout = folders.layout()?;
        let config =
            match layout.stage().context("nothing can be removed without knowing what is the host's")? {
                Stage::Host(config) => Some(config),
                Stage::New => None,
            };
        let processes = hosts_of(&layout.config_file());
        let is_service =
            |systemd: &Systemd| systemd.has_service() || !processes.is_empty() && systemd.has_unit();
        let service = Systemd::for_host(folders).filter(is_service);
        let (data, timeline, pki) = match &config {
            Some(config) => (config.data_dir.clone(), config.timeline_file.clone(), config.pki_dir.clone()),
            None => (layout.data_dir(), layout.timeline_file(), layout.pki_dir()),
        };
        let files = [
            layout.data_dir().with_file_name(BUILDING),
            data,
            timeline.with_extension("jsonl.old"),
            timeline,
            pki,
            layout.kubeconfig(),
            config.as_ref().map_or_else(|| layout.begun_file(), |config| config.begun_file.clone()),
            layout.attempt_file(),
            layout.config_file(),
        ];
        let files = files.into_iter().filter(|file| file.symlink_metadata().is_ok()).collect();
        Ok(Remains { layout, config, service, processes, files })
    }

    fn is_nothing(&self) -> bool {
        self.files.is_empty() && self.processes.is_empty() && self.service.is_none()
    }

    async fn membership(&self) -> Membership {
        match &self.config {
            Some(config) if config.datastore.is_none() => {
                Membership::ask(config, &self.layout.kubeconfig()).await
            }
            // Where the state lies in an etcd, nobody is a member of anything here.
            Some(_) => Membership::None,
            None => Membership::without_configuration(self.layout.begun_file().exists()),
        }
    }

    /// What is there, for people.
    fn list(&self, membership: &Membership) -> String {
        let mut text = "This is removed from this machine:\n".to_owned();
        let mut line = |what: &str| {
            let _ = writeln!(text, "  {what}");
        };
        if self.service.is_some() {
            line("the service holdfast");
        }
        for Process { pid, .. } in &self.processes {
            line(&format!("the host's process {pid}, with all pods"));
        }
        if let Some(config) = &self.config {
            line("processes, cgroups and mounts of its pods");
            if let NetConfig::Netns { link } = &config.net {
                line(&format!(
                    "addresses of the cluster on {link}, links of pods, routes to {} and {}, the table `ip holdfast` of nftables",
                    config.cluster_cidr, config.service_cidr
                ));
            }
        }
        for file in &self.files {
            line(&file.display().to_string());
        }
        if let Some(what) = membership.goes() {
            let _ = writeln!(text, "and from the cluster:\n  {what}");
        }
        text
    }

    async fn remove(&self, membership: &Membership, is_forced: bool) -> anyhow::Result<()> {
        if let Some(config) = &self.config {
            // While this host still votes: of two members both must.
            match membership.leave(config).await {
                Err(error) if is_forced => say!("{error:#}: it is forced"),
                left => left?,
            }
        }
        if let Some(service) = &self.service {
            service.remove()?;
        }
        for process in &self.processes {
            process.end().await?;
        }
        if self.service.is_none() && !self.processes.is_empty() {
            stays_away(&self.layout.config_file()).await?;
        }
        if let Some(config) = &self.config {
            membership.delete_node(config, &self.layout.kubeconfig()).await;
            let left = node::end_all_pods(&node_dir(config), &node::cgroup_roots(), &config.name).await;
            if !left.is_empty() {
                let why = format!(
                    "pods of this host may run on in {}, which didn't end them: see to it that it runs, and repeat this",
                    left.join(" and ")
                );
                anyhow::ensure!(is_forced, "{why}; their files stay (--force removes them all the same)");
                say!("{why}: it is forced");
            }
            if let NetConfig::Netns { link } = &config.net {
                clear_network(config, link).await?;
            }
        }
        for file in &self.files {
            machine::remove(file)?;
        }
        // What somebody else put there stays, with its folder.
        let folders = [self.layout.config_file(), self.layout.data_dir()];
        for folder in folders.iter().filter_map(|file| file.parent()) {
            machine::remove_if_empty(folder);
        }
        say!("this machine is no host any more; its kernel settings (net.ipv4.ip_forward) stay as they are");
        Ok(())
    }
}

/// Whether nobody starts the host again that was ended: what is removed then would be made again.
async fn stays_away(config: &Path) -> anyhow::Result<()> {
    let again = async {
        loop {
            if let Some(process) = hosts_of(config).into_iter().next() {
                return process;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let Ok(process) = tokio::time::timeout(STARTED_AGAIN, again).await else { return Ok(()) };
    anyhow::bail!(
        "the host was ended, and {} has started it again as process {}: tell that to leave it down (`sv down holdfast` with runit), and repeat this; all files stay",
        process.parent().unwrap_or_else(|| "somebody".to_owned()),
        process.pid
    )
}

async fn clear_network(config: &HostConfig, link: &str) -> anyhow::Result<()> {
    let remains = network::Remains {
        link,
        pool: &AddressPool::new(config.load_balancer_ranges()),
        virtual_address: config.virtual_address,
        cluster: config.cluster_cidr,
        services: config.service_cidr,
    };
    remains.remove().await.context("not all that the host did to the machine's network is undone")
}

/// Whether a path lies beneath a folder, and isn't the folder.
fn is_beneath(path: &Path, folder: &Path) -> bool {
    path != folder && path.starts_with(folder)
}
