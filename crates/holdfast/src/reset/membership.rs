//! What a host is to its cluster: a member of the store, and a Node. What becomes of the cluster without it, and how it leaves.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ::check::{ClusterSays, HostAnswer};
use anyhow::Context;
use client::{Client, Kubeconfig};
use config::HostConfig;
use etcd::proto::{MemberListRequest, MemberRemoveRequest, RangeRequest};
use install::{REGISTER_KEY, Register};
use pki::{Authority, Identity, Trust};
use serde_json::json;

use crate::ask::{ANSWER, cluster_says};
use crate::tell::say;

/// How long a change of the members may take, with an election in between.
const CHANGE: Duration = Duration::from_secs(15);

/// What this host is to its cluster.
#[derive(Debug, PartialEq, Eq)]
pub enum Membership {
    /// Nothing: it never took part, or another machine has its name.
    None,
    /// A member no more, whose Node may be there still.
    Former {
        /// The members that answer.
        others: Vec<IpAddr>,
    },
    /// Its only member: the cluster ends with it.
    Last,
    /// One of several members.
    Member {
        /// The others that answer.
        others: Vec<IpAddr>,
        /// How many others there are in all.
        of: usize,
    },
    /// Nobody can say, for this reason.
    Unknown(String),
}

impl Membership {
    /// Asks this host, and the others that it knows.
    pub async fn ask(config: &HostConfig, kubeconfig: &Path) -> Self {
        let first = match Kubeconfig::load(kubeconfig) {
            Ok(first) => first,
            Err(error) => return Membership::unknown(config, &error.to_string()),
        };
        match cluster_says(config, &first).await {
            Ok((_, says)) => Membership::of(&config.name, &says).of_this_machine(config).await,
            Err(why) => Membership::unknown(config, &why),
        }
    }

    /// Of a machine that no configuration says of which cluster it is.
    pub fn without_configuration(has_begun: bool) -> Self {
        match has_begun {
            true => Membership::Unknown("no configuration says of which cluster this machine is".to_owned()),
            false => Membership::None,
        }
    }

    /// A host that never took part needs nobody's answer.
    fn unknown(config: &HostConfig, why: &str) -> Self {
        match config.begun_file.exists() {
            true => Membership::Unknown(format!("nobody tells how the cluster is ({why})")),
            false => Membership::None,
        }
    }

    /// What the host of this name is, as one of them told how all are.
    fn of(name: &str, says: &ClusterSays) -> Self {
        let members = says.members.as_deref().unwrap_or_default();
        let others: Vec<_> = members.iter().filter(|member| member.name != name).collect();
        let answers = |name: &str| matches!(says.hosts.get(name), Some(HostAnswer::Says(_)));
        if !members.iter().any(|member| member.name == name) {
            let answering = others.into_iter().filter(|member| answers(&member.name));
            return Membership::Former { others: answering.map(|member| member.address).collect() };
        }
        if others.is_empty() {
            return Membership::Last;
        }
        // Those that don't vote yet have no part in a majority.
        let voters: Vec<_> = others.into_iter().filter(|member| !member.is_learner).collect();
        let answering = voters.iter().filter(|member| answers(&member.name)).map(|member| member.address);
        Membership::Member { others: answering.collect(), of: voters.len() }
    }

    /// The same, unless the host's name is another machine's by now, which took its place: that one stays what it is.
    async fn of_this_machine(self, config: &HostConfig) -> Self {
        let others = match &self {
            Membership::Member { others, .. } | Membership::Former { others } if !others.is_empty() => others,
            _ => return self,
        };
        let told = match tokio::time::timeout(ANSWER, is_anothers(config, others)).await {
            Ok(told) => told,
            Err(_) => Err(anyhow::anyhow!("the members don't answer")),
        };
        match told {
            Ok(false) => self,
            Ok(true) => {
                say!(
                    "{} is another machine's name now: that machine stays a host of the cluster",
                    config.name
                );
                Membership::None
            }
            // Its keys went already: an interrupted reset is finished.
            Err(why) if matches!(self, Membership::Former { .. }) => {
                say!(
                    "if {} was this machine to the last, delete its Node: kubectl delete node {} ({why:#})",
                    config.name,
                    config.name
                );
                Membership::None
            }
            Err(why) => Membership::Unknown(format!(
                "nobody tells which machine has the name {} now ({why:#})",
                config.name
            )),
        }
    }

    /// Why the host should stay; nothing if it may go.
    pub fn against(&self) -> Option<String> {
        match self {
            Membership::None | Membership::Former { .. } | Membership::Last => None,
            Membership::Member { others, of } => (others.len() <= of / 2).then(|| {
                format!(
                    "of the {of} other members {} answer: without this host the cluster stops",
                    others.len()
                )
            }),
            Membership::Unknown(why) => {
                Some(format!("nobody can say what becomes of the cluster without this host: {why}"))
            }
        }
    }

    /// What goes from the cluster, for people.
    pub fn goes(&self) -> Option<&'static str> {
        match self {
            Membership::None => None,
            Membership::Former { .. } => Some("its Node, if that is there: this host is a member no more"),
            Membership::Last => Some("all of it: this host is its only member, and no other has its state"),
            Membership::Member { .. } => Some("this host as a member of the store, and its Node"),
            Membership::Unknown(_) => Some("nobody knows: it can't be asked"),
        }
    }

    /// Takes the host out of the store's members, where others remain that can.
    pub async fn leave(&self, config: &HostConfig) -> anyhow::Result<()> {
        let others = match self {
            Membership::Member { others, .. } => others,
            Membership::Unknown(_) => {
                say!(
                    "{} may stay a member of the store, and its Node: look on another host (holdfast status), and remove them there",
                    config.name
                );
                return Ok(());
            }
            _ => return Ok(()),
        };
        if self.against().is_some() {
            say!("{} stays a member of the store: the others can't remove it", config.name);
            return Ok(());
        }
        let left = match tokio::time::timeout(CHANGE, remove_member(config, others)).await {
            Ok(left) => left,
            Err(_) => Err(anyhow::anyhow!("the members don't answer")),
        };
        left.with_context(|| {
            format!(
                "{} can't be taken out of the store's members, which takes a majority of them",
                config.name
            )
        })
    }

    /// Deletes the host's Node, by the others. What doesn't succeed is said.
    pub async fn delete_node(&self, config: &HostConfig, kubeconfig: &Path) {
        let (Membership::Member { others, .. } | Membership::Former { others }) = self else { return };
        let mut said = "no other host answers".to_owned();
        for other in others {
            let at = SocketAddr::new(*other, config.ports.api);
            let deleted = async {
                let client =
                    Client::new(&Kubeconfig::load(kubeconfig)?.with_server(format!("https://{at}")))?;
                client
                    .with_timeout(CHANGE)
                    .delete(&format!("/api/v1/nodes/{}", config.name), &json!({}))
                    .await
            };
            match deleted.await {
                Ok(_) => return,
                Err(error) if error.code() == Some(404) => return,
                Err(error) => said = error.to_string(),
            }
        }
        say!("the Node {} stays ({said}): kubectl delete node {}", config.name, config.name);
    }
}

/// The members' stores, as an administrator asks them.
#[allow(clippy::disallowed_methods, reason = "the program: a certificate is valid from now on")]
fn stores(config: &HostConfig, of: &[IpAddr]) -> anyhow::Result<etcd::Client> {
    let admin = Authority::load(&config.pki_dir)?.admin_identity(SystemTime::now())?;
    let tls = admin.client_config(&Trust::load(&config.pki_dir)?, &[b"h2"])?;
    let doors = of.iter().map(|member| format!("https://{}", SocketAddr::new(*member, config.ports.etcd)));
    let doors = doors.map(|door| door.parse()).collect::<Result<Vec<http::Uri>, _>>()?;
    Ok(etcd::Client::new(doors, Some(tls)))
}

/// Whether the host's name is noted for the key of another machine.
async fn is_anothers(config: &HostConfig, others: &[IpAddr]) -> anyhow::Result<bool> {
    let own = Identity::load(&config.pki_dir, &config.name)?.key_hash()?.to_string();
    let question = RangeRequest { key: REGISTER_KEY.into(), ..RangeRequest::default() };
    let found = stores(config, others)?.range(question).await?;
    let register = Register::read(found.kvs.first().map(|kv| &kv.value[..]));
    Ok(register.0.get(&config.name).is_some_and(|noted| is_of_another(&noted.key, &own)))
}

/// Hosts that were noted by former versions have no key there.
fn is_of_another(noted: &str, own: &str) -> bool {
    !noted.is_empty() && noted != own
}

async fn remove_member(config: &HostConfig, others: &[IpAddr]) -> anyhow::Result<()> {
    let client = stores(config, others)?;
    let members = client.members(MemberListRequest::default()).await?.members;
    // It may be gone already: an interrupted reset is finished.
    let Some(own) = members.into_iter().find(|member| member.name == config.name) else { return Ok(()) };
    client.member_remove(MemberRemoveRequest { id: own.id }).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// A cluster of members with these names, of which some answer.
    fn says(members: &str, answering: &str) -> ClusterSays {
        let member = |name: &str| json!({"name": name, "address": "10.0.0.1", "isLearner": name.starts_with('l'), "hasJoined": true});
        let own = json!({"version": "0", "leader": null, "leads": false, "revision": 1, "caughtUpMs": null,
            "lease": {"seconds": 1.0, "epoch": 1}});
        let answer = |name: &str| match answering.split(' ').any(|one| one == name) {
            true => json!({"says": own}),
            false => json!({"silent": 5.0}),
        };
        let names = || members.split(' ');
        let hosts: serde_json::Map<String, Value> =
            names().map(|name| (name.to_owned(), answer(name))).collect();
        let members: Vec<Value> = names().map(member).collect();
        let all = json!({"asked": "n1", "hosts": hosts, "members": members, "virtualApi": "10.0.0.100:6443"});
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_host_may_go_while_most_of_the_others_answer() {
        let of = |members: &str, answering: &str| Membership::of("n1", &says(members, answering));
        for (members, answering) in [
            ("n1 n2 n3", "n1 n2 n3"),
            ("n1 n2", "n2"),
            ("n1 n2 n3 n4", "n2 n4"),
            // One that doesn't vote yet is nobody's majority.
            ("n1 n2 l3", "n2"),
        ] {
            assert_eq!(of(members, answering).against(), None, "{members}, {answering}");
        }
        for (members, answering) in [("n1 n2 n3", "n1 n2"), ("n1 n2", "n1"), ("n1 n2 n3 n4 n5", "n1 n2 n3")] {
            let why = of(members, answering).against().unwrap();
            assert!(why.contains("without this host the cluster stops"), "{why}");
        }
        for (noted, is_of_another) in [("sha256:1", false), ("sha256:2", true), ("", false)] {
            assert_eq!(super::is_of_another(noted, "sha256:1"), is_of_another, "{noted}");
        }
        assert_eq!(of("n1", "n1"), Membership::Last);
        let Membership::Former { others } = of("n2 n3", "n2") else { panic!("it is a member no more") };
        assert_eq!(others.len(), 1, "who answers");
        assert!(Membership::Unknown("it is so".into()).against().unwrap().contains("it is so"));
        assert_eq!(Membership::without_configuration(false), Membership::None);
    }
}
