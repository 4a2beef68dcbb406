//! etcd's service `Cluster`.

use std::net::{IpAddr, SocketAddr};

use futures::future::BoxFuture;
use http::Uri;
use store::{Embedded, Error, Member, MemberId};

use super::{Server, refusal};
use crate::Status;
use crate::proto::{
    self, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
};

/// The members of a store, and changes of them.
pub trait Members: Send + Sync + 'static {
    /// Who they are, as this one knows it.
    fn members(&self) -> Vec<Member>;
    /// Adds one.
    fn add(&self, address: SocketAddr, learner: bool) -> BoxFuture<'_, Result<MemberId, Error>>;
    /// Lets a learner vote.
    fn promote(&self, id: MemberId) -> BoxFuture<'_, Result<(), Error>>;
    /// Removes one for good.
    fn remove(&self, id: MemberId) -> BoxFuture<'_, Result<(), Error>>;
}

impl Members for Embedded {
    fn members(&self) -> Vec<Member> {
        Embedded::members(self)
    }

    fn add(&self, address: SocketAddr, learner: bool) -> BoxFuture<'_, Result<MemberId, Error>> {
        // Its name comes with it.
        Box::pin(self.add_member("", address, learner))
    }

    fn promote(&self, id: MemberId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.promote_member(id))
    }

    fn remove(&self, id: MemberId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.remove_member(id))
    }
}

impl Server {
    /// The members as etcd says them.
    fn roster(&self) -> Vec<proto::Member> {
        let client_port = self.identity.client_port;
        let member = |member: Member| proto::Member {
            id: member.id.0,
            // etcd takes a name for the sign that a member has started.
            client_urls: member
                .has_joined
                .then(|| url(member.address.ip(), client_port))
                .into_iter()
                .collect(),
            name: if member.has_joined { member.name } else { String::new() },
            peer_urls: vec![url(member.address.ip(), member.address.port())],
            is_learner: member.is_learner,
        };
        self.members.members().into_iter().map(member).collect()
    }

    pub async fn member_list(&self, request: MemberListRequest) -> Result<MemberListResponse, Status> {
        let state = self.state(request.linearizable).await?;
        Ok(MemberListResponse { header: self.header(state.revision()), members: self.roster() })
    }

    pub async fn member_add(&self, request: MemberAddRequest) -> Result<MemberAddResponse, Status> {
        let [peer_url] = &request.peer_urls[..] else { return Err(refusal::bad_urls()) };
        let address = address(peer_url).ok_or_else(refusal::bad_urls)?;
        let id = self.members.add(address, request.is_learner).await.map_err(refusal::by_store)?;
        let members = self.roster();
        let member = members.iter().find(|member| member.id == id.0).cloned();
        Ok(MemberAddResponse { header: self.now(), member, members })
    }

    pub async fn member_remove(&self, request: MemberRemoveRequest) -> Result<MemberRemoveResponse, Status> {
        self.members.remove(MemberId(request.id)).await.map_err(refusal::by_store)?;
        Ok(MemberRemoveResponse { header: self.now(), members: self.roster() })
    }

    pub async fn member_promote(
        &self,
        request: MemberPromoteRequest,
    ) -> Result<MemberPromoteResponse, Status> {
        self.members.promote(MemberId(request.id)).await.map_err(refusal::by_store)?;
        Ok(MemberPromoteResponse { header: self.now(), members: self.roster() })
    }
}

fn url(host: IpAddr, port: u16) -> String {
    format!("https://{}", SocketAddr::new(host, port))
}

/// The address in a URL of a member: an IP address with its port, as members know each other.
fn address(peer_url: &str) -> Option<SocketAddr> {
    let url: Uri = peer_url.parse().ok()?;
    let is_bare = matches!(url.path(), "" | "/") && matches!(url.scheme_str(), Some("http" | "https"));
    url.authority().filter(|_| is_bare)?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_members_url_is_an_address() {
        assert_eq!(address("https://10.73.0.4:2380"), Some("10.73.0.4:2380".parse().unwrap()));
        assert_eq!(address("http://[::1]:2380/"), Some("[::1]:2380".parse().unwrap()));
        for other in [
            "",
            "10.73.0.4",
            "10.73.0.4:2380",
            "https://10.73.0.4",
            "https://n4:2380",
            "ftp://1.2.3.4:5",
            "https://1.2.3.4:5/x",
        ] {
            assert_eq!(address(other), None, "{other}");
        }
    }
}
