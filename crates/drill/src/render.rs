//! The report as text for people.

use crate::picture::Scale;
use crate::wording::{bytes, offset, roles, short, time, time_or_never, wording};
use crate::{Entry, Fault, Percentiles, Report, Run, SeriesReport, Share};
use std::collections::BTreeMap;
use std::io::{Result, Write};

/// Writes a single run whole. Of several, it writes a line each, the slowest one whole, and the summary.
pub(crate) fn report(report: &Report, out: &mut dyn Write) -> Result<()> {
    let runs = report.runs.len();
    if runs > 1 {
        table_of_runs(&report.runs, out)?;
    }
    let slowest = report.runs.iter().enumerate().max_by_key(|(_, run)| slowness(run));
    if let Some((number, run)) = slowest {
        let words = run.fault.words();
        let words =
            if runs > 1 { format!("The slowest, run {}: {words}", number + 1) } else { capital(&words) };
        writeln!(out, "{words} on {}, which {}", run.target, roles(&run.was))?;
        clocks(run, out)?;
        distribution(&run.distribution, out)?;
        timeline(run, out)?;
        writeln!(out)?;
    }
    let counted = report.fault.counted(runs);
    writeln!(out, "{counted}, {}", report.cluster.words(report.seed))?;
    if runs > 1 {
        let summary = &report.summary;
        writeln!(out, "  {:<26}{:>10}{:>10}{:>10}", "", "p50", "p99", "max")?;
        let (ready, declared) = labels(report.fault);
        // No new pod is to come of a fault that passes by.
        let is_replaced = summary.replacement_answered_ms.p50.is_some() || report.fault.takes_host_away();
        let clocks = [
            ("API outage", Some(summary.api_outage_ms)),
            ("API outage, writes", summary.writes_outage_ms),
            ("service outage", Some(summary.service_outage_ms)),
            ("new pod answers after", is_replaced.then_some(summary.replacement_answered_ms)),
            (&ready, Some(summary.rejoin_ready_ms)),
            (&declared, Some(summary.as_declared_ms)),
        ];
        for (name, clock) in clocks {
            let Some(clock) = clock else { continue };
            let Percentiles { p50, p99, max } = clock;
            let [p50, p99, max] = [p50, p99, max].map(time_or_never);
            writeln!(out, "  {name:<26}{p50:>10}{p99:>10}{max:>10}")?;
        }
        type Words = fn(u64) -> String;
        let counts: [(&str, Option<Percentiles>, Words); 2] = [
            ("elections won", summary.elections_won, |count| count.to_string()),
            ("new leader's memory, peak", summary.new_leader_peak_bytes, bytes),
        ];
        for (name, counted, words) in counts {
            let Some(Percentiles { p50, p99, max }) = counted else { continue };
            let [p50, p99, max] = [p50, p99, max].map(|count| count.map_or_else(|| "?".into(), words));
            writeln!(out, "  {name:<26}{p50:>10}{p99:>10}{max:>10}")?;
        }
        let safety = &summary.safety;
        for (name, clock) in [
            ("stateful pod answers after", safety.stateful_answered_ms),
            ("host fenced after", safety.fenced_ms),
        ] {
            let Some(Percentiles { p50, p99, max }) = clock else { continue };
            let [p50, p99, max] = [p50, p99, max].map(time_or_never);
            writeln!(out, "  {name:<26}{p50:>10}{p99:>10}{max:>10}")?;
        }
        writeln!(out, "  {:<36}{:>20}", "failed requests", summary.failed_asks)?;
        if summary.unsent_asks > 0 {
            writeln!(out, "  {:<36}{:>20}", "requests not sent for want of time", summary.unsent_asks)?;
        }
        for (name, words) in counts_of(safety.counts.all(), safety.spread) {
            writeln!(out, "  {name:<36}{words:>20}")?;
        }
        unseen(&safety.unseen, out)?;
    }
    Ok(())
}

/// What must not happen, and how often it did, as far as it was seen.
pub(crate) fn counts_of(counts: [Option<usize>; 6], spread: Option<f64>) -> Vec<(&'static str, String)> {
    let names = [
        "ran twice at once",
        "address held twice",
        "replaced without need",
        "failed on surviving hosts",
        "stale answers of the minority",
        "writes that the minority took",
    ];
    let counts = names.into_iter().zip(counts).filter_map(|(name, count)| Some((name, count?.to_string())));
    let spread = spread.map(|spread| ("busiest to least busy instance", format!("{spread:.2}")));
    counts.chain(spread).collect()
}

/// What wasn't seen, one line for each reason.
fn unseen(unseen: &BTreeMap<&'static str, String>, out: &mut dyn Write) -> Result<()> {
    for (why, names) in by_reason(unseen) {
        writeln!(out, "  not seen: {}: {why}", names.join(", "))?;
    }
    Ok(())
}

/// The reasons why something wasn't seen, each with what it was, in words.
pub(crate) fn by_reason<'a>(
    unseen: &'a BTreeMap<&'static str, String>,
) -> BTreeMap<&'a str, Vec<&'static str>> {
    let mut reasons: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
    for (&name, why) in unseen {
        reasons.entry(why).or_default().push(what_is(name));
    }
    reasons
}

/// A name of the JSON in words.
fn what_is(name: &'static str) -> &'static str {
    match name {
        "stateful_answered_ms" => "stateful pod answers",
        "fenced_ms" => "host fenced",
        "double_runs" => "ran twice at once",
        "double_holders" => "address held twice",
        "failed_on_survivors" => "failed on surviving hosts",
        "stale_answers" => "stale answers of the minority",
        "minority_writes" => "writes that the minority took",
        "spread" => "busiest to least busy instance",
        other => other,
    }
}

/// What the times until the host was Ready and all was as declared are called.
pub(crate) fn labels(fault: Fault) -> (String, String) {
    let since = fault.since_mended();
    (format!("host Ready {since}"), format!("as declared {since}"))
}

/// With a capital at its beginning, as a sentence has.
pub(crate) fn capital(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

/// The longest time that a caller was without the API or the service; never is the longest of all.
pub(crate) fn slowness(run: &Run) -> u64 {
    [run.api.outage_ms, run.service.outage_ms].map(|ms| ms.unwrap_or(u64::MAX)).into_iter().max().unwrap_or(0)
}

fn table_of_runs(runs: &[Run], out: &mut dyn Write) -> Result<()> {
    let head = ["API", "service", "asks failed", "new pod", "host Ready", "elections"];
    let [api, service, failed, pod, ready, won] = head;
    writeln!(
        out,
        "  {:>5}  {:<6}{api:>10}{service:>10}{failed:>13}{pod:>11}{ready:>12}{won:>11}",
        "run", "host"
    )?;
    for (number, run) in runs.iter().enumerate() {
        let [api, service] = [&run.api, &run.service].map(|clock| time_or_never(clock.outage_ms));
        let failed = run.api.failed + run.service.failed;
        let pod =
            if run.has_replacement() { time_or_never(run.replacement.answered_ms) } else { "none".into() };
        let ready = time_or_never(run.rejoin.ready_ms);
        let number = number + 1;
        let won = run.elections_won.map_or_else(|| "?".into(), |won| won.to_string());
        writeln!(
            out,
            "  {number:>5}  {:<6}{api:>10}{service:>10}{failed:>13}{pod:>11}{ready:>12}{won:>11}",
            run.target
        )?;
    }
    writeln!(out)
}

fn clocks(run: &Run, out: &mut dyn Write) -> Result<()> {
    writeln!(out)?;
    writeln!(out, "  {:<26}{:>10}{:>16}{:>18}", "clock", "outage", "failed/asked", "slowest answer")?;
    let rows: [(&str, Option<&SeriesReport>); 5] = [
        ("API", Some(&run.api)),
        ("API, writes", run.writes.as_ref()),
        ("service", Some(&run.service)),
        ("service, surviving hosts", run.survivors.as_ref()),
        ("service, kubectl proxy", run.kubectl_proxy.as_ref()),
    ];
    for (name, clock) in rows {
        let Some(clock) = clock else { continue };
        let outage = time_or_never(clock.outage_ms);
        let asked = format!("{}/{}", clock.failed, clock.asked);
        let slowest = time(clock.slowest_ms);
        writeln!(out, "  {name:<26}{outage:>10}{asked:>16}{slowest:>18}")?;
    }
    if run.unsent_asks > 0 {
        // Whether they would have failed, nobody knows.
        writeln!(out, "  {:<26}{:>26}", "not sent for want of time", run.unsent_asks)?;
    }
    if run.has_replacement() {
        let after = time_or_never(run.replacement.answered_ms);
        writeln!(out, "  {:<26}{after:>10}", "new pod answers after")?;
    }
    let (ready, declared) = labels(run.fault);
    writeln!(out, "  {ready:<26}{:>10}", time_or_never(run.rejoin.ready_ms))?;
    writeln!(out, "  {declared:<26}{:>10}", time_or_never(run.rejoin.as_declared_ms))?;
    let safety = &run.safety;
    if !safety.unseen.contains_key("stateful_answered_ms") {
        let after = time_or_never(safety.stateful_answered_ms);
        writeln!(out, "  {:<26}{after:>10}", "stateful pod answers after")?;
    }
    if let Some(after) = safety.fenced_ms {
        writeln!(out, "  {:<26}{:>10}", "host fenced after", time(after))?;
    }
    if let Some(won) = run.elections_won {
        writeln!(out, "  {:<26}{won:>10}", "elections won")?;
    }
    if let Some(memory) = &run.memory {
        let (before, peak) = (bytes(memory.new_leader_before_bytes), bytes(memory.new_leader_peak_bytes));
        writeln!(out, "  {:<26}{before:>10}", "new leader's memory")?;
        writeln!(out, "  {:<26}{peak:>10}", "its peak after the cut")?;
    }
    for (name, words) in counts_of(safety.counts.all(), safety.spread) {
        writeln!(out, "  {name:<31}{words:>5}")?;
    }
    unseen(&safety.unseen, out)
}

/// What each pod had of the requests, as far as a reader looks at them: the JSON has all.
fn distribution(shares: &[Share], out: &mut dyn Write) -> Result<()> {
    const MOST: usize = 24;
    if shares.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    writeln!(out, "  {:<34}{:>8}{:>8}{:>8}", "requests answered by", "before", "during", "after")?;
    for Share { pod, host, before, during, after } in shares.iter().take(MOST) {
        let who = format!("{} on {host}", short(pod));
        writeln!(out, "  {who:<34}{before:>8}{during:>8}{after:>8}")?;
    }
    match shares.len().saturating_sub(MOST) {
        0 => Ok(()),
        1 => writeln!(out, "  and 1 more pod"),
        more => writeln!(out, "  and {more} more pods"),
    }
}

/// The timeline in two parts, each with the picture beside it: after the fault began, and after its end.
fn timeline(run: &Run, out: &mut dyn Write) -> Result<()> {
    let (cut, back) = run.timeline.split_at(run.mended_at());
    let mut bars = vec![("API", run.api.outage_ms), ("service", run.service.outage_ms)];
    if run.has_replacement() {
        bars.push(("new pod", run.replacement.answered_ms));
    }
    if !run.safety.unseen.contains_key("stateful_answered_ms") {
        bars.push(("stateful", run.safety.stateful_answered_ms));
    }
    let last = |entries: &[Entry], from: i64| {
        let last = entries.iter().map(|e| e.at_ms - from).max().unwrap_or(0);
        u64::try_from(last).unwrap_or(0)
    };
    let slowest = bars.iter().filter_map(|(_, ms)| *ms).max();
    // One straggler must not squeeze the clocks into a corner.
    let shown = slowest.map_or_else(|| last(cut, 0), |slowest| last(cut, 0).min(slowest + slowest / 10));
    let scale = Scale::up_to(shown.max(slowest.unwrap_or(0)));
    writeln!(out)?;
    writeln!(out, "  {:<54}{}", run.fault.since(), scale.axis())?;
    for (name, ms) in &bars {
        writeln!(out, "  {:<54}{}", format!("{name:>9}  {}", time_or_never(*ms)), scale.bar(*ms))?;
    }
    lines(cut, 0, &scale, out)?;
    if let Some(mended) = back.first() {
        let from = mended.at_ms;
        let scale = Scale::up_to(run.rejoin.ready_ms.unwrap_or(0).max(last(back, from).min(10_000)));
        writeln!(out)?;
        writeln!(out, "  {:<54}{}", run.fault.since_mended(), scale.axis())?;
        lines(back, from, &scale, out)?;
    }
    Ok(())
}

fn lines(entries: &[Entry], from: i64, scale: &Scale, out: &mut dyn Write) -> Result<()> {
    for entry in entries {
        let at = entry.at_ms - from;
        let words = wording(&entry.what, entry.subject.as_deref());
        let words: String = words.chars().take(37).collect();
        let node = entry.node.as_deref().unwrap_or("");
        let text = format!("{:>9}  {node:<4} {words}", offset(at));
        writeln!(out, "  {text:<54}{}", scale.mark(at))?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::{Cluster, MemoryOfRun, Rejoin, Replacement, Summary};
    use crate::{Counts, Safety, Target};

    fn entry(at_ms: i64, what: &str, node: &str, subject: &str) -> Entry {
        let there = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
        Entry { at_ms, what: what.into(), node: there(node), subject: there(subject) }
    }

    fn clock(outage_ms: Option<u64>, failed: usize, slowest_ms: u64) -> SeriesReport {
        SeriesReport { outage_ms, failed, asked: 160, slowest_ms }
    }

    pub(crate) fn example() -> Report {
        let run = Run {
            fault: Fault::PowerOff,
            target: "n1".into(),
            was: vec!["leader", "vip", "worker"],
            api: clock(Some(381), 7, 12),
            writes: None,
            service: clock(Some(388), 7, 14),
            survivors: Some(clock(Some(4), 0, 231)),
            kubectl_proxy: None,
            replacement: Replacement { answered_ms: Some(1624), pod: Some("web-5".into()) },
            rejoin: Rejoin {
                ready_ms: Some(612),
                caught_up_ms: Some(240),
                power_on_at_ms: 7000,
                as_declared_ms: Some(640),
            },
            elections_won: Some(1),
            safety: Safety {
                stateful_answered_ms: Some(1790),
                stateful_pod: Some("db-1".into()),
                fenced_ms: Some(1500),
                counts: Counts {
                    double_runs: Some(0),
                    double_holders: None,
                    needless_replacements: Some(0),
                    failed_on_survivors: Some(0),
                    stale_answers: Some(0),
                    minority_writes: Some(0),
                },
                spread: Some(1.12),
                unseen: BTreeMap::from([("double_holders", "the switch knows one".to_owned())]),
            },
            distribution: Vec::new(),
            unsent_asks: 0,
            memory: Some(MemoryOfRun {
                leader_before_bytes: 31_000_000,
                new_leader: "n2".into(),
                new_leader_before_bytes: 26_400_000,
                new_leader_peak_bytes: 1_234_000_000,
            }),
            timeline: vec![
                entry(-12, "last-heartbeat", "n1", ""),
                entry(0, "power-off", "n1", ""),
                entry(238, "host-silent", "n2", "n1"),
                entry(239, "endpoints-dropped", "n2", "n1"),
                entry(331, "election-won", "n2", ""),
                entry(344, "vip-moved", "n2", ""),
                entry(1500, "node-fenced", "n2", "n1"),
                entry(1610, "pod-created", "n2", "x/db-1"),
                entry(1624, "replacement-answers", "", "x/web-5"),
                entry(1790, "stateful-answers", "", "x/db-1"),
                entry(5000, "straggler", "n3", ""),
                entry(7000, "power-on", "n1", ""),
                entry(7240, "store-caught-up", "n1", ""),
                entry(7612, "node-ready", "n2", "n1"),
            ],
            asks: crate::Asks::default(),
        };
        let runs = vec![run];
        let summary = Summary::of(&runs);
        let cluster = Cluster { nodes: 3, net: "loopback".into(), runtime: "host".into(), preloaded_pods: 0 };
        Report {
            version: 1,
            seed: 7,
            fault: Fault::PowerOff,
            target: Target::Leader,
            cluster,
            runs,
            summary,
            ended_early: None,
        }
    }

    fn printed(report: &Report) -> String {
        let mut out = Vec::new();
        super::report(report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_run_in_full() {
        let expected = "\
Power cut on n1, which led, held the virtual address and ran a pod

  clock                         outage    failed/asked    slowest answer
  API                           381 ms           7/160             12 ms
  service                       388 ms           7/160             14 ms
  service, surviving hosts        4 ms           0/160            231 ms
  new pod answers after         1.62 s
  host Ready after power on     612 ms
  as declared after power on    640 ms
  stateful pod answers after    1.79 s
  host fenced after             1.50 s
  elections won                      1
  new leader's memory            26 MB
  its peak after the cut        1.2 GB
  ran twice at once                  0
  replaced without need              0
  failed on surviving hosts          0
  stale answers of the minority      0
  writes that the minority took      0
  busiest to least busy instance  1.12
  not seen: address held twice: the switch knows one

  after the cut                                         0         0.5       1         1.5    2 s
        API  381 ms                                     ███████▌································
    service  388 ms                                     ███████▌································
    new pod  1.62 s                                     ███████████████████████████████▌········
   stateful  1.79 s                                     ██████████████████████████████████▌·····
     -12 ms  n1   last heartbeat heard                  ●·······································
      +0 ms  n1   power off                             ●·······································
    +238 ms  n2   n1 is silent                          ····●···································
    +239 ms  n2   drops the endpoints on n1             ····●···································
    +331 ms  n2   won the election, leads               ······●·································
    +344 ms  n2   holds the virtual address             ······●·································
    +1.50 s  n2   node n1 fenced                        ·····························●··········
    +1.61 s  n2   pod db-1 created                      ·······························●········
    +1.62 s       new pod web-5 answers                 ·······························●········
    +1.79 s       stateful pod db-1 answers             ··································●·····
    +5.00 s  n3   straggler                             ·······································▶

  after power on                                        0         0.2       0.4       0.6  0.8 s
      +0 ms  n1   power on again                        ●·······································
    +240 ms  n1   store caught up                       ···········●····························
    +612 ms  n2   node n1 Ready                         ·····························●··········

1 power cut, 3 hosts, net loopback, runtime host, seed 7
";
        let text = printed(&example());
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn what_each_pod_had_of_the_requests() {
        let mut report = example();
        let share = |number: usize| Share {
            pod: format!("web-{number}"),
            host: "n2".into(),
            before: 7,
            during: 12,
            after: 130,
        };
        report.runs[0].distribution = (1..=25).map(share).collect();
        report.runs[0].unsent_asks = 3;
        let text = printed(&report);
        for line in [
            "\n  requests answered by                before  during   after\n",
            "\n  web-1 on n2                              7      12     130\n",
            "\n  and 1 more pod\n",
            "\n  not sent for want of time                          3\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("web-25"), "{text}");
    }

    #[test]
    fn what_lay_in_the_cluster_and_what_it_cost() {
        let mut report = example();
        report.cluster.preloaded_pods = 10_000;
        report.runs.push(report.runs[0].clone());
        report.runs[1].elections_won = Some(15);
        report.runs[1].memory = None;
        report.summary = Summary::of(&report.runs);
        let text = printed(&report);
        for words in [
            "2 power cuts, 3 hosts, net loopback, runtime host, seed 7, 10000 pods preloaded\n",
            "  elections won                      1        15        15\n",
            "  new leader's memory, peak     1.2 GB         ?         ?\n",
            "     2  n1        381 ms    388 ms           14     1.62 s      612 ms         15\n",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        report.runs.iter_mut().for_each(|run| run.elections_won = None);
        report.summary = Summary::of(&report.runs);
        assert!(!printed(&report).contains("elections won"), "a site that doesn't tell");
    }

    #[test]
    fn what_never_came_is_said_so() {
        let mut report = example();
        report.runs[0].api = clock(None, 160, 0);
        report.runs.push(report.runs[0].clone());
        report.summary = Summary::of(&report.runs);
        let text = printed(&report);
        for words in [
            "The slowest, run 2: power cut on n1",
            "API                            never         160/160",
            "p50",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let row = text.lines().find(|l| l.contains("API outage")).unwrap();
        assert_eq!(row.split_whitespace().filter(|w| *w == "never").count(), 3, "{row}");
    }
}
