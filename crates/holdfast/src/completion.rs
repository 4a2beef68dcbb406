//! `holdfast completion` and `holdfast man`: the command line, told to shells and to `man`.

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::aot::{self, Generator};

use crate::Cli;
use crate::tell::show;

/// Arguments of `holdfast completion`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  source <(holdfast completion bash)                     # in ~/.bashrc\n  holdfast completion zsh > ~/.zfunc/_holdfast           # a folder of $fpath\n  holdfast completion fish > ~/.config/fish/completions/holdfast.fish"
)]
pub struct CompletionArgs {
    /// Whose script to print
    shell: Shell,
}

/// A shell that completes words.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script by which a shell completes this program's command lines.
pub fn completion(args: &CompletionArgs) -> anyhow::Result<()> {
    let script = match args.shell {
        Shell::Bash => script(aot::Bash),
        Shell::Zsh => script(aot::Zsh),
        Shell::Fish => script(aot::Fish),
    };
    show(&String::from_utf8(script)?)
}

fn script(shell: impl Generator) -> Vec<u8> {
    let mut script = Vec::new();
    aot::generate(shell, &mut Cli::command(), "holdfast", &mut script);
    script
}

/// Arguments of `holdfast man`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast man | man -l -\n  holdfast man --dir /usr/local/share/man/man1"
)]
pub struct ManArgs {
    /// Write the pages of the program and of each command into this folder, instead of printing the first
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Prints the program's manual page, or writes all pages.
pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return show(&String::from_utf8(page)?);
    };
    clap_mangen::generate_to(Cli::command(), dir).with_context(|| {
        format!("can't write manual pages to {}; name a folder that is there", dir.display())
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn each_shell_is_told_of_each_command() {
        for (shell, script) in
            [("bash", script(aot::Bash)), ("zsh", script(aot::Zsh)), ("fish", script(aot::Fish))]
        {
            let script = String::from_utf8(script).unwrap();
            for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
                assert!(script.contains(command.get_name()), "{shell} doesn't know {}", command.get_name());
            }
        }
    }

    #[test]
    fn bash_completes_a_command_and_its_options() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("holdfast.bash");
        std::fs::write(&file, script(aot::Bash)).unwrap();
        let completed = |words: &str, at: usize| {
            let line = format!(
                "source {}; COMP_WORDS=({words}); COMP_CWORD={at}; _holdfast holdfast \"${{COMP_WORDS[{at}]}}\" \"${{COMP_WORDS[{}]}}\"; echo \"${{COMPREPLY[@]}}\"",
                file.display(),
                at - 1
            );
            let output = Command::new("bash").args(["--norc", "-c", &line]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(completed("holdfast stat", 1).trim(), "status");
        assert_eq!(completed("holdfast status --wat", 2).trim(), "--watch");
    }

    #[test]
    fn there_is_a_page_for_each_command() {
        let folder = tempfile::tempdir().unwrap();
        man(&ManArgs { dir: Some(folder.path().to_owned()) }).unwrap();
        let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(page("holdfast.1").contains("status"), "the first page names the commands");
        assert!(page("holdfast-status.1").contains("watch"));
        let refused = man(&ManArgs { dir: Some(folder.path().join("none")) }).unwrap_err();
        assert!(format!("{refused:#}").contains("none"), "{refused:#}");
    }
}
