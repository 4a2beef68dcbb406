//! Who a pod's processes are: what its security contexts name, and what the files `/etc/passwd` and `/etc/group` of the
//! host, or of an image, add to that.

use std::collections::BTreeSet;
use std::fs;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext};

/// A number of a user or group as the API has it.
pub(crate) fn id(id: Option<i64>) -> Option<u32> {
    id.and_then(|id| u32::try_from(id).ok())
}

/// The context that a pod's containers share.
pub(crate) fn of_pod(pod: &Pod) -> Option<&PodSecurityContext> {
    pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref())
}

/// The users that the pod's containers ask for.
pub(super) fn users(pod: &Pod) -> BTreeSet<Option<u32>> {
    let shared = id(of_pod(pod).and_then(|shared| shared.run_as_user));
    let own = |container: &Container| container.security_context.as_ref().and_then(|own| id(own.run_as_user));
    // Those that were added to look inside change nobody's files.
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    containers.map(|container| own(container).or(shared)).collect()
}

/// The group that the pod's volumes belong to, if it names one.
pub(crate) fn volume_group(pod: &Pod) -> Option<u32> {
    id(of_pod(pod).and_then(|shared| shared.fs_group))
}

/// Whose the pod's own folder is, user and group: the one that all its containers run as.
pub(crate) fn folder_owner(pod: &Pod) -> (Option<u32>, Option<u32>) {
    let users = users(pod);
    let user = users.first().copied().flatten().filter(|_| users.len() == 1);
    (user, id(of_pod(pod).and_then(|shared| shared.run_as_group)))
}

/// The texts of `/etc/passwd` and `/etc/group`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub passwd: String,
    pub group: String,
}

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account<'a> {
    pub name: &'a str,
    pub user: u32,
    /// The first of its groups.
    pub group: u32,
    /// Its folder.
    pub home: &'a str,
}

/// The groups of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Groups {
    /// The one that its files get.
    pub first: u32,
    /// All, that one too.
    pub all: Vec<u32>,
}

impl Accounts {
    /// The host's own.
    pub(crate) fn of_host() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Accounts { passwd: text("/etc/passwd"), group: text("/etc/group") }
    }

    fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, user, group) = (fields.next()?, fields.nth(1)?, fields.next()?);
            let home = fields.nth(1).unwrap_or_default();
            Some(Account { name, user: user.parse().ok()?, group: group.parse().ok()?, home })
        })
    }

    /// The first line of a user's number.
    pub(crate) fn of_user(&self, user: u32) -> Option<Account<'_>> {
        self.accounts().find(|account| account.user == user)
    }

    /// The first line of a user's name.
    pub(crate) fn named(&self, name: &str) -> Option<Account<'_>> {
        self.accounts().find(|account| account.name == name)
    }

    /// The number of a group by its name.
    pub(crate) fn group_named(&self, name: &str) -> Option<u32> {
        self.group.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
        })
    }

    /// The groups that list a user of that name.
    fn groups_of(&self, name: &str) -> impl Iterator<Item = u32> {
        self.group.lines().filter_map(move |line| {
            let mut fields = line.split(':');
            let id = fields.nth(2)?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == name).then_some(id)
        })
    }

    /// The groups of a user, as container runtimes reckon them: `/etc/passwd` says which is a user's first unless one is
    /// `asked` for (for an unknown user it is 0), and `/etc/group` which else, unless the pod's policy is `Strict`.
    pub(crate) fn groups(&self, user: u32, asked: Option<u32>, shared: &PodSecurityContext) -> Groups {
        let account = self.of_user(user);
        let first = asked.unwrap_or(account.map_or(0, |account| account.group));
        let mut all = vec![first];
        if shared.supplemental_groups_policy.as_deref() != Some("Strict")
            && let Some(account) = account
        {
            all.extend(self.groups_of(account.name));
        }
        all.extend(more(shared));
        let mut seen = BTreeSet::new();
        all.retain(|group| seen.insert(*group));
        Groups { first, all }
    }
}

/// The groups that a pod adds.
pub(crate) fn more(shared: &PodSecurityContext) -> impl Iterator<Item = u32> {
    let named = shared.supplemental_groups.iter().flatten().filter_map(|group| id(Some(*group)));
    named.chain(id(shared.fs_group))
}
