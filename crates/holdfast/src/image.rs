//! `holdfast image`: the images of containers that the hosts have. It works in their folders, whether they run or not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use config::HostConfig;
use images::{Digest, Image, Keyring, Puller, Reference, Registries, Settings, Store};

use crate::host::node_dir;
use crate::host_images::{in_use, open_store, registries, registries_of};
use crate::tell::{say, show};

/// Arguments of `holdfast image`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Bring images from an archive (docker save, OCI; also compressed) or a folder with OCI's layout
    Import(ImportArgs),
    /// Show the images that there are
    Ls(LsArgs),
    /// Remove an image, or one of its names
    Rm(RmArgs),
    /// Pull an image from its registry
    Pull(PullArgs),
}

#[derive(clap::Args)]
struct ImportArgs {
    /// The archive or the folder
    file: PathBuf,
    /// What the image is called, instead of what the archive says
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct LsArgs {
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct RmArgs {
    /// Its name, digest or id
    name: String,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct PullArgs {
    /// Its name, such as busybox:1.36 or registry.example/team/app@sha256:...
    name: String,
    /// Who one is for registries: Docker's config.json [default: ~/.docker/config.json, if it is there]
    #[arg(long, value_name = "FILE")]
    docker_config: Option<PathBuf>,
    /// Mirrors, authorities and registries without TLS, as YAML (docs/images.md) [default: what the host's configuration
    /// names]
    #[arg(long, value_name = "FILE")]
    registries: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Whose images.
#[derive(clap::Args)]
struct Place {
    /// The cluster's folder [default: ~/.local/state/holdfast]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// A host of it; may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// A folder of images, wherever it is
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dir", "host"])]
    store: Option<PathBuf>,
}

/// Does what is asked for.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Import(args) => import(&args),
        Command::Ls(args) => ls(&args),
        Command::Rm(args) => rm(&args),
        Command::Pull(args) => pull(&args).await,
    }
}

/// The images of a host, or of nobody.
struct Stock {
    /// Whose they are, for people.
    owner: String,
    store: Store,
    host: Option<HostConfig>,
}

impl Stock {
    fn of_host(config: HostConfig) -> anyhow::Result<Self> {
        let owner = config.name.clone();
        let store = open_store(&config).with_context(|| format!("host {owner}"))?;
        Ok(Stock { owner, store, host: Some(config) })
    }

    fn bring(&self, file: &Path, name: Option<&Reference>) -> anyhow::Result<()> {
        let images = self.store.import(file, name).with_context(|| format!("host {}", self.owner))?;
        for image in images {
            say!("{}: {}", self.owner, names(&image).join(", "));
        }
        Ok(())
    }

    /// The images that containers run on: those of the pods of its host.
    fn in_use(&self) -> Result<BTreeSet<Digest>, images::Error> {
        self.host.as_ref().map_or(Ok(BTreeSet::new()), |config| in_use(&node_dir(config)))
    }
}

/// Brings images to hosts before they run, by the files with their configurations.
pub fn bring(files: &[PathBuf], configs: &[PathBuf]) -> anyhow::Result<()> {
    for config in configs.iter().filter(|_| !files.is_empty()) {
        let stock = Stock::of_host(HostConfig::load(config)?)?;
        files.iter().try_for_each(|file| stock.bring(file, None))?;
    }
    Ok(())
}

impl Place {
    fn stocks(&self) -> anyhow::Result<Vec<Stock>> {
        if let Some(folder) = &self.store {
            let (owner, store) = (folder.display().to_string(), Store::open(folder)?);
            return Ok(vec![Stock { owner, store, host: None }]);
        }
        let dir = crate::dir_or_default(self.dir.clone())?;
        let record = local::Folder::record_in(&dir)?;
        let record = record.with_context(|| {
            format!("there is no cluster in {}; start one with holdfast up", dir.display())
        })?;
        let known: Vec<String> = local::Addresses::hosts(record.nodes).map(|(_, name)| name).collect();
        if let Some(other) = self.host.iter().find(|host| !known.contains(host)) {
            bail!("there is no host {other} in {}; there are {}", dir.display(), known.join(", "));
        }
        let wanted = known.into_iter().filter(|host| self.host.is_empty() || self.host.contains(host));
        wanted.map(|host| Stock::of_host(HostConfig::load(&dir.join(&host).join("config.json"))?)).collect()
    }
}

fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let name = args.name.as_deref().map(Reference::parse).transpose()?;
    args.place.stocks()?.iter().try_for_each(|stock| stock.bring(&args.file, name.as_ref()))
}

fn ls(args: &LsArgs) -> anyhow::Result<()> {
    let mut rows: BTreeMap<(String, Digest), (u64, Vec<String>)> = BTreeMap::new();
    for Stock { owner, store, .. } in args.place.stocks()? {
        for image in store.list()? {
            for name in names(&image) {
                let row = rows.entry((name, image.digest.clone())).or_insert((image.size, Vec::new()));
                row.1.push(owner.clone());
            }
        }
    }
    let rows = rows.into_iter().map(|((name, digest), (size, hosts))| {
        [name, digest.hex()[..12].to_owned(), megabytes(size), hosts.join(",")]
    });
    show(&table(["IMAGE", "DIGEST", "SIZE", "HOSTS"].map(str::to_owned), rows.collect()))
}

fn rm(args: &RmArgs) -> anyhow::Result<()> {
    let mut found = false;
    for stock in args.place.stocks()? {
        let host = &stock.owner;
        match stock.store.remove(&args.name, &|| stock.in_use()) {
            Ok(removed) => {
                found = true;
                let gone = removed.references.join(", ");
                say!("{host}: {gone}; {} freed", megabytes(removed.bytes));
            }
            Err(images::Error::NotPresent(_)) => {}
            Err(error) => return Err(error).with_context(|| format!("host {host}")),
        }
    }
    if !found {
        bail!("there is no image {}; holdfast image ls shows those that there are", args.name);
    }
    Ok(())
}

async fn pull(args: &PullArgs) -> anyhow::Result<()> {
    let name = Reference::parse(&args.name)?;
    let mut keyring = Keyring::default();
    if let Some(path) = docker_config(args)? {
        let text = std::fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        keyring.add_docker_config_json(&text).with_context(|| path.display().to_string())?;
    }
    let told = args.registries.as_deref().map(registries).transpose()?;
    for Stock { owner: host, store, host: config } in args.place.stocks()? {
        let registries = match (&told, &config) {
            (Some(told), _) => told.clone(),
            (None, Some(config)) => registries_of(config)?,
            (None, None) => Registries::default(),
        };
        let settings = Settings { registries, ..Settings::default() };
        let image = Puller::new(store, settings)?.pull(&name, &keyring).await;
        let image = image.with_context(|| format!("host {host}: can't pull {name}"))?;
        say!("{host}: {}", image.image_id(&name));
    }
    Ok(())
}

fn docker_config(args: &PullArgs) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = &args.docker_config {
        return Ok(Some(path.clone()));
    }
    let usual = std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker/config.json"));
    Ok(usual.filter(|path| path.is_file()))
}

/// What an image is called: its tags, or if it has none its names by digest.
fn names(image: &Arc<Image>) -> Vec<String> {
    let (digests, tags): (Vec<_>, Vec<_>) =
        image.references.iter().cloned().partition(|name| name.contains('@'));
    match (tags.is_empty(), digests.is_empty()) {
        (false, _) => tags,
        (true, false) => digests,
        (true, true) => vec![image.id.to_string()],
    }
}

/// As `docker images` has it.
fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

fn table(heads: [String; 4], rows: Vec<[String; 4]>) -> String {
    let widths = [0, 1, 2].map(|column| {
        let texts = rows.iter().chain([&heads]).map(|row| row[column].chars().count());
        texts.max().unwrap_or_default()
    });
    let mut text = String::new();
    for [first, second, third, last] in [&heads].into_iter().chain(&rows) {
        text += &format!("{first:0$}   {second:1$}   {third:2$}   {last}\n", widths[0], widths[1], widths[2]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_columns() {
        let row = |words: &str| -> [String; 4] {
            words.split(' ').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()
        };
        let text =
            table(row("IMAGE DIGEST SIZE HOSTS"), vec![row("busybox:1.36 abc 4.1 n1,n2"), row("a b c d")]);
        assert_eq!(
            text,
            "IMAGE          DIGEST   SIZE   HOSTS\nbusybox:1.36   abc      4.1    n1,n2\na              b        c      d\n"
        );
        assert_eq!((megabytes(4_199_999), megabytes(0)), ("4.1 MB".into(), "0.0 MB".into()));
    }

    #[test]
    fn images_are_brought_shown_and_removed_but_not_from_under_a_container() {
        let dir = tempfile::tempdir().unwrap();
        let layout = dir.path().join("layout");
        // No layers: all that an image needs are two documents.
        let put = |name: &str, text: &str| {
            let path = layout.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let config = r#"{"rootfs": {"diff_ids": []}}"#;
        let described = |text: &str| {
            format!(r#"{{"digest": "{}", "size": {}}}"#, Digest::sha256(text.as_bytes()), text.len())
        };
        let manifest = format!(r#"{{"schemaVersion": 2, "config": {}, "layers": []}}"#, described(config));
        for text in [config, &manifest] {
            put(&format!("blobs/sha256/{}", Digest::sha256(text.as_bytes()).hex()), text);
        }
        put("index.json", &format!(r#"{{"schemaVersion": 2, "manifests": [{}]}}"#, described(&manifest)));
        let place = || Place { dir: None, host: Vec::new(), store: Some(dir.path().join("store")) };
        let args = |name: Option<&str>| ImportArgs {
            file: layout.clone(),
            name: name.map(str::to_owned),
            place: place(),
        };
        assert!(
            import(&args(None)).unwrap_err().chain().any(|why| why.to_string().contains("give the name"))
        );
        import(&args(Some("quay.io/a"))).unwrap();
        let stock = place().stocks().unwrap().remove(0);
        assert_eq!(names(&stock.store.find("quay.io/a").unwrap().unwrap()), ["quay.io/a:latest"]);
        ls(&LsArgs { place: place() }).unwrap();
        rm(&RmArgs { name: "quay.io/a".into(), place: place() }).unwrap();
        assert!(rm(&RmArgs { name: "quay.io/a".into(), place: place() }).is_err());
    }
}
