//! The processes of a host beside its program, each of which may end by itself.

use std::path::Path;

use crate::tree::{self, Process};

/// A kind of process that a host has beside its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// What takes the host's addresses from its link once it has no right to them; one in each host with a link.
    AddressKeeper,
    /// What a pod's containers run under; one for each pod.
    Shim,
    /// What ends a pod that must not run twice with the host's lease; one for each such pod.
    PodKeeper,
}

impl Component {
    /// All of them.
    pub const ALL: [Component; 3] = [Component::AddressKeeper, Component::Shim, Component::PodKeeper];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Component::AddressKeeper => "address-keeper",
            Component::Shim => "shim",
            Component::PodKeeper => "pod-keeper",
        }
    }

    /// That of this name.
    pub fn named(name: &str) -> Option<Self> {
        Component::ALL.into_iter().find(|component| component.name() == name)
    }

    /// Where there is one, for those who found none.
    pub(crate) fn whereabouts(self) -> &'static str {
        match self {
            Component::AddressKeeper => "hosts with links have one (--net netns)",
            Component::Shim => "each pod has one",
            Component::PodKeeper => {
                "each pod that must not run twice has one, such as those of a StatefulSet"
            }
        }
    }

    /// Those of a host, which is the process `program` and has its pods in `folder`.
    pub(crate) fn of(self, program: i32, folder: &Path) -> Vec<Process> {
        let found = match self {
            Component::AddressKeeper => {
                let is_keeper = |process: &Process| {
                    process.parent == program && tree::first_argument(process.pid) == b"address-keeper"
                };
                return tree::processes().unwrap_or_default().into_iter().filter(is_keeper).collect();
            }
            Component::Shim => "holdfast-shim",
            Component::PodKeeper => "holdfast-keeper",
        };
        // A keeper has the arguments of its shim, and both have a name of their own in the table of processes.
        let shims = tree::shims(folder).into_iter().filter(|pid| tree::name(*pid) == found);
        shims.filter_map(tree::look_up).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that looks like one of a host's, and waits.
    fn pretend(folder: &Path, argument: &str, name: &str) -> Child {
        let script = folder.join(argument);
        std::fs::write(&script, format!("printf {name} > /proc/self/comm\necho ready\nread _\n")).unwrap();
        let mut command = Command::new("sh");
        command.arg(argument).arg(folder.join("pod")).current_dir(folder);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        child
    }

    #[test]
    fn each_component_is_found_and_nothing_else() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pretended =
            [("address-keeper", "holdfast"), ("shim", "holdfast-shim"), ("shim", "holdfast-keeper")];
        let mut strange = pretend(other.path(), "shim", "holdfast-shim");
        let mut children = pretended.map(|(argument, name)| pretend(folder.path(), argument, name));
        let me = std::process::id() as i32;
        for (component, child) in Component::ALL.into_iter().zip(&mut children) {
            let found = component.of(me, folder.path());
            let pids: Vec<i32> = found.iter().map(|process| process.pid).collect();
            assert_eq!(pids, [child.id() as i32], "{}", component.name());
            tree::kill_these(&found).unwrap();
            child.wait().unwrap();
            assert_eq!(component.of(me, folder.path()), []);
            assert_eq!(Component::named(component.name()), Some(component));
        }
        assert_eq!(strange.try_wait().unwrap(), None, "another host's");
        strange.kill().unwrap();
        strange.wait().unwrap();
        assert_eq!((Component::named("scheduler"), Component::named("")), (None, None));
    }
}
