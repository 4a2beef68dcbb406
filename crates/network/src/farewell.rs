//! Connections to addresses that this host holds for a while: they hear when one is about to go, while they can still be ended.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Who is to hear of which address.
#[derive(Debug, Default)]
pub(crate) struct Farewells(Mutex<HashMap<IpAddr, Arc<watch::Sender<()>>>>);

impl Farewells {
    /// Returns once the address is about to go.
    pub fn hear(&self, address: IpAddr) -> impl Future<Output = ()> + use<> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut heard = known.entry(address).or_default().subscribe();
        // Either way it is: said, or nobody is left who could say it.
        async move { _ = heard.changed().await }
    }

    /// An address is about to go. Returns once all have heard it, and have done what they do then.
    pub fn say(&self, address: IpAddr) -> impl Future<Output = ()> + use<> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
        let said = known.inspect(|heard| _ = heard.send(()));
        async move {
            if let Some(said) = said {
                said.closed().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_listens_hears_of_its_own_address_once() {
        let farewells = Farewells::default();
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let (mut first, mut second) = (Box::pin(farewells.hear(one)), Box::pin(farewells.hear(other)));
        assert!(first.as_mut().now_or_never().is_none());
        let mut said = Box::pin(farewells.say(one));
        assert!(said.as_mut().now_or_never().is_none(), "somebody has yet to hear it");
        first.await;
        said.await;
        assert!(second.as_mut().now_or_never().is_none());
        assert!(Box::pin(farewells.hear(one)).as_mut().now_or_never().is_none(), "it is another time");
        farewells.say([10, 0, 0, 3].into()).await;
    }
}
