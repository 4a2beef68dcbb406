//! Whom a link's neighbours are, as the kernel knows them.

use std::pin::pin;

use futures::StreamExt;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourState};

use super::{Link, Netlink, failed};
use crate::Error;

impl Netlink {
    /// A link that is up, with how often it has come up so far; none if it isn't up, or isn't there.
    pub async fn risen(&self, name: &str) -> Result<Option<(Link, u32)>, Error> {
        let Some(message) = self.find(name).await? else { return Ok(None) };
        let times = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::CarrierUpCount(times) => Some(*times),
            _ => None,
        });
        let link = Link::of(&message);
        Ok(link.is_up.then_some((link, times.unwrap_or_default())))
    }

    /// Forgets the neighbours of a link that were asked for in vain so far: who sends to them next asks at once.
    pub async fn forget_unanswered(&self, link: Link) -> Result<(), Error> {
        let mut unanswered = Vec::new();
        let mut known = pin!(self.handle.neighbours().get().execute());
        while let Some(neighbour) = known.next().await {
            let neighbour = neighbour.map_err(failed("list a link's neighbours"))?;
            let state = neighbour.header.state;
            if neighbour.header.ifindex == link.index
                && matches!(state, NeighbourState::Incomplete | NeighbourState::Failed)
            {
                unanswered.push(neighbour);
            }
        }
        for mut neighbour in unanswered {
            neighbour.attributes.retain(|attribute| matches!(attribute, NeighbourAttribute::Destination(_)));
            match self.handle.neighbours().del(neighbour).execute().await {
                // It may be gone already.
                Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENOENT => {}
                other => other.map_err(failed("forget a neighbour that doesn't answer"))?,
            }
        }
        Ok(())
    }
}
