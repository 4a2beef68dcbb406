//! `holdfast upgrade`: another version of the program for this machine's host, without a restart of its pods. One host at a time.

mod decide;
mod program;
mod turn;

use std::path::PathBuf;
use std::time::Duration;

use ::check::{ClusterSays, HostAnswer};
use anyhow::Context;
use client::{Client, Kubeconfig};
use config::HostConfig;
use install::Stage;

use self::decide::{Against, Version, against, lacks, next};
use self::program::{Program, Staged};
use crate::ask::{ANSWER, cluster_says};
use crate::host_process::hosts_of;
use crate::install::Folders;
use crate::tell::{say, show};

/// How often it is looked whether the host is back.
const LOOK: Duration = Duration::from_millis(200);
/// How long the former program has at least to come back, where the new one didn't.
const BACK: Duration = Duration::from_secs(60);

/// Arguments of `holdfast upgrade`.
#[derive(clap::Args)]
#[command(
    after_help = "Run it on one host after the other. The host's pods run on; what starts its process (systemd, or another manager of services) starts it again as the new program. If that doesn't come up, the former one is put back.\n\nExamples:\n  holdfast upgrade ./holdfast-0.2.0"
)]
pub struct Args {
    /// The file of the new program; it takes the place of the one that runs
    #[arg(value_name = "FILE")]
    program: PathBuf,
    /// Also where the cluster takes no writes until this host is back, as with one or two members, or with another member away
    #[arg(long)]
    force: bool,
    /// How many seconds the new program has to be up: to answer, to have caught up, and to be Ready
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(5..=3600))]
    within: u64,
    /// The administrator's kubeconfig [default: admin.conf beside the host's configuration]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    folders: Folders,
}

/// The host of this machine, and its cluster.
struct Host {
    config: Box<HostConfig>,
    config_file: PathBuf,
    administrator: Kubeconfig,
    program: Program,
}

/// Looks whether the host may be upgraded, and does it.
pub async fn upgrade(args: Args) -> anyhow::Result<()> {
    let host = Host::find(&args)?;
    let staged = host.program.stage(&args.program).await?;
    let (name, new) = (host.config.name.as_str(), staged.version);
    let (client, says) = host.admitted(new, args.force).await?;
    let was = match says.hosts.get(name) {
        Some(HostAnswer::Says(own)) => own.version.clone(),
        _ => String::new(),
    };
    let within = Duration::from_secs(args.within);
    // As long as this may take, with the way back.
    let has_turn = match turn::take(&client, name, 2 * within.max(BACK) + BACK).await {
        Err(error) if args.force => {
            say!("{error:#}: it is forced");
            false
        }
        taken => taken.map(|()| true)?,
    };
    // Whose turn it was until just now may be away.
    let exchanged = match host.admitted(new, args.force).await {
        Ok(_) => {
            say!("{name}: {was} makes room for {new}");
            host.exchange(staged, &was, within).await
        }
        Err(why) => Err(why),
    };
    // Over a connection of its own: the host that was asked may be the one that was away.
    let says = cluster_says(&host.config, &host.administrator).await;
    if has_turn && let Ok((client, _)) = &says {
        turn::give_back(client).await;
    }
    exchanged?;
    let follows = says.map(|(_, says)| next(name, new, &was, &says)).unwrap_or_default();
    show(&format!("{name} runs {new} and is Ready. {follows}\n"))
}

impl Host {
    fn find(args: &Args) -> anyhow::Result<Self> {
        let layout = args.folders.layout()?;
        let config_file = layout.config_file();
        let Stage::Host(config) = layout.stage()? else {
            anyhow::bail!(
                "this machine is no host: there is no {}; name its folder with --config-dir",
                config_file.display()
            )
        };
        let process = hosts_of(&config_file).into_iter().next().with_context(|| {
            format!(
                "no process runs the host {}: put the new program where the former one is, and start it",
                config.name
            )
        })?;
        let program = process.program().with_context(|| {
            format!("can't see which program runs the host {}; run this as root", config.name)
        })?;
        let kubeconfig = args.kubeconfig.clone().unwrap_or_else(|| layout.kubeconfig());
        let administrator = Kubeconfig::load(&kubeconfig)?;
        Ok(Host { config, config_file, administrator, program: Program::at(program) })
    }

    /// What the cluster says, if that speaks for an upgrade of this host to `new`, or it is forced.
    async fn admitted(&self, new: Version, is_forced: bool) -> anyhow::Result<(Client, ClusterSays)> {
        let name = &self.config.name;
        let asked = cluster_says(&self.config, &self.administrator).await;
        let (client, says) = asked.map_err(anyhow::Error::msg).context("nobody tells how the cluster is")?;
        match against(name, new, &says) {
            None => {}
            Some(Against::Never(why)) => anyhow::bail!("{why}; nothing was changed"),
            Some(Against::Stops(why)) => {
                anyhow::ensure!(
                    is_forced,
                    "{why}; nothing was changed (--force upgrades {name} all the same)"
                );
                say!("{why}: it is forced");
            }
        }
        Ok((client, says))
    }

    /// Puts the new program in the former one's place and waits until it is up; if it isn't in time, the former one comes back.
    async fn exchange(&self, staged: Staged, was: &str, within: Duration) -> anyhow::Result<()> {
        let (name, new) = (&self.config.name, staged.version);
        self.program.replace(staged)?;
        let why = match self.starts_again(new, within).await {
            Ok(()) => return self.program.forget_former(),
            Err(why) => why,
        };
        say!("{name} isn't up as {new} within {within:?}: {why}; the former program comes back");
        self.program.put_back()?;
        // Nobody would have been asked to leave whose version isn't known.
        let former: Version = was.parse().map_err(anyhow::Error::msg)?;
        match self.starts_again(former, within.max(BACK)).await {
            Ok(()) => anyhow::bail!("{name} runs {was} again: {new} wasn't up in time ({why})"),
            Err(still) => anyhow::bail!(
                "{new} wasn't up in time ({why}), and {was}, which is in its place again, isn't either: {still}; see the host's log, and start it by what starts it at boot (systemctl restart holdfast)"
            ),
        }
    }

    /// Asks the host's process to leave without its pods, and waits until its next one is up as this version. Otherwise why it isn't.
    async fn starts_again(&self, version: Version, within: Duration) -> Result<(), String> {
        for process in hosts_of(&self.config_file) {
            process.leave().await.map_err(|error| format!("{error:#}"))?;
        }
        let mut why = "nothing was seen of it".to_owned();
        let up = async {
            while let Err(reason) = self.is_up(version).await {
                why = reason;
                tokio::time::sleep(LOOK).await;
            }
        };
        let is_up = tokio::time::timeout(within, up).await.is_ok();
        if is_up { Ok(()) } else { Err(why) }
    }

    /// Whether the host runs as this version, and does all its work; otherwise what it lacks.
    async fn is_up(&self, version: Version) -> Result<(), String> {
        let Some(process) = hosts_of(&self.config_file).into_iter().next() else {
            return Err("nobody has started it".to_owned());
        };
        let (name, program) = (&self.config.name, self.program.path());
        if !process.is_of(program) {
            return Err(format!(
                "what starts it takes another program than {}: that is where the new one has to go",
                program.display()
            ));
        }
        let (client, says) = cluster_says(&self.config, &self.administrator).await?;
        let path = format!("/api/v1/nodes/{name}");
        let node = client.get(&path).await.map_err(|error| error.to_string())?;
        if let Some(why) = lacks(name, version, &says, &node) {
            return Err(why);
        }
        // A Node may be Ready still by what its former process said.
        match client.fresh(&format!("{path}/proxy/healthz"), ANSWER).await {
            Ok(answer) if answer.is_success() => Ok(()),
            Ok(answer) => Err(format!("its agent answers with {}", answer.code)),
            Err(error) => Err(format!("its agent doesn't answer: {error}")),
        }
    }
}
