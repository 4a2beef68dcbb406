//! How many of some pods there are in each domain of a topology (all nodes with one value of a label), host by host.

use std::collections::HashMap;

/// The counts of one topology. A host's part is replaced as a whole, so that the sums follow what changed.
#[derive(Debug)]
pub(crate) struct Column {
    /// The label whose values are the domains.
    key: String,
    domains: HashMap<String, u32>,
    sums: Vec<Sum>,
    cells: Vec<Cell>,
}

/// One domain.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    pods: i64,
    /// Hosts that are in it and count.
    hosts: u32,
}

/// One host.
#[derive(Debug, Clone, Copy)]
struct Cell {
    domain: u32,
    pods: i32,
    counts: bool,
}

const NOWHERE: u32 = u32::MAX;
const EMPTY: Cell = Cell { domain: NOWHERE, pods: 0, counts: false };

impl Column {
    pub fn new(key: &str) -> Self {
        Column { key: key.to_owned(), domains: HashMap::new(), sums: Vec::new(), cells: Vec::new() }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// Says in which domain a host is and how many of the pods it has, or what they weigh; `counts` is false for a host whose domain is only
    /// there if others make it.
    pub fn set(&mut self, host: usize, domain: Option<&str>, pods: i32, counts: bool) {
        if self.cells.len() <= host {
            self.cells.resize(host + 1, EMPTY);
        }
        let before = self.cells[host];
        if before.domain != NOWHERE && before.counts {
            let sum = &mut self.sums[before.domain as usize];
            sum.pods -= i64::from(before.pods);
            sum.hosts -= 1;
        }
        let Some(domain) = domain else {
            self.cells[host] = EMPTY;
            return;
        };
        let domain = match self.domains.get(domain) {
            Some(known) => *known,
            None => {
                self.sums.push(Sum::default());
                // More domains than that would need more hosts than that.
                let number = u32::try_from(self.sums.len() - 1).unwrap_or(NOWHERE - 1);
                self.domains.insert(domain.to_owned(), number);
                number
            }
        };
        if counts {
            let sum = &mut self.sums[domain as usize];
            sum.pods += i64::from(pods);
            sum.hosts += 1;
        }
        self.cells[host] = Cell { domain, pods, counts };
    }

    /// The number of a host's domain; nothing if it is in none.
    pub fn domain(&self, host: usize) -> Option<u32> {
        self.cells.get(host).map(|cell| cell.domain).filter(|domain| *domain != NOWHERE)
    }

    /// How many of the pods are in a host's domain; nothing if it is in none.
    pub fn around(&self, host: usize) -> Option<i64> {
        self.domain(host).map(|domain| self.sums[domain as usize].pods)
    }

    /// The counts of the domains that some host makes.
    pub fn counts(&self) -> impl Iterator<Item = i64> {
        self.sums.iter().filter(|sum| sum.hosts > 0).map(|sum| sum.pods)
    }

    /// How many names of domains are remembered, those that no host has any more among them.
    pub fn remembered(&self) -> usize {
        self.sums.len()
    }
}
