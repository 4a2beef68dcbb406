//! The runtime's network (CNI). The agent lays pods' networks by itself, as for all others; but a runtime makes no sandbox with a network of
//! its own unless a plugin says that there is one. So it gets a plugin that leaves the namespace as it is, and says that.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What the plugin is called, among the others that the runtime has.
pub const CNI_PLUGIN: &str = "holdfast-cni";

/// The address that the plugin answers: nobody's (RFC 7600, "IPv4 dummy address"). By it the agent sees that no other network was laid.
pub(super) const MARK: &str = "192.0.0.8";

/// How the names of hosts' lists of networks begin and end: before all others' (files are taken in the order of their names).
const LIST: (&str, &str) = ("00-holdfast-", ".conflist");
/// How much of a question is read.
const LONGEST_QUESTION: u64 = 1 << 20;
/// The versions of the protocol in which it answers alike.
const VERSIONS: [&str; 4] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"];

/// Whether this program was executed as the runtime's plugin; if so, it was that, and ends with what is answered. Called before anything else.
pub fn run_cni_plugin() -> Option<ExitCode> {
    let name = env::args_os().next()?;
    if Path::new(&name).file_name() != Some(OsStr::new(CNI_PLUGIN)) {
        return None;
    }
    let mut question = Vec::new();
    let _ = io::stdin().take(LONGEST_QUESTION).read_to_end(&mut question);
    let of = |name: &str| env::var(name).unwrap_or_default();
    let (answer, code) = match answer(&of("CNI_COMMAND"), &question, &of("CNI_IFNAME"), &of("CNI_NETNS")) {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(why) => (Some(json!({"cniVersion": VERSIONS[1], "code": 4, "msg": why})), ExitCode::FAILURE),
    };
    if let Some(answer) = answer {
        // A runtime that doesn't listen asks again.
        let _ = writeln!(io::stdout(), "{answer}");
    }
    Some(code)
}

/// What the plugin says, if it says anything.
fn answer(command: &str, question: &[u8], name: &str, namespace: &str) -> Result<Option<Value>, String> {
    if command == "VERSION" {
        return Ok(Some(json!({"cniVersion": VERSIONS[3], "supportedVersions": VERSIONS})));
    }
    if command != "ADD" {
        // There is nothing to take away.
        return Ok(None);
    }
    let asked: Value =
        serde_json::from_slice(question).map_err(|why| format!("the question is no JSON: {why}"))?;
    let version = asked["cniVersion"].as_str().filter(|version| VERSIONS.contains(version));
    let version = version.ok_or_else(|| format!("none of the versions {}", VERSIONS.join(", ")))?;
    let mut address = json!({"address": format!("{MARK}/32"), "interface": 0});
    if version != VERSIONS[3] {
        address["version"] = "4".into();
    }
    Ok(Some(json!({
        "cniVersion": version,
        "interfaces": [{"name": name, "sandbox": namespace}],
        "ips": [address],
        "dns": {},
    })))
}

/// Where a runtime looks for its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Places {
    /// The folder of the lists of networks.
    pub lists: PathBuf,
    /// The folder of the plugins that these name.
    pub programs: PathBuf,
}

impl Places {
    /// As the runtime says itself (containerd does), or as is the custom.
    pub(super) fn of(told: Option<&String>) -> Self {
        let told: Value = told.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let place = |name: &str, usual: &str| {
            let told = told["cni"][name].as_str().filter(|path| path.starts_with('/'));
            PathBuf::from(told.unwrap_or(usual))
        };
        Places { lists: place("confDir", "/etc/cni/net.d"), programs: place("binDir", "/opt/cni/bin") }
    }

    /// A host's own list: hosts that share a runtime come and go one by one.
    fn list(&self, node: &str) -> PathBuf {
        self.lists.join(format!("{}{node}{}", LIST.0, LIST.1))
    }
}

fn about(path: &Path, why: io::Error) -> io::Error {
    io::Error::new(why.kind(), format!("{}: {why}", path.display()))
}

/// Has the runtime use the plugin, which is `program`, for the host that bears the mark `node`. Fine if it does.
///
/// # Errors
/// What can't be written.
pub(super) fn install(places: &Places, node: &str, program: &Path) -> io::Result<()> {
    let Places { lists, programs } = places;
    let program = program.canonicalize().map_err(|why| about(program, why))?;
    let link = programs.join(CNI_PLUGIN);
    if fs::read_link(&link).ok().as_deref() != Some(&*program) {
        fs::create_dir_all(programs).map_err(|why| about(programs, why))?;
        replace(&link, |place| symlink(&program, place)).map_err(|why| about(&link, why))?;
    }
    let text =
        json!({"cniVersion": VERSIONS[1], "name": "holdfast", "plugins": [{"type": CNI_PLUGIN}]}).to_string();
    let list = places.list(node);
    if fs::read_to_string(&list).ok().as_deref() != Some(&*text) {
        fs::create_dir_all(lists).map_err(|why| about(lists, why))?;
        replace(&list, |place| fs::write(place, &text)).map_err(|why| about(&list, why))?;
    }
    Ok(())
}

/// Takes away what was written for the host that bears the mark `node`. The plugin stays as long as another host has its list there.
///
/// # Errors
/// What can't be removed.
pub(super) fn uninstall(places: &Places, node: &str) -> io::Result<()> {
    let remove = |path: PathBuf| match fs::remove_file(&path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(about(&path, why)),
        _ => Ok(()),
    };
    remove(places.list(node))?;
    let lists = match fs::read_dir(&places.lists) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => None,
        read => Some(read.map_err(|why| about(&places.lists, why))?),
    };
    let is_list = |name: &str| name.starts_with(LIST.0) && name.ends_with(LIST.1);
    let mut names = lists.into_iter().flatten().flatten().map(|entry| entry.file_name());
    let is_used = names.any(|name| name.to_str().is_some_and(is_list));
    if is_used { Ok(()) } else { remove(places.programs.join(CNI_PLUGIN)) }
}

/// Puts something in a place at once: the runtime may read it at any moment.
fn replace(place: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut new = place.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    make(&new)?;
    fs::rename(&new, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_says_that_there_is_a_network_and_makes_none() {
        let question = br#"{"cniVersion": "0.3.1", "name": "holdfast"}"#;
        let said = answer("ADD", question, "eth0", "/run/netns/x").unwrap().unwrap();
        assert_eq!(said["interfaces"], json!([{"name": "eth0", "sandbox": "/run/netns/x"}]));
        assert_eq!(said["ips"], json!([{"version": "4", "address": "192.0.0.8/32", "interface": 0}]));
        let newer = answer("ADD", br#"{"cniVersion": "1.0.0"}"#, "eth0", "").unwrap().unwrap();
        assert_eq!(newer["ips"][0].get("version"), None);
        assert_eq!(answer("DEL", b"", "eth0", "").unwrap(), None);
        assert!(answer("VERSION", b"", "", "").unwrap().unwrap()["supportedVersions"].is_array());
        for wrong in [&b""[..], b"[", b"{}", br#"{"cniVersion": "9"}"#, b"\xff"] {
            assert!(answer("ADD", wrong, "eth0", "").is_err());
        }
    }

    #[test]
    fn the_runtime_is_told_where_it_looks() {
        let told = json!({"cni": {"binDir": "/b", "confDir": "/c", "maxConfNum": 1}}).to_string();
        assert_eq!(Places::of(Some(&told)), Places { lists: "/c".into(), programs: "/b".into() });
        for odd in
            [None, Some(&"{".to_owned()), Some(&r#"{"cni": {"binDir": 7, "confDir": "net.d"}}"#.to_owned())]
        {
            let usual = Places { lists: "/etc/cni/net.d".into(), programs: "/opt/cni/bin".into() };
            assert_eq!(Places::of(odd), usual);
        }
    }

    #[test]
    fn what_is_written_for_a_host_goes_with_it_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { lists: folder.path().join("net.d"), programs: folder.path().join("bin") };
        let Places { lists, programs } = places.clone();
        let program = folder.path().join("holdfast");
        fs::write(&program, "").unwrap();
        fs::create_dir_all(&programs).unwrap();
        fs::write(programs.join(CNI_PLUGIN), "an older one").unwrap();
        for node in ["n1-x", "n1-x", "n2-y"] {
            install(&places, node, &program).unwrap();
            assert_eq!(fs::read_link(programs.join(CNI_PLUGIN)).unwrap(), program.canonicalize().unwrap());
        }
        let list = fs::read_to_string(lists.join("00-holdfast-n1-x.conflist")).unwrap();
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(list["plugins"][0]["type"], CNI_PLUGIN);
        assert_eq!(fs::read_dir(&lists).unwrap().count(), 2, "nothing else is left");
        let others = lists.join("10-others.conflist");
        fs::write(&others, "{}").unwrap();
        uninstall(&places, "n1-x").unwrap();
        assert!(programs.join(CNI_PLUGIN).exists(), "another host has it still");
        for _ in 0..2 {
            uninstall(&places, "n2-y").unwrap();
            assert!(fs::symlink_metadata(programs.join(CNI_PLUGIN)).is_err() && others.exists());
            assert_eq!(fs::read_dir(&lists).unwrap().count(), 1);
        }
        fs::remove_dir_all(&lists).unwrap();
        uninstall(&places, "n2-y").unwrap();
    }
}
