//! The report as one page for a browser: a picture of the slowest run, where its time went, and all runs side by side. It needs nothing
//! but itself, and follows the reader's choice of light or dark and the width of the window.

mod lanes;
mod strips;

use std::fmt::Write;

use crate::percentile::Percentiles;
use crate::render::{by_reason, capital, counts_of, labels};
use crate::wording::{offset, roles, time, time_or_never, wording};
use crate::{Fault, Report, Run, Share};

/// How a page looks. Good and bad differ in form and not only in colour, for those who don't tell the colours apart.
const STYLE: &str = include_str!("html/page.css");

/// A text as it may stand in a page, whatever is in it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            _ if letter.is_control() => out.push(' '),
            _ => out.push(letter),
        }
    }
    out
}

/// The same with places where a line may end, as long names have no blanks: after stops, dashes and slashes, and within `electionMin`.
fn breakable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    for letter in text.chars() {
        if "./-_".contains(before) || (before.is_lowercase() && letter.is_uppercase()) {
            out += "<wbr>";
        }
        out += &escaped(letter.encode_utf8(&mut [0; 4]));
        before = letter;
    }
    out
}

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let slowest = report.runs.iter().enumerate().max_by_key(|(_, run)| crate::render::slowness(run));
    let runs = report.runs.len();
    let counted = report.fault.counted(runs);
    let about = format!("{counted}, {}", escaped(&report.cluster.words(report.seed)));
    let mut body = String::new();
    let title = match slowest {
        Some((_, run)) => format!("{} on {}", capital(&run.fault.words()), escaped(&run.target)),
        None => format!("No {}", report.fault.words()),
    };
    let _ = write!(body, "<header><h1>{title}</h1><p>{about}</p></header>");
    tiles(report, &mut body);
    if let Some((number, run)) = slowest {
        let which = if runs > 1 { format!("The slowest: run {}", number + 1) } else { "The run".to_owned() };
        let was = escaped(&roles(&run.was));
        let target = escaped(&run.target);
        let _ = write!(body, "<section><h2>{which}</h2><p>{target} {was} before that.</p>");
        legend(report.fault, &mut body);
        for (class, width) in [("wide", 1000), ("narrow", 360)] {
            let _ = write!(body, "<div class=\"{class}\">{}</div>", lanes::picture(run, width));
        }
        body += "</section>";
        parts(run, &mut body);
        kept(report, &mut body);
        shares(&run.distribution, &mut body);
    }
    if runs > 1 {
        body += "<section><h2>All runs</h2><p>A dot is a run; the line is the median.</p>";
        for (class, width) in [("wide", 1000), ("narrow", 360)] {
            let _ = write!(body, "<div class=\"{class}\">{}</div>", strips::picture(report, width));
        }
        body += "</section>";
    }
    if let Some((_, run)) = slowest {
        story(run, &mut body);
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><main>{body}</main></body></html>\n"
    )
}

/// What the signs of the picture mean, each as it stands there: a phone has nothing to point with.
fn legend(fault: Fault, out: &mut String) {
    let bar = |class: &str| format!("<rect class=\"{class}\" y=\"3\" width=\"16\" height=\"10\" rx=\"2\"/>");
    *out += "<p class=\"legend\">";
    for (sign, words) in [
        ("<circle class=\"good\" cx=\"8\" cy=\"8\" r=\"3\"/>".to_owned(), "answered, where it was sent"),
        ("<path class=\"bad\" d=\"M4 4L12 12M4 12L12 4\"/>".to_owned(), "failed"),
        (bar("away"), "the API or the service is away"),
        ("<path class=\"stripe\" d=\"M1 14L7 2M8 14L14 2\"/>".to_owned(), fault.state()),
        (bar("wait"), "waits"),
        (bar("lead"), "leads"),
        (bar("idle"), "follows"),
        (bar("pod"), "the new pod, or the stateful one, is on its way"),
        ("<path class=\"mark\" d=\"M8 1V15\"/>".to_owned(), "something happened: see below"),
    ] {
        let _ = write!(
            out,
            "<span><svg class=\"sign\" viewBox=\"0 0 16 16\" aria-hidden=\"true\">{sign}</svg>{words}</span> "
        );
    }
    *out += "</p>";
}

fn tiles(report: &Report, out: &mut String) {
    let summary = &report.summary;
    let (ready, declared) = labels(report.fault);
    *out += "<section class=\"tiles\">";
    let is_replaced = report.runs.iter().any(Run::has_replacement);
    let clocks = [
        ("API away", Some(summary.api_outage_ms)),
        ("API away for writes", summary.writes_outage_ms),
        ("service away", Some(summary.service_outage_ms)),
        ("new pod answers after", is_replaced.then_some(summary.replacement_answered_ms)),
        ("stateful pod answers after", summary.safety.stateful_answered_ms),
        ("host fenced after", summary.safety.fenced_ms),
        (&ready, Some(summary.rejoin_ready_ms)),
        (&declared, Some(summary.as_declared_ms)),
    ];
    for (name, clock) in clocks {
        let Some(Percentiles { p50, max, .. }) = clock else { continue };
        let worst = match report.runs.len() {
            1 => String::new(),
            _ => format!("<small>median; slowest {}</small>", time_or_never(max)),
        };
        let _ = write!(out, "<div><span>{name}</span><b>{}</b>{worst}</div>", time_or_never(p50));
    }
    *out += "</section>";
}

/// What must not happen, and how often it did: a number for each that was seen, and the reason for each that wasn't.
fn kept(report: &Report, out: &mut String) {
    let safety = &report.summary.safety;
    *out += "<section><h2>What must not happen</h2><table><tbody>";
    for (name, words) in counts_of(safety.counts.all(), safety.spread) {
        // An even spread is a wish, and no count of what went wrong.
        let is_bad = words.parse::<usize>().is_ok_and(|count| count > 0);
        let class = if is_bad { " class=\"number wrong\"" } else { " class=\"number\"" };
        let _ = write!(out, "<tr><td{class}>{words}</td><td>{name}</td></tr>");
    }
    for (why, names) in by_reason(&safety.unseen) {
        let (names, why) = (names.join(", "), breakable(why));
        let _ = write!(
            out,
            "<tr><td class=\"number\">not seen</td><td>{names}<br><small>{why}</small></td></tr>"
        );
    }
    *out += "</tbody></table></section>";
}

/// What each pod had of the requests, in numbers and in percent of all.
fn shares(shares: &[Share], out: &mut String) {
    if shares.is_empty() {
        return;
    }
    *out += "<section><h2>Who answered</h2><p>Requests of the service, by when they were sent: before the fault, until it was over or its \
             host lost, and the service back, and after that.</p><table><thead><tr><th>pod</th>";
    type Phase = (&'static str, fn(&Share) -> u32);
    let phases: [Phase; 3] =
        [("before", |share| share.before), ("during", |share| share.during), ("after", |share| share.after)];
    for (name, _) in phases {
        let _ = write!(out, "<th class=\"number\">{name}</th>");
    }
    *out += "</tr></thead><tbody>";
    let totals = phases.map(|(_, of)| shares.iter().map(|share| u64::from(of(share))).sum::<u64>());
    for share in shares {
        let (pod, host) = (breakable(&share.pod), breakable(&share.host));
        let _ = write!(out, "<tr><td>{pod}<br><small>{host}</small></td>");
        for ((_, of), total) in phases.iter().zip(totals) {
            let count = of(share);
            let percent = u64::from(count) * 100 / total.max(1);
            let _ = write!(out, "<td class=\"number\">{count}<br><small>{percent} %</small></td>");
        }
        *out += "</tr>";
    }
    *out += "</tbody></table></section>";
}

/// When something first happened after the fault began, and before its end; to this pod, where it is what happens to pods.
fn first(run: &Run, what: &str, pod: Option<&str>) -> Option<u64> {
    let before = run.before_mended().iter();
    let of_pod = |subject: &str| match (subject.rsplit_once('/'), pod) {
        (Some((_, name)), Some(pod)) => name == pod,
        _ => true,
    };
    let of = before.filter(|entry| {
        entry.what == what && entry.at_ms >= 0 && entry.subject.as_deref().is_none_or(of_pod)
    });
    u64::try_from(of.map(|entry| entry.at_ms).min()?).ok()
}

/// The parts of a clock's time, each up to a moment, with what decides about it. What a site doesn't tell has no part of its own.
fn parts(run: &Run, out: &mut String) {
    const LEADER: &str = "timeouts.store.electionMin and electionMax";
    const MOVES: &str = "leadership and address are one";
    const SILENT: &str = "timeouts.heartbeats.silentAfter";
    const NOT_READY: &str = "timeouts.nodes.notReadyAfter";
    const LEASE: &str = "timeouts.lease.fencedAfter";
    /// Up to what, in words, and what decides about it.
    type Part = (&'static str, &'static str, &'static str);
    /// A clock, what it shows, the pod that it is of, and its parts.
    type Chain<'a> = (&'a str, Option<u64>, Option<&'a str>, &'a [Part]);
    let (new, stateful) = (run.replacement.pod.as_deref(), run.safety.stateful_pod.as_deref());
    let chains: [Chain<'_>; 4] = [
        (
            "API",
            run.api.outage_ms,
            None,
            &[("election-won", "nobody leads", LEADER), ("vip-moved", "the address moves", MOVES)],
        ),
        (
            "service",
            run.service.outage_ms,
            None,
            &[
                ("election-won", "nobody leads", LEADER),
                ("vip-moved", "the address moves", MOVES),
                ("endpoints-dropped", "the silent host still gets requests", SILENT),
            ],
        ),
        (
            "new pod",
            run.replacement.answered_ms,
            new,
            &[
                ("node-not-ready", "the node still counts as Ready", NOT_READY),
                ("pod-created", "a spare pod is made", "the cluster"),
                ("pod-placed", "it gets a host", "the scheduler"),
                ("pod-started", "it starts", "its image and its program"),
                ("pod-ready", "it becomes ready", "its probes: initialDelaySeconds, periodSeconds"),
            ],
        ),
        (
            "stateful pod",
            run.safety.stateful_answered_ms,
            stateful,
            &[
                ("node-fenced", "the host's lease isn't over for sure", LEASE),
                ("pod-created", "the same pod is made anew", "the cluster"),
                ("pod-placed", "it gets a host", "the scheduler"),
                ("pod-started", "it starts", "its image and its program"),
            ],
        ),
    ];
    let mut rows = String::new();
    for (clock, whole, pod, chain) in chains {
        let Some(whole) = whole.filter(|whole| *whole > 0) else { continue };
        let mut from = 0;
        let mut all: Vec<(&str, u64, &str)> = Vec::new();
        for (what, words, decides) in chain {
            let Some(at) = first(run, what, pod).filter(|at| *at >= from && *at <= whole) else { continue };
            all.push((words, at - from, decides));
            from = at;
        }
        all.push(("until the next request is answered", whole - from, "how often requests are sent: --rps"));
        let longest = all.iter().map(|(_, took, _)| *took).max().unwrap_or(0);
        for (place, (words, took, decides)) in all.iter().enumerate() {
            let head = match place {
                0 => format!("<th rowspan=\"{}\">{clock}<br><small>{}</small></th>", all.len(), time(whole)),
                _ => String::new(),
            };
            let class = if *took == longest { " class=\"longest\"" } else { "" };
            let share = took * 100 / whole;
            let _ = write!(
                rows,
                "<tr{class}>{head}<td>{words}</td><td class=\"number\">{}</td><td class=\"share\"><i style=\"width:{share}%\"></i></td>\
                 <td>{}</td></tr>",
                time(*took),
                breakable(decides)
            );
        }
    }
    if !rows.is_empty() {
        let _ = write!(
            out,
            "<section><h2>Where the time went</h2><table><thead><tr><th>clock</th><th>part</th><th class=\"number\">took</th><th></th>\
             <th>decided by</th></tr></thead><tbody>{rows}</tbody></table></section>"
        );
    }
}

/// All that happened, as a table in two parts, each counted from its own beginning: the fault's, and its end.
fn story(run: &Run, out: &mut String) {
    let (cut, back) = run.timeline.split_at(run.mended_at());
    *out += "<section><h2>What happened</h2><table>";
    for (head, entries, from) in [
        (run.fault.since(), cut, 0),
        (run.fault.since_mended(), back, back.first().map_or(0, |entry| entry.at_ms)),
    ] {
        if entries.is_empty() {
            continue;
        }
        let _ = write!(out, "<tbody><tr><th colspan=\"3\">{head}</th></tr>");
        for entry in entries {
            let words = breakable(&wording(&entry.what, entry.subject.as_deref()));
            let node = breakable(entry.node.as_deref().unwrap_or_default());
            let at = offset(entry.at_ms - from);
            let _ = write!(out, "<tr><td class=\"number\">{at}</td><td>{node}</td><td>{words}</td></tr>");
        }
        *out += "</tbody>";
    }
    *out += "</table></section>";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dot;
    use crate::render::tests::example;

    fn with_asks() -> Report {
        let mut report = example();
        let dot = |sent_ms: i64| Dot { sent_ms, took_ms: 9, ok: !(0..350).contains(&sent_ms) };
        report.runs[0].asks.api = (-4..40).map(|at| dot(at * 50)).collect();
        report.runs[0].asks.service = report.runs[0].asks.api.clone();
        report
    }

    #[test]
    fn the_page_shows_requests_hosts_and_the_parts_of_each_clock() {
        let page = super::page(&with_asks());
        // 7 of 44 asks fail in each of two lanes, in each of two pictures; the legend has one more.
        assert_eq!(page.matches("class=\"bad\"").count(), 4 * 7 + 1, "{page}");
        for words in [
            "won the election, leads",
            "nobody leads",
            "331 ms",
            "timeouts.<wbr>store.<wbr>election<wbr>Min",
            "381 ms",
            "seed 7",
            "n1 led, held the virtual address and ran a pod before that",
            "the host's lease isn't over for sure",
            "<td class=\"number\">0</td><td>ran twice at once</td>",
            "address held twice<br><small>the switch knows one</small>",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
        assert!(!page.contains("All runs"), "there is one");
        let mut twice = with_asks();
        twice.runs.push(twice.runs[0].clone());
        assert!(super::page(&twice).contains("All runs"));
    }

    #[test]
    fn each_sign_of_the_picture_is_in_the_legend() {
        let page = super::page(&with_asks());
        let (_, rest) = page.split_once("<p class=\"legend\">").unwrap();
        let (legend, rest) = rest.split_once("</p>").unwrap();
        let (pictures, _) = rest.split_once("</section>").unwrap();
        // The lines and texts of the scale need no word.
        let classes = |text: &str| -> std::collections::BTreeSet<String> {
            let named = text.split("class=\"").skip(1).filter_map(|part| part.split('"').next());
            let plain = ["grid", "faint", "wide", "narrow", "sign"];
            named.filter(|class| !plain.contains(class)).map(|class| class.replace("off", "stripe")).collect()
        };
        assert_eq!(classes(legend), classes(pictures));
    }

    #[test]
    fn a_service_waits_for_a_leader_before_the_address_moves() {
        let page = super::page(&with_asks());
        let (_, service) = page.split_once(">service<br>").unwrap();
        let part = |words: &str| {
            let (_, rest) = service.split_once(&format!("<td>{words}</td><td class=\"number\">")).unwrap();
            rest.split('<').next().unwrap()
        };
        assert_eq!(part("nobody leads"), "331 ms");
        assert_eq!(part("the address moves"), "13 ms");
    }

    #[test]
    fn after_the_powers_return_time_is_counted_anew() {
        let mut report = with_asks();
        let page = super::page(&report);
        let (_, back) = page.split_once("after power on</th>").unwrap();
        assert!(back.starts_with("</tr><tr><td class=\"number\">+0 ms</td>"), "{back}");
        assert!(back.contains("+612 ms") && !back.contains("+7."), "{back}");
        report.runs[0].timeline.truncate(8);
        assert!(!super::page(&report).contains("after power on</th>"), "it never came back");
    }

    #[test]
    fn each_pod_has_its_own_parts() {
        let page = super::page(&with_asks());
        let (_, stateful) = page.split_once(">stateful pod<br>").unwrap();
        let (parts, _) = stateful.split_once("</tbody>").unwrap();
        for words in ["1.50 s", "110 ms", "180 ms"] {
            assert!(parts.contains(words), "{words}: {parts}");
        }
        let (_, new) = page.split_once(">new pod<br>").unwrap();
        assert!(
            !new.split_once("</tr>").unwrap().0.contains("1.61 s"),
            "which is when the other one was made"
        );
    }

    #[test]
    fn what_happened_though_it_must_not_is_marked() {
        let mut report = with_asks();
        assert!(!super::page(&report).contains("number wrong"));
        report.runs[0].safety.counts.double_runs = Some(2);
        report.summary = crate::Summary::of(&report.runs);
        assert!(super::page(&report).contains("<td class=\"number wrong\">2</td><td>ran twice at once</td>"));
    }

    #[test]
    fn who_answered_is_shown_in_each_part_of_the_time() {
        let mut report = with_asks();
        assert!(!super::page(&report).contains("Who answered"), "answers that don't say whose they are");
        let share =
            |pod: &str, before, after| Share { pod: pod.into(), host: "n2".into(), before, during: 0, after };
        report.runs[0].distribution = vec![share("web-1", 30, 0), share("<b>", 10, 8)];
        let page = super::page(&report);
        for words in [
            "web-<wbr>1<br><small>n2</small></td><td class=\"number\">30<br><small>75 %</small>",
            "&lt;b&gt;<br><small>n2</small></td><td class=\"number\">10<br><small>25 %</small>",
            "<td class=\"number\">8<br><small>100 %</small>",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
    }

    #[test]
    fn long_names_may_end_a_line() {
        assert_eq!(breakable("pod web-5f<c"), "pod web-<wbr>5f&lt;c");
        assert_eq!(breakable("a.electionMin"), "a.<wbr>election<wbr>Min");
    }

    #[test]
    fn the_page_needs_nothing_but_itself_and_believes_no_name() {
        let mut report = with_asks();
        report.runs[0].target = "<script>alert(1)</script>".into();
        report.runs[0].timeline[2].subject = Some("\"><img src=x onerror=alert(1)>".into());
        report.cluster.net = "<b>".into();
        report.runs[0].safety.unseen.insert("spread", "<script>alert(2)</script>".into());
        report.summary = crate::Summary::of(&report.runs);
        let page = super::page(&report);
        assert_eq!(page.matches("url(").count(), page.matches("url(#off").count(), "nothing from elsewhere");
        for forbidden in ["<script", "<img", "net <b>", "http:", "https:", "@import", "<link", "\"><img"] {
            assert!(!page.contains(forbidden), "{forbidden}: {page}");
        }
        assert!(page.contains("&lt;script&gt;"), "{page}");
    }

    #[test]
    fn what_never_came_has_a_page_too() {
        let mut report = with_asks();
        report.runs[0].api.outage_ms = None;
        report.runs[0].replacement.answered_ms = None;
        report.runs[0].timeline.clear();
        report.summary = crate::Summary::of(&report.runs);
        assert!(super::page(&report).contains("never"));
        report.runs.clear();
        assert!(super::page(&report).contains("No power cut"));
    }
}
