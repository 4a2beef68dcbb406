//! The cluster that is asked about, and what is asked: the same of both.

use std::net::Ipv4Addr;

/// How many endpoints each headless service has.
pub const ENDPOINTS: usize = 8;

/// What is asked again and again.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Service,
    Headless,
    Nothing,
}

/// All cases.
pub const CASES: [Case; 3] = [
    Case { name: "service", kind: Kind::Service },
    Case { name: "headless", kind: Kind::Headless },
    Case { name: "nothing", kind: Kind::Nothing },
];

impl Case {
    /// A question as a message, under the number 0.
    pub fn question(self, service: usize) -> Vec<u8> {
        let name = match self.kind {
            Kind::Service => name(service),
            Kind::Headless => headless(service),
            Kind::Nothing => format!("none-{service}.shop.svc.cluster.local"),
        };
        let labels = name.split('.').flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
        // Recursion is wanted; one question, of type A and class IN.
        let header = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        header.into_iter().chain(labels).chain([0, 0, 1, 0, 1]).collect()
    }

    /// Whether a message is the right answer: its code, and how many records.
    pub fn is_answer(self, message: &[u8]) -> bool {
        let (code, count) = match self.kind {
            Kind::Service => (0, 1),
            Kind::Headless => (0, ENDPOINTS),
            Kind::Nothing => (3, 0),
        };
        let said = message.get(..12).map(|header| {
            (header[2] & 0x80, header[3] & 15, usize::from(u16::from_be_bytes([header[6], header[7]])))
        });
        said == Some((0x80, code, count))
    }
}

/// A service with an address of its own.
pub fn name(service: usize) -> String {
    format!("web-{service}.shop.svc.cluster.local")
}

/// That address.
pub fn address(service: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 20)) + service as u32)
}

/// A headless service.
pub fn headless(service: usize) -> String {
    format!("db-{service}.shop.svc.cluster.local")
}

/// The addresses of its endpoints.
pub fn endpoints(service: usize) -> impl Iterator<Item = Ipv4Addr> {
    let first = u32::from(Ipv4Addr::new(10, 244, 0, 1)) + (service * ENDPOINTS) as u32;
    (0..ENDPOINTS as u32).map(move |endpoint| Ipv4Addr::from(first + endpoint))
}
