//! Whose data a folder holds: refused where it is another cluster's or member's.

use serde::{Deserialize, Serialize};

use super::config::Config;
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

/// Makes the folder this member's, or makes sure that it is; tells which start this is.
pub fn claim(disk: &dyn Disk, config: &Config) -> Result<u64, StartError> {
    let folder = &config.data_dir;
    let failed = |source| StartError::Folder { folder: folder.clone(), source };
    let members: Vec<String> = config.peers.keys().cloned().collect();
    let names = disk.list().map_err(failed)?;
    let mut owner = Owner {
        cluster: config.cluster_id.clone(),
        member: config.name.clone(),
        members: members.clone(),
        boot: 0,
    };
    if names.iter().any(|name| name == NAME) {
        let content = disk.read(NAME).map_err(failed)?;
        owner = serde_json::from_slice(&content).map_err(|problem| StartError::Damaged {
            file: NAME.into(),
            offset: problem.column() as u64,
            what: problem.to_string(),
        })?;
        let foreign = |found, wanted| Err(StartError::Foreign { folder: folder.clone(), found, wanted });
        if owner.cluster != config.cluster_id {
            let (found, wanted) = (&owner.cluster, &config.cluster_id);
            return foreign(format!("cluster {found:?}"), format!("cluster {wanted:?}"));
        }
        if owner.member != config.name {
            return foreign(format!("member {}", owner.member), format!("member {}", config.name));
        }
        if owner.members != members {
            let list = |members: &[String]| format!("a cluster of {}", members.join(", "));
            return foreign(list(&owner.members), list(&members));
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
