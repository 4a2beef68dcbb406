//! What is counted, as Prometheus reads it, under the names that CoreDNS has for the same, so that its dashboards show it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use figures::{Histogram, family, sample};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

/// The types that are counted one by one; all others are `other`, as CoreDNS has it.
const KINDS: [(RecordType, &str); 10] = [
    (RecordType::A, "A"),
    (RecordType::AAAA, "AAAA"),
    (RecordType::SRV, "SRV"),
    (RecordType::PTR, "PTR"),
    (RecordType::CNAME, "CNAME"),
    (RecordType::TXT, "TXT"),
    (RecordType::NS, "NS"),
    (RecordType::SOA, "SOA"),
    (RecordType::MX, "MX"),
    (RecordType::ANY, "ANY"),
];
const CODES: [(ResponseCode, &str); 6] = [
    (ResponseCode::NoError, "NOERROR"),
    (ResponseCode::NXDomain, "NXDOMAIN"),
    (ResponseCode::ServFail, "SERVFAIL"),
    (ResponseCode::Refused, "REFUSED"),
    (ResponseCode::FormErr, "FORMERR"),
    (ResponseCode::NotImp, "NOTIMP"),
];
/// The smallest bound of the histogram of answers from others, in seconds; each further one is twice as large.
const FIRST_BOUND: f64 = 0.00025;
const BOUNDS: i32 = 16;

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By a datagram.
    Udp,
    /// By a connection.
    Tcp,
}

/// What this host's DNS counts.
#[derive(Debug)]
pub struct Metrics {
    questions: [[AtomicU64; KINDS.len() + 1]; 2],
    answers: [AtomicU64; CODES.len() + 1],
    shortcuts: AtomicU64,
    hits: [AtomicU64; 2],
    misses: AtomicU64,
    stale: AtomicU64,
    kept: AtomicU64,
    failures: AtomicU64,
    asked: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            questions: Default::default(),
            answers: Default::default(),
            shortcuts: AtomicU64::default(),
            hits: Default::default(),
            misses: AtomicU64::default(),
            stale: AtomicU64::default(),
            kept: AtomicU64::default(),
            failures: AtomicU64::default(),
            asked: Histogram::doubling(FIRST_BOUND, BOUNDS),
        }
    }
}

impl Metrics {
    pub(crate) fn question(&self, way: Way, kind: RecordType) {
        let at = KINDS.iter().position(|(known, _)| *known == kind).unwrap_or(KINDS.len());
        self.questions[way as usize][at].fetch_add(1, Relaxed);
    }

    pub(crate) fn answer(&self, code: ResponseCode) {
        let at = CODES.iter().position(|(known, _)| *known == code).unwrap_or(CODES.len());
        self.answers[at].fetch_add(1, Relaxed);
    }

    /// A search path was walked in the caller's stead.
    pub(crate) fn shortcut(&self) {
        self.shortcuts.fetch_add(1, Relaxed);
    }

    pub(crate) fn hit(&self, code: ResponseCode) {
        self.hits[usize::from(code != ResponseCode::NoError)].fetch_add(1, Relaxed);
    }

    pub(crate) fn missed(&self) {
        self.misses.fetch_add(1, Relaxed);
    }

    pub(crate) fn stale(&self) {
        self.stale.fetch_add(1, Relaxed);
    }

    /// How many answers of others are kept now.
    pub(crate) fn kept(&self, answers: usize) {
        self.kept.store(answers as u64, Relaxed);
    }

    /// One of others' servers was asked.
    pub(crate) fn asked(&self, took: Duration, answered: bool) {
        self.asked.observe(took);
        if !answered {
            self.failures.fetch_add(1, Relaxed);
        }
    }

    /// Adds all of it in Prometheus' text format.
    pub fn write(&self, out: &mut String) {
        let name = "coredns_dns_requests_total";
        family(out, name, "counter", "Questions, by how they came and what they asked for");
        let kinds = || KINDS.iter().map(|(_, kind)| *kind).chain(["other"]);
        for (counts, way) in self.questions.iter().zip(["udp", "tcp"]) {
            for (count, kind) in counts.iter().zip(kinds()) {
                sample(out, name, &format!(r#"proto="{way}",type="{kind}""#), count.load(Relaxed));
            }
        }
        let name = "coredns_dns_responses_total";
        family(out, name, "counter", "Answers, by their code");
        for (count, code) in self.answers.iter().zip(CODES.iter().map(|(_, code)| *code).chain(["other"])) {
            sample(out, name, &format!(r#"rcode="{code}""#), count.load(Relaxed));
        }
        let name = "coredns_autopath_success_total";
        family(out, name, "counter", "Search paths that were walked in the caller's stead");
        sample(out, name, r#"server="dns://:53""#, self.shortcuts.load(Relaxed));
        let name = "coredns_cache_hits_total";
        family(out, name, "counter", "Questions for others that were answered from memory");
        for (count, kind) in self.hits.iter().zip(["success", "denial"]) {
            sample(out, name, &format!(r#"type="{kind}""#), count.load(Relaxed));
        }
        for (name, about, count) in [
            ("coredns_cache_misses_total", "Questions for others that were not", &self.misses),
            (
                "coredns_cache_served_stale_total",
                "Questions answered from memory beyond their time, since nobody else answered",
                &self.stale,
            ),
            (
                "coredns_proxy_failures_total",
                "Questions that one of others' servers didn't answer",
                &self.failures,
            ),
        ] {
            family(out, name, "counter", about);
            sample(out, name, r#"server="dns://:53""#, count.load(Relaxed));
        }
        let name = "coredns_cache_entries";
        family(out, name, "gauge", "Answers of others that are kept");
        sample(out, name, r#"server="dns://:53""#, self.kept.load(Relaxed));
        let name = "coredns_proxy_request_duration_seconds";
        family(out, name, "histogram", "How long others' servers take");
        self.asked.write(out, name, r#"proxy_name="forward""#);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told_as_prometheus_reads_it() {
        let metrics = Metrics::default();
        metrics.question(Way::Udp, RecordType::A);
        metrics.question(Way::Tcp, RecordType::CAA);
        metrics.answer(ResponseCode::NXDomain);
        metrics.hit(ResponseCode::NoError);
        metrics.hit(ResponseCode::NXDomain);
        metrics.kept(7);
        metrics.asked(Duration::from_micros(400), true);
        metrics.asked(Duration::from_secs(60), false);
        let mut text = String::new();
        metrics.write(&mut text);
        let name = "coredns_proxy_request_duration_seconds";
        for expected in [
            r#"coredns_dns_requests_total{proto="udp",type="A"} 1"#.to_owned(),
            r#"coredns_dns_requests_total{proto="tcp",type="other"} 1"#.to_owned(),
            r#"coredns_dns_responses_total{rcode="NXDOMAIN"} 1"#.to_owned(),
            r#"coredns_cache_hits_total{type="denial"} 1"#.to_owned(),
            r#"coredns_cache_entries{server="dns://:53"} 7"#.to_owned(),
            r#"coredns_proxy_failures_total{server="dns://:53"} 1"#.to_owned(),
            format!(r#"{name}_bucket{{proxy_name="forward",le="0.00025"}} 0"#),
            format!(r#"{name}_bucket{{proxy_name="forward",le="0.0005"}} 1"#),
            format!(r#"{name}_bucket{{proxy_name="forward",le="+Inf"}} 2"#),
            format!(r#"{name}_sum{{proxy_name="forward"}} 60.0004"#),
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected} is missing in\n{text}");
        }
    }
}
