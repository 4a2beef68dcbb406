//! `holdfast init`: the first host of a new cluster.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context;
use config::HostConfig;
use install::{Attempt, FirstHost, Layout, Machine, Settings, Stage, Token, first_config};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use pki::{Authority, FRONT_PROXY, OwnKey, TokenKey, Validity};

use super::preflight::{Aim, preflight};
use super::token::{join_line, until};
use super::{Folders, Starting, begin, host_names, start, write_kubeconfig};
use crate::tell::{say, show};

/// Arguments of `holdfast init`.
#[derive(clap::Args)]
#[command(
    after_help = "Safe to repeat: on a machine that is a host already it changes nothing, and says again what to type next.\n\nExamples:\n  holdfast init --vip 10.0.0.100\n  holdfast init --name n1 --address 10.0.0.1 --vip 10.0.0.100 --pod-cidr 10.32.0.0/16"
)]
pub struct Args {
    /// The API's virtual address: one of the hosts' network that is nobody's. Whichever host leads has it
    #[arg(long, value_name = "ADDRESS")]
    vip: IpAddr,
    /// The host's name [default: the machine's]
    #[arg(long)]
    name: Option<String>,
    /// The host's address [default: that by which the machine reaches others]
    #[arg(long)]
    address: Option<IpAddr>,
    /// The network of all hosts' pods
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pod_cidr: IpNet,
    /// The network of the services' addresses
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/16")]
    service_cidr: IpNet,
    /// A file with settings such as ports, timeouts and load balancers' addresses [default: what `holdfast config --defaults` prints]
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// How long other machines may join with the token that this makes
    #[arg(long, value_name = "TIME", default_value = "2h", value_parser = super::token::time)]
    token_ttl: SignedDuration,
    /// Leave this fault of the machine aside, by the name that the refusal tells; `all` for every one
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    ignore: Vec<String>,
    /// Begin with what a backup holds: a cluster anew, on other machines
    #[arg(long, value_name = "FILE")]
    restore: Option<PathBuf>,
    #[command(flatten)]
    starting: Starting,
    #[command(flatten)]
    folders: Folders,
}

/// Makes this machine the first host of a cluster. All it writes is there before the configuration is, which comes last.
pub async fn init(args: Args) -> anyhow::Result<()> {
    let layout = args.folders.layout()?;
    if let Stage::Host(config) = layout.stage()? {
        check_same(&args, &config, &layout)?;
        // One that was interrupted at its very end is finished.
        anyhow::ensure!(
            args.restore.is_none() || layout.attempt_file().exists(),
            "this machine is a host already, and a backup becomes a new cluster: `holdfast reset` it first"
        );
        layout.finish()?;
        return finish(&args, &config, &layout, "is a host already: nothing was changed");
    }
    let drawn = uuid::Uuid::new_v4().to_string();
    // One that was interrupted goes on with the cluster that it began.
    let plan = layout.plan(Attempt::First { cluster_id: drawn.clone() })?;
    let cluster_id = plan.attempt.cluster_id().unwrap_or(&drawn);
    let mut backup = args.restore.as_deref().map(crate::restore::read).transpose()?;
    let machine = Machine::look(None).context("can't find out this machine's addresses")?;
    let first = FirstHost {
        place: machine.place(args.name.as_deref(), args.address)?,
        virtual_address: args.vip,
        pods: args.pod_cidr,
        services: args.service_cidr,
        settings: args.settings.as_deref().map(Settings::load).transpose()?.unwrap_or_default(),
    };
    let config = first_config(cluster_id, first, &layout);
    if let Some(backup) = &mut backup {
        let how = "as encryptionFile in the file of --settings";
        crate::restore::open(backup, config.encryption_file.as_deref(), how)?;
    }
    preflight(&config, Aim::First, &args.ignore).await?;
    begin(&layout, &plan)?;
    make_keys(&config, &layout)?;
    let token = Token::draw(&mut random());
    layout.write_first_token(&token.object(until(args.token_ttl)?, "made by holdfast init", None))?;
    if let Some(backup) = backup {
        let (kept, all) = crate::restore::begin_first(backup, &config)?;
        say!("{kept} of {all} keys are there; left out is what was of the old hosts");
    }
    layout.write_config(&config, false)?;
    layout.finish()?;
    finish(&args, &config, &layout, "is the first host of a new cluster")
}

/// Refuses to make of a host what it isn't.
fn check_same(args: &Args, config: &HostConfig, layout: &Layout) -> anyhow::Result<()> {
    let is_same = args.name.as_ref().is_none_or(|name| *name == config.name)
        && args.address.is_none_or(|address| address == config.address)
        && args.vip == config.virtual_address;
    anyhow::ensure!(
        is_same,
        "this machine is the host {} at {}, with the virtual address {}, already ({}); for another one, stop it and move {} and its data away",
        config.name,
        config.address,
        config.virtual_address,
        layout.config_file().display(),
        layout.config_file().parent().unwrap_or(&config.pki_dir).display(),
    );
    Ok(())
}

/// Makes the authority and all that follows from it; what a run that was interrupted made is kept.
#[allow(clippy::disallowed_methods, reason = "the program: certificates are valid from now on")]
fn make_keys(config: &HostConfig, layout: &Layout) -> anyhow::Result<()> {
    let (now, pki) = (SystemTime::now(), &config.pki_dir);
    let authority = match pki.join("ca.crt").exists() {
        true => Authority::load(pki)?,
        false => {
            let authority = Authority::create(&format!("holdfast-{}", config.cluster_id), now)?;
            authority.save(pki)?;
            authority
        }
    };
    if !pki.join("requests-ca.crt").exists() {
        let requests = Authority::create(&format!("holdfast-{}-requests", config.cluster_id), now)?;
        requests.save_for_requests(pki)?;
    }
    TokenKey::load_or_create(pki)?;
    authority.heartbeat_key()?.save(pki)?;
    let (key, validity) =
        (|name: &str| OwnKey::load_or_create(pki, name), Validity::lasting(now, Validity::OF_HOSTS));
    let host = authority.certify_host(&key(&config.name)?, &host_names(config), validity)?;
    host.save(pki, &config.name)?;
    authority.certify_front_proxy(&key(FRONT_PROXY)?, validity)?.save(pki, FRONT_PROXY)?;
    write_kubeconfig(layout, &authority, config, now)
}

#[allow(clippy::disallowed_methods, reason = "the program: here chance comes in")]
pub(super) fn random() -> impl rand::Rng + rand::CryptoRng {
    rand::rng()
}

/// Starts the host where that is to be, and says what to type next.
fn finish(args: &Args, config: &HostConfig, layout: &Layout, what: &str) -> anyhow::Result<()> {
    // Looked for before the start, by which the host brings its token into the cluster.
    let others = others(config, layout)?;
    let started = start(args.starting, &args.folders, layout)?;
    show(&format!("{} ({}) {what}.\n\n{started}\n{others}", config.name, config.address))
}

/// How other machines join.
fn others(config: &HostConfig, layout: &Layout) -> anyhow::Result<String> {
    let hash = pki::Trust::load(&config.pki_dir)?.hash()?;
    Ok(match first_token(layout) {
        Some((token, until)) => format!(
            "On each other machine, once this host runs, until {until}:\n\n  {}\n",
            join_line(&config.virtual_api().to_string(), &token, hash)
        ),
        None => {
            "On each other machine the line that this prints here:\n\n  holdfast token create\n".to_owned()
        }
    })
}

/// The token that waits for the first start, while its time lasts.
#[allow(clippy::disallowed_methods, reason = "the program: a token's time is over now, or not")]
fn first_token(layout: &Layout) -> Option<(Token, Timestamp)> {
    let text = std::fs::read(Layout::first_token(&layout.pki_dir())).ok()?;
    let secret: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let until = install::listed(std::slice::from_ref(&secret)).into_iter().next()?.until?;
    (Timestamp::now() < until).then_some((Token::of_object(&secret)?, until))
}
