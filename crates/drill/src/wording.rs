//! The timeline's names in words.

/// What happened, for people. `subject` is a host, `namespace/pod` or `namespace/service`.
pub(crate) fn wording(what: &str, subject: Option<&str>) -> String {
    let subject = subject.unwrap_or_default();
    let name = &short(subject.rsplit('/').next().unwrap_or_default());
    match what {
        "power-off" => "power off".into(),
        "power-on" => "power on again".into(),
        "process-kill" => "program killed".into(),
        "process-start" => "program started again".into(),
        "pause" => "program stopped".into(),
        "resume" => "program goes on".into(),
        "partition" => "cut off from the others".into(),
        "one-way" => "cut off in one direction".into(),
        "partition-healed" => "connected again".into(),
        "packet-loss" => "packets are lost from here on".into(),
        "packet-loss-over" => "no more packets are lost".into(),
        "slow-disk" => "disk stalls from here on".into(),
        "slow-disk-over" => "disk stalls no more".into(),
        "full-disk" => "no room left on the disk".into(),
        "full-disk-over" => "room on the disk again".into(),
        "component-killed" => "a process beside the program killed".into(),
        "component-left" => "the rest is left to the host".into(),
        "restart" => "asked to end".into(),
        "restarted" => "ended, and is started again".into(),
        "command" => "cut by command".into(),
        "restore-command" => "restored by command".into(),
        "last-heartbeat" => "last heartbeat heard".into(),
        "host-started" => "host started".into(),
        "host-silent" => format!("{name} is silent"),
        "host-heard" => format!("hears {name} again"),
        "endpoints-dropped" => format!("drops the endpoints on {name}"),
        "endpoints-restored" => format!("takes the endpoints on {name} back"),
        "election-started" => "stands for election".into(),
        "election-won" => "won the election, leads".into(),
        "vip-moved" => "holds the virtual address".into(),
        "vip-released" => "gives up the virtual address".into(),
        "node-not-ready" => format!("node {name} NotReady"),
        "node-ready" => format!("node {name} Ready"),
        "host-fenced" => format!("counts the lease of {name} as over"),
        "node-fenced" => format!("node {name} fenced"),
        "node-unfenced" => format!("node {name} no longer fenced"),
        "pod-created" => format!("pod {name} created"),
        "pod-placed" => format!("pod {name} placed"),
        "pod-started" => format!("pod {name} started"),
        "pod-ready" => format!("pod {name} ready"),
        "pod-deleted" => format!("pod {name} deleted"),
        "endpoint-added" => format!("endpoint of {name} added"),
        "endpoint-removed" => format!("endpoint of {name} removed"),
        "store-caught-up" => "store caught up".into(),
        "api-answers" => "the API answers".into(),
        "service-answers" => "the service answers".into(),
        "as-declared" => "all is as declared".into(),
        "stateful-answers" => format!("stateful pod {name} answers"),
        "replacement-answers" => format!("new pod {name} answers"),
        other if subject.is_empty() => other.replace('-', " "),
        other => format!("{} ({subject})", other.replace('-', " ")),
    }
}

/// What a host was to the cluster, as a part of a sentence: `led, held the virtual address and ran a pod`.
pub(crate) fn roles(was: &[&str]) -> String {
    let words: Vec<&str> = was
        .iter()
        .map(|role| match *role {
            "leader" => "led",
            "vip" => "held the virtual address",
            "worker" => "ran a pod",
            other => other,
        })
        .collect();
    match words.as_slice() {
        [] => "had no part in it".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A name within bounds: its end tells pods apart.
pub(crate) fn short(name: &str) -> String {
    const LONGEST: usize = 20;
    let length = name.chars().count();
    if length <= LONGEST {
        return name.to_owned();
    }
    "…".chars().chain(name.chars().skip(length + 1 - LONGEST)).collect()
}

/// A length of time, short: `412 ms`, `1.62 s`, `12.3 s`.
pub(crate) fn time(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..10_000 => format!("{:.2} s", ms as f64 / 1000.0),
        _ => format!("{:.1} s", ms as f64 / 1000.0),
    }
}

/// An offset with its sign.
pub(crate) fn offset(ms: i64) -> String {
    let sign = if ms < 0 { '-' } else { '+' };
    format!("{sign}{}", time(ms.unsigned_abs()))
}

/// `never` where there is no time.
pub(crate) fn time_or_never(ms: Option<u64>) -> String {
    ms.map_or_else(|| "never".into(), time)
}

/// A number of bytes, short: `26 MB`, `1.2 GB`.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes / 1_000_000 {
        mega @ 0..1000 => format!("{mega} MB"),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (ms, text) in [(0, "0 ms"), (999, "999 ms"), (1624, "1.62 s"), (12_345, "12.3 s")] {
            assert_eq!(time(ms), text);
        }
        assert_eq!((offset(-12).as_str(), offset(1500).as_str()), ("-12 ms", "+1.50 s"));
        assert_eq!(time_or_never(None), "never");
    }

    #[test]
    fn sizes() {
        for (count, text) in [(26_400_000, "26 MB"), (999_999_999, "999 MB"), (1_234_000_000, "1.2 GB")] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn what_a_host_was_is_said_in_words() {
        assert_eq!(roles(&["leader", "vip", "worker"]), "led, held the virtual address and ran a pod");
        assert_eq!(roles(&["leader", "vip"]), "led and held the virtual address");
        assert_eq!([roles(&["worker"]), roles(&[])], ["ran a pod", "had no part in it"]);
    }

    #[test]
    fn words() {
        assert_eq!(wording("pod-placed", Some("x/web-1")), "pod web-1 placed");
        let long = wording("pod-placed", Some("x/test-deployment-65944b89c8-mwrgk"));
        assert_eq!(long, "pod …nt-65944b89c8-mwrgk placed");
        assert_eq!(wording("new-thing", Some("n1")), "new thing (n1)");
        assert_eq!(wording("new-thing", None), "new thing");
    }
}
