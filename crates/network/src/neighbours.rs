//! Neighbours that are asked for anew when this host's link is up again.
//!
//! While a link is down the kernel knows no neighbour, and a sender asks for one, unheard. It asks again a second later, and not when the
//! link comes up: a link that goes down once a second, if only for a moment, was down whenever the kernel asked, and nobody heard of
//! this host for as long as that went on. So what was asked in vain is forgotten as soon as the link is up: the next heartbeat asks at once, and
//! by its question the neighbours know this host again, too.

use tokio::sync::watch;

use crate::keeper;
use crate::netlink::Netlink;

/// Sees to that for as long as it is polled. `changes` tells when to look at the link.
pub(crate) async fn ask_anew(mut netlink: Netlink, link: String, mut changes: watch::Receiver<u64>) {
    let mut known = None;
    loop {
        match risen(&netlink, &link, known).await {
            Ok(now) => known = now,
            Err(error) => {
                tracing::debug!(%error, "neighbours aren't asked for anew when the link comes up");
                // The connection itself may be what is broken.
                if let Ok(anew) = Netlink::open() {
                    netlink = anew;
                }
            }
        }
        keeper::reason(&mut changes).await;
    }
}

/// Forgets who didn't answer if the link has come up since it had come up so often. How often it has by now; none while it is down.
async fn risen(netlink: &Netlink, link: &str, known: Option<u32>) -> Result<Option<u32>, crate::Error> {
    let Some((link, times)) = netlink.risen(link).await? else { return Ok(None) };
    if known != Some(times) {
        netlink.forget_unanswered(link).await?;
    }
    Ok(Some(times))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::netlink::tests::{in_namespace, ip, pair};

    /// Long enough for any machine; nothing waits for it unless something is wrong.
    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn who_was_asked_for_while_the_link_was_down_is_asked_for_anew() {
        if !testing::has("ip") {
            return;
        }
        in_namespace("neighbours_asked_anew", || async {
            let netlink = Netlink::open().unwrap();
            pair(&netlink).await;
            let (counter, changes) = watch::channel(0);
            tokio::spawn(keeper::listen(counter));
            tokio::spawn(ask_anew(netlink, "eth0".to_owned(), changes));
            let socket = UdpSocket::bind("10.73.0.1:0").unwrap();
            let asked = || ip("neigh show dev eth0").contains("10.73.0.2 ");
            for _ in 0..3 {
                ip("link set far down");
                let asking = async {
                    while !asked() {
                        // It may have been refused, by what was asked before.
                        let _ = socket.send_to(b"beat", "10.73.0.2:7");
                        sleep(Duration::from_millis(10)).await;
                    }
                };
                timeout(SOON, asking).await.expect("the kernel asks for who doesn't answer");
                ip("link set far up");
                let forgotten = async {
                    while asked() {
                        sleep(Duration::from_millis(10)).await;
                    }
                };
                timeout(SOON, forgotten).await.expect("once the link is up, that is forgotten");
            }
        });
    }
}
