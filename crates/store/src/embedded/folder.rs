//! Whose data a folder holds: refused where it is another cluster's or member's.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::Start;
use super::disk::{Disk, replace};
use super::error::StartError;
use super::image::{Image, PIECE};
use super::log::{is_log, is_snapshot, save};
use super::membership::Membership;
use crate::MemberId;

const NAME: &str = "member.json";
const VERSION: u32 = 2;

/// Written into the folder when it is made, and again with every start; a checksum stands on the line behind.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Owner {
    version: u32,
    cluster: String,
    member: String,
    id: MemberId,
    /// How many times the member started.
    boot: u64,
    /// Whether it joined a cluster that was there.
    joins: bool,
    /// Whether it took part, so that its log must be there.
    begun: bool,
    /// Whether the cluster has removed it.
    removed: bool,
}

/// The member that claims a folder.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// The member's name.
    pub member: &'a str,
    /// Whom a cluster begins with that begins here.
    pub first: &'a Membership,
    /// What an empty folder means.
    pub start: Start,
    /// Where the folder is, for messages.
    pub folder: &'a Path,
}

/// Whose the folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// This member's; and which of its starts this is.
    Member(MemberId, u64),
    /// Nobody's yet: the member is to ask for its number, and then to [`settle`].
    Newcomer,
}

/// Makes the folder this member's, or makes sure that it is.
pub fn claim(disk: &dyn Disk, claimant: &Claimant<'_>) -> Result<Claim, StartError> {
    let Claimant { cluster, member, folder, .. } = *claimant;
    let failed = |source| StartError::Folder { folder: folder.to_owned(), source };
    let names = disk.list().map_err(failed)?;
    let has_image = names.iter().any(|name| is_snapshot(name));
    let has_log = names.iter().any(|name| is_log(name) || is_snapshot(name));
    let owner = match names.iter().any(|name| name == NAME) {
        true => Some(read(disk, claimant)?),
        false if has_log => return Err(damaged("the file is missing, though there is a log")),
        false => None,
    };
    if let Some(owner) = &owner {
        let foreign = |found, wanted| Err(StartError::Foreign { folder: folder.to_owned(), found, wanted });
        if owner.cluster != cluster {
            return foreign(format!("cluster {:?}", owner.cluster), format!("cluster {cluster:?}"));
        }
        if owner.member != member {
            return foreign(format!("member {}", owner.member), format!("member {member}"));
        }
        if owner.removed {
            return Err(StartError::Removed(folder.to_owned()));
        }
    }
    match owner {
        Some(owner) if owner.begun && !has_image => Err(StartError::Damaged {
            file: "snapshot".into(),
            offset: 0,
            what: "the file is missing, though this member took part".into(),
        }),
        Some(owner) if owner.begun || owner.joins && has_image => {
            let owner = Owner { boot: owner.boot + 1, begun: true, ..owner };
            write(disk, claimant, &owner)?;
            Ok(Claim::Member(owner.id, owner.boot))
        }
        // One that joined has no log before it gets everything from the leader. What was it until then nobody
        // can say for sure, so it asks once more and is somebody new.
        Some(owner) if owner.joins => Ok(Claim::Newcomer),
        None if claimant.start == Start::Join => Ok(Claim::Newcomer),
        _ => begin(disk, claimant, &Image::initial(claimant.first.clone())),
    }
}

/// Whether the folder is anybody's.
pub fn is_claimed(disk: &dyn Disk) -> std::io::Result<bool> {
    Ok(disk.list()?.iter().any(|name| name == NAME || is_log(name) || is_snapshot(name)))
}

/// A cluster begins, with this image: all its first members do the same.
pub fn begin(disk: &dyn Disk, claimant: &Claimant<'_>, image: &Image) -> Result<Claim, StartError> {
    let failed = |source| StartError::Folder { folder: claimant.folder.to_owned(), source };
    let named = claimant.first.iter().find(|(_, record)| record.name == claimant.member);
    let unnamed = || StartError::Config(format!("member {} is not among its own peers", claimant.member));
    let (id, _) = named.ok_or_else(unnamed)?;
    let mut owner = owner(claimant, id, false);
    write(disk, claimant, &owner)?;
    wipe(disk).map_err(failed)?;
    save(disk, image.clone(), PIECE).map_err(failed)?;
    owner.begun = true;
    write(disk, claimant, &owner)?;
    Ok(Claim::Member(id, owner.boot))
}

/// Makes the folder that of a member that was let in under a number; tells which start this is.
pub fn settle(disk: &dyn Disk, claimant: &Claimant<'_>, id: MemberId) -> Result<u64, StartError> {
    let failed = |source| StartError::Folder { folder: claimant.folder.to_owned(), source };
    let owner = owner(claimant, id, true);
    wipe(disk).map_err(failed)?;
    write(disk, claimant, &owner)?;
    Ok(owner.boot)
}

/// Notes that the cluster has removed the member.
pub fn retire(disk: &dyn Disk) -> std::io::Result<()> {
    let mut owner = decode(&disk.read(NAME)?).map_err(std::io::Error::other)?;
    owner.removed = true;
    replace(disk, NAME, [encode(&owner)?]).map(|_| ())
}

fn owner(claimant: &Claimant<'_>, id: MemberId, joins: bool) -> Owner {
    Owner {
        version: VERSION,
        cluster: claimant.cluster.into(),
        member: claimant.member.into(),
        id,
        boot: 1,
        joins,
        begun: false,
        removed: false,
    }
}

/// Removes what a start left that never came to take part.
fn wipe(disk: &dyn Disk) -> std::io::Result<()> {
    for name in disk.list()?.iter().filter(|name| is_log(name) || is_snapshot(name)) {
        disk.remove(name)?;
    }
    disk.sync_folder()
}

fn read(disk: &dyn Disk, claimant: &Claimant<'_>) -> Result<Owner, StartError> {
    let failed = |source| StartError::Folder { folder: claimant.folder.to_owned(), source };
    decode(&disk.read(NAME).map_err(failed)?).map_err(|what| damaged(&what))
}

fn write(disk: &dyn Disk, claimant: &Claimant<'_>, owner: &Owner) -> Result<(), StartError> {
    let failed = |source| StartError::Folder { folder: claimant.folder.to_owned(), source };
    let content = encode(owner).map_err(failed)?;
    replace(disk, NAME, [content]).map(|_| ()).map_err(failed)
}

fn encode(owner: &Owner) -> std::io::Result<Vec<u8>> {
    let mut content = serde_json::to_vec(owner)?;
    let checksum = crc32fast::hash(&content);
    content.extend(format!("\n{checksum:08x}\n").into_bytes());
    Ok(content)
}

fn decode(content: &[u8]) -> Result<Owner, String> {
    let lines: Vec<&[u8]> = content.split(|byte| *byte == b'\n').collect();
    let [owner, checksum, b""] = lines[..] else {
        return Err("it is not one line and its checksum".into());
    };
    if format!("{:08x}", crc32fast::hash(owner)).as_bytes() != checksum {
        return Err("its checksum does not match".into());
    }
    let owner: Owner = serde_json::from_slice(owner).map_err(|problem| problem.to_string())?;
    if owner.version != VERSION {
        return Err(format!("it is of version {}, and this program knows {VERSION}", owner.version));
    }
    Ok(owner)
}

fn damaged(what: &str) -> StartError {
    StartError::Damaged { file: NAME.into(), offset: 0, what: what.into() }
}
