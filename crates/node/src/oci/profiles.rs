//! AppArmor as this host's kernel has it: which profiles are loaded, and the default one, which its own program for that loads.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::app_armor::{AppArmor, DEFAULT, DEFAULT_POLICY, names};

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
/// Where distributions have the program that loads profiles.
const PARSERS: [&str; 2] = ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"];
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// This host's.
#[derive(Debug)]
pub(crate) struct HostAppArmor {
    is_enabled: bool,
    /// Held by who loads the default profile; why it couldn't be, as the log was told last.
    told: Mutex<Option<String>>,
}

impl HostAppArmor {
    /// Looks.
    pub(crate) fn read() -> Self {
        let is_enabled = fs::read_to_string(ENABLED).is_ok_and(|said| said.starts_with('Y'));
        HostAppArmor { is_enabled: is_enabled && Path::new(LOADED).exists(), told: Mutex::default() }
    }
}

impl AppArmor for HostAppArmor {
    fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    fn has(&self, profile: &str) -> Result<bool, String> {
        let list = fs::read_to_string(LOADED).map_err(|why| format!("can't read {LOADED}: {why}"))?;
        Ok(names(&list).any(|name| name == profile))
    }

    /// Blocks, within a runtime.
    fn load_default(&self) -> Result<(), String> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // Others may unload it (`aa-remove-unknown` does).
        if self.has(DEFAULT)? {
            return Ok(());
        }
        let loaded = tokio::runtime::Handle::current().block_on(load(DEFAULT_POLICY));
        let loaded = loaded.map_err(|why| format!("can't load the AppArmor profile {DEFAULT}: {why}"));
        if loaded.as_ref().err() != told.as_ref() {
            match &loaded {
                Ok(()) => tracing::info!(profile = DEFAULT, "loaded the containers' AppArmor profile"),
                Err(why) => tracing::warn!(why, "containers that ask for no AppArmor profile have none"),
            }
            *told = loaded.as_ref().err().cloned();
        }
        loaded
    }
}

async fn load(policy: &str) -> Result<(), String> {
    let parser = PARSERS.into_iter().find(|path| Path::new(path).exists());
    let parser = parser.ok_or("there is no apparmor_parser on this host: install the package apparmor")?;
    let mut command = Command::new(parser);
    command.args(["--replace", "--skip-cache"]).env_clear().kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let run = async {
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(policy.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(PATIENCE, run).await {
        Ok(output) => output.map_err(|why| format!("{parser}: {why}"))?,
        Err(_) => return Err(format!("{parser} doesn't end")),
    };
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{parser}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_parser_takes_the_default_profile() {
        let parser = PARSERS.into_iter().find(|path| Path::new(path).exists());
        let Some(parser) = parser else { return testing::skip("apparmor", "there is no apparmor_parser") };
        let mut child = std::process::Command::new(parser)
            .args(["--skip-kernel-load", "--skip-cache", "--names"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(DEFAULT_POLICY.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), DEFAULT);
    }
}
