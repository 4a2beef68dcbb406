//! What is done to which host, and how often, as the command line says it.

use std::time::Duration;

use anyhow::{bail, ensure};
use drill::{Fault, Target, Way};
use jiff::SignedDuration;
use local::Component;

/// The arguments about faults.
#[derive(clap::Args)]
pub struct FaultArgs {
    /// What is done to a host: power-off, process-kill, pause, partition, one-way, flap, packet-loss, slow-disk, full-disk or component:NAME [default: power-off]
    #[arg(long, value_name = "FAULT", value_parser = kind)]
    fault: Option<Kind>,
    /// To which: leader, vip, follower, worker, the NAME of a host, or each, one after the other [default: leader]
    #[arg(long, value_name = "TARGET", value_parser = target)]
    target: Option<Target>,
    /// How often, unless --for is given [default: 1, or each host once]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    runs: Option<u64>,
    /// How long to go on, one host after the other, such as 2h
    #[arg(long = "for", value_name = "TIME", conflicts_with = "runs", value_parser = long)]
    time: Option<Duration>,
    /// Asks each host in turn to end, and starts it again: no request may fail
    #[arg(long, conflicts_with_all = ["fault", "target"])]
    rolling_restart: bool,
    /// How long a host's program is stopped by --fault pause [default: 3s]
    #[arg(long, value_name = "TIME", value_parser = short)]
    pause: Option<Duration>,
    /// Which packets a one-way partition loses: those from the host, or those to it [default: from]
    #[arg(long, value_enum)]
    way: Option<Direction>,
    /// How many of a hundred packets --fault packet-loss loses [default: 5]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=99))]
    loss: Option<u8>,
    /// How long a link that flaps takes to go down and up again [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = short)]
    period: Option<Duration>,
    /// How much longer each sync takes on a slow disk [default: 200ms]
    #[arg(long, value_name = "TIME", value_parser = short)]
    stall: Option<Duration>,
    /// How long flap, packet-loss, slow-disk and full-disk last [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = long)]
    lasts: Option<Duration>,
}

/// A direction of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Direction {
    /// What the host sends is lost
    From,
    /// What is sent to the host is lost
    To,
}

/// A fault without what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    PowerOff,
    ProcessKill,
    Pause,
    Partition,
    OneWay,
    Flap,
    PacketLoss,
    SlowDisk,
    FullDisk,
    Component(Component),
}

impl FaultArgs {
    /// Whether none of them was given but how often.
    pub fn are_untouched(&self) -> bool {
        let FaultArgs {
            fault,
            target,
            runs: _,
            time,
            rolling_restart,
            pause,
            way,
            loss,
            period,
            stall,
            lasts,
        } = self;
        let given = [pause, period, stall, lasts, time].iter().any(|time| time.is_some());
        !(fault.is_some() || target.is_some() || *rolling_restart || way.is_some() || loss.is_some() || given)
    }

    /// What is done in a run.
    ///
    /// # Errors
    /// Of what was given, something belongs to another fault.
    pub fn fault(&self) -> anyhow::Result<Fault> {
        let kind = self.fault.unwrap_or(Kind::PowerOff);
        for (name, is_given, of) in [
            ("--pause", self.pause.is_some(), &[Kind::Pause][..]),
            ("--way", self.way.is_some(), &[Kind::OneWay]),
            ("--loss", self.loss.is_some(), &[Kind::PacketLoss]),
            ("--period", self.period.is_some(), &[Kind::Flap]),
            ("--stall", self.stall.is_some(), &[Kind::SlowDisk]),
            (
                "--lasts",
                self.lasts.is_some(),
                &[Kind::Flap, Kind::PacketLoss, Kind::SlowDisk, Kind::FullDisk],
            ),
        ] {
            ensure!(!is_given || of.contains(&kind), "{name} belongs to another --fault");
        }
        let lasts = self.lasts.unwrap_or(Duration::from_secs(10));
        Ok(match kind {
            _ if self.rolling_restart => Fault::Restart,
            Kind::PowerOff => Fault::PowerOff,
            Kind::ProcessKill => Fault::ProcessKill,
            Kind::Pause => Fault::Pause { time: self.pause.unwrap_or(Duration::from_secs(3)) },
            Kind::Partition => Fault::Partition,
            Kind::OneWay => match self.way {
                None | Some(Direction::From) => Fault::OneWay { way: Way::From },
                Some(Direction::To) => Fault::OneWay { way: Way::To },
            },
            Kind::Flap => {
                let period = self.period.unwrap_or(Duration::from_secs(1));
                if period > lasts {
                    bail!("a link can't flap every {period:?} within --lasts {lasts:?}: take a longer time");
                }
                Fault::Flap { period, lasts }
            }
            Kind::PacketLoss => Fault::PacketLoss { percent: self.loss.unwrap_or(5), lasts },
            Kind::SlowDisk => {
                Fault::SlowDisk { stall: self.stall.unwrap_or(Duration::from_millis(200)), lasts }
            }
            Kind::FullDisk => Fault::FullDisk { lasts },
            Kind::Component(component) => Fault::Component { component: component.name() },
        })
    }

    /// To which host.
    pub fn target(&self) -> Target {
        match &self.target {
            Some(target) => target.clone(),
            None if self.rolling_restart || self.time.is_some() => Target::Each,
            None => Target::Leader,
        }
    }

    /// How often, in a cluster of so many hosts.
    pub fn runs(&self, nodes: usize) -> usize {
        match self.runs.and_then(|runs| usize::try_from(runs).ok()) {
            Some(runs) => runs,
            None if self.target() == Target::Each => nodes,
            None => 1,
        }
    }

    /// How long, instead.
    pub fn time(&self) -> Option<Duration> {
        self.time
    }
}

fn kind(text: &str) -> Result<Kind, String> {
    if let Some(name) = text.strip_prefix("component:") {
        return Component::named(name).map(Kind::Component).ok_or_else(|| {
            format!(
                "a host has no component {name:?}. Its store, API, controllers, scheduler and agent are one program, which process-kill ends; \
                 beside that it has {}",
                Component::ALL.map(Component::name).join(", ")
            )
        });
    }
    match text {
        "power-off" => Ok(Kind::PowerOff),
        "process-kill" => Ok(Kind::ProcessKill),
        "pause" => Ok(Kind::Pause),
        "partition" => Ok(Kind::Partition),
        "one-way" => Ok(Kind::OneWay),
        "flap" => Ok(Kind::Flap),
        "packet-loss" => Ok(Kind::PacketLoss),
        "slow-disk" => Ok(Kind::SlowDisk),
        "full-disk" => Ok(Kind::FullDisk),
        _ => Err("it is none of power-off, process-kill, pause, partition, one-way, flap, packet-loss, slow-disk, full-disk, component:NAME".into()),
    }
}

fn target(text: &str) -> Result<Target, String> {
    match text {
        "leader" => Ok(Target::Leader),
        "vip" => Ok(Target::Vip),
        "follower" => Ok(Target::Follower),
        "each" => Ok(Target::Each),
        "worker" => Ok(Target::Worker),
        "" => Err("a host has a name".into()),
        name => Ok(Target::Node(name.to_owned())),
    }
}

/// A time of at most some minutes, as people write it.
fn short(text: &str) -> Result<Duration, String> {
    time(text, Duration::from_millis(10)..=Duration::from_secs(600))
}

/// A time of at most a week.
pub fn long(text: &str) -> Result<Duration, String> {
    time(text, Duration::from_millis(100)..=Duration::from_secs(7 * 24 * 3600))
}

fn time(text: &str, within: std::ops::RangeInclusive<Duration>) -> Result<Duration, String> {
    let time: SignedDuration =
        text.parse().map_err(|_| "it is no time such as 500ms, 3s or 1h 30m".to_owned())?;
    let time = Duration::try_from(time).ok().filter(|time| within.contains(time));
    time.ok_or_else(|| format!("take at least {:?} and at most {} s", within.start(), within.end().as_secs()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        faults: FaultArgs,
    }

    fn read(line: &str) -> Result<FaultArgs, String> {
        let words = std::iter::once("drill").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.faults).map_err(|error| error.to_string())
    }

    #[test]
    fn faults_with_what_belongs_to_them() {
        let seconds = Duration::from_secs;
        for (line, fault) in [
            ("", Fault::PowerOff),
            ("--fault process-kill", Fault::ProcessKill),
            ("--fault pause", Fault::Pause { time: seconds(3) }),
            ("--fault pause --pause 500ms", Fault::Pause { time: Duration::from_millis(500) }),
            ("--fault partition", Fault::Partition),
            ("--fault one-way", Fault::OneWay { way: Way::From }),
            ("--fault one-way --way to", Fault::OneWay { way: Way::To }),
            ("--fault flap --lasts 4s", Fault::Flap { period: seconds(1), lasts: seconds(4) }),
            (
                "--fault packet-loss --loss 20 --lasts 10m",
                Fault::PacketLoss { percent: 20, lasts: seconds(600) },
            ),
            ("--fault slow-disk", Fault::SlowDisk { stall: Duration::from_millis(200), lasts: seconds(10) }),
            (
                "--fault slow-disk --stall 1s --lasts 10m",
                Fault::SlowDisk { stall: seconds(1), lasts: seconds(600) },
            ),
            ("--fault full-disk --lasts 30s", Fault::FullDisk { lasts: seconds(30) }),
            ("--fault component:pod-keeper", Fault::Component { component: "pod-keeper" }),
            ("--rolling-restart", Fault::Restart),
        ] {
            assert_eq!(read(line).unwrap().fault().unwrap(), fault, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_its_reason() {
        for (line, why) in [
            ("--fault component:scheduler", "beside that it has address-keeper, shim, pod-keeper"),
            ("--fault component:", "beside that it has"),
            ("--fault earthquake", "none of power-off"),
            ("--fault pause --pause 0s", "at least"),
            ("--fault pause --pause soon", "no time such as"),
            ("--fault packet-loss --loss 100", "100"),
            ("--runs 3 --for 2h", "cannot be used with"),
            ("--rolling-restart --fault pause", "cannot be used with"),
        ] {
            let error = read(line).map(|_| ()).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
        for line in [
            "--pause 3s",
            "--fault pause --lasts 3s",
            "--fault pause --stall 1s",
            "--fault flap --period 2s --lasts 1s",
        ] {
            assert!(read(line).unwrap().fault().is_err(), "{line}");
        }
    }

    #[test]
    fn who_and_how_often() {
        let of = |line: &str| {
            let args = read(line).unwrap();
            (args.target().to_string(), args.runs(3), args.time())
        };
        assert_eq!(of(""), ("leader".into(), 1, None));
        assert_eq!(of("--target worker"), ("worker".into(), 1, None));
        assert_eq!(of("--target each"), ("each".into(), 3, None));
        assert_eq!(of("--target n2 --runs 5"), ("n2".into(), 5, None));
        assert_eq!(of("--rolling-restart"), ("each".into(), 3, None));
        assert_eq!(of("--for 2h"), ("each".into(), 3, Some(Duration::from_secs(7200))));
        assert!(read("--runs 4").unwrap().are_untouched() && !read("--for 2h").unwrap().are_untouched());
    }
}
