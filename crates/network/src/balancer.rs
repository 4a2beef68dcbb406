//! Which endpoint is next: a function of the services, who is silent, the caller and the time.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::services::near_first;
use crate::{Endpoint, PortId, ServicePort};

/// How many clients of one port are remembered; the one heard of longest ago makes room.
///
/// A Service in the open meets clients without end, and a datagram's sender can forge its address: without a bound each
/// new one would cost memory for hours.
const CLIENTS: usize = 4096;

/// From where a caller comes, as the traffic policies of a Service distinguish it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// From within the cluster: to the Service's address.
    Internal,
    /// From outside: to a host's port.
    External,
    /// From outside: to an address of the Service's that one host holds (type LoadBalancer).
    Balanced,
}

/// Takes the endpoints of each port in turn, so that load is spread evenly and not by luck.
#[derive(Debug, Default)]
pub struct Balancer {
    host: String,
    turns: HashMap<PortId, Turn>,
}

#[derive(Debug, Default)]
struct Turn {
    next: usize,
    clients: HashMap<IpAddr, (SocketAddr, Instant)>,
}

impl Balancer {
    /// The balancer of this host.
    pub fn new(host: impl Into<String>) -> Self {
        Balancer { host: host.into(), turns: HashMap::new() }
    }

    /// The endpoints to try, the best first: never one on a silent host. The first is the client's own if it
    /// has one, else the next in turn; ready ones if there are any, else those that terminate but still serve. Where hints say
    /// which are for callers here, these take turns, and the others follow.
    pub fn order(
        &mut self,
        port: &ServicePort,
        scope: Scope,
        client: Option<IpAddr>,
        silent: impl Fn(&str) -> bool,
        now: Instant,
    ) -> Vec<Endpoint> {
        let local = match scope {
            Scope::Internal => port.internal_local,
            Scope::External | Scope::Balanced => port.external_local,
        };
        if scope == Scope::Balanced && !port.admits(client) {
            return Vec::new();
        }
        let live = |endpoint: &&Endpoint| match endpoint.node.as_deref() {
            Some(node) => (!local || node == self.host) && !silent(node),
            // Without a node nobody can say that it is on this host, nor beats for it.
            None => !local,
        };
        let mut order: Vec<Endpoint> = port.endpoints.iter().filter(live).cloned().collect();
        // After the silent ones have gone: a ready endpoint on a dead host doesn't keep callers from those that
        // still serve.
        if order.iter().any(|endpoint| endpoint.ready) {
            order.retain(|endpoint| endpoint.ready);
        }
        if order.is_empty() {
            return order;
        }
        // After the silent ones have gone, too: a zone whose hosts are all dead has nobody near.
        let near = match (local, order[0].ready) {
            (false, true) => near_first(&mut order),
            _ => order.len(),
        };
        // `entry` would clone two names for every connection.
        if !self.turns.contains_key(&port.id) {
            self.turns.insert(port.id.clone(), Turn::default());
        }
        let Some(turn) = self.turns.get_mut(&port.id) else { return order };
        if let (Some(affinity), Some(client)) = (port.affinity, client)
            && let Some((address, since)) = turn.clients.get(&client)
            && now.saturating_duration_since(*since) < affinity
            && let Some(at) = order[..near].iter().position(|endpoint| endpoint.address == *address)
        {
            order[..near].rotate_left(at);
            return order;
        }
        let next = turn.next % near;
        order[..near].rotate_left(next);
        let far = &mut order[near..];
        far.rotate_left(turn.next % far.len().max(1));
        // A position, not an endpoint: endpoints come and go between two callers, and the rest stay even without
        // being counted.
        turn.next = next + 1;
        order
    }

    /// Remembers who served a client, if the port's clients stick to their endpoints.
    pub fn served(&mut self, port: &ServicePort, client: IpAddr, endpoint: SocketAddr, now: Instant) {
        let Some(affinity) = port.affinity else { return };
        let clients = &mut self.turns.entry(port.id.clone()).or_default().clients;
        if clients.len() >= CLIENTS && !clients.contains_key(&client) {
            clients.retain(|_, (_, since)| now.saturating_duration_since(*since) < affinity);
        }
        if clients.len() >= CLIENTS
            && let Some(oldest) =
                clients.iter().min_by_key(|(_, (_, since))| *since).map(|(client, _)| *client)
        {
            clients.remove(&oldest);
        }
        // Each connection renews it, as `-m recent --set` does in kube-proxy's rules (`pkg/proxy/iptables`).
        clients.insert(client, (endpoint, now));
    }

    /// Forgets a port that no longer exists.
    pub fn forget(&mut self, id: &PortId) {
        self.turns.remove(id);
    }
}

#[cfg(test)]
mod tests;
