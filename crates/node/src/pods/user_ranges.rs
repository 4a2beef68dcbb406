//! The users of the host that pods have for their own (`hostUsers: false`): each pod a range that no other pod has. Which it
//! is stands in the pod's folder, so that the host's next process finds it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::oci::Mapping;

/// How many users a pod has: what KEP-127 promises it.
const SIZE: u32 = 1 << 16;
/// The first range is the host's own; the last ones are left to it, too.
const RANGES: std::ops::Range<u32> = 1..(u32::MAX / SIZE - 1);

/// The ranges of a host.
#[derive(Debug, Default)]
pub(crate) struct UserRanges(Mutex<()>);

fn file(pod: &Path) -> PathBuf {
    pod.join("users")
}

/// The number of a pod's range, if it has one.
fn of_pod(pod: &Path) -> Option<u32> {
    fs::read_to_string(file(pod)).ok()?.trim().parse().ok()
}

impl UserRanges {
    /// The range of the pod whose folder is `uid` in the folder of all pods: its own one, or one that nobody has.
    ///
    /// # Errors
    /// If it can't be written down, or none is left.
    pub(crate) fn of(&self, pods: &Path, uid: &str) -> io::Result<Mapping> {
        let _one_at_a_time = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pod = pods.join(uid);
        let number = match of_pod(&pod) {
            Some(number) => number,
            None => {
                let folders = fs::read_dir(pods)?.flatten();
                let used: BTreeSet<u32> = folders.filter_map(|entry| of_pod(&entry.path())).collect();
                let free = RANGES.into_iter().find(|number| !used.contains(number));
                let number = free.ok_or_else(|| io::Error::other("no range of users is left for the pod"))?;
                fs::write(file(&pod), number.to_string())?;
                number
            }
        };
        Ok(Mapping { container_id: 0, host_id: number.saturating_mul(SIZE), size: SIZE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_pods_have_a_user_in_common() {
        let folder = tempfile::tempdir().unwrap();
        let of = |uid: &str| {
            fs::create_dir_all(folder.path().join(uid)).unwrap();
            UserRanges::default().of(folder.path(), uid).unwrap().host_id
        };
        assert_eq!((of("a"), of("b"), of("a")), (65_536, 131_072, 65_536));
        fs::remove_dir_all(folder.path().join("a")).unwrap();
        assert_eq!((of("c"), of("d"), of("b")), (65_536, 196_608, 131_072), "what is free is given again");
    }
}
