//! `holdfast init`, `join` and `token`: how a machine becomes a host. What is decided stands in the room `install`; here it meets the
//! machine, the network and the cluster.

mod door;
mod first_token;
mod init;
mod join;
mod preflight;
mod register;
mod revoke;
mod token;
mod typed;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::Kubeconfig;
use config::HostConfig;
use install::{Former, Layout, Plan, first_service};
use pki::{About, Authority, HostNames, Identity, Renewal, Subject, Validity, admin_subject};

pub use door::open_door;
pub use first_token::bring_first_token;
pub use init::{Args as InitArgs, init};
pub use join::{Args as JoinArgs, join};
pub use register::note_host;
pub use token::{Args as TokenArgs, token};

use crate::tell::{quoted, say};
use crate::unit::Systemd;

const CONFIG_DIR: &str = "/etc/holdfast";
const DATA_DIR: &str = "/var/lib/holdfast";

/// Where a host's files lie.
#[derive(Debug, Clone, clap::Args)]
pub struct Folders {
    /// The folder of the host's configuration, keys and certificates
    #[arg(long, value_name = "DIR", default_value = CONFIG_DIR)]
    config_dir: PathBuf,
    /// The folder of the host's data
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
}

impl Folders {
    /// That of the configuration and that of the data, from the root.
    pub fn absolute(&self) -> anyhow::Result<(PathBuf, PathBuf)> {
        let absolute = |path: &Path| {
            std::path::absolute(path).with_context(|| format!("{} can't be a folder", path.display()))
        };
        Ok((absolute(&self.config_dir)?, absolute(&self.data_dir)?))
    }

    /// Whether they are where a host's files lie unless somebody says otherwise.
    pub fn are_usual(&self) -> bool {
        self.config_dir == Path::new(CONFIG_DIR) && self.data_dir == Path::new(DATA_DIR)
    }

    /// The files in them.
    pub fn layout(&self) -> anyhow::Result<Layout> {
        let (config, data) = self.absolute()?;
        Ok(Layout::new(config, data))
    }
}

#[cfg(test)]
impl Folders {
    /// Folders of a test.
    pub fn new(config_dir: PathBuf, data_dir: PathBuf) -> Self {
        Folders { config_dir, data_dir }
    }

    /// Where a host's files lie unless somebody says otherwise.
    pub fn usual() -> Self {
        Folders::new(CONFIG_DIR.into(), DATA_DIR.into())
    }
}

/// Begins to make this machine what was planned, and says what goes for that.
fn begin(layout: &Layout, plan: &Plan) -> anyhow::Result<()> {
    if plan.former == Former::Replaced {
        say!(
            "the keys of another attempt in {}, which came to nothing, are replaced",
            layout.pki_dir().display()
        );
    }
    Ok(layout.begin(plan)?)
}

/// Where the administrator's kubeconfig of a host lies that was installed in the usual place.
pub fn usual_kubeconfig() -> PathBuf {
    Layout::new(CONFIG_DIR.into(), DATA_DIR.into()).kubeconfig()
}

/// Where the administrator's kubeconfig lies in the folder of a host's configuration.
pub fn kubeconfig_in(folder: &Path) -> PathBuf {
    Layout::new(folder.to_owned(), PathBuf::new()).kubeconfig()
}

/// The APIs of the hosts that the configuration beside a host's kubeconfig names, its own first; none where there is none.
pub fn apis_beside(kubeconfig: &Path) -> Vec<SocketAddr> {
    let folder = kubeconfig.parent().unwrap_or(Path::new("")).to_owned();
    let config = HostConfig::load(&Layout::new(folder, PathBuf::new()).config_file());
    let Ok(config) = config else { return Vec::new() };
    let (own, others) =
        (SocketAddr::new(config.address, config.ports.api), config.peers_at(config.ports.api));
    std::iter::once(own).chain(others.into_values().filter(|other| *other != own)).collect()
}

/// What stands in the certificate of a host.
pub fn host_names(config: &HostConfig) -> HostNames {
    HostNames {
        name: config.name.clone(),
        address: config.address,
        virtual_address: config.virtual_address,
        first_service_address: first_service(config.service_cidr).unwrap_or(config.address),
    }
}

/// Renews the certificate in the administrator's kubeconfig in a host's folder, where it is there, is the administrator's of this
/// cluster, and is due. What people changed in the file stays.
pub fn renew_kubeconfig(
    folder: &Path,
    authority: &Authority,
    config: &HostConfig,
    Renewal { life, early, now }: Renewal,
) -> anyhow::Result<()> {
    let layout = Layout::new(folder.to_owned(), PathBuf::new());
    let Ok(former) = Kubeconfig::load(&layout.kubeconfig()) else { return Ok(()) };
    if former.certificate_authority != authority.certificate_pem().as_bytes() {
        return Ok(());
    }
    let own = former.client_certificate.as_deref().and_then(|pem| std::str::from_utf8(pem).ok());
    let Some(About { subject, validity, .. }) = own.and_then(About::certificate) else { return Ok(()) };
    let Subject { common_name, organization } = admin_subject();
    // One that somebody put there for another user gets no administrator's certificate.
    let is_administrators = subject == format!("O={}, CN={common_name}", organization.unwrap_or_default());
    if !is_administrators || !validity.is_due(authority.validity()?, life, early, now) {
        return Ok(());
    }
    let path = layout.kubeconfig();
    let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    let admin = administrator(authority, now)?;
    let text = exchanged(&text, &former, &admin);
    layout.write_kubeconfig(&text.unwrap_or_else(|| kubeconfig_text(authority, config, &admin)))?;
    tracing::info!("{} was renewed", layout.kubeconfig().display());
    Ok(())
}

/// Writes the administrator's kubeconfig: a person who has the authority's key can make one.
fn write_kubeconfig(
    layout: &Layout,
    authority: &Authority,
    config: &HostConfig,
    now: SystemTime,
) -> anyhow::Result<()> {
    let admin = administrator(authority, now)?;
    Ok(layout.write_kubeconfig(&kubeconfig_text(authority, config, &admin))?)
}

fn administrator(authority: &Authority, now: SystemTime) -> Result<Identity, pki::Error> {
    authority.issue(&admin_subject(), &[], &[], Validity::lasting(now, Validity::OF_ADMIN))
}

fn kubeconfig_text(authority: &Authority, config: &HostConfig, admin: &Identity) -> String {
    let server = format!("https://{}", config.virtual_api());
    local::kubeconfig("holdfast", &server, authority.certificate_pem(), admin)
}

/// A kubeconfig's text with another certificate and key in the place of its own; none where these don't stand in it.
fn exchanged(text: &str, former: &Kubeconfig, new: &Identity) -> Option<String> {
    let pairs = [
        (former.client_certificate.as_deref()?, new.certificate_pem()),
        (former.client_key.as_deref()?, new.key_pem().expose()),
    ];
    pairs.into_iter().try_fold(text.to_owned(), |text, (former, new)| {
        let former = STANDARD.encode(former);
        text.contains(&former).then(|| text.replace(&former, &STANDARD.encode(new)))
    })
}

/// Whether the host is started too.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Starting {
    /// Leave the start to you, also where systemd runs
    #[arg(long)]
    no_start: bool,
}

/// Starts the host where systemd runs it; what to type to start it elsewhere, and to see it.
fn start(starting: Starting, folders: &Folders, layout: &Layout) -> anyhow::Result<String> {
    let started = match Systemd::for_host(folders).filter(|_| !starting.no_start) {
        Some(systemd) => {
            systemd.start(folders)?;
            "It runs, and starts at each boot:\n\n  systemctl status holdfast\n".to_owned()
        }
        None => {
            format!("Start it:\n\n  holdfast host --config {}\n", quoted(layout.config_file()))
        }
    };
    Ok(format!(
        "{started}\nSee it, here:\n\n  KUBECONFIG={} kubectl get nodes\n",
        quoted(layout.kubeconfig())
    ))
}
