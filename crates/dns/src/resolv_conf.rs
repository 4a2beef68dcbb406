//! A resolver's configuration (resolv.conf(5)), as the kubelet reads, merges and bounds it (`pkg/kubelet/network/dns`).

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hickory_proto::rr::Name;

/// The most servers that resolvers take (`MAXNS` of glibc; `MaxDNSNameservers` of Kubernetes).
const MOST_SERVERS: usize = 3;
/// The most search domains, and characters of all of them with blanks between (`MaxDNSSearchPaths`, `MaxDNSSearchListChars`).
const MOST_SEARCHES: usize = 32;
const MOST_CHARACTERS: usize = 2048;
/// The longest search domain: some versions of glibc abort on longer ones.
const LONGEST_SEARCH: usize = 253;

/// This machine's configuration, and where systemd-resolved keeps what it knows behind its own address.
const MACHINE: &str = "/etc/resolv.conf";
const BEHIND: &str = "/run/systemd/resolve/resolv.conf";
/// That address: nobody outside of the machine's own network reaches it.
const STUB: &str = "127.0.0.53";

/// The file that says whom this machine asks, and others may: where that is systemd-resolved alone, whom it asks itself, as
/// kubeadm sets it for kubelets.
pub fn machine_resolv_conf() -> PathBuf {
    let conf = ResolvConf::parse(&std::fs::read_to_string(MACHINE).unwrap_or_default());
    let is_stub = !conf.nameservers.is_empty() && conf.nameservers.iter().all(|server| server == STUB);
    let behind = Path::new(BEHIND);
    if is_stub && behind.exists() { behind.into() } else { MACHINE.into() }
}

/// A resolver's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// The servers' addresses, in the order in which they are asked.
    pub nameservers: Vec<String>,
    /// What is appended to names that are not whole, in this order.
    pub searches: Vec<String>,
    /// Further settings by name, some with a value.
    pub options: Vec<(String, Option<String>)>,
}

impl ResolvConf {
    /// Reads a configuration. What isn't understood is passed over; of search lines the last one counts, of options each one's
    /// last.
    pub fn parse(text: &str) -> Self {
        let mut conf = ResolvConf::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.nameservers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => {
                    let whole = |word: &str| match word {
                        "." => word.to_owned(),
                        _ => word.trim_end_matches('.').to_owned(),
                    };
                    conf.searches = words.map(whole).collect();
                }
                Some("options") => words.for_each(|word| match word.split_once(':') {
                    Some((name, value)) => conf.set(name, Some(value)),
                    None => conf.set(word, None),
                }),
                _ => {}
            }
        }
        conf
    }

    /// The servers that are addresses.
    pub fn servers(&self) -> impl Iterator<Item = IpAddr> {
        self.nameservers.iter().filter_map(|server| server.parse().ok())
    }

    /// The search domains that are names.
    pub fn search_names(&self) -> impl Iterator<Item = Name> {
        let names = self.searches.iter().filter_map(|text| {
            let labels = text.trim_end_matches('.').split('.').map(str::as_bytes);
            Name::from_labels(labels).ok()
        });
        names.filter(|name| !name.is_root())
    }

    /// Sets an option, in its place if it is there.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(str::to_owned);
        match self.options.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.options.push((name.to_owned(), value)),
        }
    }

    /// Adds servers that aren't there yet.
    pub fn add_servers<'a>(&mut self, servers: impl IntoIterator<Item = &'a String>) {
        add(&mut self.nameservers, servers);
    }

    /// Adds search domains that aren't there yet.
    pub fn add_searches<'a>(&mut self, searches: impl IntoIterator<Item = &'a String>) {
        add(&mut self.searches, searches);
    }

    /// Leaves out what resolvers don't take; answers what to say about it, in the kubelet's words.
    pub fn fit(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        if self.nameservers.len() > MOST_SERVERS {
            self.nameservers.truncate(MOST_SERVERS);
            said.push(format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
                self.nameservers.join(" ")
            ));
        }
        let asked = self.searches.len();
        self.searches.truncate(MOST_SEARCHES);
        self.searches.retain(|search| search.len() <= LONGEST_SEARCH);
        while self.searches.iter().map(|search| search.len() + 1).sum::<usize>() > MOST_CHARACTERS + 1 {
            self.searches.pop();
        }
        if self.searches.len() < asked {
            said.push(format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                self.searches.join(" ")
            ));
        }
        said
    }
}

fn add<'a>(list: &mut Vec<String>, more: impl IntoIterator<Item = &'a String>) {
    for text in more {
        if !list.contains(text) {
            list.push(text.clone());
        }
    }
}

impl fmt::Display for ResolvConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.searches.is_empty() {
            writeln!(f, "search {}", self.searches.join(" "))?;
        }
        for server in &self.nameservers {
            writeln!(f, "nameserver {server}")?;
        }
        if !self.options.is_empty() {
            write!(f, "options")?;
            for (name, value) in &self.options {
                match value.as_deref().filter(|value| !value.is_empty()) {
                    Some(value) => write!(f, " {name}:{value}")?,
                    None => write!(f, " {name}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_and_written() {
        let text = "# ours\ndomain old\nsearch corp.test. x.test\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n\
                    options ndots:1 rotate\noptions ndots:2\nsortlist 10.0.0.0\nnameserver\n";
        let conf = ResolvConf::parse(text);
        assert_eq!(conf.searches, ["corp.test", "x.test"]);
        assert_eq!(conf.servers().collect::<Vec<_>>(), [IpAddr::from([192, 0, 2, 53])]);
        let names: Vec<_> = conf.search_names().map(|name| name.to_string()).collect();
        assert_eq!(names, ["corp.test.", "x.test."]);
        let written = "search corp.test x.test\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\noptions ndots:2 rotate\n";
        assert_eq!(conf.to_string(), written);
        assert_eq!(ResolvConf::parse(written), conf);
        assert_eq!(ResolvConf::parse("search .").search_names().count(), 0);
    }

    #[test]
    fn what_resolvers_do_not_take_is_left_out_and_said() {
        let mut conf = ResolvConf::default();
        conf.add_servers(&["a", "b", "a", "c"].map(str::to_owned));
        assert_eq!((conf.fit(), conf.nameservers.len()), (Vec::new(), 3));
        conf.add_servers(&["d".to_owned()]);
        let said = conf.fit();
        assert!(said[0].ends_with("the applied nameserver line is: a b c"), "{said:?}");

        let mut conf = ResolvConf::default();
        conf.add_searches(&(0..40).map(|n| format!("s{n}")).collect::<Vec<_>>());
        let said = conf.fit();
        assert!(
            said[0].starts_with("Search Line limits were exceeded") && said[0].ends_with(" s31"),
            "{said:?}"
        );

        let mut conf = ResolvConf::default();
        let mut searches: Vec<_> = (0..9).map(|n| format!("{n}{}", "x".repeat(252))).collect();
        searches[1].push('x');
        conf.add_searches(&searches);
        assert_eq!(conf.fit().len(), 1);
        assert_eq!(conf.searches.iter().map(|search| &search[..1]).collect::<String>(), "02345678");
        assert_eq!(conf.searches.join(" ").len(), 8 * 253 + 7);
        conf.add_searches(&["y".repeat(16)]);
        assert_eq!((conf.fit(), conf.searches.join(" ").len()), (Vec::new(), MOST_CHARACTERS));
        conf.add_searches(&["z".to_owned()]);
        assert_eq!((conf.fit().len(), conf.searches.len()), (1, 9));
    }
}
