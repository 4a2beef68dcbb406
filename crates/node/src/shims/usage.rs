//! What containers use: as their cgroups say, or where they have none, their processes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tracing::info_span;

use crate::container::cgroup::{Cgroups, Used};
use crate::runtime::{Begun, Usage, Which};

/// The containers that run, as far as nobody has heard of their end.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashMap<Which, Begun>>);

impl Running {
    fn all(&self) -> MutexGuard<'_, HashMap<Which, Begun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its first process.
    pub fn first_process(&self, which: &Which) -> Option<i32> {
        self.all().get(which).map(|begun| begun.pid)
    }

    /// A container was started.
    pub fn begin(&self, which: &Which, begun: Begun) {
        self.all().insert(which.clone(), begun);
    }

    /// It has ended.
    pub fn end(&self, which: &Which) {
        self.all().remove(which);
    }

    /// All of a pod have.
    pub fn end_pod(&self, uid: &str) {
        self.all().retain(|which, _| which.uid != uid);
    }

    /// What each uses, with when it began.
    pub async fn usage(&self, cgroups: Option<Arc<Cgroups>>) -> Vec<(Which, Timestamp, Usage)> {
        let running = self.all().clone();
        let asked = running.iter().map(|(which, begun)| (which.clone(), begun.pid)).collect();
        let span = info_span!("what the containers use");
        let used = tasks::blocking(span, move || of(cgroups.as_deref(), asked)).await.unwrap_or_default();
        let since = |which: &Which| running.get(which).map(|begun| begun.since);
        used.into_iter().filter_map(|(which, usage)| Some((which.clone(), since(&which)?, usage))).collect()
    }
}

/// What each of these containers uses; each comes with its first process. Blocks.
fn of(cgroups: Option<&Cgroups>, running: Vec<(Which, i32)>) -> Vec<(Which, Usage)> {
    let mut processes = None;
    let mut one = |(which, pid): (Which, i32)| {
        let said = cgroups.map(|cgroups| cgroups.usage(&which.uid, &which.container)).unwrap_or_default();
        let mut usage = match said {
            Used { cpu: Some(_), memory: Some(_), processes: Some(_) } => Usage::default(),
            // Read once for all containers.
            _ => processes.get_or_insert_with(Processes::read).beneath(pid),
        };
        usage.cpu = said.cpu.unwrap_or(usage.cpu);
        usage.processes = said.processes.unwrap_or(usage.processes);
        (which, said.memory.map_or(usage, |memory| usage.with(memory)))
    };
    running.into_iter().map(&mut one).collect()
}

/// All processes of the machine.
#[derive(Default)]
struct Processes {
    used: BTreeMap<i32, Usage>,
    children: BTreeMap<i32, Vec<i32>>,
    sessions: BTreeMap<i32, Vec<i32>>,
}

impl Processes {
    fn read() -> Self {
        let (tick, page) = (system(libc::_SC_CLK_TCK, 100), system(libc::_SC_PAGESIZE, 4096));
        let mut all = Processes::default();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Ok(stat) = fs::read_to_string(entry.path().join("stat")) {
                all.take(pid, &stat, tick, page);
            }
        }
        all
    }

    /// One line of the table (proc_pid_stat(5)): times are in ticks a second, memory in pages.
    fn take(&mut self, pid: i32, stat: &str, tick: u64, page: u64) -> Option<()> {
        // Behind the name, which may hold anything, the third field is the first.
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        // Its own time, and that of its children that have ended.
        let ticks = (14..=17).try_fold(0_u64, |sum, field| Some(sum + number(field)?))?;
        let (parent, session) = (fields.get(1)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        let cpu = Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / tick.max(1)));
        let rss = number(24)?.saturating_mul(page);
        let used = Usage {
            cpu,
            memory: rss,
            with_files: rss,
            rss,
            // With those of its children that have ended.
            faults: number(10)?.saturating_add(number(11)?),
            major_faults: number(12)?.saturating_add(number(13)?),
            processes: 1,
        };
        self.used.insert(pid, used);
        self.children.entry(parent).or_default().push(pid);
        self.sessions.entry(session).or_default().push(pid);
        Some(())
    }

    /// What a process uses with all that it has made: those beneath it, and those of its session, whose parents may have ended.
    fn beneath(&self, pid: i32) -> Usage {
        let mut todo: Vec<i32> = self.sessions.get(&pid).cloned().unwrap_or_default();
        todo.push(pid);
        let (mut seen, mut sum) = (BTreeSet::new(), Usage::default());
        while let Some(pid) = todo.pop() {
            if seen.insert(pid) {
                let used = self.used.get(&pid).copied().unwrap_or_default();
                sum = sum.and(used);
                todo.extend(self.children.get(&pid).into_iter().flatten());
            }
        }
        sum
    }
}

/// A number of the system's.
fn system(name: libc::c_int, otherwise: u64) -> u64 {
    // SAFETY: it takes a number and returns one.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).ok().filter(|value| *value > 0).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beneath_a_process_and_in_its_session_is_its_own() {
        let mut all = Processes::default();
        let stat = |parent: i32, session: i32, ticks: u64, pages: u64| {
            format!(
                "7 (a ) b) S {parent} 7 {session} 0 -1 0 0 0 0 0 {ticks} 1 {ticks} 1 20 0 1 0 100 9000 {pages} 1"
            )
        };
        for (pid, parent, session, ticks, pages) in [
            (10, 5, 10, 100, 10),
            (11, 10, 10, 50, 5),
            // Its parent has ended.
            (12, 5, 10, 25, 1),
            // A session of its own.
            (13, 11, 13, 10, 1),
            (20, 5, 20, 1000, 100),
        ] {
            all.take(pid, &stat(parent, session, ticks, pages), 100, 4096).unwrap();
        }
        let used = all.beneath(10);
        assert_eq!(used.cpu, Duration::from_millis(2 * 1850 + 4 * 20));
        assert_eq!((used.memory, used.processes), (17 * 4096, 4));
        assert_eq!(all.beneath(99), Usage::default());
        assert_eq!(all.take(1, "1 (x) S 1", 100, 4096), None);
    }

    #[test]
    fn this_very_process_uses_something() {
        let used = Processes::read().beneath(i32::try_from(std::process::id()).unwrap());
        assert!(used.memory > 1 << 20, "{used:?}");
    }
}
