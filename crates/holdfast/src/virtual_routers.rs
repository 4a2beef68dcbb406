//! The virtual routers of a host's configuration.

use std::net::IpAddr;

use config::HostConfig;
use network::VirtualRouters;
use tokio::runtime::Handle;
use tracing::info_span;

use crate::threads;

/// Takes part in them, on the threads that nothing delays; nothing is started where there are none.
///
/// # Errors
/// If the kernel doesn't let this program.
pub async fn start(config: &HostConfig, urgent: &Handle) -> anyhow::Result<Option<VirtualRouters>> {
    if config.vrrp.is_empty() {
        return Ok(None);
    }
    let mut elsewhere = config.load_balancer_ranges();
    if let IpAddr::V4(address) = config.virtual_address {
        elsewhere.push((address, address));
    }
    let settings = config.vrrp.clone();
    // Not on the urgent thread, which making a process would hold up, and whose priority it would inherit.
    let programs = threads::level("programs")?;
    let started = tasks::spawn_on(urgent, info_span!("start virtual routers"), async move {
        VirtualRouters::start(settings, &elsewhere, &programs)
    });
    Ok(Some(started.await??))
}
