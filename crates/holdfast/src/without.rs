//! Which parts of a host don't run because another program does their work.

use std::ffi::OsString;

use clap::ValueEnum;

/// What a cluster leaves to others.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Without {
    /// Parts that don't run, because upstream's program does their work
    #[arg(long, value_name = "PARTS", value_enum, value_delimiter = ',')]
    without: Vec<Part>,
}

/// A part of a host that another program may stand in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// What places pods: kube-scheduler
    Scheduler,
    /// What makes objects as declared: kube-controller-manager
    Controllers,
}

impl Without {
    /// Whether a part is left to others.
    pub fn has(&self, part: Part) -> bool {
        self.without.contains(&part)
    }

    /// The arguments that tell a host the same.
    pub fn host_arguments(&self) -> Vec<OsString> {
        let name = |part: &Part| part.to_possible_value().map(|value| value.get_name().to_owned());
        let parts: Vec<String> = self.without.iter().filter_map(name).collect();
        if parts.is_empty() { Vec::new() } else { vec!["--without".into(), parts.join(",").into()] }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        without: Without,
    }

    fn read(arguments: &[OsString]) -> Result<Without, clap::Error> {
        let all = std::iter::once("host".into()).chain(arguments.iter().cloned());
        Alone::try_parse_from(all).map(|alone| alone.without)
    }

    #[test]
    fn a_host_is_told_what_the_cluster_was_told() {
        let both = read(&["--without".into(), "scheduler,controllers".into()]).unwrap();
        let told = read(&both.host_arguments()).unwrap();
        assert!(told.has(Part::Scheduler) && told.has(Part::Controllers));
        let one = read(&["--without=controllers".into()]).unwrap();
        assert!(!one.has(Part::Scheduler) && one.has(Part::Controllers));
        assert!(read(&[]).unwrap().host_arguments().is_empty());
        assert!(read(&["--without".into(), "agent".into()]).is_err(), "a host without an agent is none");
    }
}
