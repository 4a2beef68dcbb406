//! What is done about a question: answered out of the records, or asked of others. Without I/O.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::message::Reply;
use crate::records::{Found, Records};

/// How many aliases follow each other at most.
const MOST_ALIASES: usize = 8;
/// For how long it holds which name of a search path is the one, in seconds.
const TTL: u32 = 5;

/// What is done about a question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plan {
    /// This is the answer.
    Answer(Reply),
    /// This is the answer, found by walking the caller's search path.
    Walked(Reply),
    /// Others are asked for it.
    Others,
    /// The name stands, by these records, for another one that others are asked for.
    Alias(Vec<Record>, Name),
    /// The first of these names that there is, is the one that is meant; if it is none of them, this is the answer.
    Path(Vec<Name>, Reply),
}

/// Plans the answer to a question from an address. `searches` are the search domains of this host, which pods have after the
/// cluster's own.
pub(crate) fn plan(
    records: &Records,
    searches: &[Name],
    (name, kind): (&Name, RecordType),
    from: IpAddr,
    turn: usize,
) -> Plan {
    let plan = follow(records, name, kind, turn);
    match plan {
        Plan::Answer(reply) if reply.code == ResponseCode::NXDomain && reply.answers.is_empty() => {
            match path(records, searches, name, from) {
                Some(path) => walk(records, path, (name, kind), reply, turn),
                None => Plan::Answer(reply),
            }
        }
        plan => plan,
    }
}

/// What there is under a name, through aliases.
pub(crate) fn follow(records: &Records, name: &Name, kind: RecordType, turn: usize) -> Plan {
    let mut aliases = Vec::new();
    let mut name = name.clone();
    let of_ours = Reply { authoritative: true, ..Reply::default() };
    while aliases.len() <= MOST_ALIASES {
        let reply = match records.find(&name, kind, turn) {
            Found::Alias(record, _) if matches!(kind, RecordType::CNAME | RecordType::ANY) => {
                aliases.push(record);
                Reply { answers: aliases, ..of_ours }
            }
            Found::Alias(record, target) => {
                aliases.push(record);
                name = target;
                continue;
            }
            Found::Records(answers, additionals) => {
                aliases.extend(answers);
                Reply { answers: aliases, additionals, ..of_ours }
            }
            Found::OtherTypes(authority) | Found::NamesBelow(authority) => {
                Reply { answers: aliases, authorities: vec![authority], ..of_ours }
            }
            Found::Nothing(authority) => {
                let code = ResponseCode::NXDomain;
                Reply { code, answers: aliases, authorities: vec![authority], ..of_ours }
            }
            Found::Outside if aliases.is_empty() => return Plan::Others,
            Found::Outside => return Plan::Alias(aliases, name),
        };
        return Plan::Answer(reply);
    }
    // They lead in a circle.
    Plan::Answer(Reply { code: ResponseCode::ServFail, ..Reply::default() })
}

/// The names that a pod's resolver would ask for next, if this one is the first of its search path: it has appended its
/// namespace's domain to the name that it means (CoreDNS' `autopath`).
fn path(records: &Records, searches: &[Name], name: &Name, from: IpAddr) -> Option<Vec<Name>> {
    let namespace = records.namespace_at(from)?;
    let domain = records.domain();
    let svc = domain.prepend_label(b"svc".as_slice()).ok()?;
    let first = svc.prepend_label(namespace.as_bytes()).ok()?;
    let own = name.iter().count() - first.iter().count().min(name.iter().count());
    if !first.zone_of(name) || own == 0 {
        return None;
    }
    let meant: Vec<&[u8]> = name.iter().take(own).collect();
    let has_dots = meant.len() > 1;
    let meant = Name::from_labels(meant).ok()?;
    let of_cluster = domain.zone_of(&meant).then(|| meant.clone());
    let within = |domain: &Name| meant.clone().append_domain(domain).ok();
    // A single word is asked for as it is by accident only: some of the top-level domains have addresses.
    let whole = (has_dots && of_cluster.is_none()).then(|| meant.clone());
    let path = [&svc, domain].into_iter().filter_map(within).chain(of_cluster);
    Some(path.chain(searches.iter().filter_map(within)).chain(whole).collect())
}

/// Walks a path as far as the records lead.
fn walk(
    records: &Records,
    path: Vec<Name>,
    (name, kind): (&Name, RecordType),
    otherwise: Reply,
    turn: usize,
) -> Plan {
    let mut left = path.into_iter();
    while let Some(candidate) = left.next() {
        // Names that only have others below them are no answer: a resolver goes on.
        if matches!(records.find(&candidate, kind, turn), Found::NamesBelow(_)) {
            continue;
        }
        match follow(records, &candidate, kind, turn) {
            Plan::Answer(reply) if reply.code == ResponseCode::NoError => {
                return Plan::Walked(led(name, &candidate, reply));
            }
            Plan::Answer(_) => {}
            Plan::Alias(mut aliases, target) => {
                aliases.insert(0, alias(name, &candidate));
                return Plan::Alias(aliases, target);
            }
            Plan::Others | Plan::Path(..) | Plan::Walked(_) => {
                return Plan::Path([candidate].into_iter().chain(left).collect(), otherwise);
            }
        }
    }
    Plan::Answer(otherwise)
}

/// The answer about one name as that about another one, which stands for it.
pub(crate) fn led(name: &Name, to: &Name, mut reply: Reply) -> Reply {
    reply.answers.insert(0, alias(name, to));
    reply
}

fn alias(name: &Name, to: &Name) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(to.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::PodNames;
    use crate::records::tests::shop;

    const POD: [u8; 4] = [10, 244, 1, 9];
    const HOST: [u8; 4] = [10, 73, 0, 1];

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    /// The plan for a question, in a line.
    fn planned(kind: RecordType, text: &str, from: [u8; 4]) -> String {
        let searches = [name("corp.test."), name("cluster.local.")];
        let plan = plan(&shop(PodNames::Verified), &searches, (&name(text), kind), from.into(), 0);
        let data = |records: &[Record]| records.iter().map(|r| format!(" {}", r.data)).collect::<String>();
        let said = |reply: &Reply| format!("{:?}{}", reply.code, data(&reply.answers));
        match plan {
            Plan::Answer(reply) => said(&reply),
            Plan::Walked(reply) => format!("walked {}", said(&reply)),
            Plan::Others => "others".into(),
            Plan::Alias(aliases, target) => format!("{target} by{}", data(&aliases)),
            Plan::Path(path, otherwise) => {
                let path: String = path.iter().map(|name| format!("{name} ")).collect();
                format!("{path}or {}", said(&otherwise))
            }
        }
    }

    #[test]
    fn aliases_are_followed_as_far_as_the_records_lead() {
        for (kind, name, expected) in [
            (RecordType::A, "web.shop.svc.cluster.local.", "NoError 10.96.0.7"),
            (RecordType::A, "out.shop.svc.cluster.local.", "www.example.com. by www.example.com."),
            (RecordType::CNAME, "out.shop.svc.cluster.local.", "NoError www.example.com."),
            (RecordType::A, "near.shop.svc.cluster.local.", "NoError web.shop.svc.cluster.local. 10.96.0.7"),
            (RecordType::TXT, "near.shop.svc.cluster.local.", "NoError web.shop.svc.cluster.local."),
            (RecordType::A, "circle.shop.svc.cluster.local.", "ServFail"),
            (RecordType::A, "www.example.com.", "others"),
        ] {
            let said = planned(kind, name, HOST);
            assert_eq!(said, expected, "{kind} {name}");
        }
    }

    #[test]
    fn the_search_path_of_a_pod_is_walked_for_it() {
        let a = |text: &str, from| planned(RecordType::A, text, from);
        let (ours, from) = ("shop.svc.cluster.local.", POD);
        assert_eq!(a(&format!("web.{ours}"), from), "NoError 10.96.0.7", "no detour");
        assert_eq!(
            a(&format!("web.shop.{ours}"), from),
            "walked NoError web.shop.svc.cluster.local. 10.96.0.7"
        );
        assert_eq!(
            a(&format!("web.shop.svc.{ours}"), from),
            "walked NoError web.shop.svc.cluster.local. 10.96.0.7"
        );
        assert_eq!(
            a(&format!("web.shop.svc.cluster.local.{ours}"), from),
            "walked NoError web.shop.svc.cluster.local. 10.96.0.7"
        );
        assert_eq!(
            a(&format!("near.shop.{ours}"), from),
            "walked NoError near.shop.svc.cluster.local. web.shop.svc.cluster.local. 10.96.0.7"
        );
        assert_eq!(
            planned(RecordType::AAAA, &format!("db.shop.{ours}"), from),
            "walked NoError db.shop.svc.cluster.local.",
            "that there is none of this type is an answer"
        );
        assert_eq!(
            a(&format!("out.shop.{ours}"), from),
            "www.example.com. by out.shop.svc.cluster.local. www.example.com."
        );
        assert_eq!(
            a(&format!("www.example.com.{ours}"), from),
            "www.example.com.corp.test. www.example.com.cluster.local. www.example.com. or NXDomain",
            "what is the cluster's is looked at again before anybody is asked"
        );
        assert_eq!(
            a(&format!("shop.{ours}"), from),
            "shop.corp.test. shop.cluster.local. or NXDomain",
            "a single word is nobody's, and a namespace is no answer"
        );
        assert_eq!(
            a(&format!("none.shop.svc.cluster.local.{ours}"), from),
            "none.shop.svc.cluster.local.corp.test. none.shop.svc.cluster.local.cluster.local. or NXDomain"
        );
        for (text, from) in [
            (&*format!("www.example.com.{ours}"), HOST),
            ("www.example.com.other.svc.cluster.local.", POD),
            ("www.example.com.svc.cluster.local.", POD),
        ] {
            assert_eq!(a(text, from), "NXDomain", "{text}");
        }
    }
}
