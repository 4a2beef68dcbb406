//! The faults: what is done to a host, when, and what a drill may expect of a cluster that suffers it.

use crate::wording::time;
use serde::{Serialize, Serializer};
use std::time::Duration;

/// A pause, the silence of a link that flaps, or a sync, of no more than this must cost no pod.
const SHORT: Duration = Duration::from_secs(1);

/// What is done to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// Its power goes: all that is on it falls silent at once.
    PowerOff,
    /// Its program is killed. Its pods go on.
    ProcessKill,
    /// Its program is stopped, and goes on after a time. Its pods run all the while.
    Pause {
        /// How long it is stopped.
        #[serde(rename = "pause_ms", serialize_with = "as_ms")]
        time: Duration,
    },
    /// It and the other hosts don't hear each other. Who asks from outside is heard by both sides.
    Partition,
    /// The same in one direction alone.
    OneWay {
        /// Which packets are lost.
        way: Way,
    },
    /// Its link goes down and up again, by turns.
    Flap {
        /// How long one turn takes. The link is down for the first half of it.
        #[serde(rename = "period_ms", serialize_with = "as_ms")]
        period: Duration,
        /// How long it goes on.
        #[serde(rename = "lasts_ms", serialize_with = "as_ms")]
        lasts: Duration,
    },
    /// Some of the packets between it and the other hosts are lost, in both directions.
    PacketLoss {
        /// How many of a hundred.
        percent: u8,
        /// How long it goes on.
        #[serde(rename = "lasts_ms", serialize_with = "as_ms")]
        lasts: Duration,
    },
    /// Its disk stalls: each sync takes longer, of its program and of its pods.
    SlowDisk {
        /// By how much.
        #[serde(rename = "stall_ms", serialize_with = "as_ms")]
        stall: Duration,
        /// How long it goes on.
        #[serde(rename = "lasts_ms", serialize_with = "as_ms")]
        lasts: Duration,
    },
    /// Its disk has no room left.
    FullDisk {
        /// How long.
        #[serde(rename = "lasts_ms", serialize_with = "as_ms")]
        lasts: Duration,
    },
    /// A process that it has beside its program is killed, or all of the kind. Whether there is another one is the host's affair.
    Component {
        /// Which, by the site's name.
        component: &'static str,
    },
    /// Its program is asked to end, as for a reboot that somebody planned, and is started again at once.
    Restart,
    /// What a command of the user's own does to it.
    Command,
}

/// A direction between a host and the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// What the host sends is lost: it hears the others, and nobody hears it.
    From,
    /// What is sent to the host is lost: the others hear it, and it hears nobody.
    To,
}

/// What happens to a host in the course of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Break,
    Mend,
}

fn as_ms<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(crate::report::ms(*time))
}

impl Fault {
    /// Its name, on the command line and in the timeline.
    pub fn name(self) -> &'static str {
        match self {
            Fault::PowerOff => "power-off",
            Fault::ProcessKill => "process-kill",
            Fault::Pause { .. } => "pause",
            Fault::Partition => "partition",
            Fault::OneWay { .. } => "one-way",
            Fault::Flap { .. } => "flap",
            Fault::PacketLoss { .. } => "packet-loss",
            Fault::SlowDisk { .. } => "slow-disk",
            Fault::FullDisk { .. } => "full-disk",
            Fault::Component { .. } => "component",
            Fault::Restart => "restart",
            Fault::Command => "command",
        }
    }

    /// What comes after it has begun, and how long after, in order. Where that is nothing, it lasts until the clocks have stopped.
    pub(crate) fn changes(self) -> impl Iterator<Item = (Duration, Act)> {
        let (turns, between) = match self {
            Fault::Pause { time } => (1, time),
            Fault::PacketLoss { lasts, .. } | Fault::SlowDisk { lasts, .. } | Fault::FullDisk { lasts } => {
                (1, lasts)
            }
            Fault::Restart | Fault::Component { .. } => (1, Duration::ZERO),
            Fault::Flap { period, lasts } => {
                let whole = (lasts.as_micros() / period.as_micros().max(1)).max(1);
                (u32::try_from(whole * 2 - 1).unwrap_or(u32::MAX), period / 2)
            }
            Fault::PowerOff
            | Fault::ProcessKill
            | Fault::Partition
            | Fault::OneWay { .. }
            | Fault::Command => (0, Duration::ZERO),
        };
        // It begins broken, so the odd turns mend it; so does the last.
        (1..=turns).map(move |turn| (between * turn, if turn % 2 == 1 { Act::Mend } else { Act::Break }))
    }

    /// How long it lasts, where that is known.
    pub(crate) fn lasts(self) -> Duration {
        match self {
            Fault::Pause { time } => time,
            Fault::Flap { lasts, .. }
            | Fault::PacketLoss { lasts, .. }
            | Fault::SlowDisk { lasts, .. }
            | Fault::FullDisk { lasts } => lasts,
            _ => Duration::ZERO,
        }
    }

    /// It lasts until a cluster has given the host up: others take its place, and a new pod comes for the one on it.
    pub(crate) fn takes_host_away(self) -> bool {
        self.changes().next().is_none()
    }

    /// Whether the host's program has to start again.
    pub(crate) fn ends_program(self) -> bool {
        matches!(self, Fault::PowerOff | Fault::ProcessKill | Fault::Restart)
    }

    /// Whether pods on the host may be replaced.
    pub(crate) fn may_cost_pods(self) -> bool {
        match self {
            Fault::Pause { time } => time > SHORT,
            Fault::Flap { period, .. } => period / 2 > SHORT,
            Fault::SlowDisk { stall, .. } => stall > SHORT,
            Fault::PacketLoss { .. } | Fault::Component { .. } => false,
            _ => true,
        }
    }

    /// Whether it is of a disk, which who only reads doesn't notice.
    pub(crate) fn is_of_disk(self) -> bool {
        matches!(self, Fault::SlowDisk { .. } | Fault::FullDisk { .. })
    }

    /// Whether requests may fail at all.
    pub(crate) fn may_cost_requests(self) -> bool {
        self != Fault::Restart
    }

    /// What the timeline says when it begins.
    pub(crate) fn broken(self) -> &'static str {
        match self {
            Fault::Flap { .. } => "link-down",
            Fault::Component { .. } => "component-killed",
            other => other.name(),
        }
    }

    /// What the timeline says when it is over; of a fault that comes and goes, the last of these.
    pub(crate) fn mended(self) -> &'static str {
        match self {
            Fault::PowerOff => "power-on",
            Fault::ProcessKill => "process-start",
            Fault::Pause { .. } => "resume",
            Fault::Partition | Fault::OneWay { .. } => "partition-healed",
            Fault::Flap { .. } => "link-up",
            Fault::PacketLoss { .. } => "packet-loss-over",
            Fault::SlowDisk { .. } => "slow-disk-over",
            Fault::FullDisk { .. } => "full-disk-over",
            Fault::Component { .. } => "component-left",
            Fault::Restart => "restarted",
            Fault::Command => "restore-command",
        }
    }

    /// It in words, as a part of a sentence.
    pub(crate) fn words(self) -> String {
        match self {
            Fault::PowerOff => "power cut".into(),
            Fault::ProcessKill => "program killed".into(),
            Fault::Pause { time: length } => format!("program stopped for {}", short(length)),
            Fault::Partition => "partition".into(),
            Fault::OneWay { way: Way::From } => "one-way partition: heard by nobody".into(),
            Fault::OneWay { way: Way::To } => "one-way partition: hears nobody".into(),
            Fault::Flap { period, lasts } => {
                format!("link down and up every {} for {}", short(period), short(lasts))
            }
            Fault::PacketLoss { percent, lasts } => {
                format!("{percent} % of packets lost for {}", short(lasts))
            }
            Fault::SlowDisk { stall, lasts } => {
                format!("slow disk, each sync {} longer, for {}", short(stall), short(lasts))
            }
            Fault::FullDisk { lasts } => format!("full disk for {}", short(lasts)),
            Fault::Component { component } => format!("{component} killed"),
            Fault::Restart => "planned restart".into(),
            Fault::Command => "cut by command".into(),
        }
    }

    /// As many of them, in words.
    pub(crate) fn counted(self, runs: usize) -> String {
        match (self, runs) {
            (Fault::PowerOff, 1) => "1 power cut".into(),
            (Fault::PowerOff, _) => format!("{runs} power cuts"),
            (_, 1) => format!("1 run ({})", self.words()),
            _ => format!("{runs} runs ({})", self.words()),
        }
    }

    /// What becomes of a host, for those who follow the drill.
    pub(crate) fn announced(self) -> String {
        match self {
            Fault::PowerOff => "its power will be cut".into(),
            Fault::ProcessKill => "its program will be killed".into(),
            Fault::Pause { time } => format!("its program will be stopped for {}", short(time)),
            Fault::Partition => "it will be cut off from the other hosts".into(),
            Fault::OneWay { way: Way::From } => "the other hosts will hear nothing of it".into(),
            Fault::OneWay { way: Way::To } => "it will hear nothing of the other hosts".into(),
            Fault::Flap { period, lasts } => {
                format!("its link will go down and up every {} for {}", short(period), short(lasts))
            }
            Fault::PacketLoss { percent, lasts } => {
                format!(
                    "{percent} % of the packets between it and the others will be lost for {}",
                    short(lasts)
                )
            }
            Fault::SlowDisk { stall, lasts } => {
                format!("each sync of its disk will take {} longer for {}", short(stall), short(lasts))
            }
            Fault::FullDisk { lasts } => format!("its disk will have no room left for {}", short(lasts)),
            Fault::Component { component } => format!("what it has of {component} will be killed"),
            Fault::Restart => "it will be asked to end, and be started again".into(),
            Fault::Command => "the command for the cut will be run".into(),
        }
    }

    /// What is done when the clocks have stopped.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Fault::PowerOff => "gets its power back",
            Fault::ProcessKill => "is started again",
            Fault::Command => "is restored by command",
            _ => "is heard again",
        }
    }

    /// What the host is like meanwhile.
    pub(crate) fn state(self) -> &'static str {
        match self {
            Fault::PowerOff => "without power",
            Fault::ProcessKill => "its program doesn't run",
            Fault::Pause { .. } => "its program is stopped",
            Fault::Partition => "cut off from the others",
            Fault::OneWay { way: Way::From } => "heard by nobody",
            Fault::OneWay { way: Way::To } => "hears nobody",
            Fault::Flap { .. } => "its link comes and goes",
            Fault::PacketLoss { .. } => "packets are lost",
            Fault::SlowDisk { .. } => "its disk stalls",
            Fault::FullDisk { .. } => "its disk is full",
            Fault::Component { .. } => "a process of it is killed",
            Fault::Restart => "restarts",
            Fault::Command => "cut by command",
        }
    }

    /// From when on times are counted, as a heading.
    pub(crate) fn since(self) -> &'static str {
        match self {
            Fault::PowerOff => "after the cut",
            _ => "after the fault",
        }
    }

    /// From when on they are counted anew.
    pub(crate) fn since_mended(self) -> &'static str {
        match self {
            Fault::PowerOff => "after power on",
            _ => "after its end",
        }
    }
}

/// A length of time in the least letters.
fn short(length: Duration) -> String {
    match crate::report::ms(length) {
        ms if ms > 0 && ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => time(ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_fault_ends_mended_after_its_time() {
        let changes =
            |fault: Fault| fault.changes().map(|(at, act)| (at.as_millis(), act)).collect::<Vec<_>>();
        assert_eq!(changes(Fault::PowerOff), []);
        assert_eq!(changes(Fault::Pause { time: ms(3000) }), [(3000, Act::Mend)]);
        assert_eq!(changes(Fault::Restart), [(0, Act::Mend)]);
        let flap = |period, lasts| Fault::Flap { period: ms(period), lasts: ms(lasts) };
        assert_eq!(changes(flap(1000, 2500)), [(500, Act::Mend), (1000, Act::Break), (1500, Act::Mend)]);
        assert_eq!(changes(flap(1000, 10)), [(500, Act::Mend)], "once at least");
    }

    #[test]
    fn a_short_pause_a_slow_disk_and_lost_packets_must_cost_no_pod() {
        let (lasts, period) = (ms(60_000), ms(2000));
        for (fault, may) in [
            (Fault::PowerOff, true),
            (Fault::Partition, true),
            (Fault::Restart, true),
            (Fault::Pause { time: ms(1000) }, false),
            (Fault::Pause { time: ms(3000) }, true),
            (Fault::Flap { period, lasts }, false),
            (Fault::Flap { period: period * 2, lasts }, true),
            (Fault::PacketLoss { percent: 5, lasts }, false),
            (Fault::SlowDisk { stall: ms(200), lasts }, false),
            (Fault::SlowDisk { stall: ms(1001), lasts }, true),
            (Fault::Component { component: "shim" }, false),
            // Hosts under pressure evict pods.
            (Fault::FullDisk { lasts }, true),
        ] {
            assert_eq!(fault.may_cost_pods(), may, "{fault:?}");
        }
    }

    #[test]
    fn the_json_says_all_of_a_fault() {
        let json = |fault: Fault| serde_json::to_value(fault).unwrap();
        assert_eq!(json(Fault::PowerOff), json!({"fault": "power-off"}));
        assert_eq!(json(Fault::Pause { time: ms(3000) }), json!({"fault": "pause", "pause_ms": 3000}));
        assert_eq!(json(Fault::OneWay { way: Way::To }), json!({"fault": "one-way", "way": "to"}));
        let loss = Fault::PacketLoss { percent: 5, lasts: ms(10_000) };
        assert_eq!(json(loss), json!({"fault": "packet-loss", "percent": 5, "lasts_ms": 10_000}));
        let slow = Fault::SlowDisk { stall: ms(200), lasts: ms(10_000) };
        assert_eq!(json(slow), json!({"fault": "slow-disk", "stall_ms": 200, "lasts_ms": 10_000}));
        let full = Fault::FullDisk { lasts: ms(10_000) };
        assert_eq!(json(full), json!({"fault": "full-disk", "lasts_ms": 10_000}));
        let component = Fault::Component { component: "shim" };
        assert_eq!(json(component), json!({"fault": "component", "component": "shim"}));
        use Fault::{Command, Partition, PowerOff, ProcessKill, Restart};
        for fault in [PowerOff, ProcessKill, Partition, Restart, Command, loss, slow, full, component] {
            assert_eq!(json(fault)["fault"], fault.name(), "one name in both places");
        }
    }
}
