//! `holdfast predict`: what a power cut will do to a cluster, from its files or from what its API says.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use predict::{Answers, File, Kind, LARGEST, Report, Unknown};
use serde_json::Value;

use crate::kubectl::KubeconfigArg;
use crate::tell::{say, show};

/// The most files that are read: a hundred hosts with thirty each.
const MOST_FILES: usize = 3000;
/// The most bytes that are read in sum: files of a cluster have a thousandth of it, logs and images that lie beside them do not.
const MOST_BYTES: usize = 64 << 20;
/// Folders within each other, at most.
const DEEPEST: usize = 12;
/// The exit code for a design that isn't highly available: 1 is for what can't be read or judged, 2 for a command line that can't be understood.
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
    after_help = "The exit code is 0 for a highly available design, 3 for one that isn't, and 1 where the files don't suffice to tell.\n\nExamples:\n  holdfast predict n1/ n2/ n3/\n  holdfast predict /etc/haproxy/haproxy.cfg /etc/keepalived/keepalived.conf /etc/kubernetes/manifests\n  holdfast predict --live"
)]
pub struct Args {
    /// Configurations, units and command lines of a cluster, or folders of them: a folder for each host
    #[arg(value_name = "FILE", required_unless_present = "live", conflicts_with = "live")]
    files: Vec<PathBuf>,
    /// Ask the API of a running cluster
    #[arg(long)]
    live: bool,
    /// The kubeconfig file, with --live [default: $KUBECONFIG, else that of a cluster started here, else /etc/holdfast/admin.conf, else ~/.kube/config]
    #[arg(long, value_name = "FILE", requires = "live")]
    kubeconfig: Option<PathBuf>,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Predicts, and says by its code whether the design is highly available.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let report = match args.live {
        true => of_api(&KubeconfigArg { kubeconfig: args.kubeconfig })?,
        false => {
            let given = read(&args.files)?;
            let mut report = predict::of_folders(&given.files, &given.folders);
            report.unknown_files.extend(given.left_out);
            report
        }
    };
    show(&match args.output {
        Output::Text => report.to_text(),
        Output::Json => report.to_json()?,
    })?;
    Ok(code(&report))
}

fn code(report: &Report) -> ExitCode {
    match report.highly_available {
        true => ExitCode::SUCCESS,
        false if report.kind != Kind::Unknown && report.is_fatal() => ExitCode::from(NOT_HIGHLY_AVAILABLE),
        false => ExitCode::FAILURE,
    }
}

fn of_api(cluster: &KubeconfigArg) -> anyhow::Result<Report> {
    let client = cluster.client()?;
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

/// What was read.
#[derive(Debug, Default)]
struct Given {
    files: Vec<File>,
    /// The folders that were named.
    folders: Vec<String>,
    /// What lies in folders and wasn't read, with why.
    left_out: Vec<Unknown>,
    bytes: usize,
}

/// The files that are named, and those in the folders that are.
fn read(named: &[PathBuf]) -> anyhow::Result<Given> {
    let mut given = Given::default();
    for path in named {
        let about = fs::metadata(path).with_context(|| format!("can't read {}", path.display()))?;
        // A folder that is named by `.` has its own name too.
        let shown = fs::canonicalize(path).ok().filter(|_| path.ends_with(".") || path.ends_with(".."));
        let path = shown.as_deref().unwrap_or(path);
        if about.is_dir() {
            given.folders.push(path.to_string_lossy().into_owned());
            given.folder(path, DEEPEST)?;
        } else {
            let file = file(path).with_context(|| format!("can't read {}", path.display()))?;
            given.add(file)?;
        }
    }
    if given.files.is_empty() && given.left_out.is_empty() {
        bail!("there is no file to predict from");
    }
    Ok(given)
}

impl Given {
    fn add(&mut self, file: File) -> anyhow::Result<()> {
        self.bytes += file.text.len();
        if self.files.len() >= MOST_FILES {
            bail!("there are more than {MOST_FILES} files; name those that matter");
        }
        if self.bytes > MOST_BYTES {
            bail!("the files have more than {} MiB in sum; name those that matter", MOST_BYTES >> 20);
        }
        self.files.push(file);
        Ok(())
    }

    /// What can't be read in a folder that somebody named: it is left out, and said to be.
    fn leave_out(&mut self, path: &Path, why: impl std::fmt::Display) -> anyhow::Result<()> {
        if self.left_out.len() >= MOST_FILES {
            bail!("more than {MOST_FILES} files can't be read or are links; name those that matter");
        }
        self.left_out.push(Unknown { file: path.to_string_lossy().into_owned(), why: why.to_string() });
        Ok(())
    }

    fn folder(&mut self, path: &Path, depth: usize) -> anyhow::Result<()> {
        let mut entries = match fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(error) => return self.leave_out(path, format!("the folder can't be read: {error}")),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            // What is hidden is no configuration.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            match entry.file_type() {
                Err(error) => self.leave_out(&path, format!("it can't be read: {error}"))?,
                // Links may lead anywhere, and round in circles.
                Ok(kind) if kind.is_symlink() => {
                    self.leave_out(&path, "a link, which isn't followed; name the file that it leads to")?;
                }
                Ok(kind) if kind.is_dir() && depth == 0 => {
                    self.leave_out(&path, format!("it lies more than {DEEPEST} folders deep"))?;
                }
                Ok(kind) if kind.is_dir() => self.folder(&path, depth - 1)?,
                Ok(kind) if kind.is_file() => match file(&path) {
                    Ok(file) => self.add(file)?,
                    Err(error) => self.leave_out(&path, format!("it can't be read: {error}"))?,
                },
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

fn file(path: &Path) -> std::io::Result<File> {
    let mut bytes = Vec::new();
    // One byte more than may be: so that a file which is too large is known to be.
    fs::File::open(path)?.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(File { path: path.to_string_lossy().into_owned(), text: String::from_utf8_lossy(&bytes).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_with_what_lies_in_them_and_what_is_left_out_is_named() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("n1/etc");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("kube-proxy.args"), "--a=b").unwrap();
        fs::write(folder.join(".hidden"), "x").unwrap();
        std::os::unix::fs::symlink(root.path(), folder.join("round")).unwrap();
        let given = read(&[root.path().to_path_buf()]).unwrap();
        let names: Vec<_> = given.files.iter().map(|file| file.path.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["kube-proxy.args"]);
        assert_eq!(given.folders, [root.path().to_string_lossy()]);
        let [link] = &given.left_out[..] else { panic!("{:?}", given.left_out) };
        assert!(link.file.ends_with("n1/etc/round") && link.why.contains("isn't followed"), "{link:?}");
        let nowhere = read(&[root.path().join("nowhere")]).unwrap_err();
        assert!(format!("{nowhere:#}").contains("nowhere: No such file"), "{nowhere:#}");
        fs::remove_file(folder.join("kube-proxy.args")).unwrap();
        fs::remove_file(folder.join("round")).unwrap();
        assert!(read(&[root.path().to_path_buf()]).is_err());
    }

    #[test]
    fn what_is_read_is_bounded_in_sum_and_one_file_that_cannot_be_read_ends_nothing() {
        let mut given = Given::default();
        let file = || File { path: "x".into(), text: "x".repeat(LARGEST) };
        (0..64).for_each(|_| given.add(file()).unwrap());
        let error = given.add(file()).unwrap_err();
        assert!(error.to_string().contains("more than 64 MiB"), "{error}");
        let mut given = Given::default();
        given.folder(Path::new("/nowhere/at/all"), 1).unwrap();
        assert!(given.left_out[0].why.contains("the folder can't be read: No such file"), "{given:?}");
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
        // Times can be told, and whether it is highly available can't.
        assert_eq!(code(&report("heartbeat-interval: 100")), ExitCode::FAILURE);
    }
}
