//! Processors, memory, limits.

use std::fs;

use super::text;
use crate::facts::{Limits, Memory, Resources};

/// The time of all processors together, in the kernel's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessorsTime {
    all: u64,
    stolen: u64,
}

impl ProcessorsTime {
    /// What share was stolen: since the start, and since an earlier look.
    pub fn stolen(self, before: Self) -> [f64; 2] {
        let share = |stolen: u64, all: u64| if all == 0 { 0.0 } else { stolen as f64 / all as f64 };
        [
            share(self.stolen, self.all),
            share(self.stolen.saturating_sub(before.stolen), self.all.saturating_sub(before.all)),
        ]
    }
}

pub(super) fn processors_time() -> Option<ProcessorsTime> {
    parse_time(&fs::read_to_string("/proc/stat").ok()?)
}

/// user, nice, system, idle, iowait, irq, softirq and steal (proc_stat(5)). What follows is part of the first two.
fn parse_time(stat: &str) -> Option<ProcessorsTime> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    Some(ProcessorsTime { all: times.iter().sum(), stolen: *times.get(7)? })
}

/// Of the host's process, if there is one.
pub(super) fn resources(host: Option<u32>, stolen: Option<[f64; 2]>) -> Resources {
    let process = host.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let threads = text("/proc/loadavg")
        .and_then(|load| load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok());
    Resources {
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        memory: text("/proc/meminfo").and_then(|text| parse_memory(&text)),
        threads,
        limits: text(format!("/proc/{process}/limits")).map(|text| parse_limits(&text, host)),
        stolen,
    }
}

fn parse_memory(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory {
        total: bytes("MemTotal")?,
        available: bytes("MemAvailable")?,
        swap: bytes("SwapTotal").unwrap_or(0),
    })
}

/// The hard ones: `Max open files            1024                 1048576              files`.
fn parse_limits(text: &str, of: Option<u32>) -> Limits {
    let hard = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Limits {
        of,
        files: hard("Max open files"),
        processes: hard("Max processes"),
        locked: hard("Max locked memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_read() {
        let resources = resources(None, None);
        assert!(resources.memory.unwrap().total > 64 << 20, "{resources:?}");
        assert!(resources.threads.unwrap() > 1 && resources.processors > 0);
        assert!(processors_time().unwrap().all > 0);
    }

    #[test]
    fn limits_are_the_hard_ones() {
        const TEXT: &str = "Limit                     Soft Limit           Hard Limit           Units
Max processes             1000                 unlimited            processes
Max open files            1024                 1048576              files
Max locked memory         8388608              8388608              bytes";
        let limits = Limits { of: Some(7), files: Some(1_048_576), processes: None, locked: Some(8_388_608) };
        assert_eq!(parse_limits(TEXT, Some(7)), limits);
    }

    #[test]
    fn stolen_time_is_a_share() {
        let before = parse_time("cpu  10 0 10 70 0 0 0 10 0 0\ncpu0 1 1").unwrap();
        let after = parse_time("cpu  20 0 20 140 0 0 0 20 5 5").unwrap();
        assert_eq!(after.stolen(before), [0.1, 0.1]);
        assert_eq!(before.stolen(before), [0.1, 0.0]);
        assert_eq!(parse_time("intr 1"), None);
    }
}
