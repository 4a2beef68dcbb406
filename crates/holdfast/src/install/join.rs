//! `holdfast join`: this machine becomes a host of a cluster that runs.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, stdin};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use client::{Client, Content, Kubeconfig};
use config::{HostConfig, Ports};
use http::Method;
use install::{Attempt, Grant, JoinRequest, Layout, Machine, NoToken, Place, Stage, Token};
use pki::{
    Authority, FRONT_PROXY, HostNames, KeyHash, OwnKey, SecretText, TokenKey, Trust, front_proxy_subject,
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::preflight::{Aim, preflight};
use super::{Folders, Starting, begin, start, typed, write_kubeconfig};
use crate::tell::{say, show};

/// How long a connection to the cluster and its handshake may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long its answer may take: a commit, with an election in between.
const ANSWER: Duration = Duration::from_secs(15);

/// Arguments of `holdfast join`.
#[derive(clap::Args)]
#[command(
    after_help = "`holdfast init` and `holdfast token create` print the whole line. Safe to repeat: a machine that has joined changes nothing."
)]
pub struct Args {
    /// Where the cluster's API answers: the virtual address, or any host's
    #[arg(value_name = "ADDRESS[:PORT]")]
    cluster: String,
    /// A file with the token that `holdfast token create` makes, or - for standard input [default: -]. It is no argument itself: those are
    /// seen by every user of a machine
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The hash of the cluster's authority, by which this machine knows that it speaks to the cluster
    #[arg(long, value_name = "sha256:HEX")]
    ca_hash: KeyHash,
    /// The host's name [default: the machine's]
    #[arg(long)]
    name: Option<String>,
    /// The host's address [default: that by which the machine reaches the cluster]
    #[arg(long)]
    address: Option<IpAddr>,
    /// Only work, without being a member: not yet
    #[arg(long, hide = true)]
    worker: bool,
    /// Leave this fault of the machine aside, by the name that the refusal tells; `all` for every one
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    ignore: Vec<String>,
    #[command(flatten)]
    starting: Starting,
    #[command(flatten)]
    folders: Folders,
}

/// Makes this machine a host. All it writes is there before the configuration is, which comes last.
pub async fn join(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        !args.worker,
        "a host that only works isn't to be had yet: every host is a member of the store, and up to {} may be; leave out --worker",
        config::MOST_MEMBERS
    );
    let layout = args.folders.layout()?;
    if let Stage::Host(config) = layout.stage()? {
        check_same(&args, &config)?;
        layout.finish()?;
        return finish(&args, &config, &layout, "has joined already: nothing was changed");
    }
    let token = read_token(args.token_file.as_deref()).await?;
    let plan = layout.plan(Attempt::Join { authority: args.ca_hash })?;
    let cluster = Cluster::find(&args.cluster).await?;
    let machine = Machine::look(Some(cluster.at)).context("can't find out this machine's addresses")?;
    let place = machine.place(args.name.as_deref(), args.address)?;
    let authority = cluster.authority(args.ca_hash).await?;
    begin(&layout, &plan)?;
    let keys = OwnKeys::load_or_create(&layout, &place)?;
    let grant = cluster.ask(&authority, &keys.request(&token, &place)?).await?;
    let config = grant.config(place, &layout);
    preflight(&config, Aim::Another, &args.ignore).await?;
    write(&grant, &keys, &config, &layout, args.ca_hash)?;
    finish(&args, &config, &layout, "has joined the cluster")
}

/// Refuses to make of a host what it isn't.
fn check_same(args: &Args, config: &HostConfig) -> anyhow::Result<()> {
    let is_same = args.name.as_ref().is_none_or(|name| *name == config.name)
        && args.address.is_none_or(|address| address == config.address)
        && Trust::load(&config.pki_dir)?.hash()? == args.ca_hash;
    anyhow::ensure!(
        is_same,
        "this machine is the host {} at {} already, of another cluster or under another name; to make another host of it, stop it and move its configuration and data away",
        config.name,
        config.address
    );
    Ok(())
}

/// Reads the token: a line of the file, or of what comes in.
async fn read_token(file: Option<&Path>) -> anyhow::Result<Token> {
    let (token, name) = match file.filter(|file| *file != Path::new("-")) {
        Some(path) => (File::open(path).and_then(|mut file| token_in(&mut file)), path.display().to_string()),
        None => {
            let token = if stdin().is_terminal() {
                say!("the token, as `holdfast token create` prints it (it isn't shown):");
                typed::unseen(|| token_in(&mut stdin())).await?
            } else {
                token_in(&mut stdin())
            };
            (token, "standard input".to_owned())
        }
    };
    let token = token.with_context(|| format!("can't read the token in {name}"))?;
    token.with_context(|| format!("no token stands in {name}"))
}

/// The token in the first line; nothing that is longer can be one.
fn token_in(from: &mut dyn Read) -> io::Result<Result<Token, NoToken>> {
    const LONGEST: u64 = 256;
    let mut line = String::new();
    BufReader::new(from.take(LONGEST)).read_line(&mut line)?;
    Ok(line.parse())
}

/// Where the cluster is.
struct Cluster {
    /// As it was said: the name that its certificate has.
    host: String,
    at: SocketAddr,
}

impl Cluster {
    async fn find(said: &str) -> anyhow::Result<Self> {
        let (host, port) = target(said)
            .with_context(|| format!("{said:?} isn't ADDRESS or ADDRESS:PORT, such as 10.0.0.100:6443"))?;
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port))
            .await
            .with_context(|| format!("can't find {host}; give the cluster's address"))?
            .collect();
        // Hosts have IPv4 addresses.
        let at = found.into_iter().find(SocketAddr::is_ipv4);
        let at = at.with_context(|| format!("{host} has no IPv4 address; give one that has"))?;
        Ok(Cluster { host, at })
    }

    /// The cluster's authority: the server there shows it, and has a certificate of it.
    async fn authority(&self, hash: KeyHash) -> anyhow::Result<Trust> {
        let nobody =
            || format!("nobody answers at {}: is the first host started, and is this its address?", self.at);
        let stream = timeout(CONNECT, TcpStream::connect(self.at)).await.with_context(nobody)?;
        let stream = stream.with_context(nobody)?;
        let name = ServerName::try_from(self.host.clone()).context("the cluster's address can't be one")?;
        let connecting = TlsConnector::from(hash.client_config()?).connect(name, stream);
        let stranger = || {
            format!(
                "{} isn't a host of the cluster that the hash names; check --ca-hash and the address against what `holdfast token create` prints there",
                self.at
            )
        };
        let stream = timeout(CONNECT, connecting).await.with_context(nobody)?.with_context(stranger)?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        hash.authority_of(shown).with_context(stranger)
    }

    async fn ask(&self, authority: &Trust, request: &JoinRequest) -> anyhow::Result<Grant> {
        let client = Client::new(&Kubeconfig {
            certificate_authority: authority.pem().as_bytes().to_vec(),
            ..Kubeconfig::anonymous(format!("https://{}:{}", self.host, self.at.port()))
        })?;
        let request = serde_json::to_value(request)?;
        let answer =
            client.with_timeout(ANSWER).send(Method::POST, install::PATH, Content::Json, &request).await;
        match answer {
            Ok(answer) => serde_json::from_slice(&answer.body).context(
                "the cluster's answer can't be understood; take the same version of holdfast on both",
            ),
            Err(client::Error::Server(status))
                if status.reason == "Unauthorized" && status.message == "Unauthorized" =>
            {
                anyhow::bail!(
                    "{} is no host that knows `holdfast join`; take the same version of holdfast on both",
                    self.at
                )
            }
            Err(client::Error::Server(status)) => {
                anyhow::bail!("the cluster doesn't let this machine in: {}", status.message)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Host and port of what was said.
fn target(said: &str) -> Option<(String, u16)> {
    let (host, port) = match said.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (said, Ports::DEFAULT.api),
    };
    let is_host = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    is_host.then(|| (host.to_owned(), port))
}

/// The keys that this machine makes for itself, and that never leave it.
struct OwnKeys {
    host: OwnKey,
    front_proxy: OwnKey,
}

impl OwnKeys {
    fn load_or_create(layout: &Layout, place: &Place) -> anyhow::Result<Self> {
        let load = |name: &str| OwnKey::load_or_create(&layout.pki_dir(), name);
        Ok(OwnKeys { host: load(&place.name)?, front_proxy: load(FRONT_PROXY)? })
    }

    fn request(&self, token: &Token, place: &Place) -> anyhow::Result<JoinRequest> {
        // Only the name counts here: which addresses stand in the certificate, the cluster decides.
        let names = HostNames {
            name: place.name.clone(),
            address: place.address,
            virtual_address: place.address,
            first_service_address: place.address,
        };
        Ok(JoinRequest {
            token: token.expose().expose().to_owned(),
            name: place.name.clone(),
            address: place.address,
            host_request: self.host.request(&names.subject())?,
            front_proxy_request: self.front_proxy.request(&front_proxy_subject())?,
        })
    }
}

/// Writes what the cluster gave, the configuration last.
fn write(
    grant: &Grant,
    own: &OwnKeys,
    config: &HostConfig,
    layout: &Layout,
    hash: KeyHash,
) -> anyhow::Result<()> {
    let (keys, pki) = (&grant.keys, &config.pki_dir);
    let secret = |text: &String| SecretText::new(text.as_str());
    let authority = Authority::from_pem(&*keys.authority, secret(&keys.authority_key))?;
    anyhow::ensure!(authority.trust()?.hash()? == hash, "the cluster gave another authority than it showed");
    authority.save(pki)?;
    authority.heartbeat_key()?.save(pki)?;
    TokenKey::from_pem(secret(&keys.token_key))?.save(pki)?;
    Authority::from_pem(&*keys.requests, secret(&keys.requests_key))?.save_for_requests(pki)?;
    own.host.identity(&grant.host_certificate)?.save(pki, &config.name)?;
    own.front_proxy.identity(&grant.front_proxy_certificate)?.save(pki, FRONT_PROXY)?;
    write_kubeconfig(layout, &authority, config, now())?;
    layout.write_config(config, true)?;
    Ok(layout.finish()?)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the program: the administrator's certificate is valid from now on"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Starts the host where that is to be, and says what to type next.
fn finish(args: &Args, config: &HostConfig, layout: &Layout, what: &str) -> anyhow::Result<()> {
    if config.peers.len().is_multiple_of(2) {
        say!(
            "{} members bear the loss of no more hosts than {} do: let one more join",
            config.peers.len(),
            config.peers.len() - 1
        );
    }
    let started = start(args.starting, &args.folders, layout)?;
    show(&format!("{} ({}) {what}.\n\n{started}", config.name, config.address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_line_and_comes_in_no_argument() {
        let read = |text: &str| token_in(&mut text.as_bytes()).unwrap();
        for text in
            ["abcdef.0123456789abcdef\n", "abcdef.0123456789abcdef", " abcdef.0123456789abcdef \nmore"]
        {
            assert_eq!(read(text).unwrap().id(), "abcdef", "{text}");
        }
        for wrong in ["", "\n", "abcdef.0123456789abcde\nf", &"a".repeat(1000)] {
            assert_eq!(read(wrong), Err(NoToken), "{wrong}");
        }
    }

    #[test]
    fn a_cluster_is_named_by_address_and_maybe_port() {
        let target = |said: &str| target(said);
        assert_eq!(target("10.0.0.100"), Some(("10.0.0.100".into(), 6443)));
        assert_eq!(target("10.0.0.100:7443"), Some(("10.0.0.100".into(), 7443)));
        assert_eq!(target("api.example:6443"), Some(("api.example".into(), 6443)));
        for wrong in ["", ":6443", "a:b", "a:0", "a:70000", "https://a:6443", "fd00::1", "a/b"] {
            assert_eq!(target(wrong), None, "{wrong}");
        }
    }
}
