//! Whose data a folder holds: refused where it is another cluster's or member's.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::disk::{Disk, replace};
use super::error::StartError;

const NAME: &str = "member.json";

/// Written into the folder when it is made, and again with every start.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    cluster: String,
    member: String,
    members: Vec<String>,
    /// How many times the member started.
    boot: u64,
}

/// Who claims a folder.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// The member's name.
    pub member: &'a str,
    /// All members' names, in order.
    pub members: &'a [String],
    /// Where the folder is, for messages.
    pub folder: &'a Path,
}

/// Makes the folder this member's, or makes sure that it is; tells which start this is.
pub fn claim(disk: &dyn Disk, claimant: &Claimant<'_>) -> Result<u64, StartError> {
    let Claimant { cluster, member, members, folder } = *claimant;
    let failed = |source| StartError::Folder { folder: folder.to_owned(), source };
    let names = disk.list().map_err(failed)?;
    let mut owner =
        Owner { cluster: cluster.into(), member: member.into(), members: members.to_vec(), boot: 0 };
    if names.iter().any(|name| name == NAME) {
        let content = disk.read(NAME).map_err(failed)?;
        owner = serde_json::from_slice(&content).map_err(|problem| StartError::Damaged {
            file: NAME.into(),
            offset: problem.column() as u64,
            what: problem.to_string(),
        })?;
        let foreign = |found, wanted| Err(StartError::Foreign { folder: folder.to_owned(), found, wanted });
        if owner.cluster != cluster {
            return foreign(format!("cluster {:?}", owner.cluster), format!("cluster {cluster:?}"));
        }
        if owner.member != member {
            return foreign(format!("member {}", owner.member), format!("member {member}"));
        }
        if owner.members != members {
            let list = |members: &[String]| format!("a cluster of {}", members.join(", "));
            return foreign(list(&owner.members), list(members));
        }
    } else if names.iter().any(|name| name.starts_with("log-") || name.starts_with("snapshot-")) {
        return Err(StartError::Damaged {
            file: NAME.into(),
            offset: 0,
            what: "the file is missing, though there is a log".into(),
        });
    }
    owner.boot += 1;
    let content = serde_json::to_vec(&owner).map_err(|problem| failed(problem.into()))?;
    replace(disk, NAME, &content).map_err(failed)?;
    Ok(owner.boot)
}
