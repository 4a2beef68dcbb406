//! `holdfast config`: what there is to know about a host's configuration.

use crate::tell::show;

/// Arguments of `holdfast config`.
#[derive(clap::Args)]
pub struct Args {
    /// Print all settings of a host whose configuration says nothing else, as YAML with the reasons
    #[arg(long, required = true)]
    defaults: bool,
}

/// Prints what is asked for.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.defaults { show(config::DEFAULTS) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    /// The room of the configuration can't see the store: both must agree here.
    #[test]
    fn the_configuration_agrees_with_the_store() {
        assert_eq!(config::MOST_MEMBERS, store::MOST_PEERS);
        let (ours, theirs) = (crate::engine::timing(&Default::default()), store::Timing::default());
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }
}
