//! A new cluster that begins with a state that is there already.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use super::disk::Folder;
use super::folder::{Claimant, begin};
use super::image::Image;
use super::machine::Machine;
use super::membership::Membership;
use super::{Start, StartError};
use crate::State;

/// A member of a cluster that has yet to start for the first time.
#[derive(Debug, Clone, Copy)]
pub struct FirstMember<'a> {
    /// The member's name.
    pub name: &'a str,
    /// The new cluster's name.
    pub cluster_id: &'a str,
    /// All its members with their addresses, this one included.
    pub peers: &'a BTreeMap<String, SocketAddr>,
    /// Where the member's data will lie: an empty folder, or none yet.
    pub data_dir: &'a Path,
}

impl FirstMember<'_> {
    /// Makes the member's folder, so that its cluster begins with `state`. To be done for all members, with the same
    /// state, before any of them starts.
    ///
    /// # Errors
    /// [`StartError`]: the folder can't be written, or holds something.
    pub fn begin_with(&self, state: State) -> Result<(), StartError> {
        let failed = |source| StartError::Folder { folder: self.data_dir.to_owned(), source };
        let disk = Folder::new(self.data_dir).map_err(failed)?;
        let lock = disk.lock().map_err(failed)?;
        let _lock = lock.ok_or_else(|| StartError::InUse(self.data_dir.to_owned()))?;
        if super::folder::is_claimed(&disk).map_err(failed)? {
            let (found, wanted) = ("a member".to_owned(), "nobody yet".to_owned());
            return Err(StartError::Foreign { folder: self.data_dir.to_owned(), found, wanted });
        }
        let first = Membership::initial(self.peers);
        let claimant = Claimant {
            cluster: self.cluster_id,
            member: self.name,
            first: &first,
            start: Start::Bootstrap,
            folder: self.data_dir,
        };
        let initial = Image::initial(first.clone());
        // Leases have their whole time, as of the entry that the beginning counts as.
        let lease_starts = state.leases().map(|(lease, _)| (lease, initial.index)).collect();
        let machine = Machine { state, lease_starts, ..initial.machine };
        begin(&disk, &claimant, &Image { machine, ..initial }).map(|_| ())
    }
}
