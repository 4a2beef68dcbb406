//! Fence agents as processes: a script in the place of one, which keeps a machine's power in a file.

#![allow(clippy::unwrap_used)] // A test's functions may fail the test.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fencing::{Agent, Problem};

/// Long enough for any machine.
const SOON: Duration = Duration::from_secs(20);
/// Reads its parameters as agents do, and keeps them.
const READ: &str = r#"
    while IFS= read -r line; do
        echo "$line" >> "$0.told"
        case $line in action=*) action=${line#action=};; esac
    done
    echo "$*" > "$0.arguments"
"#;

/// A machine with an agent that does this once it has heard all.
struct Machine {
    _folder: tempfile::TempDir,
    agent: Agent,
}

impl Machine {
    fn new(does: &str) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("fence_file");
        // By another process: one that this process forks meanwhile would have it open for writing, and then it can't be executed.
        let mut write = Command::new("sh");
        write.args([
            "-c",
            r#"cat > "$FILE" <<END
#!/bin/sh
$SCRIPT
END
chmod 755 "$FILE""#,
        ]);
        write.env("SCRIPT", format!("{READ}{does}")).env("FILE", &program);
        assert!(write.status().unwrap().success());
        let secrets = folder.path().join("secrets");
        fs::write(&secrets, "password=geheim\n").unwrap();
        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
        let parameters = BTreeMap::from([("ip".to_owned(), "10.0.0.2".to_owned())]);
        let agent = Agent { program, parameters, secrets: Some(secrets), timeout: SOON };
        Machine { _folder: folder, agent }
    }

    /// What the agent has left.
    fn left(&self, ending: &str) -> String {
        let mut path = self.agent.program.clone().into_os_string();
        path.push(ending);
        fs::read_to_string(PathBuf::from(path)).unwrap_or_default()
    }
}

const GOOD: &str = r#"
    case $action in
        status) [ "$(cat "$0.power")" = off ] && exit 2; exit 0;;
        *) echo "$action" > "$0.power";;
    esac
"#;

#[tokio::test]
async fn a_machine_is_off_once_its_agent_says_so_twice_and_on_again() {
    let machine = Machine::new(GOOD);
    machine.agent.off().await.unwrap();
    assert_eq!(machine.left(".power"), "off\n");
    let told = "ip=10.0.0.2\npassword=geheim\n";
    assert_eq!(machine.left(".told"), format!("action=off\n{told}action=status\n{told}"));
    assert_eq!(machine.left(".arguments"), "\n", "arguments are for everybody to see");
    machine.agent.on().await.unwrap();
    assert_eq!(machine.left(".power"), "on\n");
}

#[tokio::test]
async fn an_agent_that_fails_is_told_of_without_secrets() {
    let machine = Machine::new("echo Connecting >&2; echo 'Login with geheim failed' >&2; exit 1");
    let problem = machine.agent.off().await.unwrap_err();
    assert_eq!(problem.to_string(), "`off` failed: Login with *** failed");
}

#[tokio::test]
async fn of_a_line_whose_beginning_is_lost_nothing_is_told() {
    // What is kept of it begins in the middle of the secret.
    let machine = Machine::new("printf 'geheim%04093d\\n' 0 >&2; exit 1");
    let problem = machine.agent.off().await.unwrap_err();
    assert_eq!(problem.to_string(), "`off` failed");
}

#[tokio::test]
async fn a_machine_that_is_still_on_or_can_t_be_asked_is_not_off() {
    for says in ["exit 0", "exit 1"] {
        let machine = Machine::new(&format!("[ $action = status ] && {says}; exit 0"));
        let problem = machine.agent.off().await.unwrap_err();
        assert!(matches!(problem, Problem::Not { .. }), "{problem}");
    }
    // That is also how agents answer to arguments that they can't take.
    let machine = Machine::new("exit 2");
    let problem = machine.agent.off().await.unwrap_err();
    assert!(matches!(problem, Problem::Failed { .. }), "{problem}");
}

#[tokio::test]
async fn an_agent_that_hangs_is_killed_with_all_that_it_started() {
    let mut machine = Machine::new("sleep 1000 & echo $! > \"$0.child\"; wait");
    machine.agent.timeout = Duration::from_secs(2);
    let problem = machine.agent.off().await.unwrap_err();
    assert!(matches!(problem, Problem::Slow { .. }), "{problem}");
    let child = machine.left(".child");
    let status = format!("/proc/{}/status", child.trim());
    let ends = async {
        // Who buries it is another's affair.
        while fs::read_to_string(&status).is_ok_and(|status| !status.contains("State:\tZ")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(!child.is_empty());
    tokio::time::timeout(SOON, ends).await.expect("its child ends");
}

#[tokio::test]
async fn without_its_program_or_with_secrets_that_others_may_read_nothing_runs() {
    let mut machine = Machine::new(GOOD);
    let secrets = machine.agent.secrets.clone().unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o644)).unwrap();
    let problem = machine.agent.off().await.unwrap_err();
    assert!(problem.to_string().ends_with("others may read it: chmod 600"), "{problem}");
    assert_eq!(machine.left(".told"), "");
    machine.agent.secrets = None;
    machine.agent.program = "/nowhere/fence_none".into();
    let problem = machine.agent.off().await.unwrap_err();
    assert!(problem.to_string().starts_with("/nowhere/fence_none can't be run"), "{problem}");
}
