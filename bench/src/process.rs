//! What the system tells about a process.

use anyhow::Context;

/// The fields of `/proc/PID/stat` from the state on: see proc_pid_stat(5).
fn stat(pid: u32) -> anyhow::Result<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a stat without a name")?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

/// The time that a process spent on processors.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let fields = stat(pid)?;
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).context("a short stat");
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// A process's resident memory in megabytes.
pub fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    megabytes(pid, "VmRSS:")
}

/// The most that a process's resident memory was since [`forget_peak`], in megabytes.
pub fn peak_mb(pid: u32) -> anyhow::Result<f64> {
    megabytes(pid, "VmHWM:")
}

/// Begins to watch for a new peak: see `clear_refs` in proc(5).
pub fn forget_peak(pid: u32) -> anyhow::Result<()> {
    Ok(std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// How many files a process has open.
pub fn open_files(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// A process's part of the memory, in megabytes: of what it shares with others its share (`Pss` in proc(5), "smaps_rollup").
pub fn proportional_mb(pid: u32) -> anyhow::Result<f64> {
    said(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?, "Pss:")
}

/// The processes whose arguments are wanted; the program's own name is the first of them.
pub fn all(wanted: impl Fn(&[String]) -> bool) -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        if wanted(&words) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn megabytes(pid: u32, name: &str) -> anyhow::Result<f64> {
    said(&std::fs::read_to_string(format!("/proc/{pid}/status"))?, name)
}

/// The number of kilobytes behind a name, in megabytes.
fn said(text: &str, name: &str) -> anyhow::Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("no {name}"))?;
    let kb: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kb * 1024.0 / 1e6)
}
