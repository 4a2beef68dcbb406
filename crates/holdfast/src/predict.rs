//! `holdfast predict`: what a power cut will do to a cluster, from its files or from what its API says.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use predict::{Answers, File, Kind, LARGEST, Report};
use serde_json::Value;

use crate::kubectl;
use crate::tell::{say, show};

/// The most files that are read: a hundred hosts with thirty each.
const MOST_FILES: usize = 3000;
/// Folders within each other, at most.
const DEEPEST: usize = 12;
/// The exit code for a design that isn't highly available: 1 is for what can't be read, 2 for a command line that can't be understood.
const NOT_HIGHLY_AVAILABLE: u8 = 3;

/// How the prediction is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Tables and sentences
    Text,
    /// All of it, as JSON
    Json,
}

/// Arguments of `holdfast predict`.
#[derive(clap::Args)]
#[command(
    after_help = "The exit code is 0 for a highly available design, 3 for one that isn't, and 1 where nothing could be read.\n\nExamples:\n  holdfast predict n1/ n2/ n3/\n  holdfast predict /etc/haproxy/haproxy.cfg /etc/keepalived/keepalived.conf /etc/kubernetes/manifests\n  holdfast predict --live"
)]
pub struct Args {
    /// Configurations, units and command lines of a cluster, or folders of them: a folder for each host
    #[arg(value_name = "FILE", required_unless_present = "live", conflicts_with = "live")]
    files: Vec<PathBuf>,
    /// Ask the API of a running cluster
    #[arg(long)]
    live: bool,
    /// The kubeconfig file, with --live [default: $KUBECONFIG, else that of a cluster started here, else ~/.kube/config]
    #[arg(long, value_name = "FILE", requires = "live")]
    kubeconfig: Option<PathBuf>,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Predicts, and says by its code whether the design is highly available.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let report = match args.live {
        true => of_api(args.kubeconfig.as_deref())?,
        false => predict::predict(&read(&args.files)?),
    };
    show(&match args.output {
        Output::Text => report.to_text(),
        Output::Json => report.to_json()?,
    })?;
    Ok(code(&report))
}

fn code(report: &Report) -> ExitCode {
    match (report.kind, report.highly_available) {
        (Kind::Unknown, _) => ExitCode::FAILURE,
        (_, true) => ExitCode::SUCCESS,
        (_, false) => ExitCode::from(NOT_HIGHLY_AVAILABLE),
    }
}

fn of_api(kubeconfig: Option<&Path>) -> anyhow::Result<Report> {
    let client = kubectl::client(kubeconfig)?;
    let answers = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        // Without a version there is no API; whatever else isn't shown is said to be missing.
        let version = client.get("/version").await?;
        let mut others = [Value::Null, Value::Null, Value::Null];
        for (path, answer) in [
            "/api/v1/nodes",
            "/api/v1/namespaces/kube-system/pods",
            "/api/v1/namespaces/kube-system/configmaps",
        ]
        .into_iter()
        .zip(&mut others)
        {
            match client.get(path).await {
                Ok(value) => *answer = value,
                Err(error) => say!("{path} is left out: {error}"),
            }
        }
        let [nodes, pods, config_maps] = others;
        anyhow::Ok(Answers { version, nodes, pods, config_maps })
    })?;
    Ok(predict::of_cluster(&answers))
}

/// The files that are named, and those in the folders that are.
fn read(named: &[PathBuf]) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    for path in named {
        let about = fs::metadata(path).with_context(|| format!("can't read {}", path.display()))?;
        // A folder that is named by `.` has its own name too.
        let shown = fs::canonicalize(path).ok().filter(|_| path.ends_with(".") || path.ends_with(".."));
        let path = shown.as_deref().unwrap_or(path);
        if about.is_dir() { folder(path, DEEPEST, &mut files)? } else { files.push(file(path)?) }
    }
    if files.is_empty() {
        bail!("there is no file to predict from");
    }
    Ok(files)
}

fn folder(path: &Path, depth: usize, files: &mut Vec<File>) -> anyhow::Result<()> {
    let reading = || format!("can't read the folder {}", path.display());
    let mut entries =
        fs::read_dir(path).with_context(reading)?.collect::<Result<Vec<_>, _>>().with_context(reading)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        // Links may lead anywhere, and round in circles; what is hidden is no configuration.
        let kind = entry.file_type().with_context(|| format!("can't read {}", path.display()))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if kind.is_dir() && depth > 0 {
            folder(&path, depth - 1, files)?;
        } else if kind.is_file() {
            if files.len() >= MOST_FILES {
                bail!("there are more than {MOST_FILES} files; name those that matter");
            }
            files.push(file(&path)?);
        }
    }
    Ok(())
}

fn file(path: &Path) -> anyhow::Result<File> {
    let mut bytes = Vec::new();
    let reading = || format!("can't read {}", path.display());
    // One byte more than may be: so that a file which is too large is known to be.
    let file = fs::File::open(path).with_context(reading)?;
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).with_context(reading)?;
    Ok(File { path: path.to_string_lossy().into_owned(), text: String::from_utf8_lossy(&bytes).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_with_what_lies_in_them_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("n1/etc");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("kube-proxy.args"), "--a=b").unwrap();
        fs::write(folder.join(".hidden"), "x").unwrap();
        std::os::unix::fs::symlink(root.path(), folder.join("round")).unwrap();
        let files = read(&[root.path().to_path_buf()]).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.path.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["kube-proxy.args"]);
        let nowhere = read(&[root.path().join("nowhere")]).unwrap_err();
        assert!(format!("{nowhere:#}").contains("nowhere: No such file"), "{nowhere:#}");
        fs::remove_file(folder.join("kube-proxy.args")).unwrap();
        assert!(read(&[root.path().to_path_buf()]).is_err());
    }

    #[test]
    fn the_code_says_whether_a_design_is_highly_available() {
        let report = |text: &str| predict::predict(&[File { path: "etcd.yaml".into(), text: text.into() }]);
        let two = report("initial-cluster: a=https://10.0.0.1:2380,b=https://10.0.0.2:2380");
        let three =
            "initial-cluster: a=https://10.0.0.1:2380,b=https://10.0.0.2:2380,c=https://10.0.0.3:2380";
        assert_eq!(code(&two), ExitCode::from(3));
        assert_eq!(code(&report(three)), ExitCode::SUCCESS);
        assert_eq!(code(&report("hello")), ExitCode::FAILURE);
    }
}
