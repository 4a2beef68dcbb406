//! Logs, and what else of the system holds a host back or up.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::text;
use crate::facts::{Journald, System};

/// Where journald's settings lie, the most important ones last (journald.conf(5)).
const MAIN: [&str; 3] =
    ["/usr/lib/systemd/journald.conf", "/run/systemd/journald.conf", "/etc/systemd/journald.conf"];

pub(super) fn system() -> System {
    let on = |path: &str| text(path).is_some_and(|text| text == "1" || text == "Y");
    System {
        selinux_enforces: Path::new("/sys/fs/selinux/enforce")
            .exists()
            .then(|| on("/sys/fs/selinux/enforce")),
        apparmor: on("/sys/module/apparmor/parameters/enabled"),
        watchdog: Path::new("/dev/watchdog").exists(),
        journald: Path::new("/run/systemd/journal").is_dir().then(|| {
            let mut journald = Journald::default();
            journald_files().iter().filter_map(text).for_each(|text| read(&text, &mut journald));
            journald
        }),
    }
}

/// The last main file that is there, then the additions by their names; of two with one name the later folder's.
fn journald_files() -> Vec<PathBuf> {
    let main = MAIN.iter().rev().map(PathBuf::from).find(|path| path.exists());
    let mut additions: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for folder in MAIN.map(|file| format!("{file}.d")) {
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let entries = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "conf"));
        additions.extend(entries.map(|entry| (entry.file_name(), entry.path())));
    }
    main.into_iter().chain(additions.into_values()).collect()
}

fn read(text: &str, journald: &mut Journald) {
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let Some((name, value)) = line.split_once('=') else { continue };
        let value = value.trim().to_owned();
        match name.trim() {
            "RateLimitIntervalSec" | "RateLimitInterval" => journald.interval = Some(value),
            "RateLimitBurst" => journald.burst = value.parse().ok(),
            "Storage" => journald.storage = Some(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_settings_replace_earlier_ones() {
        let mut journald = Journald::default();
        read("[Journal]\n#Storage=auto\nRateLimitBurst=500\nStorage = volatile", &mut journald);
        read("[Journal]\nRateLimitIntervalSec=10s\nRateLimitBurst=100", &mut journald);
        let expected =
            Journald { interval: Some("10s".into()), burst: Some(100), storage: Some("volatile".into()) };
        assert_eq!(journald, expected);
    }
}
