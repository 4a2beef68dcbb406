//! Open files: how many the machine gives this process, and how the parts of a host share them.

/// Takes as many open files as the machine gives: a connection is one, and the usual limit of 1,024 is there for programs
/// that can't count further.
pub fn allow_all() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes the struct that it is given, and nothing else.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0 {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the call reads the struct. Where it fails, the limit stays as it was.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    }
}

/// How many files this process may have open; the usual 1,024 if the system doesn't say.
pub fn most() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
    // SAFETY: the call writes the struct that it is given, and nothing else.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur
}

/// How many connections the service proxy carries at once, of `most` that it could: each is two files, and a third of the
/// files are for them. The API's connections have another third (`server::Limits::of_files`), so that neither can take the
/// other's, nor those of the store, the agent and the pods' pipes.
pub fn connections_of_services(most: usize, files: u64) -> usize {
    usize::try_from(files / 6).unwrap_or(usize::MAX).clamp(16, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_and_the_service_proxy_leave_files_for_the_others() {
        for files in [1024, 4096, 20_000, 1 << 20, u64::MAX] {
            let api = server::Limits::of_files(files).connections as u64;
            let services = 2 * connections_of_services(10_000, files) as u64;
            assert!(api + services <= files - files / 4, "{files}: {api} and {services}");
            assert!(api >= 32 && services >= 32);
        }
    }
}
