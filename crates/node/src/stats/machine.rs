//! What the machine uses, as the kernel tells it.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;

use crate::runtime::Usage;

/// What the machine uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Its processors' and memory's use. `processes` are all threads, which is what the kernel's limit counts.
    pub usage: Usage,
    /// Memory that there is, in bytes.
    pub memory: u64,
    /// How many threads there may be.
    pub most_processes: u64,
    pub swap: Swap,
    /// When it was switched on.
    pub since: Option<Timestamp>,
}

/// Memory on disk, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Swap {
    pub total: u64,
    pub free: u64,
}

impl Machine {
    /// As it is now. What can't be read is nothing.
    pub(crate) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let number = |path: &str| text(path).trim().parse::<u64>().ok();
        let most = [number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max")];
        let most = most.into_iter().flatten().min().unwrap_or(0);
        Machine::of(
            &text("/proc/stat"),
            &text("/proc/meminfo"),
            &text("/proc/vmstat"),
            &text("/proc/loadavg"),
            most,
        )
    }

    fn of(stat: &str, memory: &str, vmstat: &str, load: &str, most_processes: u64) -> Self {
        let bytes = |name: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
            kib.unwrap_or(0).saturating_mul(1024)
        };
        let count = |name: &str| {
            let lines = vmstat.lines().filter_map(|line| line.split_once(' '));
            lines.into_iter().find(|(known, _)| *known == name).and_then(|(_, count)| count.parse().ok())
        };
        let total = bytes("MemTotal");
        let begun = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
        Machine {
            usage: Usage {
                cpu: busy(stat).unwrap_or_default(),
                memory: total.saturating_sub(bytes("MemAvailable")),
                with_files: total.saturating_sub(bytes("MemFree")),
                rss: bytes("AnonPages"),
                faults: count("pgfault").unwrap_or(0),
                major_faults: count("pgmajfault").unwrap_or(0),
                processes: threads(load).unwrap_or(0),
            },
            memory: total,
            most_processes,
            swap: Swap { total: bytes("SwapTotal"), free: bytes("SwapFree") },
            since: begun.and_then(|seconds: i64| Timestamp::from_second(seconds).ok()),
        }
    }
}

/// The busy time of all processors (proc_stat(5)), in hundredths of a second: user, nice, system, irq, softirq and steal. What
/// guests had is in user's already.
fn busy(stat: &str) -> Option<Duration> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let ticks = [0, 1, 2, 5, 6, 7].into_iter().filter_map(|field| fields.get(field)).sum::<u64>();
    Some(Duration::from_millis(ticks * 10))
}

/// How many threads there are: `RUNNING/ALL` is the fourth field (proc_loadavg(5)).
fn threads(load: &str) -> Option<u64> {
    load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_idles_is_not_used() {
        let stat = "cpu  100 20 30 9999 50 5 6 7 0 0\ncpu0 1\nbtime 1700000000\n";
        let memory = "MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable:    400 kB\nAnonPages:  300 kB\n\
            SwapTotal:  20 kB\nSwapFree:  5 kB\n";
        let vmstat = "pgfault 77\npgmajfault 7\n";
        let machine = Machine::of(stat, memory, vmstat, "0.00 0.01 0.05 2/123 4567\n", 4096);
        let expected = Machine {
            usage: Usage {
                cpu: Duration::from_millis(1680),
                memory: 600 * 1024,
                with_files: 900 * 1024,
                rss: 300 * 1024,
                faults: 77,
                major_faults: 7,
                processes: 123,
            },
            memory: 1000 * 1024,
            most_processes: 4096,
            swap: Swap { total: 20 * 1024, free: 5 * 1024 },
            since: Timestamp::from_second(1_700_000_000).ok(),
        };
        assert_eq!(machine, expected);
        assert_eq!(busy("nothing"), None);
    }

    #[test]
    fn this_very_machine_uses_something() {
        let machine = Machine::read();
        assert!(machine.memory > machine.usage.memory && machine.usage.memory > 0, "{machine:?}");
        assert!(
            machine.most_processes > machine.usage.processes && machine.usage.processes > 0,
            "{machine:?}"
        );
    }
}
