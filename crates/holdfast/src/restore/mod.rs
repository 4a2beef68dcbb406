//! `holdfast restore`: a new cluster that begins with what a backup holds.

mod fit;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use config::HostConfig;
use install::{Attempt, Layout};
use local::Folder;
use store::{Backup, FirstMember, SEALED, Sealing, State};

use self::fit::Destination;
use crate::ground::NetChoice;
use crate::sealing::Encryption;
use crate::tell::{count, quoted, say, show};

/// Where a first host's data are made of a backup, beside their place.
pub const BUILDING: &str = "restoring";

/// Arguments of `holdfast restore`.
#[derive(clap::Args)]
pub struct Args {
    /// The backup, as `holdfast backup` or `etcdctl snapshot save` wrote it
    file: PathBuf,
    /// The new cluster's folder, for `holdfast up --dir`; it must be empty or not there
    #[arg(long)]
    dir: PathBuf,
    /// How many hosts the new cluster has
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=store::MOST_PEERS as u64))]
    nodes: u64,
    /// The network between the hosts
    #[arg(long, value_enum, default_value_t = NetChoice::Auto)]
    net: NetChoice,
    /// The file with the keys of what was encrypted in the old cluster; the new one begins without any
    #[arg(long, value_name = "FILE")]
    encryption_file: Option<PathBuf>,
}

/// Gives a host that is the first of a new cluster what a backup holds, before it starts for the first time. Nothing of the old hosts is
/// kept: this is another machine, whatever its name, and so are those that join. How many keys of how many are kept.
pub fn begin_first(mut backup: Backup, config: &HostConfig) -> anyhow::Result<(usize, usize)> {
    let Some(IpAddr::V4(services)) = install::first_service(config.service_cidr) else {
        anyhow::bail!("a backup's Services have addresses of IPv4, and {} has none", config.service_cidr)
    };
    anyhow::ensure!(
        config.service_cidr.prefix_len() == 16,
        "a backup's Services keep the last two numbers of their addresses: give a network of 16 bits by --service-cidr, not {}",
        config.service_cidr
    );
    // What is made beside its place can't be moved onto a disk.
    let parent = config.data_dir.parent().unwrap_or(Path::new("/"));
    let disk = |folder: &Path| fs::metadata(folder).ok().map(|about| about.dev());
    anyhow::ensure!(
        disk(&config.data_dir).is_none_or(|own| disk(parent) == Some(own)),
        "{} is a disk's own place, onto which a backup can't be moved: mount the disk at {} instead",
        config.data_dir.display(),
        parent.display()
    );
    let all = backup.keys().len();
    let place = Destination { hosts: BTreeSet::new(), services };
    fit(&mut backup, &place);
    let kept = backup.keys().len();
    // Beside its place, and moved there whole: data that are there are another host's to those who install one.
    let building = config.data_dir.with_file_name(BUILDING);
    let failed = || format!("can't write {}", building.display());
    match fs::remove_dir_all(&building) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(failed),
        _ => {}
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&building).with_context(failed)?;
    let member = FirstMember {
        name: &config.name,
        cluster_id: &config.cluster_id,
        peers: &config.peers_at(config.ports.store),
        data_dir: &crate::host::store_dir_in(&building),
    };
    let state = backup.into_state().with_sealing(sealing(config.encryption_file.as_deref())?);
    member.begin_with(state)?;
    // Moved there, they pass for a host's until there is a configuration: an attempt that is interrupted in between knows its own.
    let attempt = Attempt::First { cluster_id: config.cluster_id.clone() };
    let write = || {
        let mut file = fs::File::create(Layout::restored_file(&building))?;
        file.write_all(attempt.to_string().as_bytes())?;
        file.sync_all()
    };
    write().with_context(failed)?;
    fs::rename(&building, &config.data_dir)
        .with_context(|| format!("can't write {}", config.data_dir.display()))?;
    fs::File::open(parent).and_then(|parent| parent.sync_all()).with_context(failed)?;
    Ok((kept, all))
}

fn fit(backup: &mut Backup, place: &Destination) {
    backup.fit(|kv| {
        let mut value = kv.value.bytes();
        let kept = place.fit(&kv.key, &mut value);
        kv.value = value.into();
        kept
    });
}

/// Makes the cluster. It is there whole or not at all.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut backup = read(&args.file)?;
    open(&mut backup, args.encryption_file.as_deref(), "with --encryption-file")?;
    check_free(&args.dir)?;
    let net = args.net.kind(None)?;
    let dir = std::path::absolute(&args.dir)?;
    let parent = dir.parent().unwrap_or(Path::new("/"));
    let failed = || format!("can't write {}", parent.display());
    fs::create_dir_all(parent).with_context(failed)?;
    let building = tempfile::Builder::new().prefix(".restore-").tempdir_in(parent).with_context(failed)?;
    let folder = Folder::open_or_create(&building.path().join("cluster"), args.nodes as usize, net)?;

    let addresses = folder.addresses();
    let hosts = addresses.peers(folder.record().nodes).into_keys().collect();
    let place = Destination { hosts, services: addresses.first_service() };
    let (keys, revision) = (backup.keys().len(), backup.revision());
    fit(&mut backup, &place);
    let kept = backup.keys().len();
    begin(&folder, backup.into_state())?;

    let built = folder.path().to_owned();
    drop(folder);
    // An empty folder in its place gives way.
    fs::rename(&built, &dir).with_context(|| format!("can't write {}", dir.display()))?;
    fs::File::open(parent).and_then(|parent| parent.sync_all()).with_context(failed)?;
    say!(
        "{}: {kept} of {keys} keys of revision {revision}, for {}; left out is what was of hosts that are no more",
        dir.display(),
        count(args.nodes as usize, "host"),
    );
    show(&format!("holdfast up --dir {}\n", quoted(&args.dir)))
}

/// Gives every host of a new cluster the same beginning.
fn begin(folder: &Folder, state: State) -> anyhow::Result<()> {
    for name in folder.addresses().peers(folder.record().nodes).into_keys() {
        let config = HostConfig::load(&folder.config_file(&name))?;
        let member = FirstMember {
            name: &name,
            cluster_id: &config.cluster_id,
            peers: &config.peers_at(config.ports.store),
            data_dir: &crate::host::store_dir(&config),
        };
        member.begin_with(state.clone())?;
    }
    Ok(())
}

/// Reads a backup and makes sure that nothing in it was changed.
pub fn read(path: &Path) -> anyhow::Result<Backup> {
    let bytes = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    Backup::decode(bytes.into()).with_context(|| format!("{} can't be restored", path.display()))
}

/// Opens what is encrypted in a backup. `how` says how the file with its keys is given.
pub fn open(backup: &mut Backup, encryption_file: Option<&Path>, how: &str) -> anyhow::Result<()> {
    if encryption_file.is_some() {
        let sealing = sealing(encryption_file)?;
        backup.fit(|kv| {
            *kv = sealing.opened(kv.clone());
            true
        });
    }
    let sealed = backup.keys().iter().filter(|kv| kv.value.bytes().starts_with(SEALED)).count();
    anyhow::ensure!(
        sealed == 0,
        "{} of the backup can't be read: give the old cluster's file of keys {how}",
        count(sealed, "encrypted value")
    );
    Ok(())
}

/// How values are sealed by a file with keys, if there is one.
fn sealing(encryption_file: Option<&Path>) -> anyhow::Result<Sealing> {
    Ok(match encryption_file {
        Some(path) => Sealing::by(Encryption::load(path)?),
        None => Sealing::default(),
    })
}

fn check_free(dir: &Path) -> anyhow::Result<()> {
    let is_free = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(error).with_context(|| format!("can't restore into {}", dir.display())),
    };
    anyhow::ensure!(
        is_free,
        "{} isn't empty: a backup becomes a new cluster, in a folder of its own; give another with --dir",
        dir.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use store::{BackupFile, Txn};

    use super::*;

    const RULES: &str = r#"{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": [
        {"resources": ["secrets"], "providers": [{"aesgcm": {"keys": [
            {"name": "a", "secret": "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="}]}}]}]}"#;

    #[test]
    fn what_is_encrypted_in_a_backup_is_opened_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys.yaml");
        fs::write(&keys, RULES).unwrap();
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
        let mut state = State::default().with_sealing(sealing(Some(&keys)).unwrap());
        state.apply(&Txn::put("/registry/core/secrets/shop/key", "the word")).unwrap();
        let file: Vec<u8> = BackupFile::new(Arc::new(state)).flatten().collect();
        let mut backup = Backup::decode(file.into()).unwrap();
        let error = open(&mut backup, None, "by a flag").unwrap_err().to_string();
        assert!(
            error.starts_with("1 encrypted value") && error.ends_with("file of keys by a flag"),
            "{error}"
        );
        open(&mut backup, Some(&keys), "by a flag").unwrap();
        assert_eq!(backup.keys()[0].value.bytes(), "the word");
    }
}
