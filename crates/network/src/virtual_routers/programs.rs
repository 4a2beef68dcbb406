//! The programs that virtual routers run: scripts that say whether the host is well, and programs that hear what has changed.
//!
//! They get no environment but a PATH, no open files, a group of processes of their own, and a time that ends with its death.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tasks::SpawnIn;
use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::info_span;
use vrrp::{Kind, Notice, Script, Settings};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a notified program may take.
const NOTICE: Duration = Duration::from_secs(10);
/// How long one that was killed is waited for: one that waits for a disk that doesn't answer dies later.
const DEATH: Duration = Duration::from_secs(1);

/// Why a program didn't do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("it can't be run: {0}")]
    Start(io::Error),
    #[error("it ended with {0}")]
    Ended(ExitStatus),
    #[error("it took longer than {0:?} and was killed")]
    Late(Duration),
}

/// Runs a program with its arguments and `more` of them.
async fn run(command: &[String], more: &[String], limit: Duration) -> Result<(), Failed> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| Failed::Start(io::ErrorKind::NotFound.into()))?;
    let mut prepared = Command::new(program);
    prepared.args(arguments).args(more).env_clear().env("PATH", PATH);
    prepared.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = prepared.process_group(0).kill_on_drop(true).spawn().map_err(Failed::Start)?;
    match timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(Failed::Ended(status)),
        Ok(Err(why)) => Err(Failed::Start(why)),
        Err(_) => {
            // With all that it has started. It hasn't been waited for, so the number is still its own.
            if let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()) {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            let _ = timeout(DEATH, child.wait()).await;
            Err(Failed::Late(limit))
        }
    }
}

/// Runs a script again and again, and tells what came of it.
pub(super) async fn check(index: usize, script: Script, results: mpsc::Sender<(usize, bool)>) {
    let mut failing = None;
    loop {
        let next = now() + script.interval;
        let outcome = run(&script.command, &[], script.limit()).await;
        let told = outcome.as_ref().err().map(ToString::to_string);
        if failing.as_ref() != Some(&told) {
            match &told {
                Some(why) => tracing::warn!(%why, "the script doesn't pass"),
                None => tracing::info!("the script passes"),
            }
            failing = Some(told);
        }
        if results.send((index, outcome.is_ok())).await.is_err() {
            return;
        }
        sleep_until(next).await;
    }
}

#[allow(clippy::disallowed_methods, reason = "the driver of scripts: here they get their time")]
fn now() -> Instant {
    Instant::now()
}

/// Tells programs what has changed, each in turn. One that is slower than the changes gets the newest.
#[derive(Debug)]
pub(super) struct Notifier {
    instances: Vec<Option<watch::Sender<Option<Notice>>>>,
    groups: Vec<Option<watch::Sender<Option<Notice>>>>,
    telling: JoinSet<()>,
}

impl Notifier {
    /// The programs are run on `programs`.
    pub fn new(settings: &Settings, programs: &Handle) -> Self {
        let mut telling = JoinSet::new();
        let mut to = |name: &str, command: &[String]| {
            (!command.is_empty()).then(|| {
                let (news, heard) = watch::channel(None);
                telling.spawn_in_on(
                    info_span!("notify", name),
                    tell(command.to_vec(), heard, NOTICE),
                    programs,
                );
                news
            })
        };
        let instances = settings.instances.iter().map(|one| to(&one.name, &one.notify)).collect();
        let groups = settings.groups.iter().map(|one| to(&one.name, &one.notify)).collect();
        Notifier { instances, groups, telling }
    }

    pub fn tell(&self, notice: Notice) {
        let list = match notice.kind {
            Kind::Instance => &self.instances,
            Kind::Group => &self.groups,
        };
        if let Some(Some(news)) = list.get(notice.index) {
            news.send_replace(Some(notice));
        }
    }

    /// Waits until all has been told.
    pub async fn end(self) {
        let Notifier { instances, groups, telling } = self;
        drop((instances, groups));
        telling.join_all().await;
    }
}

async fn tell(command: Vec<String>, mut news: watch::Receiver<Option<Notice>>, limit: Duration) {
    // The last notice goes out also after its sender has gone.
    while news.changed().await.is_ok() {
        let Some(notice) = news.borrow_and_update().clone() else { continue };
        if let Err(why) = run(&command, &notice.arguments(), limit).await {
            tracing::warn!(%why, program = command[0], "a program wasn't told what it asked for");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script, "sh"].map(str::to_owned).to_vec()
    }

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_program_gets_its_arguments_and_nothing_else() {
        let more = ["INSTANCE", "one", "MASTER", "100"].map(str::to_owned);
        let wanted = r#"[ "$*" = "INSTANCE one MASTER 100" ] && [ -z "$HOME$CARGO" ] && [ ! -t 0 ]"#;
        run(&shell(wanted), &more, SOON).await.unwrap();
        assert!(matches!(run(&shell("exit 3"), &more, SOON).await, Err(Failed::Ended(_))));
        assert!(matches!(run(&["/nowhere/x".to_owned()], &more, SOON).await, Err(Failed::Start(_))));
    }

    #[tokio::test]
    async fn a_late_program_dies_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let late = run(&shell(&script), &[], Duration::from_millis(500)).await;
        assert!(matches!(late, Err(Failed::Late(_))), "{late:?}");
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let gone = async {
            // It may stay as a zombie until the process that inherits it looks.
            while std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| !stat.contains(") Z "))
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, gone).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_and_the_next_notice_follows() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("told");
        let script = format!(r#"echo "$3" >> {}; [ "$3" = BACKUP ] || sleep 1000"#, file.display());
        let notice =
            |phase| Notice { kind: Kind::Instance, index: 0, name: "one".into(), phase, priority: 100 };
        let told = || std::fs::read_to_string(&file).unwrap_or_default();
        let (news, heard) = watch::channel(None);
        // More than a shell needs to say it, on a machine with much else to do.
        let task = tokio::spawn(tell(shell(&script), heard, Duration::from_secs(3)));
        news.send_replace(Some(notice(vrrp::Phase::Master)));
        let first = async {
            while told() != "MASTER\n" {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, first).await.unwrap();
        news.send_replace(Some(notice(vrrp::Phase::Backup)));
        drop(news);
        timeout(SOON, task).await.unwrap().unwrap();
        assert_eq!(told(), "MASTER\nBACKUP\n");
    }
}
