//! What a container may use, in the CRI's words: those of cgroups of version 1, which runtimes translate (`pkg/kubelet/cm/helpers_linux.go`).

use cri::messages::LinuxContainerResources;

use crate::container::cgroup::Amounts;

/// The period that a limit of processors is of, in microseconds, and the least time in it (the kubelet's).
const PERIOD: u64 = 100_000;
const LEAST_QUOTA: u64 = 1000;
/// The shares of a whole processor, and the least and the most that a cgroup has.
const SHARES: u64 = 1024;
const LEAST_SHARES: u64 = 2;
const MOST_SHARES: u64 = 262_144;

/// Of a container that is about to start: nothing said is no limit.
pub(crate) fn resources(amounts: Amounts) -> LinuxContainerResources {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let quota = amounts.cpu.filter(|limit| *limit > 0);
    let quota = quota.map(|limit| (limit.saturating_mul(PERIOD) / 1000).max(LEAST_QUOTA));
    let shares = amounts.cpu_request.saturating_mul(SHARES) / 1000;
    LinuxContainerResources {
        cpu_period: quota.map_or(0, |_| number(PERIOD)),
        cpu_quota: quota.map_or(0, number),
        cpu_shares: number(shares.clamp(LEAST_SHARES, MOST_SHARES)),
        memory_limit_in_bytes: amounts.memory.map_or(0, number),
        ..LinuxContainerResources::default()
    }
}

/// Of one that runs: what it had is taken back where nothing is said.
pub(super) fn changed(amounts: Amounts) -> LinuxContainerResources {
    let wanted = resources(amounts);
    let or_none = |limit: i64| if limit == 0 { -1 } else { limit };
    LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: or_none(wanted.cpu_quota),
        memory_limit_in_bytes: or_none(wanted.memory_limit_in_bytes),
        ..wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_the_kubelets() {
        let of = |cpu_request, cpu, memory| {
            let all = resources(Amounts { cpu_request, cpu, memory, ..Amounts::default() });
            (all.cpu_shares, all.cpu_quota, all.cpu_period, all.memory_limit_in_bytes)
        };
        assert_eq!(of(0, None, None), (2, 0, 0, 0));
        assert_eq!(of(500, Some(2000), Some(64 << 20)), (512, 200_000, 100_000, 64 << 20));
        assert_eq!(of(1, Some(1), None), (2, 1000, 100_000, 0));
        assert_eq!(of(u64::MAX, None, Some(u64::MAX)).0, 262_144);
        let freed = changed(Amounts::default());
        assert_eq!((freed.cpu_quota, freed.memory_limit_in_bytes), (-1, -1));
    }
}
