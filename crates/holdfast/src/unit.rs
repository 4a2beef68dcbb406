//! A host as a service of systemd: `holdfast unit`, and what `init` and `join` do where systemd runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use config::{HostConfig, Shutdown};

use crate::ground::program;
use crate::install::Folders;
use crate::tell::{say, show};

/// The unit as packages have it.
const PACKAGED: &str = include_str!("../systemd/holdfast.service");
const NAME: &str = "holdfast.service";
/// What stands in [`PACKAGED`] for the paths of a package.
const PROGRAM: &str = "ExecStart=/usr/bin/holdfast ";
const CONFIG_FILE: &str = "/etc/holdfast/config.yaml";
const STOP: &str = "TimeoutStopSec=90s\n";
/// How many seconds a host may take to end there at least, and how many are to spare beyond what its pods may take.
const SHORTEST_STOP: u64 = 90;
const TO_SPARE: u64 = 10;
const MOUNTS: &str = "RequiresMountsFor=/etc/holdfast /var/lib/holdfast\n";
/// Where units lie that a package brought, as seen from the machine's root.
const OF_PACKAGES: [&str; 2] = ["usr/lib/systemd/system", "lib/systemd/system"];
/// Where those lie that the machine's administrator wrote.
const OF_ADMINISTRATORS: &str = "etc/systemd/system";
/// Where what is started at each boot is linked.
const WANTED: &str = "etc/systemd/system/multi-user.target.wants";
/// There while systemd is the machine's first process (sd_booted(3)).
const BOOTED: &str = "run/systemd/system";

/// Arguments of `holdfast unit`.
#[derive(clap::Args)]
#[command(
    after_help = "`holdfast init` and `join` install and start it where systemd runs and the host's files lie in the usual folders. Elsewhere:\n\n  holdfast unit --config-dir /srv/etc > /etc/systemd/system/holdfast.service\n  systemctl enable --now holdfast"
)]
pub struct Args {
    #[command(flatten)]
    folders: Folders,
}

/// Prints the unit, for this program and the folders that are named.
pub fn run(args: &Args) -> anyhow::Result<()> {
    show(&text(&program()?, &args.folders)?)
}

/// The unit by which systemd runs a host with its files in `folders`.
fn text(program: &Path, folders: &Folders) -> anyhow::Result<String> {
    let (config, data) = folders.absolute()?;
    let (file, program) = (config.join("config.yaml"), plain(program)?);
    let (config, data, file) = (plain(&config)?, plain(&data)?, plain(&file)?);
    Ok(PACKAGED
        .replace(MOUNTS, &format!("RequiresMountsFor={config} {data}\n"))
        .replace(STOP, &format!("TimeoutStopSec={}s\n", stop_seconds_of(Path::new(file))))
        .replace(CONFIG_FILE, file)
        .replace(PROGRAM, &format!("ExecStart={program} ")))
}

/// How many seconds systemd has to wait for the end of the host with this configuration, which may not be there yet.
fn stop_seconds_of(config_file: &Path) -> u64 {
    HostConfig::load(config_file).map_or(SHORTEST_STOP, |config| stop_seconds(&config.shutdown))
}

/// The same: longer than its pods may take all together.
fn stop_seconds(shutdown: &Shutdown) -> u64 {
    let pods: u64 = shutdown.groups().iter().map(|group| group.grace_period.as_secs()).sum();
    SHORTEST_STOP.max(pods.saturating_add(TO_SPARE))
}

/// A path that systemd reads as it stands there.
fn plain(path: &Path) -> anyhow::Result<&str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    path.to_str().filter(|text| text.chars().all(is_plain)).with_context(|| {
        format!(
            "{} can't stand in a unit of systemd; take a path of letters, digits and . _ - +",
            path.display()
        )
    })
}

/// systemd on a machine.
pub struct Systemd {
    root: PathBuf,
    /// The program that it is asked by, and its first arguments.
    systemctl: Vec<String>,
}

impl Systemd {
    /// This machine's, if it is its first process and the host's files lie where its service looks for them: a machine has one such service,
    /// and a host elsewhere (another one on it, a test's) is started otherwise.
    pub fn for_host(folders: &Folders) -> Option<Self> {
        let systemd = Systemd { root: "/".into(), systemctl: vec!["systemctl".into()] };
        (folders.are_usual() && systemd.is_booted()).then_some(systemd)
    }

    fn is_booted(&self) -> bool {
        self.root.join(BOOTED).is_dir()
    }

    /// Starts the host, now and at each boot, and returns once it is up. A unit that is there, a package's or one's own, stays as it is.
    pub fn start(&self, folders: &Folders) -> anyhow::Result<()> {
        if !self.has_unit() {
            let own = self.own_unit();
            let text = text(&program()?, folders)?;
            fs::write(&own, text)
                .with_context(|| format!("can't write {}; run this as root", own.display()))?;
        } else {
            let (config, _) = folders.absolute()?;
            let needed = stop_seconds_of(&config.join("config.yaml"));
            if needed > SHORTEST_STOP {
                say!(
                    "the unit {NAME} that is there has to let pods end for as long as `shutdown` says: by `systemctl edit {NAME}`, a section [Service] with TimeoutStopSec={needed}s"
                );
            }
        }
        self.does(&["daemon-reload"])?;
        self.does(&["enable", "--now", NAME])
    }

    /// Whether there is a unit, of whomever.
    pub fn has_unit(&self) -> bool {
        let packaged = OF_PACKAGES.iter().map(|folder| self.root.join(folder).join(NAME));
        packaged.chain([self.own_unit()]).any(|unit| unit.exists())
    }

    /// Whether the host is started at each boot, or by a unit that [`Systemd::start`] wrote.
    pub fn has_service(&self) -> bool {
        self.root.join(WANTED).join(NAME).symlink_metadata().is_ok() || self.has_written()
    }

    /// Stops the host, now and for good. The unit goes, if [`Systemd::start`] wrote it.
    pub fn remove(&self) -> anyhow::Result<()> {
        self.does(&["disable", "--now", NAME])?;
        if self.has_written() {
            let own = self.own_unit();
            fs::remove_file(&own).with_context(|| format!("can't remove {}", own.display()))?;
            self.does(&["daemon-reload"])?;
        }
        Ok(())
    }

    fn own_unit(&self) -> PathBuf {
        self.root.join(OF_ADMINISTRATORS).join(NAME)
    }

    /// Whether the administrators' unit is one that was written here: by its first line.
    fn has_written(&self) -> bool {
        let unit = fs::read_to_string(self.own_unit()).unwrap_or_default();
        unit.lines().next().is_some_and(|first| PACKAGED.lines().next() == Some(first))
    }

    fn does(&self, words: &[&str]) -> anyhow::Result<()> {
        let failed = || {
            format!(
                "`systemctl {}` failed; `journalctl -u holdfast` tells why, and the same command again goes on from here",
                words.join(" ")
            )
        };
        let mut command = Command::new(&self.systemctl[0]);
        command.args(&self.systemctl[1..]).args(words).stdin(Stdio::null()).stdout(Stdio::null());
        let ended = command.status().with_context(failed)?;
        anyhow::ensure!(ended.success(), failed());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_packages_but_for_its_paths() {
        let usual = text(Path::new("/usr/bin/holdfast"), &Folders::usual()).unwrap();
        assert_eq!(usual, PACKAGED);
        let folders = Folders::new("/srv/etc".into(), "/srv/lib".into());
        let other = text(Path::new("/opt/holdfast"), &folders).unwrap();
        for line in [
            "ExecStart=/opt/holdfast host --config /srv/etc/config.yaml",
            "ConditionPathExists=/srv/etc/config.yaml",
            "RequiresMountsFor=/srv/etc /srv/lib",
        ] {
            assert!(other.lines().any(|told| told == line), "{line}: {other}");
        }
        for wrong in ["/srv/two words", "/srv/%i", "/srv/$HOME", "/srv/a\nExecStart=/bin/sh"] {
            let folders = Folders::new(wrong.into(), "/srv/lib".into());
            assert!(text(Path::new("/opt/holdfast"), &folders).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_core_of_the_host_is_written() {
        let told = text(Path::new("/opt/holdfast"), &Folders::usual()).unwrap();
        let limits: Vec<&str> = told.lines().filter(|line| line.starts_with("LimitCORE=")).collect();
        assert_eq!(limits, ["LimitCORE=0:infinity"], "keys are in its memory; pods may raise theirs");
    }

    #[test]
    fn systemd_waits_for_as_long_as_pods_may_take() {
        assert!(PACKAGED.contains(STOP) && STOP.contains(&SHORTEST_STOP.to_string()));
        for (grace, expected) in [("2s", 90), ("80s", 90), ("10m", 610)] {
            let said = serde_json::json!({"gracePeriod": grace});
            let shutdown: Shutdown = serde_json::from_value(said).unwrap();
            assert_eq!(stop_seconds(&shutdown), expected, "{grace}");
        }
    }

    #[test]
    fn systemd_finds_no_fault_with_the_unit() {
        if !testing::has("systemd-analyze") {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let unit = folder.path().join(NAME);
        // systemd looks whether there is a program.
        fs::write(&unit, text(&program().unwrap(), &Folders::usual()).unwrap()).unwrap();
        let verified =
            || Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
        let complaints =
            |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).contains(NAME);
        let output = verified();
        assert!(output.status.success() && !complaints(&output), "{output:?}");
        fs::write(&unit, "[Service]\nExecStart=/bin/true\nKillMod=process\n").unwrap();
        assert!(complaints(&verified()), "what is no setting would be seen");
    }

    #[test]
    fn a_host_is_started_by_the_unit_that_is_there_or_by_one_that_is_written() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let systemd = |script: String| Systemd {
            root: root.path().into(),
            systemctl: ["sh", "-c", &script, "systemctl"].map(str::to_owned).to_vec(),
        };
        let fails = systemd("exit 1".into());
        let systemd = systemd(format!("echo \"$@\" >> {}", at("said").display()));
        assert!(!systemd.is_booted());
        for folder in [BOOTED, OF_ADMINISTRATORS, OF_PACKAGES[0]] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        assert!(systemd.is_booted());

        assert!(!systemd.has_service());
        systemd.start(&Folders::usual()).unwrap();
        assert!(systemd.has_service());
        let own = at(OF_ADMINISTRATORS).join(NAME);
        let written = fs::read_to_string(&own).unwrap();
        assert!(written.contains(&format!("ExecStart={} host", program().unwrap().display())), "{written}");
        assert_eq!(fs::read_to_string(at("said")).unwrap(), "daemon-reload\nenable --now holdfast.service\n");
        systemd.remove().unwrap();
        let said = fs::read_to_string(at("said")).unwrap();
        assert!(said.ends_with("disable --now holdfast.service\ndaemon-reload\n") && !own.exists(), "{said}");
        fs::write(&own, "one's own").unwrap();
        systemd.start(&Folders::usual()).unwrap();
        assert_eq!(fs::read_to_string(&own).unwrap(), "one's own");
        fs::remove_file(&own).unwrap();
        fs::write(at(OF_PACKAGES[0]).join(NAME), PACKAGED).unwrap();
        systemd.start(&Folders::usual()).unwrap();
        assert!(!own.exists(), "the package's does");

        let refused = fails.start(&Folders::usual()).unwrap_err().to_string();
        assert!(refused.contains("systemctl daemon-reload") && refused.contains("journalctl"), "{refused}");
        let elsewhere = Folders::new("/srv/etc".into(), "/srv/lib".into());
        assert!(Systemd::for_host(&elsewhere).is_none(), "a machine has one service");
    }
}
